"""The rows of training: data, checkpoints, resume, signals; and those of the release."""

# ruff: noqa: E501  (tables: one fault a line)

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from .rows import ROOT, Fault, _again, program, refused
from .run import run

STEPS = 60
TRAIN = ("train", "d.npz", "-o", "run", "--network", "mlp", "--batch", "16", "--steps", STEPS)
CHECKPOINT = f"checkpoint-{STEPS:08d}.safetensors"


class Untried(Exception):
    """This machine does not let the fault be made."""


def good_data(here):
    rng = np.random.default_rng(0)
    np.savez(
        here / "d.npz", x=rng.standard_normal((40, 2)).astype(np.float32), y=np.arange(40) % 3
    )


@functools.cache
def trained():
    """A folder with d.npz and a finished run of it, made once by the command line itself."""
    work = Path(tempfile.mkdtemp(prefix="faults"))
    (work / "here").mkdir()
    good_data(work / "here")
    done = run(work, "cli", *TRAIN, limit=120.0)
    assert done.code == 0, done.err
    return work / "here"


def with_run(change=lambda here: None):
    """A setup: the finished run, changed."""

    def setup(here):
        shutil.copytree(trained(), here, dirs_exist_ok=True)
        change(here)

    return setup


def resaved(change):
    """A change: the newest checkpoint as change(checkpoint) has it, sealed by its own author."""

    def setup(here):
        from toolkit import checkpoints

        checkpoints.save(here / "run", change(checkpoints.latest(here / "run")))

    return with_run(setup)


def without(start):
    return resaved(
        lambda saved: replace(
            saved, tensors={k: v for k, v in saved.tensors.items() if not k.startswith(start)}
        )
    )


def facts(**changed):
    return resaved(lambda saved: replace(saved, facts={**saved.facts, **changed}))


def held_by_another(here):
    shutil.copytree(trained(), here, dirs_exist_ok=True)
    from toolkit.lock import locked

    stack = contextlib.ExitStack()
    stack.enter_context(locked(here / "run"))
    return stack


def refused_with(setup, args, words, codes=(2,), limit=60.0):
    """Rule G for `toolkit *args` in a folder that `setup` has filled."""

    def check(work):
        (work / "here").mkdir()
        held = setup(work / "here")
        try:
            refused(None, args, words, codes, limit=limit)(_again(work))
        finally:
            if isinstance(held, contextlib.ExitStack):
                held.close()

    return check


def data(words, **arrays):
    return refused_with(lambda here: np.savez(here / "d.npz", **arrays), TRAIN, words)


def bomb(here):
    with (
        zipfile.ZipFile(here / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (17 << 18, 16)}
        )
        for _ in range(17):
            file.write(bytes(1 << 24))


def cut(number, code):
    """A signal during training: a checkpoint, that exit code, and a continuation with the same bits."""

    def check(work):
        here = work / "here"
        here.mkdir()
        good_data(here)
        long = (*TRAIN[:-1], 100_000)
        done = run(
            work, "cli", *long, send=number, ready=here / "run" / "metrics.jsonl", limit=30.0
        )
        assert done.code == code, (done.code, done.err)
        assert done.err.endswith("run: stopped and saved; go on with --resume\n"), done.err
        assert done.seconds < 5.0
        again = run(work, "python", CONTINUED, limit=120.0)
        assert (again.code, again.out, again.err) == (0, "", ""), (again.code, again.err[-800:])

    return check


def twice(work):
    """A second signal ends the run at once; what was saved before is whole."""
    here = work / "here"
    here.mkdir()
    good_data(here)
    done = run(
        work,
        "cli",
        *TRAIN[:-1],
        100_000,
        send=signal.SIGTERM,
        times=2,
        ready=here / "run" / "metrics.jsonl",
        limit=30.0,
    )
    assert done.code in (-signal.SIGTERM, 143), (done.code, done.err)
    from toolkit import checkpoints

    assert checkpoints.latest(here / "run").step >= 0


def killed(framework):
    """25 times kill -9 at a random moment of saving: the latest loads and is no older than reported."""

    def check(work):
        done = run(work, "python", KILLED, framework, limit=200.0)
        assert (done.code, done.out, done.err) == (0, "", ""), done.err[-800:]

    return check


def no_room(work, **limits):
    done = run(work, "cli", *TRAIN, limit=60.0, **limits)
    assert done.code == 1, (done.code, done.err)
    assert done.out == ""
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1].startswith("error: ")
    assert CHECKPOINT in done.err.splitlines()[-1]
    from toolkit import checkpoints

    assert checkpoints.latest(work / "here" / "run").step == 0
    assert not list((work / "here" / "run").glob(".*tmp*"))


def full_disk(work):
    """A file system of 6 MB: step 0 fits, the last checkpoint does not."""
    here = work / "here"
    here.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "none", here], capture_output=True
    )
    if mounted.returncode:
        raise Untried("no right to mount a small file system")
    try:
        good_data(here)
        no_room(work)
    finally:
        subprocess.run(["umount", here], check=True)


def file_limit(work):
    (work / "here").mkdir()
    good_data(work / "here")
    no_room(work, largest_file=4_000_000)


def wild_loss(work):
    """The first loss that is not finite ends the run, exit 1; the last checkpoint is finite."""
    here = work / "here"
    here.mkdir()
    np.savez(here / "d.npz", x=np.full((40, 2), 1e30, np.float32))
    done = run(work, "cli", *TRAIN, limit=60.0)
    assert (done.code, done.out) == (1, ""), (done.code, done.err)
    assert done.err.startswith("error: step 1: expected a finite loss"), done.err
    assert done.err.count("\n") == 1
    from toolkit import checkpoints

    assert all(
        np.isfinite(array).all() for array in checkpoints.latest(here / "run").tensors.values()
    )


def release(work):
    """SBOM and hashes: what a user runs finds every file whole, and a changed one."""
    here = work / "here"
    here.mkdir()
    (here / "toolkit-1-py3-none-any.whl").write_bytes(b"wheel")
    script = f"import runpy; from pathlib import Path; runpy.run_path({str(ROOT / 'examples' / 'release.py')!r})['release'](Path('.'))"
    done = run(work, "python", script)
    assert (done.code, done.out, done.err) == (0, "", ""), done.err
    assert done.changed == ["here/SHA256SUMS", "here/sbom.json"]
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=here).returncode == 0
    (here / "sbom.json").write_bytes(b"{}")
    assert subprocess.run(check, cwd=here, capture_output=True).returncode == 1


KILLED = """
import os, random, select, shutil, signal, time, warnings
from pathlib import Path
from toolkit import checkpoints
from toolkit.checkpoints import Checkpoint
if args[0] == "torch":
    import torch
    made = lambda step: torch.full((1_000_000,), float(step)).numpy()
else:
    import mlx.core as mx
    made = lambda step: mx.full((1_000_000,), float(step))
warnings.simplefilter("error")
folder, rng, at = Path("run"), random.Random(3), 0
folder.mkdir()
for kill in range(25):
    ear, mouth = os.pipe()
    child = os.fork()
    if not child:
        try:
            for step in range(at + 1, at + 10**6):
                checkpoints.save(folder, Checkpoint(step, {"network/a": made(step)}))
                os.write(mouth, step.to_bytes(8, "little"))
        finally:
            os._exit(1)
    os.close(mouth)
    first = os.read(ear, 8)
    time.sleep(rng.uniform(0.0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    reported = first
    while more := os.read(ear, 8):
        reported = more
    os.close(ear)
    found = checkpoints.latest(folder)  # a broken one would warn, so raise
    if found.step < int.from_bytes(reported, "little") or not (found.tensors["network/a"] == found.step).all():
        raise RuntimeError(f"kill {kill}: found {found.step}, reported {int.from_bytes(reported, 'little')}")
    checkpoints.tidy(folder)
    if list(folder.glob(".*")):
        raise RuntimeError("a temporary file stayed")
    at = found.step
shutil.rmtree(folder)
"""
CONTINUED = """
import shutil
from pathlib import Path
from toolkit import checkpoints, recipe
from toolkit.data import load
from toolkit.train_torch import train
data, cut = load("d.npz"), checkpoints.latest(Path("run"))
mine = recipe.from_json(Path("run/recipe.json").read_text())
stop = iter([False] * (cut.step + 19) + [True])
whole = [now.loss for now in train(mine, data, Path("whole"), device="cpu", stop=lambda: next(stop))]
stop = iter([False] * 19 + [True])
rest = [now.loss for now in train(mine, data, Path("run"), device="cpu", resume=True, stop=lambda: next(stop))]
if whole[cut.step:] != rest or len(rest) != 20:
    raise RuntimeError(f"losses differ: {whole[cut.step:]} {rest}")
a, b = checkpoints.latest(Path("whole")), checkpoints.latest(Path("run"))
if a.step != b.step or any((a.tensors[k] != b.tensors[k]).any() for k in a.tensors.keys() | b.tensors.keys()):
    raise RuntimeError("weights, averages or moments differ")
shutil.rmtree("whole")
shutil.rmtree("run")
"""
RESUMED = """
import shutil
from pathlib import Path
import numpy as np
from toolkit import recipe
from toolkit.data import Data
from toolkit.train_torch import train
rng = np.random.default_rng(0)
data = Data("d", rng.standard_normal((40, 2)).astype(np.float32), rng.integers(0, 3, 40), classes=3)
mine = recipe.Recipe("d", "mlp", 16, 1, steps=30, batch=16, save_every=7)
def go(out, upto, resume):
    left = iter([False] * (upto - go.at - 1) + [True] * 99)
    losses = [now.loss for now in train(mine, data, Path(out), device="cpu", resume=resume, stop=lambda: next(left))]
    go.at = upto
    return losses
go.at = 0
whole = go("whole", 30, False)
for stops in ((1, 30), (5, 30), (7, 30), (1, 2, 3, 30), (29, 30)):  # an epoch is 2.5 steps: 5 is its edge
    go.at, losses = 0, []
    for stop in stops:
        losses += go("cut", stop, go.at > 0)
    name = "checkpoint-00000030.safetensors"
    if losses != whole or Path("cut", name).read_bytes() != Path("whole", name).read_bytes():
        raise RuntimeError(f"stopped at {stops}: other bits")
    shutil.rmtree("cut")
shutil.rmtree("whole")
"""
X = np.zeros((40, 2), np.float32)
NAN = X.copy()
NAN[3, 1] = np.nan
RESUME = (*TRAIN, "--resume")
EXPORT = ("export", "run", "-o", "m.onnx")
ROWS = [
    Fault("C01", "25 kill -9 during saves, torch", killed("torch"), never=True),
    Fault("C01b", "25 kill -9 during saves, MLX", killed("mlx"), never=True),
    Fault("C03", "full disk (tmpfs of 6 MB)", full_disk, never=True),
    Fault("C03b", "file size limit", file_limit, never=True),
    Fault("C05", "resume at step 1, edge, mid-epoch, in a row", program(RESUMED, limit=120.0), never=True),
    Fault("C05b", "the same with MLX", program(RESUMED.replace("train_torch", "train_mlx"), limit=120.0), slow=True),
    Fault("C07", "SIGTERM while training", cut(signal.SIGTERM, 143), never=True),
    Fault("C07b", "Ctrl-C while training", cut(signal.SIGINT, 130), never=True, slow=True),
    Fault("C07c", "a second signal", twice, slow=True),
    Fault("C09", "resume from nowhere", refused_with(good_data, RESUME, "run: expected a run folder .* got no such"), never=True),
    Fault("C10", "resume with another seed", refused_with(with_run(), (*RESUME, "--seed", "7"), "seed: expected 0 .* got 7")),
    Fault("C10b", "resume with another network", refused_with(with_run(), (*RESUME, "--network", "dit"), "network: expected 'mlp' .* got 'dit'"), slow=True),
    Fault("C10c", "resume with other rows", refused_with(with_run(lambda here: np.savez(here / "d.npz", x=X, y=np.arange(40) % 3)), RESUME, "data: expected '[0-9a-f]{12}' .* got 'rows with SHA-256"), slow=True),
    Fault("C10d", "resume from another backend", refused_with(facts(framework="mlx"), (*RESUME, "--backend", "torch"), "framework: expected 'mlx' .* got 'torch'"), slow=True),
    Fault("C10e", "resume with another width", refused_with(resaved(lambda s: replace(s, facts={**s.facts, "recipe": {**s.facts["recipe"], "width": 256}})), RESUME, "width: expected 256 .* got 128"), slow=True),
    Fault("C11", "two trainers in one folder", refused_with(held_by_another, RESUME, "no other process training"), slow=True),
    Fault("C12", "a fresh start in a run folder", refused_with(with_run(), TRAIN, "give --resume or another --out"), slow=True),
    Fault("C18", "export without EMA", refused_with(without("ema/"), EXPORT, "expected ema/.* got none")),
    Fault("C18b", "export with a tensor missing", refused_with(without("ema/enter.weight"), EXPORT, "expected ema/enter.weight"), slow=True),
    Fault("C18c", "export of a checkpoint that is none", refused_with(facts(recipe=3), EXPORT, "without a recipe"), slow=True),
    Fault("D01", "NaN in the data", data(r"d\.npz: x: .* 1 NaN or Inf, the first at \(3, 1\)", x=NAN)),
    Fault("D01b", "Inf in the data", data("80 NaN or Inf, the first at", x=X + np.inf)),
    Fault("D01c", "no rows", data("empty", x=X[:0])),
    Fault("D01d", "fewer rows than a batch", data("at least 16 rows .* got 8", x=X[:8]), slow=True),
    Fault("D01e", "object arrays", data("object arrays", x=np.array([{}, 1], object))),
    Fault("D01f", "wrong rank", data("rank 2 or more", x=X[:, 0])),
    Fault("D01g", "negative labels", data("got -1..3, the first at 1", x=X[:3], y=np.array([0, -1, 3]))),
    Fault("D01h", "float labels", data("for labels use integers", x=X, y=X[:, 0])),
    Fault("D01i", "half a file", refused_with(lambda here: (here / "d.npz").write_bytes(b"PK\x03\x04 no more"), TRAIN, "d.npz: expected")),
    Fault("D02", "a decompression bomb", refused_with(bomb, TRAIN, "expected at most 200 times what is stored")),
    Fault("D02b", "a pipe as data", refused_with(lambda here: os.mkfifo(here / "d.npz"), TRAIN, "device or pipe")),
    Fault("D03", "a loss that is not finite", wild_loss, never=True),
    Fault("D04", "a misspelt option", refused_with(good_data, (*TRAIN, "--stesp", "3"), "--stesp.*--steps")),
    Fault("D04b", "a misspelt value", refused_with(good_data, (*TRAIN, "--schedule", "linaer"), "did you mean 'linear'")),
    Fault("F07", "release lists", release),
]  # fmt: skip
