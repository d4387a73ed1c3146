"""python -m tests.faults [ID...]: run the rows, print what was held and what was lost."""

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import rows, training

ROWS = [*rows.ROWS, *training.ROWS]


def tried(row):
    """(row, seconds, what went wrong or None)."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        try:
            row.check(Path(work))
        except training.Untried as why:
            return row, time.monotonic() - started, f"untried: {why}"
        except Exception as error:
            return row, time.monotonic() - started, f"{type(error).__name__}: {error}"[:300]
    return row, time.monotonic() - started, None


def _word(lost):
    return "held" if lost is None else "none" if lost.startswith("untried") else "LOST"


def main(wanted):
    started = time.monotonic()
    chosen = [row for row in ROWS if not wanted or row.id in wanted]
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        results = list(pool.map(tried, chosen))
    for row, seconds, lost in results:
        mark = "!" if row.never else " "
        print(f"{row.id:<14}{mark} {_word(lost)} {seconds:5.1f} s  {row.what}")
        if lost:
            print(f"               {lost}")
    untried = [row for row, _, words in results if words and words.startswith("untried")]
    lost = [row for row, _, words in results if words and row not in untried]
    count = len(chosen) - len(untried)
    print(
        f"\nfaults tried {count}, held {count - len(lost)}, lost {len(lost)} "
        f"(never-events {sum(row.never for row in lost)}), {time.monotonic() - started:.0f} s"
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
