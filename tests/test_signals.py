"""One signal asks, two end, and the handlers of before come back."""

import os
import signal
import subprocess
import sys

import pytest

from toolkit.signals import ASKING, asked_to_stop


@pytest.mark.parametrize("number", ASKING)
def test_first_signal_asks_and_handlers_come_back(number, capfd):
    before = {one: signal.getsignal(one) for one in ASKING}
    with asked_to_stop() as asked:
        assert not asked()
        assert asked.code == 0
        os.kill(os.getpid(), number)
        assert asked()
        assert asked.code == 128 + number
    assert {one: signal.getsignal(one) for one in ASKING} == before
    assert "stopping after this step" in capfd.readouterr().err


@pytest.mark.parametrize("number", ASKING)
def test_second_signal_ends_the_process_at_once(number):
    program = (
        "import os, time\n"
        "from toolkit.signals import asked_to_stop\n"
        "with asked_to_stop():\n"
        f"    os.kill(os.getpid(), {int(number)}); os.kill(os.getpid(), {int(number)})\n"
        "    time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)
    assert done.returncode == -number
