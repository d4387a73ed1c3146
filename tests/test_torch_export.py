"""Anyone's module becomes a model file, or a one-line error and no file."""

import json
import warnings

import numpy as np
import onnx
import pytest
import torch

import runtimes
from export import ParityError, TorchModel, export_torch, forms
from export import torch_export as module_under_test
from export.derivatives import with_product
from runtimes import modelfile
from runtimes.spec import Condition, Sampler, Spec


class Convolutional(torch.nn.Module):
    """Somebody's own network: channels first inside, channels last outside."""

    def __init__(self, condition: Condition, channels: int = 2):
        super().__init__()
        self.first = torch.nn.Conv2d(channels, 8, 3, padding=1)
        self.last = torch.nn.Conv2d(8, channels, 3, padding=1)
        self.label = torch.nn.Embedding(condition.classes + 1, 8)
        self.context = torch.nn.Linear(condition.shape[-1] if condition.shape else 1, 8)

    def forward(self, x, time, condition=None):
        h = self.first(x.permute(0, 3, 1, 2)) + time[:, None, None, None]
        if condition is not None and condition.dtype == torch.int64:
            h = h + self.label(condition)[:, :, None, None]
        elif condition is not None:
            pooled = condition if condition.dim() == 2 else condition.mean(1)
            h = h + self.context(pooled)[:, :, None, None]
        return self.last(torch.nn.functional.silu(h)).permute(0, 2, 3, 1)


CONDITIONS = {
    "none": Condition(),
    "label": Condition("label", classes=3, names=("a", "b", "c")),
    "context": Condition("context", shape=(5,)),
    "sequence": Condition("context", shape=(4, 5)),
}


def spec_for(condition, **changes):
    return Spec(
        "own", (6, 4, 2), condition=condition, sampler=Sampler("heun", 4, guidance=1.5), **changes
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One exported file per kind of condition: (module, spec, path, report)."""
    folder = tmp_path_factory.mktemp("exported")
    made = {}
    for name, condition in CONDITIONS.items():
        torch.manual_seed(len(made))
        module, spec = Convolutional(condition), spec_for(condition)
        made[name] = (module, spec, folder / f"{name}.onnx", None)
        made[name] = (*made[name][:3], export_torch(module, spec, folder / f"{name}.onnx"))
    return made


@pytest.mark.parametrize("name", CONDITIONS)
def test_file_computes_what_torch_computes_at_other_batches(exported, name):
    module, spec, path, _ = exported[name]
    model, reference = runtimes.load(path), TorchModel(spec, module)
    rng = np.random.default_rng(5)
    for batch in (1, 2, 5, 17):
        x = rng.standard_normal((batch, *spec.shape)).astype(np.float32)
        times = rng.random(batch).astype(np.float32)
        condition = {
            "none": None,
            "label": rng.integers(0, 4, batch),
            "context": rng.standard_normal((batch, 5)).astype(np.float32),
            "sequence": rng.standard_normal((batch, 4, 5)).astype(np.float32),
        }[name]
        difference = model.network(x, times, condition) - reference.network(x, times, condition)
        assert np.abs(difference).max() < 2e-6


@pytest.mark.parametrize("name", CONDITIONS)
def test_torch_module_samples_by_the_same_call(exported, name):
    module, spec, path, _ = exported[name]
    request = {
        "none": {},
        "label": {"label": "b"},
        "context": {"context": np.ones(5, np.float32)},
        "sequence": {"context": np.ones((4, 5), np.float32)},
    }[name]
    mine = runtimes.sample(runtimes.load(path), 5, seed=3, **request)
    theirs = runtimes.sample(TorchModel(spec, module), 5, seed=3, **request)
    assert mine.shape == (5, *spec.shape)
    assert mine.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(mine, theirs, atol=1e-5 * np.abs(theirs).max())


def test_read_only_arrays_are_fed_without_a_warning(exported):
    """One context for a batch of one is a read-only view; torch warns of those, once a process."""
    module, spec, _, _ = exported["context"]
    x, context = np.zeros((1, *spec.shape), np.float32), np.ones((1, 5), np.float32)
    expected = TorchModel(spec, module).network(x, 0.5, context)
    context.flags.writeable = False
    torch.set_warn_always(True)
    try:
        assert np.array_equal(TorchModel(spec, module).network(x, 0.5, context), expected)
    finally:
        torch.set_warn_always(False)


def test_file_carries_spec_and_report_and_is_valid_onnx(exported):
    _, spec, path, report = exported["label"]
    onnx.checker.check_model(onnx.load(path), full_check=True)
    model = runtimes.load(path)
    assert model.spec == spec
    assert json.loads(model.file.metadata[modelfile.REPORT_KEY]) == json.loads(report.to_json())
    assert {row.batch for row in report.rows} == {1, 7}
    assert {row.step for row in report.rows} == set(range(21))  # 0 is the network itself
    assert 0.0 < report.worst.relative < 1e-5


def test_exporter_leaves_the_module_as_it_was(tmp_path):
    module = Convolutional(CONDITIONS["none"]).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    export_torch(module, spec_for(CONDITIONS["none"]), tmp_path / "a.onnx")
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_same_module_same_bytes(tmp_path, exported):
    module, spec, path, _ = exported["none"]
    export_torch(module, spec, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_gate_stops_a_graph_that_computes_something_else(tmp_path, monkeypatch):
    """A trace of other weights is what a wrong exporter would produce."""
    honest = module_under_test._trace
    wrong = Convolutional(CONDITIONS["none"])

    def trace(module, spec, example):
        with torch.no_grad():
            wrong.load_state_dict(module.state_dict())
            wrong.last.weight += 1e-3
        return honest(wrong, spec, example)

    monkeypatch.setattr(module_under_test, "_trace", trace)
    with pytest.raises(ParityError, match="relative error of at most 1e-04") as caught:
        export_torch(
            Convolutional(CONDITIONS["none"]), spec_for(CONDITIONS["none"]), tmp_path / "a.onnx"
        )
    assert not list(tmp_path.iterdir())
    assert "BEYOND" in caught.value.report.table()


def test_gate_stops_a_network_that_returns_nan(tmp_path):
    module = Convolutional(CONDITIONS["none"])
    with torch.no_grad():
        module.last.bias += float("nan")
    with pytest.raises((ParityError, FloatingPointError)):
        export_torch(module, spec_for(CONDITIONS["none"]), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


class Branching(Convolutional):
    """A forward whose graph depends on the batch."""

    def forward(self, x, time, condition=None):
        return super().forward(x, time) * (2.0 if len(x) > 4 else 1.0)


BAD = {
    "shape": (Convolutional(CONDITIONS["none"]), Spec("own", (6, 4, 3)), "expected to take"),
    "output": (torch.nn.Bilinear(1, 1, 1), Spec("own", (1,)), "module: expected"),
    "branch": (Branching(CONDITIONS["none"]), spec_for(CONDITIONS["none"]), "free batch"),
}


@pytest.mark.parametrize("name", BAD)
def test_module_that_does_not_fit_is_one_line_and_no_file(tmp_path, name):
    module, spec, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        export_torch(module, spec, tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_existing_file_is_kept_unless_forced(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"precious")
    module, spec = Convolutional(CONDITIONS["none"]), spec_for(CONDITIONS["none"])
    with pytest.raises(FileExistsError, match="--force"):
        export_torch(module, spec, path)
    assert path.read_bytes() == b"precious"
    export_torch(module, spec, path, overwrite=True)
    assert runtimes.load(path).spec == spec


def test_exporter_is_quiet(tmp_path, capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_torch(
            Convolutional(CONDITIONS["none"]), spec_for(CONDITIONS["none"]), tmp_path / "a.onnx"
        )
    assert [str(warning.message) for warning in caught] == []
    assert capfd.readouterr() == ("", "")


# The form that says J v beside the prediction


def ours(network, condition):
    """A small network of ours whose every layer counts: none left at its first zeros."""
    from toolkit.networks import NETWORKS, Sizes, layers_torch

    module = NETWORKS[network](layers_torch, Sizes((4, 4, 2), condition, 16, 1, 2, (2, 2)))
    rng = np.random.default_rng(3)
    layers_torch.fill(
        module,
        {
            name: (0.4 * rng.standard_normal(shape)).astype(np.float32)
            for name, shape in layers_torch.shapes(module).items()
        },
    )
    return module


PRODUCTS = {
    "mlp": (lambda: ours("mlp", CONDITIONS["label"]), CONDITIONS["label"], (4, 4, 2)),
    "dit": (lambda: ours("dit", CONDITIONS["sequence"]), CONDITIONS["sequence"], (4, 4, 2)),
    "own": (lambda: Convolutional(CONDITIONS["none"]), CONDITIONS["none"], (6, 4, 2)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_those_of_torch_and_of_differences(tmp_path, name):
    make, condition, shape = PRODUCTS[name]
    module, spec = make(), Spec("own", shape, condition=condition)
    report = export_torch(module, spec, tmp_path / "a.onnx", form="likelihood")
    assert sorted(row.batch for row in report.rows if row.what == "product") == [1, 7]
    assert report.table().count("product") == 2
    model, reference = runtimes.load(tmp_path / "a.onnx"), TorchModel(spec, module)
    rng = np.random.default_rng(5)
    x, probe = (rng.standard_normal((5, *shape)).astype(np.float32) for _ in range(2))
    given = {
        "none": None,
        "label": rng.integers(0, 4, 5),
        "context": rng.standard_normal((5, 4, 5)).astype(np.float32),
    }[condition.kind]
    times = rng.random(5).astype(np.float32)
    out, product = model.product(x, times, given, probe)
    for mine, theirs in zip(
        (out, product), reference.product(x, times, given, probe), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * np.abs(theirs).max())
    np.testing.assert_allclose(out, reference.network(x, times, given), rtol=1e-4, atol=1e-5)
    h = np.float32(2.0**-7)
    ends = [reference.network(x + sign * h * probe, times, given) for sign in (1, -1)]
    slope = (ends[0].astype(float) - ends[1]) / (2 * float(h))
    np.testing.assert_allclose(product, slope, atol=5e-3 * np.abs(slope).max())


def test_gate_stops_a_wrong_product(tmp_path, monkeypatch):
    def doubled(proto, spec, batch):
        grown = with_product(proto)
        grown.graph.node[-1].CopyFrom(
            onnx.helper.make_node("Sum", [grown.graph.node[-1].input[0]] * 2, ["product"])
        )
        return grown

    monkeypatch.setitem(forms.GROW, "likelihood", doubled)
    with pytest.raises(ParityError, match=r"product at batch [17]: .*nothing was written"):
        export_torch(
            Convolutional(CONDITIONS["none"]),
            spec_for(CONDITIONS["none"]),
            tmp_path / "a.onnx",
            form="likelihood",
        )
    assert not list(tmp_path.iterdir())


def test_operator_without_a_derivative_is_one_line_and_no_file(tmp_path):
    class Sorted(torch.nn.Module):
        def forward(self, x, time):
            return torch.topk(x, x.shape[-1]).values

    with pytest.raises(ValueError, match="derivative rule, got TopK") as caught:
        export_torch(Sorted(), Spec("sorted", (3,)), tmp_path / "a.onnx", form="likelihood")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
