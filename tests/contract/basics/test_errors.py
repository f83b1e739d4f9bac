"""What a command says when it fails: one line, whose fault it is, and what helps."""

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile

import pytest

from configs.contract.basics.errors import STARTER, Stopped, StopRequest, UserError, command
from configs.contract.basics.processes import with_project
from tests.helpers.commands import run_python


def message_of(capsys, error) -> str:
    """The one line on stderr of a command that raises `error`."""

    def main():
        raise error

    assert command(main)() == (2 if isinstance(error, UserError) else 1)
    out, line = capsys.readouterr()
    assert out == "" and line.count("\n") == 1
    return line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: not enough memory: you tried to allocate 9"
        ),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
        RuntimeError("Out of Memory!!! Request memory size: 9"),
        RuntimeError("Allocate memory failed for size: 9"),
        RuntimeError("Allocate dynamic workspace memory failed"),
        RuntimeError("Device(id:0) memory isn't enough and alloc failed, kernel name: MatMul"),
    ],
)
def test_no_memory_is_said_alike_by_every_allocator(capsys, error):
    assert message_of(capsys, error) == "error: out of memory; a smaller batch_size or data.max_length needs less\n"


def test_a_copy_without_room_is_named_not_its_source(capsys):
    full = OSError(errno.ENOSPC, "No space left on device", "source", None, "copy")
    assert message_of(capsys, full).startswith("error: copy: No space left on device; make room")
    assert message_of(capsys, OSError(errno.ENOENT, "gone", "source", None, "copy")) == "error: source: gone\n"


def test_what_nobody_foresaw_is_a_fault_of_the_program(capsys, monkeypatch, tmp_path):
    """Never taken for a message to the user, which begins with `error:`; the traceback is kept."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    line = message_of(capsys, KeyError("two\nlines, naïve \ud800"))
    assert re.match(r"internal error: KeyError: .* \(.*test_errors.py:\d+\); this is a fault of the program", line)
    file = line.strip().rpartition(" in ")[2]
    assert "Traceback" in open(file).read() and os.listdir(tmp_path) == [os.path.basename(file)]
    assert message_of(capsys, UserError("x: wrong")) == "error: x: wrong\n"


def test_without_room_for_a_traceback_it_is_shown(capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert command(lambda: {}["absent"])() == 1
    assert "KeyError: 'absent'" in capsys.readouterr().err.splitlines()[-1]


def test_a_name_that_the_locale_cannot_write(tmp_path):
    """A plan is shown with escapes; a folder of that name cannot be made, and that is said."""
    path = tmp_path / "mine.yaml"
    path.write_text('name: "naïve ☃"', encoding="utf-8")
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    code = "import sys; from configs.contract.run import plan; sys.exit(plan.main(sys.argv[1:]))"
    result = run_python(code, "show", path, **environment)
    assert r"na\xefve \u2603: 2 methods" in result.stdout
    code = "import os, sys; from configs.contract.basics import errors; sys.exit(errors.command(os.mkdir)('na\\xefve'))"
    result = run_python(code, status=1, **environment)
    message = r"error: 'na\xefve' cannot be written as ascii; set LC_ALL=C.UTF-8, or use other names"
    assert result.stderr == message + "\n"


@pytest.mark.parametrize("signals, status", [(["INT", "TERM", "TERM"], 130), (["TERM", "INT", "TERM"], 143)])
def test_a_stop_request_that_is_handed_on_is_one(signals, status):
    """Ctrl-C reaches a whole process group, and run.sh and the process of all jobs hand it on as SIGTERM."""
    with StopRequest() as request:
        for name in signals:
            signal.raise_signal(getattr(signal, f"SIG{name}"))
        assert request.made
        with pytest.raises(KeyboardInterrupt):  # a second Ctrl-C
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(Stopped) as error:
        request.obey("x")
    assert error.value.status == status


def test_a_stop_request_made_before_a_loop_begins_is_kept_for_it():
    """A worker of several accepts requests from its start on; the loop must not lose an earlier one."""
    with StopRequest() as outer:
        signal.raise_signal(signal.SIGTERM)
        with StopRequest() as request:
            assert request.made
        assert outer.made and signal.getsignal(signal.SIGTERM) == outer._remember


@pytest.mark.parametrize("named, seconds, end", [(f"{STARTER}=$$", 60, "stopped"), ("", 2, "finished")])
def test_a_process_stops_with_its_starter_if_that_named_itself(tmp_path, named, seconds, end):
    """A command that a user gave continues when its shell has ended, as under nohup."""
    (tmp_path / "waits.py").write_text(
        "import sys, time\nfrom configs.contract.basics.errors import command, stop_with_starter\n"
        "@command\ndef main():\n    stop_with_starter()\n    print('waits', flush=True)\n"
        f"    time.sleep({seconds})\n    print('finished')\n    return 0\nsys.exit(main())"
    )
    script = f"{named} {sys.executable} {tmp_path / 'waits.py'} & wait"
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    shell = subprocess.Popen(["bash", "-c", script], env=with_project(os.environ), **output)
    assert shell.stdout.readline() == "waits\n"
    shell.kill()
    assert end in shell.communicate()[0]
