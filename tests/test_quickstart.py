"""quickstart hands a signal on once and waits: the training inside it saves before it ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from toolkit.signals import ASKING

FAKE = """#!/bin/sh
trap 'printf x >> told; sleep 0.5; exit 143' TERM INT
touch ready
while :; do sleep 0.05; done
"""
PROGRAM = """
import sys
from toolkit.cli import quickstart
sys.executable = "./fake"
quickstart._run(["train"])
"""


@pytest.mark.parametrize("number", ASKING)
@pytest.mark.parametrize("everybody", [False, True], ids=["kill", "terminal"])
def test_a_signal_is_told_once_and_waited_for(number, everybody, tmp_path):
    (tmp_path / "fake").write_text(FAKE)
    (tmp_path / "fake").chmod(0o755)
    words = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        words, cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL
    ) as process:
        while not (tmp_path / "ready").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.1)
        (os.killpg if everybody else os.kill)(process.pid, number)
        assert process.wait(10) == 143
    assert (tmp_path / "told").read_text() == "x"


def test_a_command_that_is_killed_stops_the_chain(tmp_path):
    (tmp_path / "fake").write_text(f"#!/bin/sh\nkill -{int(signal.SIGKILL)} $$\n")
    (tmp_path / "fake").chmod(0o755)
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True)
    assert done.returncode == 137
