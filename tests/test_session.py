import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from runtimes.modelfile import ModelError
from runtimes.providers import PROVIDERS
from runtimes.schedules import SCHEDULES
from runtimes.session import load
from runtimes.spec import Condition

from .problems import (
    MIXTURE,
    Mixture,
    graph,
    image_graph,
    mixture_graph,
    mixture_spec,
    proto,
    starts,
    write_onnx,
    write_proto,
)

FLOAT, INT64, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.DOUBLE


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return load(write_onnx(tmp_path_factory.mktemp("session") / "mixture.onnx"), threads=1)


def neg(inputs, sizes, out="prediction"):
    made = graph([helper.make_node("Neg", ["x"], [out])], inputs, sizes)
    made.output[0].name = out
    return made


def x_time(x=("B", 2), time=("B",), kind=FLOAT):
    return [("x", kind, list(x)), ("time", kind, list(time))]


def test_network_is_the_mixture(mixture):
    x = starts(50).astype(np.float32)
    for t in (0.0, 0.3, 0.77, 1.0):
        out = mixture.network(x, t)
        assert out.dtype == np.float32
        exact = MIXTURE.velocity(x.astype(np.float64), SCHEDULES["linear"](t))
        np.testing.assert_allclose(out, exact, atol=2e-5)


def test_one_time_per_row(mixture):
    x, t = starts(3).astype(np.float32), np.array([0.1, 0.5, 0.9], np.float32)
    rows = [mixture.network(x[k : k + 1], float(t[k]))[0] for k in range(3)]
    np.testing.assert_array_equal(mixture.network(x, t), rows)


def test_labels_pick_the_mode(tmp_path):
    model = load(write_onnx(tmp_path / "a.onnx", labelled=True))
    x = starts(9).astype(np.float32)
    out = model.network(x, 0.6, np.arange(9))
    for k in range(9):
        part = Mixture(MIXTURE.means[k : k + 1] if k < 8 else MIXTURE.means)
        exact = part.velocity(x[k : k + 1].astype(np.float64), SCHEDULES["linear"](0.6))
        np.testing.assert_allclose(out[k : k + 1], exact, atol=2e-5)


def test_rows_do_not_depend_on_their_batch(mixture, tmp_path):
    shape = (4, 6, 3)
    spec = mixture_spec(shape=shape)
    image = load(write_onnx(tmp_path / "i.onnx", spec=spec, graph=image_graph(shape)))
    for model in (mixture, image):
        x = np.random.default_rng(0).standard_normal((33, *model.spec.shape)).astype(np.float32)
        whole = model.network(x, 0.4)
        for part in (slice(0, 1), slice(5, 12), slice(32, 33)):
            np.testing.assert_array_equal(model.network(x[part], 0.4), whole[part])


def test_the_open_model(mixture):
    assert mixture.spec == mixture_spec()
    assert mixture.provider in ("cpu", "cuda")
    assert mixture.file.operators["Softmax"] == 1


def test_a_bad_call_is_one_readable_error(mixture, capfd):
    x = np.zeros((2, 2), np.float32)
    for bad in (x.astype(np.float64), x[:, :1], x[0], np.zeros((2, 3), np.float32)):
        with pytest.raises((ModelError, ValueError)) as error:
            mixture.network(bad, 0.5)
        assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert np.isfinite(mixture.network(x, 0.5)).all()  # and it still works


def test_a02_spec_not_json(tmp_path):
    path = write_proto(tmp_path / "a.onnx", proto(mixture_graph(), "{not JSON"))
    with pytest.raises(ModelError, match=r"a\.onnx: spec: expected JSON, got '{not JSON'"):
        load(path)


def refuse(path, *words):
    with pytest.raises(ModelError) as error:
        load(path)
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    for word in words:
        assert word in text


WRONG = {
    "shape": ({"shape": (3,)}, x_time(), ("(B, 3)", "(B, 2)")),
    "rank": ({"shape": (2, 1)}, x_time(), ("(B, 2, 1)", "(B, 2)")),
    "name": ({}, [("y", FLOAT, ["B", 2]), *x_time()], ("y float (B, 2)",)),
    "dtype": ({}, x_time(kind=DOUBLE), ("x float (B, 2)", "x double (B, 2)")),
    "label": (
        {"condition": Condition("label", 8)},
        x_time(),
        ("label int64 (B)",),
    ),
    "label type": (
        {"condition": Condition("label", 8)},
        [*x_time(), ("label", FLOAT, ["B"])],
        ("label int64 (B)", "label float (B)"),
    ),
    "context": (
        {"condition": Condition("context", shape=(4, 5))},
        [*x_time(), ("context", FLOAT, ["B", 4, 6])],
        ("context float (B, 4, 5)", "context float (B, 4, 6)"),
    ),
    "not labelled": ({}, [*x_time(), ("label", INT64, ["B"])], ("label int64 (B)",)),
    "fixed batch": ({}, x_time(x=(1, 2)), ("free batch",)),
    "fixed time": ({}, x_time(time=(1,)), ("free batch",)),
    "scalar time": ({}, x_time(time=()), ("free batch",)),
    "free width": ({}, x_time(x=("B", "W")), ("(B, 2)", "(B, W)")),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a07_spec_and_graph_differ(tmp_path, fault, capfd):
    changes, inputs, words = WRONG[fault]
    used = inputs[0][0]
    made = neg(inputs, [*inputs[0][2]])
    made.node[0].input[0] = used
    made.output[0].type.tensor_type.elem_type = inputs[0][1]
    refuse(write_onnx(tmp_path / "a.onnx", spec=mixture_spec(**changes), graph=made), *words)
    assert capfd.readouterr() == ("", "")


def test_a07_output(tmp_path):
    refuse(
        write_onnx(tmp_path / "a.onnx", graph=neg(x_time(), ["B", 2], out="velocity")),
        "outputs prediction float (B, 2)",
        "velocity float (B, 2)",
    )


def test_an_output_of_the_wrong_size_is_refused_when_called(tmp_path):
    """Declared (B, 2), but rows are dropped: ONNX Runtime itself does not hold B to one value."""
    nodes = [
        helper.make_node("Cast", ["time"], ["keep"], to=onnx.TensorProto.BOOL),
        helper.make_node("Compress", ["x", "keep"], ["prediction"], axis=0),
    ]
    model = load(write_onnx(tmp_path / "a.onnx", graph=graph(nodes, x_time(), ["B", 2])))
    with pytest.raises(ModelError, match=r"expected predictions of shape \(3, 2\), got \(2, 2\)"):
        model.network(np.zeros((3, 2), np.float32), np.array([0.5, 0, 1], np.float32))


@pytest.mark.parametrize("newer", [{"opset": 999}, {"ir": 999}])
def test_a08_newer_onnx(tmp_path, newer, capfd):
    model = proto(mixture_graph(), mixture_spec(), **newer)
    refuse(write_proto(tmp_path / "a.onnx", model), "made by a newer version")
    assert capfd.readouterr() == ("", "")


def test_a08_newer_spec(tmp_path):
    raw = {"name": "a", "shape": [2], "version": 999}
    refuse(
        write_proto(tmp_path / "a.onnx", proto(mixture_graph(), json.dumps(raw))),
        "spec.version",
        "made by a newer version",
    )


def test_a_graph_that_onnxruntime_does_not_open(tmp_path, capfd):
    node = helper.make_node("Add", ["x"], ["prediction"])  # one input short
    made = graph([node], x_time(), ["B", 2])
    refuse(write_onnx(tmp_path / "a.onnx", graph=made), "expected a graph ONNX Runtime opens")
    assert capfd.readouterr() == ("", "")


def test_providers(tmp_path, capfd):
    path = write_onnx(tmp_path / "a.onnx")
    present = onnxruntime.get_available_providers()
    for word, (long, _) in PROVIDERS.items():
        if long not in present:
            with pytest.raises(ValueError, match=f"provider: .*got '{word}'; install"):
                load(path, provider=word)
    with pytest.raises(ValueError, match="did you mean 'cuda'"):
        load(path, provider="cudaa")
    with pytest.raises(ValueError, match="provider: expected"):
        load(path, provider=None)
    assert load(path, provider="cpu").provider == "cpu"
    assert capfd.readouterr() == ("", "")


def test_thread_counts_agree_to_the_bit(tmp_path):
    path = write_onnx(tmp_path / "a.onnx")
    x = starts(64).astype(np.float32)
    one, two = (load(path, threads=n).network(x, 0.4) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
