"""One line that moves on a terminal, a line now and then in a log."""

import sys
import time


class Bar:
    """`label [####----] 40 % rest` on stderr; `rest` is whatever the caller wants to say.

    In a log (no terminal) it writes at most one line every `seconds`.
    """

    def __init__(self, label: str, seconds: float = 10.0) -> None:
        self.label, self.seconds = label, seconds
        self.moves = sys.stderr.isatty()
        self.last, self.wrote = 0.0 if self.moves else time.monotonic(), False

    def show(self, done: int, total: int, rest: str = "") -> None:
        """Say that `done` of `total` is done."""
        now, finished = time.monotonic(), done >= total
        always = finished and (self.moves or self.wrote)  # a log hears of long runs only
        if not always and now - self.last < (0.1 if self.moves else self.seconds):
            return
        self.last, self.wrote = now, True
        share = done / total
        filled = round(24 * share)
        line = f"{self.label} [{'#' * filled}{'-' * (24 - filled)}] {share:4.0%} {rest}"
        if self.moves:
            sys.stderr.write(f"\r{line:<99}" + ("\n" if finished else ""))
        else:
            sys.stderr.write(line.rstrip() + "\n")
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """62 -> '1:02'."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
