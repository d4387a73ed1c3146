"""The first SIGINT or SIGTERM asks a long run to stop after its step; a second one ends it at once."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

ASKING = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Asked:
    """Which signal has asked the run to stop, or None; `code` is the exit code it calls for."""

    number: int | None = None

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.number is not None

    @property
    def code(self) -> int:
        """128 + signal: 130 for Ctrl-C, 143 for SIGTERM; 0 if nobody asked."""
        return 0 if self.number is None else 128 + self.number


@contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """Catch SIGINT and SIGTERM for the length of a run; the former handlers come back after it."""
    asked = Asked()
    former = {number: signal.getsignal(number) for number in ASKING}

    def catch(number: int, frame: FrameType | None) -> None:
        if asked():  # the second one: as if we had never listened
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        asked.number = number
        sys.stderr.write("\nstopping after this step; once more to stop at once\n")

    try:
        for number in ASKING:
            signal.signal(number, catch)
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
