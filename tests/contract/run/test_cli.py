"""The command lines: what is parsed, what is refused in one line, and help texts."""

import contextlib
import dataclasses
from pathlib import Path

import pytest

import mindspore_rt.__main__ as training
import torch_eval.__main__ as scoring
from configs.contract.basics.errors import UserError
from configs.contract.run import cli, plan
from configs.contract.run.jobs import HALVES
from mindspore_rt.compare import device_check

PARSERS = {"mindspore_rt": training.parser, "torch_eval": scoring.parser}


def scored(*arguments):
    return cli.parse(scoring.parser(), arguments)


@pytest.mark.parametrize("stage, half", HALVES.items())
def test_every_stage_is_a_command_of_its_half(stage, half):
    options = cli.parse(PARSERS[half](), [stage, "demo", "seeds=[1,2]"])
    words = options.arguments if stage == "report" else [options.config, *options.overrides]
    assert (options.command, words) == (stage, ["demo", "seeds=[1,2]"])


def test_overrides_may_stand_before_and_after_options():
    options = scored("watch", "demo", "a=1", "--every", "2.5", "b=2", "--once", "c=3")
    assert options.overrides == ["a=1", "b=2", "c=3"] and options.every == 2.5 and options.once
    assert scored("watch", "demo").overrides == []
    options = scored("report", "one", "--out", "x", "seeds=[1]")
    assert options.out == Path("x") and options.arguments == ["one", "seeds=[1]"]
    options = scored("score", "model", "data", "--out", "x", "examples=3")
    assert options.out == Path("x") and options.arguments == ["model", "data", "examples=3"]


def test_a_report_takes_several_configurations_whose_names_may_hold_an_equals_sign(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("torch_eval.report.build.report", lambda *arguments: calls.append(arguments))
    own = tmp_path / "k=5.yaml"
    own.write_text("extends: demo")
    assert scoring.main(["report", str(own), "seeds=[1]", "sst2", "--out", "x"], Path("runs")) == 0
    assert calls == [([str(own), "sst2"], ["seeds=[1]"], Path("x"), Path("runs"))]


def test_commands_with_parsers_of_their_own_get_their_arguments():
    assert scored("parity", "folder", "--steps", "3").arguments == ["folder", "--steps", "3"]
    assert cli.parse(training.parser(), ["convert", "--help"]).arguments == ["--help"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "COMMAND"),
        (("atack", "demo"), "'atack'"),
        (("attack",), "CONFIG"),
        (("attack", "demo", "--fast"), "'--fast'"),
        (("setup", "demo"), "'demo'"),
        (("watch", "demo", "--every", "0"), "--every"),
        (("watch", "demo", "--every"), "--every"),
        (("watch", "demo", "--onc"), "'--onc'"),
        (("report", "seeds=[1]"), "name a configuration"),
    ],
)
def test_mistakes_are_one_line_that_says_where_help_is(arguments, message, capsys):
    assert scoring.main(arguments) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    assert message in text and ("--help" in text or "python -m torch_eval report demo" in text)


def test_an_unknown_job_is_refused(capsys):
    assert training.main(["finetune", "demo", "--only", "seed-1/x"]) == 2
    assert "the stage finetune of demo has no such job; choose one of seed-1/finetune" in capsys.readouterr().err


@pytest.mark.parametrize("program", PARSERS)
def test_help_names_every_command_and_key(program, capsys):
    with pytest.raises(SystemExit):
        cli.parse(PARSERS[program](), ["--help"])
    text = capsys.readouterr().out
    assert all(f"    {stage} " in text for stage, half in HALVES.items() if half == program)
    assert "search.l0_weight=0.5" in text


def test_the_help_of_a_stage_names_the_keys_that_decide_it(capsys):
    with pytest.raises(SystemExit):
        cli.parse(training.parser(), ["control", "--help"])
    text = capsys.readouterr().out
    assert "--only JOB" in text and "retrain.epochs=3" in text and "search.epochs" not in text


def test_the_plan_names_the_commands_of_both_halves(capsys):
    assert plan.main(["pending", "tiny", "name=test-never-begun"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["mindspore_rt prepare", "mindspore_rt finetune"] and lines[-1] == "torch_eval report"


@pytest.mark.parametrize("main, command", [(training.main, "search"), (scoring.main, "report"), (plan.main, "show")])
def test_every_command_line_refuses_in_one_line(main, command, capsys):
    """Status 2, one line on stderr, nothing on stdout, no traceback."""
    assert main([command, "demo", "serch.epochs=3"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert "serch.epochs" in printed.err and "search.epochs" in printed.err


def test_a_delegating_parser_refuses_in_one_line(capsys):
    with pytest.raises(UserError, match="lists what can be given"):
        cli.Parser(prog="p").parse_args(["x"])


def test_a_command_of_options_alone_has_help(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        device_check.main(["--help"])
    assert not error.value.code and not list(tmp_path.iterdir())
    printed = capsys.readouterr().out
    for field in dataclasses.fields(device_check.Options):
        assert f"  {field.name}=" in printed and field.metadata["help"] in printed


@pytest.mark.parametrize(
    "arguments, text",
    [(["--help"], "bench families"), (["attacks", "--help"], "long_examples=20"), (["gpu", "--help"], "seconds=300.0")],
)
def test_every_kind_of_bench_has_help(arguments, text, capsys):
    with contextlib.suppress(SystemExit):
        scoring.main(["bench", *arguments])
    assert text in capsys.readouterr().out
