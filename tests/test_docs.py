"""What the documents show: links lead somewhere, commands are ones that the programs take, examples run."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from configs.contract import VERSION
from configs.contract.basics.errors import UserError
from configs.contract.basics.files import ROOT
from configs.contract.experiment import schema
from configs.contract.experiment.options import read_options
from configs.contract.inputs.tasks import task_of
from configs.contract.run import cli
from configs.contract.run.jobs import jobs
from configs.contract.run.run_dir import RunDir
from mindspore_rt import __main__ as training
from mindspore_rt.ticket import Ticket
from torch_eval import __main__ as scoring

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What a page writes where readers put their own.
PLACEHOLDERS = {"CONFIG": "demo", "NAME": "demo", "zoo/NAME": "demo", "STAGE": "search", "mine.yaml": "demo"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text(encoding="utf-8")) if language in languages]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_a_page_names_are_there(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for path in re.findall(r"`((?:configs|docs|mindspore_rt|tests|torch_eval)/[a-z0-9_./]*)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "protocol.md"], ids=name)
def test_every_page_says_whom_it_is_for(page):
    if page != ROOT / "README.md":
        assert "\n\nFor readers wh" in page.read_text(encoding="utf-8")[:200]


def test_the_readme_is_short_and_names_every_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    for page in PAGES[1:]:
        assert f"]({name(page)})" in readme or page.name == "protocol.md", name(page)


def test_the_citation_has_the_version_of_the_project():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", text, re.M).group(1) == VERSION


# --- commands ---------------------------------------------------------------------------------------------


def commands() -> list[tuple[str, str]]:
    """Every command of ours that a page shows, in a block or in a line, and the page."""
    shown = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line for block in blocks(page, "", "sh", "bash") for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
        ours = [line for line in lines if re.search(r"(^|\s)(\./run\.sh|python -m (mindspore_rt|torch_eval))\b", line)]
        shown += [(name(page), line) for line in ours]
    return shown


def words(command: str) -> list[str]:
    """The arguments of a command as a shell splits them, without comments, placeholders filled in."""
    return [PLACEHOLDERS.get(word, word) for word in shlex.split(command, comments=True)]


def parse(half, arguments: list[str]):
    """Parse the arguments of one half as its command line does, and read the configuration they name."""
    options = cli.parse(half.parser(), arguments)
    if options.command == "report":
        names, overrides = cli.names_and_keys(options.arguments)
        assert [schema.load(name, overrides) for name in names]
    if options.command == "score":
        from torch_eval.library import run

        keys = [run.whole_key(word) for word in cli.names_and_keys(options.arguments)[1]]
        config = schema.load("base", [*run.DEFAULTS, *keys], complete=False)
        run.refuse_keys_of_experiments([key.partition("=")[0] for key in keys], config)
    if hasattr(options, "config"):
        config = schema.load(options.config, options.overrides)
        if getattr(options, "only", None):
            assert options.only in [job.name for job in jobs(RunDir(config)) if job.stage == arguments[0]]
    return options


def parse_delegated(command: str, arguments: list[str]) -> None:
    """Parse the arguments of commands whose own modules do that."""
    from mindspore_rt.formats import convert
    from torch_eval.bench import attacks, device_bound, families, gpu_check, training_steps
    from torch_eval.reference import parity

    if command == "bench":
        kinds = {"attacks": attacks, "device": device_bound, "families": families, "gpu": gpu_check}
        module = kinds.get(" ".join(arguments[:1]), training_steps)
        read_options(module.Options, [word for word in arguments if "=" in word], "bench")
    elif command == "parity":
        parity.parser().parse_args(arguments)
    elif command == "convert":
        convert.parser().parse_args(arguments)


def run_sh_commands() -> set[str]:
    """The first words that run.sh takes for commands."""
    cases = re.search(r"^case .*?^esac", (ROOT / "run.sh").read_text(), re.S | re.M).group(0)
    return {word for line in re.findall(r"^    ([\w| -]+)\)", cases, re.M) for word in line.split(" | ")}


def check(arguments: list[str]) -> None:
    """Raise if run.sh or a half would refuse these words of a command line."""
    if "./run.sh" in arguments:
        first, *rest = arguments[arguments.index("./run.sh") + 1 :] or ["demo"]
        if first == "bench":
            parse_delegated("bench", rest)
        elif first in ("watch", "score"):
            parse(scoring, [first, *rest])
        elif first in run_sh_commands():
            assert first == "test" or not rest
        else:
            parse(training, ["search", first, *(word for word in rest if word != "--plan")])
        return
    half = arguments[arguments.index("-m") + 1]
    rest = arguments[arguments.index("-m") + 2 :]
    if "." in half:  # a module of its own
        assert (ROOT / f"{half.replace('.', '/')}.py").is_file()
    elif rest:
        parse({"mindspore_rt": training, "torch_eval": scoring}[half], rest)
        parse_delegated(rest[0], rest[1:])


@pytest.mark.parametrize("page, command", commands(), ids=lambda value: value)
def test_commands_are_taken_by_the_real_command_line(page, command):
    check(words(command))


def settings() -> list[str]:
    """Every `key=value` of a configuration that a page shows by itself; those of run.sh's bench are other ones."""
    texts = [BLOCK.sub("", page.read_text(encoding="utf-8")) for page in PAGES]
    shown = {word for text in texts for word in re.findall(r"`([a-z_.]+=[^`\s]+)`", text)}
    return sorted(word for word in shown if not word.startswith("official="))


@pytest.mark.parametrize("setting", settings())
def test_settings_are_keys_of_a_configuration(setting):
    schema.load("demo", [setting])


@pytest.mark.parametrize(
    "command",
    [
        "./run.sh sst3",
        "./run.sh sst2 seed=1",
        "python -m torch_eval attak demo",
        "python -m mindspore_rt search sst2 --all",
        "./run.sh score ./my-model reviews.csv exampels=5",
    ],
)
def test_wrong_commands_would_be_seen(command):
    with pytest.raises((UserError, SystemExit)):
        check(words(command))


# --- examples ---------------------------------------------------------------------------------------------


def test_the_example_configuration_of_own_data_is_read(tmp_path):
    (text,) = blocks(ROOT / "docs" / "data.md", "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    config = schema.load(str(tmp_path / "mine.yaml"))
    assert (config.name, config.data.train) == ("mine", "reviews.csv")
    task = task_of(config)
    assert task.columns == ("title+body",) and task.labels == ("bad", "fair", "good")


@pytest.fixture
def finished_demo(tmp_path, tiny_bert, monkeypatch):
    """A folder with what the examples read: a BERT, and a ticket and a model of a finished demo."""
    from safetensors.numpy import load_file

    matrices = {
        name: weight
        for name, weight in load_file(tiny_bert / "model.safetensors").items()
        if weight.ndim == 2 and name.startswith("bert.encoder")
    }
    seed = tmp_path / "runs" / "demo" / "seed-1"
    (seed / "tickets" / "robust-0.30").mkdir(parents=True)
    Ticket.from_magnitudes(matrices, 0.3).save(seed / "tickets" / "robust-0.30" / "ticket.safetensors")
    for target in (tmp_path / "your-bert", seed / "robust-0.30" / "model"):
        shutil.copytree(tiny_bert, target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# tests/torch_eval/library/test_run.py runs those of score.md, with the model that they name.
PYTHON = [(page, i) for page in PAGES if page.name != "score.md" for i in range(len(blocks(page, "python")))]


@pytest.mark.parametrize(
    "page, index", PYTHON, ids=lambda value: name(value) if isinstance(value, Path) else str(value)
)
def test_python_examples_run(page, index, finished_demo):
    exec(compile(blocks(page, "python")[index], name(page), "exec"), {})


def test_the_example_of_the_readme_prunes_what_the_ticket_prunes(finished_demo):
    """Every weight that the ticket prunes is zero afterwards, every other one is as before."""
    from transformers import AutoModelForSequenceClassification

    before = AutoModelForSequenceClassification.from_pretrained("your-bert").state_dict()
    names = {}
    exec(blocks(ROOT / "README.md", "python")[0], names)
    masks, after = names["ticket"].masks, names["model"].state_dict()
    assert masks
    for parameter, weight in before.items():
        mask = masks.get(parameter, np.ones(weight.shape, bool))
        np.testing.assert_array_equal(after[parameter].numpy(), np.where(mask, weight.numpy(), 0))
