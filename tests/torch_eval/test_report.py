"""The report on small made-up run directories; expected figures are worked out by hand here."""

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from configs import run_dir, schema
from torch_eval import page, report

ROOT = Path(__file__).resolve().parents[2]
EVIL = '<script>alert("x")</script> a | fine * film & more'
# successes, failures, skipped of 10 attacked sentences
OUTCOMES = {"finetune": (6, 2, 2), "robust-0.30": (3, 6, 1)}


def finish(folder, results, seconds=60.0, settings=None):
    run_dir.write_json(folder / "manifest.json", {
        "stage": folder.name, "settings": settings or {}, "inputs": {"train": "ab" * 32},
        "versions": {"python": "3.11.7"},
        "results": results, "finished": "2026-01-02T03:04:05Z", "seconds": seconds,
    })


def record(index, outcome):
    fooled = outcome == "success"
    return {
        "index": index, "label": 1, "outcome": outcome, "queries": 10 * (index + 1), "original": {"sentence": EVIL},
        "perturbed": {"sentence": EVIL.replace("fine", "bonny") if fooled else EVIL},
        "original_prediction": 0 if outcome == "skipped" else 1, "perturbed_prediction": 0 if fooled else 1,
        "original_score": 0.9, "perturbed_score": 0.4, "words_changed": int(fooled), "words": 5, "seconds": 0.1,
    }


def attacked(counts):
    success, failure, skipped = counts
    outcomes = ["success"] * success + ["failure"] * failure + ["skipped"] * skipped
    return [record(index, outcome) for index, outcome in enumerate(outcomes)]


def prepared(paths):
    split = {"count": 6000, "labels": {}, "length": {}, "sha256": "cd" * 32}
    run_dir.write_json(paths.data / "summary.json", {
        "task": "snippets", "columns": ["sentence"], "attacked": ["sentence"], "labels": ["negative", "positive"],
        "splits": dict.fromkeys(("train", "dev", "test"), split), "note": "",
    })
    finish(paths.data, {})


def seed_done(paths, seed):
    curve = [{"step": 20, "loss": 0.5}, {"step": 40, "loss": 0.3}, {"step": 40, "dev_accuracy": 0.82}]
    for model, folder in paths.victims(seed).items():
        run_dir.write_lines(folder.parent / "metrics.jsonl", curve)
        finish(folder.parent, {"steps": 40, "dev_accuracy": 0.82})
        finish(paths.attack(seed, model) / "clean", {"accuracy": 0.8, "n": 100})
        for recipe in paths.config.attack.recipes:
            run_dir.write_lines(paths.attack(seed, model) / recipe / "results.jsonl", attacked(OUTCOMES[model]))
            finish(paths.attack(seed, model) / recipe, {}, settings={"resources": {"synonyms": {"words": 41203}}})
    settled = {"settled_zero": 0.125, "settled_one": 0.25}
    search = {"step": 20, "l0_term": 0.9, "l0_weight": 0.1, "adversarial_loss": 1, **settled}
    run_dir.write_lines(paths.search(seed) / "metrics.jsonl", [search])
    finish(paths.search(seed), {"steps": 20})
    layers = {"bert.encoder.layer.0.output.dense.weight": 0.3, "bert.pooler.dense.weight": 0.3}
    run_dir.write_json(paths.tickets(seed) / "report.json", {"robust-0.30": {
        "sparsity": 0.3, "pruned": 300, "weights": 1000, "layers": layers,
        "magnitude_overlap": 0.25, "chance_overlap": 0.1765,
    }})
    finish(paths.tickets(seed), {})


def make(tmp_path, *overrides, seeds=(1,)):
    config = schema.load("demo", overrides)
    paths = run_dir.RunDir(config, tmp_path)
    prepared(paths)
    for seed in seeds:
        seed_done(paths, seed)
    return paths


def written(tmp_path, *overrides):
    assert report.main(["demo", *overrides], tmp_path) == 0
    folder = tmp_path / schema.load("demo", overrides).name / "report"
    return folder, (folder / "report.html").read_text(), (folder / "report.md").read_text()


def row(markdown, name):
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def wilson(successes, trials):
    """The score interval as the two roots of (p - share)^2 = z^2 p (1 - p) / n."""
    z2, share = 1.959964**2, successes / trials
    a, b, c = 1 + z2 / trials, -(2 * share + z2 / trials), share * share
    root = math.sqrt(b * b - 4 * a * c)
    return f"({100 * (-b - root) / (2 * a):.1f}–{100 * (-b + root) / (2 * a):.1f})"


def test_main_table_by_hand(tmp_path):
    make(tmp_path)
    _, _, markdown = written(tmp_path)
    tuned, ticket = row(markdown, "Fine-tune"), row(markdown, "RobustT 30%")
    # Fine-tune: 8 of 10 right at first, 2 right after, 6 of 8 fooled; queries 10, 20, ... 80.
    assert tuned[1] == f"80.0 {wilson(80, 100)}"
    assert tuned[2] == f"80.0 {wilson(8, 10)}"
    assert tuned[3] == f"20.0 {wilson(2, 10)}"
    assert tuned[4] == f"75.0 {wilson(6, 8)}"
    assert tuned[5].startswith("45.0 (") and tuned[5].endswith("n = 8)")
    # Ticket: 9 right at first, 6 after, 3 of 9 fooled; queries 10 ... 90. It is best where they differ.
    assert ticket[1] == tuned[1]
    assert ticket[2] == f"**90.0** {wilson(9, 10)}"
    assert ticket[3] == f"**60.0** {wilson(6, 10)}"
    assert ticket[4] == f"**33.3** {wilson(3, 9)}"
    assert ticket[5].startswith("**50.0** (") and ticket[5].endswith("n = 9)")
    assert len(tuned) == 1 + 2 + 3 * 3


def test_several_seeds_give_mean_and_deviation(tmp_path):
    paths = make(tmp_path, "seeds=[1,2,3]", seeds=(1, 2))
    other = paths.attack(2, "finetune") / "textfooler"
    run_dir.write_lines(other / "results.jsonl", attacked((4, 4, 2)))
    _, page_text, markdown = written(tmp_path, "seeds=[1,2,3]")
    # Aua 20 and 40: mean 30, sample deviation sqrt(200) = 14.1; TextFooler is the second attack.
    assert row(markdown, "Fine-tune")[6] == "30.0 (± 14.1; 2 of 3 seeds)"
    assert "python -m mindspore_rt search demo &#x27;seeds=[1,2,3]&#x27;" in page_text


def test_seeds_attacked_differently_are_not_averaged(tmp_path):
    paths = make(tmp_path, "seeds=[1,2]", seeds=(1, 2))
    finish(paths.attack(2, "finetune") / "textbugger", {}, settings={"resources": "others"})
    _, page_text, markdown = written(tmp_path, "seeds=[1,2]")
    assert row(markdown, "Fine-tune")[9] == "*not averaged*"
    assert row(markdown, "Fine-tune")[6] == "20.0 (± 0.0)"
    assert "Do not compare the rows of TextBugger" in page_text


class Loads(HTMLParser):
    """Everything that a browser would fetch, and every tag."""

    def __init__(self):
        super().__init__()
        self.tags, self.loads = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for key, value in attributes if key in ("src", "href", "srcset", "data", "poster")]


def test_page_is_self_contained_and_escaped(tmp_path):
    make(tmp_path)
    folder, text, markdown = written(tmp_path)
    parser = Loads()
    parser.feed(text)
    assert parser.loads and all(load.startswith("data:image/png;base64,") for load in parser.loads)
    assert "url(" not in text and "@import" not in text
    assert not {"script", "link", "iframe", "object"} & set(parser.tags)
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;" in text and "<mark>bonny</mark>" in text
    assert "<script" not in markdown and "**bonny**" in markdown
    assert "prefers-color-scheme: dark" in text and "Not comparable with the paper" in text
    for picture in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (folder / picture).is_file()
    assert len(list((folder / "figures").glob("*.png"))) == 3


def test_facts_of_run_and_ticket(tmp_path):
    make(tmp_path)
    _, text, markdown = written(tmp_path)
    ticket = next(line for line in markdown.splitlines() if "1,000" in line)
    assert "| 1 | 30.00000% | 300 | 1,000 | +0 | 25.0% | 17.6% |" in ticket
    assert "6000 training sentences, 40 steps of fine-tuning, 20 steps of the mask search" in markdown
    assert "12.5% of the masks are settled near 0 and 25.0% near 1" in text
    assert "synonyms: words 41203" in text and "Still missing" not in text


def test_results_json_and_csv_agree_with_the_counts(tmp_path):
    make(tmp_path)
    folder, _, _ = written(tmp_path)
    found = json.loads((folder / "results.json").read_text())
    assert found["missing"] == []
    assert found["models"][1]["attacks"]["textfooler"]["suc"]["value"] == pytest.approx(1 / 3)
    lines = (folder / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * (1 + 3 * 4)
    assert next(line for line in lines if "finetune,bertattack,aua" in line).split(",")[5] == "0.2"


def test_unfinished_run_shows_commands_and_no_zero(tmp_path, capsys):
    make(tmp_path, "name=half run", seeds=())
    config = schema.load("demo", ["name=half run"])
    paths = run_dir.RunDir(config, tmp_path)
    run_dir.write_lines(paths.attack(1, "finetune") / "textfooler" / "results.jsonl", attacked((1, 1, 0)))
    folder, text, markdown = written(tmp_path, "name=half run")
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {folder / 'report.html'}"
    assert row(markdown, "Fine-tune")[6] == f"*missing* (2 of {config.attack.examples} done)"
    assert set(row(markdown, "RobustT 30%")[1:]) == {"*missing*"}
    for stage in ("finetune", "search", "draw", "retrain"):
        assert f"`python -m mindspore_rt {stage} demo 'name=half run'`" in markdown
    assert "`python -m torch_eval attack demo 'name=half run'`" in markdown
    assert "mindspore_rt prepare" not in markdown
    assert json.loads((folder / "results.json").read_text())["models"][0]["attacks"]["textfooler"] is None


def test_attack_left_out_says_why(tmp_path):
    paths = make(tmp_path)
    for model in OUTCOMES:
        folder = paths.attack(1, model) / "bertattack"
        (folder / "manifest.json").unlink()
        (folder / "results.jsonl").unlink()
        run_dir.write_json(folder / "missing.json", {"reason": "its language model is too poor"})
    _, text, markdown = written(tmp_path)
    assert "BERT-Attack was left out: its language model is too poor" in text
    assert row(markdown, "Fine-tune")[3] == "*missing*"


def test_examples_prefer_one_that_only_the_first_model_falls_for():
    by_model = {m: {r["index"]: r for r in attacked(OUTCOMES[m])} for m in OUTCOMES}
    # Index 3 is the first that fools fine-tune (0 to 5) while the ticket (0 to 2) holds.
    assert report._pick(by_model, list(OUTCOMES)) == [(3, "finetune"), (0, "robust-0.30")]


def test_compare_marks_changed_words_only():
    before, after = page.compare("A fine film", "a bonny film")
    assert [text for text, changed in before if changed] == ["fine"]
    assert [text for text, changed in after if changed] == ["bonny"]
    assert "".join(text for text, _ in after) == "a bonny film"


def test_mistakes_are_one_line(tmp_path, capsys):
    assert report.main([], tmp_path) == 2
    assert report.main(["demo"], tmp_path) == 2
    assert "is missing: `python -m mindspore_rt prepare demo` starts it" in capsys.readouterr().err


def test_loads_neither_torch_nor_textattack():
    heavy = {"torch", "textattack", "mindspore", "mindnlp"}
    code = f"import sys, torch_eval.report; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
