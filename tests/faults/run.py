"""A child process with limits on time, memory and file size; what it did, and what it left."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

SECONDS, RESIDENT, ADDRESSES = 10.0, 1_000_000_000, 8 << 30
CHILD = Path(__file__).with_name("child.py")
ENVIRONMENT = {
    "PYTHONPATH": str(CHILD.parents[2]),  # this tree, whatever else is installed
    "PATH": os.environ["PATH"],
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    # under a file size limit Python leaves half a .pyc in this tree, and all later children die of it
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True)
class Outcome:
    """How a child ended: exit code (negative: killed by that signal), words, cost, and its report."""

    code: int
    out: str
    err: str
    seconds: float  # since the signal, where one was sent
    resident: int
    report: str
    changed: list[str] = field(default_factory=list)

    @property
    def used_onnxruntime(self):
        return json.loads(self.report or "{}").get("onnxruntime")


def run(
    work, mode, *args, limit=SECONDS, largest_file=None, send=None, times=1, ready=None, flags=()
):
    """Run child.py in `work`/here; `send`: a signal to send once it has been busy for a second.

    times: how often to send it. ready: send it when this file is there instead.
    """
    here, report = work / "here", work / "report"
    here.mkdir(exist_ok=True)
    (work / "canary").write_bytes(b"canary: untouched")
    report.unlink(missing_ok=True)
    before = hashes(work)

    def limits():
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # deaf where we run in background
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    command = [sys.executable, *flags, str(CHILD), str(report), mode, *map(str, args)]
    with open(work / "out", "w+") as out, open(work / "err", "w+") as err:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=here, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            env={**ENVIRONMENT, "HOME": str(work / "no home")}, preexec_fn=limits,
        )  # fmt: skip
        if send is not None:
            started = _send(process, send, times, report, ready)
        code, used = _wait(process, started + limit)
        seconds = time.monotonic() - started
        out.seek(0), err.seek(0)
        words = out.read(), err.read()
    after = hashes(work)
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    text = report.read_text() if report.exists() else ""
    return Outcome(code, *words, seconds, used.ru_maxrss * 1024, text, changed)


def _send(process, number, times, report, ready):
    deadline = time.monotonic() + (SECONDS if ready is None else 60.0)
    while not (ready or report).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.5 if ready is None else 0.0)
    for _ in range(times):
        os.kill(process.pid, number)
        time.sleep(0.01)
    return time.monotonic()


def _wait(process, deadline):
    """(exit code, resources used); killed at the deadline, which shows as code -9."""
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, used
        if time.monotonic() > deadline:
            process.send_signal(signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.01)


def hashes(work):
    """SHA-256 of every file under `work`, the child's own channels left out."""
    return {
        str(path.relative_to(work)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(work.rglob("*"))
        if path.is_file() and path not in (work / "report", work / "out", work / "err")
    }
