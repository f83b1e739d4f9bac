"""Two CPU workers of the real command line: they stop together, none is left, and a resumed run ends alike."""

import os
import re
import signal
import sys
import time

import pytest

from configs.contract.basics.errors import UserError
from configs.contract.experiment import schema
from configs.contract.run.jobs import jobs
from configs.contract.run.run_dir import RunDir
from mindspore_rt import launch
from tests.helpers.commands import run_python
from tests.helpers.files import write_program
from tests.helpers.processes import reserved_port, signal_all, wait_until_stopped
from tests.helpers.worker_runs import TwoWorkers


def test_two_workers_stop_with_their_starter_and_a_resumed_run_ends_with_the_same_bytes(tiny_bert):
    """tests/end_to_end/kill_workers.py has more.

    The undisturbed run goes on at the same time. It is started as on two machines, by a command of one worker on each.
    """
    small = [f"model={tiny_bert}", "finetune.epochs=10"]
    whole, stopped = (TwoWorkers(f"test-{name}-{os.getpid()}", *small) for name in ("whole", "stopped"))
    with whole, stopped, reserved_port() as port:
        undisturbed = [whole.start("nodes=2", f"node_rank={number}", f"master_port={port}") for number in range(2)]
        process = stopped.start()
        stopped.wait_for(stopped.steps, 2, process)
        workers = stopped.workers()
        signal_all(workers, signal.SIGSTOP)  # they train faster than they look for their starter, every second
        wait_until_stopped(workers)
        assert process.poll() is None, stopped.messages()
        process.kill()
        time.sleep(1)
        signal_all(workers, signal.SIGCONT)
        assert stopped.stop(process, "kill -9") is not None, "processes are left"
        assert stopped.saved() == stopped.steps() >= 2
        assert stopped.start().wait() == 0, stopped.messages()
        assert "Traceback" not in stopped.messages()
        assert [machine.wait() for machine in undisturbed] == [0, 0], whole.messages()
        assert stopped.results() == whole.results()


WORKER = """#!{python}
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
folder, name = pathlib.Path({folder!r}), os.environ["MS_ROLE"] + os.environ["RANK_ID"]
(folder / name).touch()
if name == "MS_WORKER1":
    while not (folder / "MS_WORKER0").exists():
        time.sleep(0.05)
    os.kill(os.getppid(), signal.SIGTERM)  # both workers can hear it now
time.sleep(60 if "WORKER" in name else 0)
"""


CRASHING_WORKER = """#!{python}
import os, pathlib, signal
if os.environ["MS_ROLE"] == "MS_WORKER":
    if {finishes}:
        pathlib.Path({folder!r}, "manifest.json").write_text("new")
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def job_of(program: str, monkeypatch, tmp_path, **values):
    """Return a run and one job of it, whose processes run `program` in place of Python."""
    run = RunDir(schema.load("tiny", ["workers=2", "methods=[finetune]"]), tmp_path / "runs")
    job = next(job for job in jobs(run) if job.stage == "finetune")
    text = program.format(python=sys.executable, **{"folder": str(job.directory), **values})
    monkeypatch.setattr(sys, "executable", str(write_program(tmp_path / "program", text)))
    return run, job


@pytest.mark.parametrize("finishes, status", [(True, 0), (False, 128 + signal.SIGSEGV)])
@pytest.mark.parametrize("was_there", [False, True])
def test_a_crash_at_exit_is_no_failure_of_a_finished_job(monkeypatch, tmp_path, finishes, status, was_there):
    """MindSpore's exit handlers crash now and then. A manifest from before, of a job that is redone, proves nothing."""
    run, job = job_of(CRASHING_WORKER, monkeypatch, tmp_path, finishes=finishes)
    if was_there:
        job.directory.mkdir(parents=True)
        (job.directory / "manifest.json").write_text("old")
    assert launch.launch(run, [job], ["tiny"], None) == status


WITHOUT_SCHEDULER = """#!{python}
import os, signal, sys, time
if os.environ["MS_ROLE"] == "MS_SCHED":
    {scheduler}
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
time.sleep(60)
"""


@pytest.mark.parametrize(
    "scheduler, status, message",
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL, r"process \d+ was ended by SIGKILL"),
        ("sys.exit(1)", 1, r"scheduler failed; see \S+scheduler\.log"),
    ],
)
def test_workers_do_not_wait_for_a_scheduler_that_is_gone(monkeypatch, tmp_path, capfd, scheduler, status, message):
    """MindSpore's workers wait for it without an end, and take no SIGTERM meanwhile."""
    monkeypatch.setattr(launch, "GRACE", 0.5)
    run, job = job_of(WITHOUT_SCHEDULER, monkeypatch, tmp_path, scheduler=scheduler)
    assert launch.launch(run, [job], ["tiny"], None) == status
    assert re.search(message, capfd.readouterr().err)


FAILING_WORKER = """#!{python}
import os, sys
sys.exit(2 if os.environ["RANK_ID"] == "{failing}" else 0)
"""


@pytest.mark.parametrize("failing", [2, 3])
def test_the_log_of_a_failed_worker_of_another_machine_is_named(monkeypatch, tmp_path, capsys, failing):
    """Only worker 0, on machine 0, writes to the terminal."""
    run, job = job_of(FAILING_WORKER, monkeypatch, tmp_path, failing=failing)
    run.config.workers, run.config.nodes, run.config.node_rank, run.config.master_port = 4, 2, 1, 5000
    assert launch.launch(run, [job], ["tiny"], None) == 2
    log = job.directory / f"worker-{failing}.log"
    assert f"worker {failing} failed; see {log}" in capsys.readouterr().err and log.is_file()


def test_a_stop_request_is_handed_on_to_all_workers(monkeypatch, tmp_path):
    """Workers that it does not reach end well, after a minute, and without a manifest: that is an error."""
    run, job = job_of(WORKER, monkeypatch, tmp_path, folder=str(tmp_path))
    assert launch.launch(run, [job], ["tiny"], None) == 128 + signal.SIGTERM
    assert (tmp_path / "MS_SCHED0").exists()


@pytest.mark.parametrize("workers, status", [("1", -signal.SIGABRT), ("2", 0)])
def test_a_worker_ends_without_the_destructors_of_libraries(workers, status):
    """One that crashes cannot turn a finished job into a failure. Exit handlers run: MindSpore's leaves the others."""
    code = (
        "import atexit, ctypes\nfrom mindspore_rt import launch\natexit.register(print, 'left')\n"
        "library = ctypes.CDLL(None)\nlibrary.__cxa_atexit(library.abort, None, None)\nlaunch.end(0)"
    )
    result = run_python(code, status=status, MS_ROLE="MS_WORKER", MS_WORKER_NUM=workers)
    assert result.stdout == "left\n"


def experiment(**values):
    return RunDir(schema.Experiment(**values))


def test_a_stray_rank_means_nothing(monkeypatch):
    """Some platforms set these for every process."""
    monkeypatch.setenv("RANK_ID", "3")
    monkeypatch.setenv("MS_WORKER_NUM", "8")
    assert (launch.rank(), launch.ranks()) == (0, 1)
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    assert (launch.rank(), launch.ranks()) == (3, 8)


def test_workers_of_another_number_are_refused(monkeypatch):
    monkeypatch.setenv("MS_WORKER_NUM", "8")
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    assert not launch.needs_workers(experiment(workers=8))
    with pytest.raises(UserError, match="workers: 2 are requested, but MS_WORKER_NUM=8 were started"):
        launch.needs_workers(experiment(workers=2))


def test_rank_tables_are_refused_with_the_reason(monkeypatch):
    monkeypatch.setenv("RANK_TABLE_FILE", "/etc/ranks.json")
    assert not launch.needs_workers(experiment())
    with pytest.raises(UserError, match="rank tables are not used.*master_addr"):
        launch.needs_workers(experiment(workers=2))


@pytest.mark.parametrize("name", ["no-such-machine.invalid", "a..b", "::1"])
def test_a_machine_that_cannot_be_found_is_named(name):
    with pytest.raises(UserError, match=f"master_addr: '{name}' cannot be found from here .*give the name or the IPv4"):
        launch._roles(schema.Experiment(workers=2, master_addr=name), 0)


def test_machines_share_the_workers():
    """Ranks are numbered through all machines, devices on each; the scheduler runs on machine 0."""
    config = schema.Experiment(workers=4, nodes=2, node_rank=1, master_addr="127.0.0.1", master_port=5000)
    second = launch._roles(config, 2)
    assert [(role["MS_ROLE"], role["RANK_ID"], role["DEVICE_ID"]) for role in second] == [
        ("MS_WORKER", "2", "0"),
        ("MS_WORKER", "3", "1"),
    ]
    assert {role["MS_SCHED_PORT"] for role in second} == {"5002"} and second[0]["MS_WORKER_NUM"] == "4"
    config.node_rank = 0
    first = launch._roles(config, 2)
    assert [role["MS_ROLE"] for role in first] == ["MS_SCHED", "MS_WORKER", "MS_WORKER"]


@pytest.mark.parametrize("settings", [["workers=3", "nodes=2"], ["workers=2", "node_rank=1"]])
def test_workers_that_machines_cannot_share_are_refused(settings):
    with pytest.raises(UserError, match="workers must be a multiple of nodes"):
        schema.load("tiny", [*settings, "master_port=5000"])


def test_several_machines_need_a_port():
    with pytest.raises(UserError, match="master_port"):
        schema.load("tiny", ["workers=2", "nodes=2"])
