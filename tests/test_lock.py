"""Two processes never hold the same folder; a killed one leaves it free."""

import subprocess
import sys

import pytest

from toolkit.lock import locked

HOLD = "import sys, time; from pathlib import Path; from toolkit.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_second_process_is_refused_until_the_first_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(FileExistsError, match="another --out"), locked(tmp_path):
            pass
        other.kill()
        other.wait()
    with locked(tmp_path):
        pass


def test_lock_is_free_again_after_use_and_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path), pytest.raises(FileExistsError), locked(tmp_path):
        pass
