"""Processes of a training stage: one for each job, or as many for a job as there are workers.

MindSpore gives the memory of its graphs back only when a process ends, so each job has processes of its own. Workers
meet at a scheduler, a process of MindSpore's that computes nothing. They are our own children: a stop request reaches
each of them, and none outlives the others.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NoReturn

from configs.contract.basics.errors import STARTER, StopRequest, UserError
from configs.contract.experiment import schema
from configs.contract.run.jobs import Job
from configs.contract.run.run_dir import RunDir

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit statuses of a process that has saved and stopped
GRACE = 10.0  # seconds that other processes get to end by themselves after one has failed


def ranks() -> int:
    """Return the number of processes that train together, as their environment states it.

    `msrun` starts its scheduler with the command of the workers. It counts as a worker here, so that it joins them.
    """
    return int(os.environ.get("MS_WORKER_NUM", 1)) if os.environ.get("MS_ROLE") in ("MS_WORKER", "MS_SCHED") else 1


def rank() -> int:
    """Return the number of this process, from 0. A RANK_ID that a platform sets for a single process is ignored."""
    return int(os.environ.get("RANK_ID", 0)) if ranks() > 1 else 0


def device_id(config: schema.Experiment) -> int | None:
    """Return the number of this process's device on its machine; None leaves it to MindSpore.

    Each of several workers is told by what started it, `launch` or `msrun`. The scheduler of `msrun` has no device.
    """
    number = os.environ.get("DEVICE_ID") if ranks() > 1 else None
    return int(number) if number else config.device_id


def needs_workers(run: RunDir) -> bool:
    """Return whether this process starts the workers of a job: it is none itself, and there are several.

    Raises:
        UserError: This process is a worker, but not one of the number that is asked for; or a rank table is named.
    """
    if ranks() not in (1, run.config.workers):
        raise UserError(f"workers: {run.config.workers} are requested, but MS_WORKER_NUM={ranks()} were started")
    if run.config.workers > 1 and os.environ.get("RANK_TABLE_FILE"):
        raise UserError(
            "RANK_TABLE_FILE: rank tables are not used, because the workers find each other at master_addr; "
            "unset the variable, and name other machines by nodes, node_rank, master_addr and master_port"
        )
    return run.config.workers > 1 and ranks() == 1


@contextlib.contextmanager
def stop_requests() -> Iterator[None]:
    """Context in which a worker keeps a stop request until all workers can obey it together."""
    if ranks() == 1:
        yield
        return
    with StopRequest():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, StopRequest.SIGNALS)  # `_run` blocks them until here
        yield


def end(status: int) -> NoReturn:
    """End this process with an exit status.

    A worker first runs the exit handlers, among them MindSpore's: it leaves the others, so that the scheduler ends too.
    It then ends without the destructors of libraries. While those run, MindSpore's threads of communication may still
    run: workers that had written all their results died of SIGSEGV.
    """
    if ranks() > 1:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def launch(run: RunDir, of_stage: list[Job], settings: Sequence[str], lock: IO | None) -> int:
    """Start the processes of each job, one job after the other.

    Args:
        run: The experiment.
        of_stage: Jobs of one stage.
        settings: CONFIG and the overrides of the command line.
        lock: Open lock file of the run, which the processes inherit.

    Returns:
        Exit status of the first process that fails, or 0.

    Raises:
        Stopped: A stop was requested too late for the running job, which has finished.
        RuntimeError: The processes of a job ended well, and left no manifest.
    """
    for number, job in enumerate(of_stage):
        with StopRequest() as request:
            status = _run(run, job, number, settings, lock, request)
        if status:
            return status
        if not job.done and not run.config.node_rank:
            raise RuntimeError(
                f"{job.name}: its processes ended well, but {job.directory / 'manifest.json'} is missing"
            )
        if request.made:
            request.obey(f"{job.name}: finished")
    return 0


def _run(run: RunDir, job: Job, number: int, settings: Sequence[str], lock: IO | None, request: StopRequest) -> int:
    """Run one job in processes of its own, and return its exit status. None of them is left afterwards."""
    line = [sys.executable, "-m", "mindspore_rt", job.stage, *settings, "--only", job.name]
    several, started = needs_workers(run), []
    # Workers take a stop request when they can keep it. The scheduler takes none: it ends after the last worker.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, StopRequest.SIGNALS if several else ())
    try:
        for role in _roles(run.config, number) if several else [{}]:
            name = role.get("MS_NODE_ID", "scheduler" if role else "0")
            command = [sys.executable, "-m", "mindspore_rt.parallel"] if name == "scheduler" else line
            environment = {**os.environ, STARTER: str(os.getpid()), **role}
            locks = [lock.fileno()] if lock and name != "scheduler" else []
            # Worker 0 writes to the terminal.
            with open(_log(job, name), "wb") if name != "0" else contextlib.nullcontext() as log:
                started.append(subprocess.Popen(command, env=environment, pass_fds=locks, stdout=log, stderr=log))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        scheduler = started[:1] if several and not run.config.node_rank else []
        return _wait(started[len(scheduler) :], scheduler, _first_worker(run.config), job, request)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        end_by = time.monotonic() + GRACE
        for process in reversed(started):
            try:
                process.wait(max(0.0, end_by - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _first_worker(config: schema.Experiment) -> int:
    """Return the number of the first worker of this machine."""
    return config.node_rank * (config.workers // config.nodes)


def _roles(config: schema.Experiment, number: int) -> list[dict[str, str]]:
    """Return the variables that tell each process of this machine its role; on machine 0 the scheduler comes first.

    Args:
        config: The experiment.
        number: Number of the job in its stage; each has a port of its own.
    """
    port = config.master_port + number if config.master_port else _free_port()
    meeting = {
        "MS_WORKER_NUM": str(config.workers),
        "MS_SCHED_HOST": _address(config.master_addr),
        "MS_SCHED_PORT": str(port),
        # Seconds without a sign of life after which a worker counts as lost. MindSpore's 30 are too few on a busy
        # machine; the death of a process of this machine is seen at once.
        "MS_NODE_TIMEOUT": os.environ.get("MS_NODE_TIMEOUT", "300"),
    }
    roles = [] if config.node_rank else [{**meeting, "MS_ROLE": "MS_SCHED", "RANK_ID": "0"}]
    for local in range(config.workers // config.nodes):
        rank = str(_first_worker(config) + local)
        names = {"RANK_ID": rank, "MS_NODE_ID": rank, "DEVICE_ID": str((config.device_id or 0) + local)}
        roles.append({**meeting, **names, "MS_ROLE": "MS_WORKER"})
    return roles


def _address(name: str) -> str:
    """Return the IPv4 address of a machine."""
    try:
        return socket.gethostbyname(name)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"master_addr: {name!r} cannot be found from here ({error}); give the name or the IPv4 address of machine 0"
        ) from None


def _log(job: Job, process: str) -> Path:
    """Return the file that a process writes to instead of the terminal."""
    job.directory.mkdir(parents=True, exist_ok=True)
    return job.directory / ("scheduler.log" if process == "scheduler" else f"worker-{process}.log")


def _free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait(
    workers: list[subprocess.Popen], scheduler: list[subprocess.Popen], first: int, job: Job, request: StopRequest
) -> int:
    """Wait until all workers have ended; the exit status is that of the first process that failed, or 0.

    A stop request is passed on once, as SIGTERM: a second Ctrl-C would stop a worker at once. After a worker has
    stopped, the others get time to save. After any other failure of a worker or of the scheduler, they would wait for
    it for ever and ignore SIGTERM, so they are killed. MindSpore's exit handlers sometimes end a worker by SIGSEGV. If
    the job was finished before, as its new manifest says, that is no failure.

    Args:
        workers: Workers of this machine, in the order of their numbers.
        scheduler: The scheduler, if it runs on this machine.
        first: Number of the first worker of this machine, among those of all machines.
        job: What they train.
        request: Whether somebody has asked to stop.
    """
    passed_on, failed, kill_after = False, None, float("inf")
    before = _manifest_time(job)
    while running := [worker for worker in workers if worker.poll() is None]:
        failed = failed or next((process for process in [*workers, *scheduler] if process.poll()), None)
        if failed and failed.returncode not in STOPPED:
            kill_after = min(kill_after, time.monotonic() + GRACE)
        for worker in running:
            if time.monotonic() > kill_after:
                worker.kill()
            elif request.made and not passed_on:
                worker.terminate()
        passed_on = request.made
        with contextlib.suppress(subprocess.TimeoutExpired):
            running[0].wait(timeout=0.2)
    failed = failed or next((worker for worker in workers if worker.returncode), None)
    finished = job.done and _manifest_time(job) != before
    if not failed or finished and (failed.returncode < 0 or failed in scheduler):
        return 0
    return _status(failed, "scheduler" if failed in scheduler else str(first + workers.index(failed)), job)


def _manifest_time(job: Job) -> int | None:
    """Return when a job's manifest was written, in nanoseconds; None if there is none."""
    manifest = job.directory / "manifest.json"
    return manifest.stat().st_mtime_ns if manifest.exists() else None


def _status(failed: subprocess.Popen, name: str, job: Job) -> int:
    """Return the exit status of a process that failed, and say what its own messages on the terminal do not."""
    if failed.returncode < 0:
        reason = signal.Signals(-failed.returncode).name
        print(
            f"error: {job.name}: process {failed.pid} was ended by {reason}; the same command resumes", file=sys.stderr
        )
        return 128 - failed.returncode
    if name != "0" and failed.returncode not in STOPPED:
        process = name if name == "scheduler" else f"worker {name}"
        print(f"error: {job.name}: {process} failed; see {_log(job, name)}", file=sys.stderr)
    return failed.returncode
