"""The C++ client, compiled against another release of ONNX Runtime, draws the picture that Python draws."""

import shutil
import subprocess

import numpy as np
import onnx
import onnxruntime
import pytest

import runtimes
from export.sampler import seeded

from .conftest import faces_bytes
from .test_source import ROOT

BUILD = ROOT / "examples" / "cpp" / "build.sh"
pytestmark = [
    pytest.mark.slow,  # the first build downloads 150 MB
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in ("g++", "npm", "bash")),
        reason="needs g++ and npm",
    ),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("cpp") / "sample"
    try:
        built = subprocess.run(
            ["bash", BUILD, path], capture_output=True, text=True, check=False, timeout=600
        )
    except subprocess.TimeoutExpired:
        pytest.skip("onnxruntime: expected npm to fetch it in ten minutes, got no end")
    if built.returncode == 3:
        pytest.skip(built.stderr)
    assert built.returncode == 0, built.stderr
    assert "warning" not in built.stderr
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Path of the picture model as a network, and of the same that needs a seed only."""
    folder = tmp_path_factory.mktemp("seeded")
    (folder / "network.onnx").write_bytes(faces_bytes())
    spec = runtimes.load(folder / "network.onnx").spec
    network = onnx.load_model_from_string(faces_bytes())
    (folder / "seeded.onnx").write_bytes(seeded(network, spec).SerializeToString())
    return folder / "network.onnx", folder / "seeded.onnx"


def draw(program, *args):
    return subprocess.run([program, *map(str, args)], capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize(("seed", "label"), [(0, 0), (7, 2), (2**53 - 1, 3)])
def test_picture_is_that_of_python(program, model, seed, label):
    network, file = model
    drawn = draw(program, file, seed, label)
    assert (drawn.returncode, drawn.stderr) == (0, b"")
    head, pixels = drawn.stdout.split(b"\n", 1)
    assert head == b"P5 8 8 255"
    picture = np.frombuffer(pixels, np.uint8).reshape(1, 8, 8, 1)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(file), options)
    (same,) = session.run(["image"], {"seed": np.array([seed]), "label": np.array([label])})
    np.testing.assert_array_equal(picture, same)
    word = "none" if label == 3 else label
    x = runtimes.sample(runtimes.load(network), 1, label=word, seed=seed)
    np.testing.assert_allclose(picture, np.clip((x + 1) * 127.5, 0, 255), atol=0.51)
    assert picture.std() > 10


@pytest.mark.parametrize("args", [(), ("nothing.onnx", 0, 0)])
def test_what_goes_wrong_is_one_line(program, args):
    drawn = draw(program, *args)
    assert (drawn.returncode, drawn.stdout) == (1, b"")
    assert drawn.stderr.startswith(b"error: ")
    assert drawn.stderr.count(b"\n") == 1
