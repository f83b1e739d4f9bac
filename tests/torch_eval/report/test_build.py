"""The report on small made-up run directories; expected figures are worked out by hand here."""

import csv
import dataclasses
import json
import math
import re
import statistics
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_lines, write_json, write_lines
from configs.contract.experiment import schema
from configs.contract.experiment.methods import METHODS
from configs.contract.run import run_dir
from mindspore_rt.ticket import Ticket
from tests.helpers import made_up_run as made_up
from tests.helpers.made_up_run import OUTCOMES, small
from tests.helpers.written_report import row, written
from torch_eval.__main__ import main
from torch_eval.report import build, comparisons, figure_style, run_state, tables, ticket_sections


def test_a_damaged_line_of_an_attack_is_named(tmp_path):
    """Lines are counted by outcome: one that no attack has must not end in a traceback, nor count as something."""
    paths = small(tmp_path)
    file = paths.attack(1, "finetune") / "textfooler" / "results.jsonl"
    records = read_lines(file)
    write_lines(file, [*records[:2], {**records[2], "outcome": "won"}, *records[3:]])
    with pytest.raises(UserError, match=r"results.jsonl, line 3: outcome: invalid enum value 'won'"):
        _ = run_state.Run(paths.config, ["demo"], tmp_path).scores[1, "finetune", "textfooler"].records


def painted_once(figure, path):
    """Write the SVG alone: test_figures.py has the PNG and the PDF, which take most of a report's time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".svg"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two finished experiments with every method, and their one report."""
    root = tmp_path_factory.mktemp("runs")
    given = root / "given.safetensors"
    given.touch()  # made-up stages read no input
    first = made_up.whole(
        root,
        "seeds=[1,2]",
        "methods=all",
        f"tickets_from={given}",
        "sparsities=[0.1,0.3]",
        "snapshots=2",
        "attack.examples=100",
        "attack.recipes=[textfooler,textbugger]",
        chosen=0.3,
    )
    second = made_up.whole(
        root,
        "name=other",
        "lengths=[3,10]",
        "search.l0_weight=0.1",
        "attack.examples=100",
        "attack.recipes=[textfooler]",
    )
    made_up.transfer(first)
    names = []
    for paths in (first, second):
        paths.save_config()
        names.append(str(paths.root / "config.yaml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure_style, "save", painted_once)
        build.report(names, [], runs=root)
    return root / "report", first, second


def test_everything_is_drawn_and_nothing_is_missing(whole):
    folder, _, _ = whole
    names = {path.stem for path in (folder / "figures").glob("*.svg")}
    for start in (
        "trade-off-sst2-textfooler",
        "sparsity-sst2",
        "progress-sst2",
        "mask-learning-sst2",
        "sparsity-pattern-sst2",
        "sparsity-pattern-other",
        "overlap",
        "log-alpha",
        "training-sst2-2",
        "transfer-sst2-textbugger",
        "lengths-epochs-other",
        "lengths-passes_over_the_training_set-other",
        "lengths-training_loss-other",
        "lengths-median_margin-other",
    ):
        assert start in names
    markdown = (folder / "report.md").read_text()
    assert "Missing and stale" not in markdown and "*missing*" not in markdown
    for title in (
        "Table 1",
        "Table 3",
        "Table 4",
        "Figure 2",
        "Figure 3",
        "Figure 4",
        "Figures 1 and 5",
        "Table 5",
        "Table 6",
        "Paired tests",
        "was chosen",
        "w/o Structure 30%",
        "λ = 0.1",
    ):
        assert title in markdown, title
    assert set(re.findall(r"\| \*\*SST-2\*\* \((\w+)\)", markdown)) == {"sst2", "other"}


def test_paired_test_by_hand(whole):
    _, first, _ = whole
    run = run_state.Run(first.config, ["x"], first.root.parent)
    table = comparisons.paired_table(run)
    titles = [row for row in table.rows[1:] if isinstance(row, str)]
    assert len(titles) == len(METHODS) - 1 + 2  # against each other; the transferred ticket against two
    assert titles[-2:] == [f"**Transferred ticket 30%** against **{name}**" for name in ("Fine-tune", "Random 30%")]
    ours, theirs = run.scores[1, "robust-0.30", "textfooler"].records, run.scores[1, "finetune", "textfooler"].records
    only = sum(a["outcome"] == "failure" and b["outcome"] != "failure" for a, b in zip(ours, theirs))
    seed_two = [run.scores[2, model, "textfooler"].records for model in ("robust-0.30", "finetune")]
    only += sum(a["outcome"] == "failure" and b["outcome"] != "failure" for a, b in zip(*seed_two))
    assert [cell.text for cell in table.rows[2]][:3] == ["TextFooler", "200", str(only)]
    assert table.rows[2][4].small.count("seed") == 2


def test_transferred_tickets_stand_beside_the_own_ones(whole):
    """Aua of both seeds by hand, and the overlap with the task's own ticket, counted weight by weight."""
    _, first, second = whole
    runs = [run_state.Run(paths.config, ["x"], first.root.parent) for paths in (first, second)]
    *_, table = ticket_sections.transferred(runs)
    shares = []
    for seed in (1, 2):
        pruned = [
            np.concatenate([~mask.ravel() for mask in Ticket.load(first.ticket(seed, f"{name}-0.30")).masks.values()])
            for name in ("transferred", "robust")
        ]
        shares.append((pruned[0] & pruned[1]).sum() / (pruned[0] | pruned[1]).sum())
    auas = ["31.5", "45.5", "6.5", "11.5"]  # LEVELS of the made-up run plus the seed, mean over both
    title, row = table.rows[0], [cell.text for cell in table.rows[1]]
    assert title == "**given.safetensors** to **SST-2**"
    assert row == ["TextFooler", *auas, f"{50 * sum(shares):.1f}%", "17.6%"]
    assert ticket_sections.transferred(runs[1:]) == []
    alone = dataclasses.replace(first.config, methods=["transferred"])
    *_, table = ticket_sections.transferred([run_state.Run(alone, ["x"], first.root.parent)])
    assert [cell.text for cell in table.rows[1][-2:]] == ["–", "–"]  # there is no ticket of its own to overlap


def test_test_texts_that_the_source_was_trained_on_are_counted(tmp_path):
    """The ticket was fitted to them. Case, spaces and punctuation do not count; half a pair is not the pair."""
    run = SimpleNamespace(
        config=SimpleNamespace(tickets_from="other"), paths=run_dir.RunDir(schema.load("qnli"), tmp_path)
    )
    assert ticket_sections._texts_of_source(run) == ""  # the source is a file, or its data is gone
    pairs = {
        tmp_path / "other/data/train.jsonl": [("It's fine .", "Yes"), ("So what?", "no")],
        run.paths.split("test"): [("it 's FINE.", "yes"), ("So what?", "yes"), ("new", "no")],
    }
    for path, texts in pairs.items():
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps({"question": a, "sentence": b, "label": 0}) + "\n" for a, b in texts))
    assert ticket_sections._texts_of_source(run) == ": 1 of the 3 test texts are among the source's training texts"


def test_without_a_robust_ticket_the_first_method_is_compared(whole):
    _, first, _ = whole
    config = dataclasses.replace(first.config, methods=["freelb", "lth"])
    table = comparisons.paired_table(run_state.Run(config, ["x"], first.root.parent))
    assert [row for row in table.rows[1:] if isinstance(row, str)] == ["**FreeLB** against **LTH 30%**"]


def test_lengths_are_rows_and_are_compared_with_their_own(whole):
    """The loss of a training is its mean over the last epoch, which here begins after step 130 of 200."""
    _, _, second = whole
    run = run_state.Run(second.config, ["x"], second.root.parent)
    titles = ["Fine-tune", "Fine-tune, 10 epochs", "Robust ticket 30%", "Robust ticket 30%, 10 epochs"]
    assert [run.title(model) for model in run.shown()] == titles
    pairs = [row for row in comparisons.paired_table(run).rows[1:] if isinstance(row, str)]
    assert pairs[0].startswith(f"**{titles[2]}** against **{titles[0]}** (as many epochs")
    assert f"**{titles[3]}** against **{titles[1]}** (as many epochs)" in pairs
    last = [0.7 * math.exp(-step / 60) + 0.1 for step in range(140, 201, 10)]
    assert run.training_loss("finetune-epochs-10") == pytest.approx(statistics.fmean(last))
    assert run.median_margin("finetune-epochs-10") == pytest.approx(1.5)


def test_compute_counts_everything_that_a_model_rests_on(whole):
    """A robust ticket rests on the search (K passes an epoch) and on the model whose masks that learned."""
    _, _, second = whole
    config = dataclasses.replace(
        second.config,
        finetune=dataclasses.replace(second.config.finetune, epochs=3, max_steps=None),
        freelb=dataclasses.replace(second.config.freelb, epochs=3, ascent_steps=5, max_steps=None),
        search=dataclasses.replace(second.config.search, epochs=6, ascent_steps=2, max_steps=None),
        retrain=dataclasses.replace(second.config.retrain, epochs=3, max_steps=None),
    )
    run = run_state.Run(config, ["x"], second.root.parent)
    passes = {"finetune-epochs-10": 10, "freelb": 15, "freelb-epochs-10": 50, "robust-0.30": 18, "lth-0.30": 3}
    passes |= {"robust-0.30-epochs-10": 25, "random-0.30": 18}
    for model, count in passes.items():
        rounds = config.lth.epochs * 3 if model == "lth-0.30" else 0
        assert run.passes(model) == count + rounds, model
    half = dataclasses.replace(config.finetune, max_steps=2)
    run = run_state.Run(dataclasses.replace(config, finetune=half), ["x"], second.root.parent)
    batches = -(-run.data.splits["train"].count // half.batch_size)
    assert run.passes("finetune") == pytest.approx(2 / batches)


def test_control_rows_of_table_4(whole):
    _, first, _ = whole
    table = tables.ablation_table([run_state.Run(first.config, ["x"], first.root.parent)], 4)
    assert [r[0].text for r in table.rows[1:]] == [
        "Robust ticket 30%",
        "w/o Initialization 30%",
        "w/o Structure 30%",
    ]
    # Aua of the made-up seeds is 44 + seed for the ticket: mean 45.5.
    assert table.rows[1][2].text == "45.5" and table.rows[1][2].published == "paper 26.7‡"


def test_json_and_csv_hold_all_runs(whole):
    folder, first, second = whole
    runs = json.loads((folder / "results.json").read_text())["experiments"]
    assert [run["experiment"] for run in runs] == ["sst2", "other"] and not any(run["missing"] for run in runs)
    lines = list(csv.DictReader((folder / "results.csv").open()))
    aua = [
        float(line["value"])
        for line in lines
        if (line["experiment"], line["model"], line["attack"], line["measure"])
        == ("sst2", "robust-0.30", "textfooler", "aua")
    ]
    assert statistics.mean(aua) == pytest.approx(0.455)
    assert {line["method"] for line in lines if "@" in line["model"]} >= {"finetune", "robust"}


class Loads(HTMLParser):
    """Everything that a browser would fetch, links to the page's own sections aside, and every tag."""

    def __init__(self):
        super().__init__()
        self.tags, self.loads, self.links, self.names = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        self.names.append(values.get("id"))
        (self.links if tag == "a" else self.loads).extend(
            value for key, value in attributes if key in ("src", "href", "xlink:href", "srcset", "data", "poster")
        )


def test_page_is_self_contained_and_escaped(whole):
    folder, _, _ = whole
    text, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    parser = Loads()
    parser.feed(text)
    assert parser.loads and all(load.startswith("data:image/svg+xml;base64,") for load in parser.loads)
    assert text.count("<figure>") == text.count("<img ") == len(list((folder / "figures").glob("*.svg")))
    assert parser.links and all(link.startswith("#") and link[1:] in parser.names for link in parser.links)
    names = [name for name in parser.names if name]
    assert len(names) == len(set(names))
    assert "url(" not in text and "@import" not in text
    assert not {"script", "link", "iframe", "object"} & set(parser.tags)
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in text and "<mark>bonny</mark>" in text
    assert "<script" not in markdown and "**bonny**" in markdown
    assert "prefers-color-scheme: dark" in text and "Not comparable with the paper" in text


def test_unfinished_run_shows_commands_and_no_zero(quick, tmp_path, capsys):
    paths = small(tmp_path, "name=half run", seeds=())
    paths.choice.unlink()
    made_up.write_records(paths.attack(1, "finetune") / "textfooler", made_up.attacked(1, 1, 0))
    folder, _, markdown = written(tmp_path, "name=half run")
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {folder / 'report.html'}"
    assert row(markdown, "Fine-tune")[6] == "*missing* (2 of 10 done)"
    assert set(row(markdown, "Robust ticket 30%")[1:]) == {"*missing*"}
    for stage in (
        "mindspore_rt finetune",
        "mindspore_rt search",
        "mindspore_rt draw",
        "mindspore_rt retrain",
        "torch_eval choose",
        "torch_eval attack",
    ):
        assert f"`python -m {stage} demo attack.examples=10 attack.candidates=48 'name=half run'`" in markdown
    for stage in ("finetune", "search", "draw"):  # of sections that would be empty
        assert f"> Missing; `python -m mindspore_rt {stage} demo" in markdown
    assert "mindspore_rt prepare" not in markdown
    experiment = json.loads((folder / "results.json").read_text())["experiments"][0]
    assert experiment["models"][0]["attacks"]["textfooler"] is None


def test_a_finished_run_is_not_told_to_make_what_it_cannot_have(quick, tmp_path):
    """One model has no trade-off, whose section would name a command that finds nothing to do."""
    settings = ["methods=[finetune]", "attack.recipes=[textfooler]"]
    paths = made_up.whole(tmp_path, *settings, config="demo")
    build.report(["demo"], settings, runs=tmp_path)
    markdown = (paths.report / "report.md").read_text()
    assert "Clean accuracy and robustness" not in markdown and "Missing" not in markdown


def test_attack_left_out_says_why(quick, tmp_path):
    paths = small(tmp_path)
    for model in OUTCOMES:
        folder = paths.attack(1, model) / "bertattack"
        (folder / "manifest.json").unlink()
        (folder / "results.jsonl").unlink()
        write_json(folder / "missing.json", {"reason": "its language model is too poor"})
    _, text, markdown = written(tmp_path)
    assert "BERT-Attack was left out: its language model is too poor" in text
    assert row(markdown, "Fine-tune")[3] == "*missing*"
    assert "is not finished" not in text  # no command makes it


def test_finished_parts_of_an_attack_are_to_be_merged(quick, tmp_path):
    """The attack stage would begin anew."""
    paths = small(tmp_path)
    folder = paths.attack(1, "finetune") / "textfooler"
    (folder / "manifest.json").unlink()
    for number in (1, 2):
        made_up.finish(folder / f"shard-{number}-of-2", {})
    _, _, markdown = written(tmp_path)
    assert "`python -m torch_eval merge demo attack.examples=10 attack.candidates=48`: finetune textfooler" in markdown
    assert "torch_eval attack" not in markdown


def test_mistakes_are_one_line(quick, tmp_path, capsys):
    assert main(["report", "demo"], tmp_path) == 2
    assert "is missing: `python -m mindspore_rt prepare demo` starts it" in capsys.readouterr().err
    small(tmp_path)
    assert main(["report", "demo", "demo"], tmp_path) == 2
    assert "same run" in capsys.readouterr().err
