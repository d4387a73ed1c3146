"""The whole chain as a newcomer runs it, judged on digits it was never trained on. Minutes, so slow."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from toolkit import data
from toolkit.objectives import best_linear_loss

MINUTES = 15  # on two quiet cores it takes under three; CI's may be shared


def toolkit(folder, *args):
    """Run a command as a person would: what it printed."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "toolkit", *args]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_quickstart_draws_digits_that_pass_every_gate(tmp_path):
    started = time.monotonic()
    out = toolkit(tmp_path, "quickstart")
    assert time.monotonic() - started < 60 * MINUTES
    assert f"open {tmp_path / 'quickstart' / 'samples.png'}" in out

    log = (tmp_path / "quickstart" / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["mean_loss"] < best_linear_loss(data.load("digits").x)

    for seed in ("0", "1"):  # `evaluate` exits 1 when a gate is missed
        table = toolkit(tmp_path, "evaluate", "quickstart/digits.onnx", "--seed", seed)
        assert len(re.findall("pass$", table, re.M)) == 5
    spec = json.loads(toolkit(tmp_path, "inspect", "quickstart/digits.onnx", "--json"))["spec"]
    assert spec["shape"] == [8, 8, 1]
    assert spec["training"]["data"] == "digits"
