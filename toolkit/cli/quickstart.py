"""`toolkit quickstart`: the three commands a newcomer would type next, run one after the other."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from toolkit.signals import ASKING


@click.command()
@click.option(
    "-o", "--out", default="quickstart", show_default=True, help="The folder to work in."
)
@click.option("--steps", type=int, help="Training steps.  [the digits default]")
def quickstart(out: str, steps: int | None) -> None:
    """Train digits, export digits.onnx and draw samples.png: two to three minutes on two CPU cores.

    Each command is shown as you would type it and runs as a process of its own, so the samples are
    drawn by ONNX Runtime with no torch in sight. An interrupted quickstart goes on where it stopped.

    \b
    toolkit quickstart --out quickstart
    """
    folder, started = Path(out), time.perf_counter()
    run, model, picture = folder / "run", folder / "digits.onnx", folder / "samples.png"
    folder.mkdir(parents=True, exist_ok=True)
    train = ["train", "digits", "--out", str(run)]
    train += ["--resume"] if any(run.glob("checkpoint-*")) else []
    train += [] if steps is None else ["--steps", str(steps)]
    _run(train)
    _run(["export", str(run), "--out", str(model), "--force"])
    labels = ",".join("0123456789")
    _run(["sample", str(model), "-n", "100", "--label", labels, "--out", str(picture), "--force"])
    click.echo(
        f"\ndone in {time.perf_counter() - started:.0f} s: open {picture.resolve()}\n"
        f"next: toolkit inspect {model}; toolkit evaluate {model}"
    )


def _run(args: list[str]) -> None:
    """Show a command, run it, and stop with its exit code if it fails; it has said why itself.

    It runs in a group of its own and hears every signal once, from here: Ctrl-C at a terminal would
    reach it twice, and then it would end without saving.
    """
    click.secho(f"\n$ toolkit {shlex.join(args)}", bold=True)
    group = {"process_group": 0} if os.name == "posix" else {}
    former = {number: signal.getsignal(number) for number in ASKING}
    early: list[int] = []
    try:
        for number in ASKING:  # until there is somebody to tell
            signal.signal(number, lambda number, frame: early.append(number))
        command = subprocess.Popen([sys.executable, "-m", "toolkit", *args], **group)
        for number in ASKING:
            signal.signal(number, lambda number, frame: command.send_signal(number))
        for number in early:
            command.send_signal(number)
        code = command.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if code:
        raise SystemExit(code if code > 0 else 128 - code)
