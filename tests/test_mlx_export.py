"""Anyone's MLX module becomes a model file, or a one-line error and no file."""

import json
import subprocess
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import onnx
import pytest

import runtimes
from examples import mlx_against_torch
from export import MlxModel, ParityError, export_mlx, forms, mlx_marks
from export import mlx_export as module_under_test
from runtimes import modelfile
from runtimes.spec import Condition, Spec

from .mlx_networks import NETWORKS, Convolutional
from .mlx_programs import drawn


def requests(spec, batch, rng):
    """(x, times, condition) with a time and a condition per row."""
    x = rng.standard_normal((batch, *spec.shape)).astype(np.float32)
    condition = {
        "none": None,
        "label": rng.integers(0, spec.condition.classes + 1, batch),
        "context": rng.standard_normal((batch, *spec.condition.shape)).astype(np.float32),
    }[spec.condition.kind]
    return x, rng.random(batch).astype(np.float32), condition


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One file per network: (module, spec, path, report)."""
    folder = tmp_path_factory.mktemp("exported")
    made = {}
    for name, (spec, make) in NETWORKS.items():
        module = make()
        path = folder / f"{name}.onnx"
        made[name] = (module, spec, path, export_mlx(module, spec, path))
    return made


@pytest.mark.parametrize("name", NETWORKS)
def test_file_computes_what_mlx_computes_at_other_batches(exported, name):
    module, spec, path, _ = exported[name]
    model, reference = runtimes.load(path), MlxModel(spec, module)
    rng = np.random.default_rng(5)
    for batch in (1, 2, 5, 17):
        points = requests(spec, batch, rng)
        theirs = reference.network(*points)
        assert np.abs(model.network(*points) - theirs).max() < 1e-5 * max(1, np.abs(theirs).max())


@pytest.mark.parametrize("name", ["none", "label", "context", "sequence", "video"])
def test_mlx_module_samples_by_the_same_call(exported, name):
    module, spec, path, _ = exported[name]
    request = {
        "none": {},
        "label": {"label": "b"},
        "context": {"context": np.ones(5, np.float32)},
        "sequence": {"context": np.ones((4, 5), np.float32)},
        "video": {},
    }[name]
    mine = runtimes.sample(runtimes.load(path), 3, seed=3, steps=4, **request)
    theirs = runtimes.sample(MlxModel(spec, module), 3, seed=3, steps=4, **request)
    assert mine.shape == (3, *spec.shape)
    np.testing.assert_allclose(mine, theirs, atol=2e-5 * np.abs(theirs).max())


def test_file_carries_spec_and_report_and_is_valid_onnx(exported):
    _, spec, path, report = exported["label"]
    onnx.checker.check_model(onnx.load(path), full_check=True)
    model = runtimes.load(path)
    assert model.spec == spec
    assert model.file.opset == forms.OPSET
    assert json.loads(model.file.metadata[modelfile.REPORT_KEY]) == json.loads(report.to_json())
    assert report.framework.startswith("mlx 0.")
    assert 0.0 < report.worst.relative < 1e-5


def test_inputs_are_named_and_the_batch_is_free(exported):
    _, _, path, _ = exported["label"]
    graph = onnx.load(path).graph
    sizes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert sizes == {
        "x": ["batch", 6, 4, 2],
        "time": ["batch"],
        "label": ["batch"],
        "prediction": ["batch", 6, 4, 2],
    }


def test_convolutions_are_written_without_a_node_to_spare(exported):
    """One Transpose in and one out; the biases are the convolutions' own."""
    _, _, path, _ = exported["none"]
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert sorted(kinds) == sorted(
        ["Transpose", "Conv", "Reshape", "Add", "Sigmoid", "Mul", "Conv", "Transpose"]
    )


def test_same_module_same_bytes(tmp_path, exported):
    module, spec, path, _ = exported["unet"]
    export_mlx(module, spec, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("form", forms.GROW)
def test_every_form_comes_from_mlx_too(tmp_path, exported, form):
    module, spec, _, _ = exported["label"]
    report = export_mlx(module, spec, tmp_path / "a.onnx", form=form)
    assert report.worst.relative < 1e-5
    assert runtimes.load(tmp_path / "a.onnx").form == form


# MLX and torch, one graph


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "video" else [])
        for name in mlx_against_torch.TWINS
    ],
)
def test_no_more_nodes_than_the_torch_twin_and_the_same_outputs(tmp_path, name):
    small = {"width": 16, "depth": 1} if name in ("mlp", "dit") else {"width": 8}
    twins = mlx_against_torch.TWINS[name](**small)
    files, _ = mlx_against_torch.exported(tmp_path, twins)
    counts = [len(onnx.load(file).graph.node) for file in files]
    assert counts[0] <= counts[1]
    for batch in (1, 8):
        error, _ = mlx_against_torch.compared(files, twins[2], batch, rounds=0)
        assert error < 1e-5


# What an export leaves behind: nothing


def runs_in_python(times):
    """How often a compiled function of MLX is run by Python in so many calls."""
    calls = []

    def function(x):
        calls.append(1)
        return x * 2

    compiled = mx.compile(function)
    for _ in range(times):
        compiled(mx.array(1.0))
    return len(calls)


def test_exporter_leaves_module_and_mlx_as_they_were(tmp_path):
    module = drawn(Convolutional(Condition()))
    module.train()
    module.last.eval()
    places = [(owner, name) for owner, name, _ in mlx_marks.MARKS]
    before = [owner.__dict__[name] for owner, name in places], mx.contiguous
    mx.random.seed(7)
    expected = mx.random.normal((4,)).tolist()
    mx.random.seed(7)
    export_mlx(module, Spec("own", (6, 4, 2)), tmp_path / "a.onnx")
    assert ([owner.__dict__[name] for owner, name in places], mx.contiguous) == before
    assert mx.random.normal((4,)).tolist() == expected
    assert [part.training for part in (module, module.first, module.last)] == [True, True, False]
    assert runs_in_python(3) == 1


def test_marks_are_taken_off_after_an_error(tmp_path):
    before = [owner.__dict__[name] for owner, name, _ in mlx_marks.MARKS]
    with pytest.raises(ValueError, match="values"):
        export_mlx(lambda x, time: x if x.sum() > 0 else -x, Spec("a", (3,)), tmp_path / "a.onnx")
    assert [owner.__dict__[name] for owner, name, _ in mlx_marks.MARKS] == before


def test_compilation_that_was_off_stays_off(tmp_path):
    mx.disable_compile()
    try:
        export_mlx(lambda x, time: nn.silu(x), Spec("a", (3,)), tmp_path / "a.onnx")
        assert runs_in_python(3) == 3
    finally:
        mx.enable_compile()


def test_weights_that_are_not_evaluated_yet_are_no_random_draws(tmp_path):
    layer = nn.Linear(3, 3)
    export_mlx(lambda x, time: layer(x) * time[:, None], Spec("a", (3,)), tmp_path / "a.onnx")
    assert runtimes.load(tmp_path / "a.onnx").network(np.ones((2, 3), np.float32), 1.0).any()


def test_exporter_is_quiet_and_needs_no_torch(tmp_path):
    script = """
import sys
sys.modules["torch"] = None
import mlx.nn as nn
from export import export_mlx
from runtimes.spec import Spec
layer = nn.Linear(3, 3)
print(export_mlx(lambda x, time: layer(x), Spec("a", (3,)), sys.argv[1]).worst.relative < 1e-6)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, tmp_path / "a.onnx"],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


# Faults


def test_gate_stops_a_graph_that_computes_something_else(tmp_path, monkeypatch):
    honest = module_under_test.translate

    def wrong(program, names, output):
        model = honest(program, names, output)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4:
                changed = onnx.numpy_helper.to_array(tensor) * np.float32(1.001)
                tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
        return model

    monkeypatch.setattr(module_under_test, "translate", wrong)
    with pytest.raises(ParityError, match="relative error of at most 1e-04"):
        export_mlx(drawn(Convolutional(Condition())), Spec("own", (6, 4, 2)), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def by_length(x):
    return x * 2 if x.shape[0] > 12 else x + 1


def dropped(x):
    return nn.Dropout(0.5)(x)


FAULTS = {
    "branch on values": (
        lambda x: x if x.sum() > 0 else x * 2,
        "steps do not depend on values, got one that looks at them .*; use mx.where",
    ),
    "item": (lambda x: x * x.sum().item(), "steps do not depend on values"),
    "through numpy": (lambda x: mx.array(np.array(x)), "steps do not depend on values"),
    "unknown primitive": (
        lambda x: x + mx.linalg.inv(mx.eye(8) + x[0, :1].T @ x[0, :1], stream=mx.cpu)[0],
        r'got Inverse \(8, 8\) -> \(8, 8\); .* add "Inverse": function to PRIMITIVES',
    ),
    "unknown use": (lambda x: mx.cummax(x, 1), r"running sums alone .* got Scan to \(batch, 6, 8\)"),
    "beyond MLX": (mx.checkpoint(lambda x: x * 2), r"got CustomTransforms on \(11, 6, 8\)"),
    "float64": (
        lambda x: (x.astype(mx.float64) * 2).astype(mx.float32),
        r"got float64 \(.*\) in \w+; cast to float32",
    ),
    "float64 constant": (
        lambda x: x + mx.array(np.ones(8), dtype=mx.float64).astype(mx.float32),
        r"got float64 \(8\) in AsType; cast to float32",
    ),
    "complex": (lambda x: mx.fft.fft(x).real, r"got complex64 \(batch, 6, 8\) in AsType"),
    "complex constant": (lambda x: (x * mx.array(1 + 2j)).real, "got complex64"),
    "branch on the batch": (by_length, "structure changes with it .*Python branches on the batch"),
    "loop over the batch": (lambda x: mx.stack([row * 2 for row in x]), "structure changes"),
    "constant of the batch": (
        lambda x: x + mx.array(np.arange(len(x), dtype=np.float32))[:, None, None],
        r"constants that do not depend on the batch, got an array \(11,\) at 11",
    ),
    "number of the batch": (
        lambda x: x * float(np.log(len(x))),
        "constants that do not depend on the batch, got 2.39",
    ),
    "square of the batch": (
        lambda x: x + mx.zeros((len(x) ** 2,)).sum(),
        r"sizes that are a \+ b \* batch, got \[121, 169, 361\]",
    ),
    "slice of the batch": (
        lambda x: x.at[len(x) - 1 :].add(1.0),
        "place does not depend on the batch",
    ),
    "random draw": (lambda x: x + mx.random.normal(x.shape), "without random draws"),
    "dropout in a function": (dropped, "without random draws"),
    "shape": (lambda x: x[:, :3], r"return float32 \(3, 6, 8\), got float32 \(3, 3, 8\)"),
    "no array": (lambda x: None, "expected to take .* AttributeError"),
    "arguments": (lambda: None, "expected to take .* TypeError"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_one_line_and_no_file(tmp_path, name):
    function, words = FAULTS[name]
    with pytest.raises(ValueError, match=words) as caught:
        export_mlx(lambda x, time: function(x), Spec("a", (6, 8)), tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("module: expected")
    assert not list(tmp_path.iterdir())


def test_existing_file_is_kept(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="--force"):
        export_mlx(lambda x, time: -x, Spec("a", (3,)), path)
    assert path.read_bytes() == b"precious"
    export_mlx(lambda x, time: -x, Spec("a", (3,)), path, overwrite=True)
    assert runtimes.load(path).spec.name == "a"


def test_quantised_weights_stay_small_in_the_file(tmp_path):
    layer = drawn(nn.Linear(128, 128))
    packed = nn.QuantizedLinear.from_linear(layer, group_size=64, bits=8)
    sizes = []
    for k, part in enumerate((layer, packed)):
        path = tmp_path / f"{k}.onnx"
        export_mlx(lambda x, time, part=part: part(x), Spec("a", (128,)), path)
        sizes.append(path.stat().st_size)
    operators = runtimes.load(tmp_path / "1.onnx").file.operators
    assert operators["DequantizeLinear"] == 1
    assert sizes[1] < 0.4 * sizes[0]
