"""Inside a fault's process: the command line, or many files one after the other.

Run by path, so that nothing but the toolkit is imported: child.py REPORT MODE ARGUMENTS...
"""

import json
import sys
from pathlib import Path


def cli(report, args):
    """`toolkit ARGS`; the report says whether ONNX Runtime was ever imported."""
    from toolkit.cli import main

    report.write_text("{}")  # seen from outside: the start-up is over
    try:
        main(args)
    finally:
        report.write_text(json.dumps({"onnxruntime": "onnxruntime" in sys.modules}))


def files(report, args):
    """Open and sample each file: a line 'name outcome' for each, written before the next begins."""
    import numpy as np

    import runtimes

    with report.open("a") as lines:
        for path in args:
            lines.write(f"{Path(path).name} ")
            lines.flush()
            try:
                model = runtimes.load(path, provider="cpu", threads=1)
                x = runtimes.sample(model, 3, label=[0, 1, 2], steps=2, guidance=1.5)
                good = x.shape == (3, 8, 8, 1) and x.dtype == np.float32 and np.isfinite(x).all()
                outcome = "sampled" if good else "WRONG"
            except (ValueError, FloatingPointError) as error:
                outcome = "refused" if str(error) and "\n" not in str(error) else "UNREADABLE"
            except BaseException as error:
                outcome = f"RAISED {type(error).__name__}: {error}"[:200].replace("\n", " ")
            lines.write(f"{outcome}\n")
            lines.flush()


def python(report, args):
    """A program of one argument; it prints nothing and raises if a promise is broken."""
    report.write_text("{}")
    exec(compile(args[0], "fault", "exec"), {"__name__": "__main__", "args": args[1:]})


if __name__ == "__main__":
    {"cli": cli, "files": files, "python": python}[sys.argv[2]](Path(sys.argv[1]), sys.argv[3:])
