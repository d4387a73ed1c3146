"""Small model files that every test may open; one thread for numpy's and torch's small sums.

Two threads gain nothing at these sizes, and on a busy machine they wait for each other.
"""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtimes import modelfile
from runtimes.spec import Condition, Sampler, Spec, to_json
from toolkit.cli import main

# read when torch is first imported; children inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def toolkit(capfd):
    """Run a command in this process: (exit code, stdout, stderr)."""

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return run


def sealed(nodes, initializers, spec, inputs, *, opset=20, extra=()):
    """Model bytes around a few nodes: spec in the metadata, sealed. `extra`: more metadata."""
    shape = ["batch", *spec.shape]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in inputs],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    for key, text in ((modelfile.SPEC_KEY, to_json(spec)), *extra):
        model.metadata_props.add(key=key, value=text)
    return modelfile.seal(model.SerializeToString())


def faces_bytes(spec=None, pictures=None):
    """A labelled 8x8 model: prediction = picture[label] - x, with random pictures, null = zeros."""
    spec = spec or Spec(
        "faces",
        (8, 8, 1),
        condition=Condition("label", classes=3, names=("cat", "dog", "owl")),
        sampler=Sampler("heun", 4, guidance=1.5),
        value_range=(-1.0, 1.0),
        training={"data": "drawn at random"},
    )
    if pictures is None:
        pictures = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1)).astype(np.float32)
        pictures[-1] = 0.0
    return sealed(
        [
            helper.make_node("Gather", ["pictures", "label"], ["picture"]),
            helper.make_node("Sub", ["picture", "x"], ["prediction"]),
        ],
        {"pictures": pictures},
        spec,
        [
            ("x", TensorProto.FLOAT, ["batch", 8, 8, 1]),
            ("time", TensorProto.FLOAT, ["batch"]),
            ("label", TensorProto.INT64, ["batch"]),
        ],
    )


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """Path of the labelled picture model."""
    path = tmp_path_factory.mktemp("models") / "faces.onnx"
    path.write_bytes(faces_bytes())
    return path


@pytest.fixture(scope="session")
def points(tmp_path_factory):
    """Path of an unlabelled 2-D model: prediction = -x."""
    path = tmp_path_factory.mktemp("models") / "points.onnx"
    path.write_bytes(
        sealed(
            [helper.make_node("Neg", ["x"], ["prediction"])],
            {},
            Spec("points", (2,)),
            [("x", TensorProto.FLOAT, ["batch", 2]), ("time", TensorProto.FLOAT, ["batch"])],
        )
    )
    return path
