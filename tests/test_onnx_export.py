"""A network of somebody else's: its names, layout and time put right, its numbers left alone."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import runtimes
from export import ParityError
from export.onnx_export import Names, export_onnx, read_spec
from runtimes.modelfile import ModelError
from runtimes.spec import Condition, Sampler, Spec, to_json

SPEC = Spec(
    "theirs",
    (4, 5, 3),
    "vp",
    "noise",
    Condition("label", classes=10),
    Sampler("dpmpp_2m", 6),
)
NAMES = Names("sample", "timestep", "cls", "out", -999.0, 999.0, channels_first=True)


def theirs(path, opset=20, domain=""):
    """out = conv(sample) + table[cls] * timestep / 1000, channels first, whole timesteps."""
    rng = np.random.default_rng(0)
    arrays = {
        "kernel": rng.normal(0, 0.2, (3, 3, 3, 3)).astype(np.float32),
        "table": rng.normal(0, 0.5, (11, 3, 1, 1)).astype(np.float32),
        "thousand": np.float32(1000),
        "axes": np.array([1, 2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["sample", "kernel"], ["x"], pads=[1, 1, 1, 1]),
        helper.make_node("Gather", ["table", "cls"], ["told"]),
        helper.make_node("Cast", ["timestep"], ["t"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["t", "thousand"], ["part"]),
        helper.make_node("Unsqueeze", ["part", "axes"], ["time"]),
        helper.make_node("Mul", ["told", "time"], ["shift"]),
        helper.make_node("Add", ["x", "shift"], ["out"], domain=domain),
    ]
    values = [
        helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["n", 3, 4, 5]),
        helper.make_tensor_value_info("timestep", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("cls", TensorProto.INT64, ["n"]),
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3, 4, 5])
    weights = [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]
    graph = helper.make_graph(nodes, "g", values, [out], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("opset", [20, 17])
@pytest.mark.parametrize("form", ["network", "sampler", "seeded"])
def test_every_form_computes_what_their_file_does(tmp_path, form, opset):
    network = theirs(tmp_path / "theirs.onnx", opset)
    report = export_onnx(network, SPEC, tmp_path / "a.onnx", names=NAMES, form=form)
    assert report.worst.relative < 1e-5
    raw = onnxruntime.InferenceSession(str(network))
    model = runtimes.load(tmp_path / "a.onnx")
    if form != "seeded":
        x = np.random.default_rng(1).normal(size=(3, 4, 5, 3)).astype(np.float32)
        feeds = {
            "sample": np.ascontiguousarray(x.transpose(0, 3, 1, 2)),
            "timestep": np.array([999, 500, 0]),
            "cls": np.array([1, 10, 4]),
        }
        (out,) = raw.run(None, feeds)
        times = (999 - feeds["timestep"]).astype(np.float32) / 999
        found = model.network(x, times, feeds["cls"])
        np.testing.assert_allclose(found, out.transpose(0, 2, 3, 1), atol=1e-6)
    assert runtimes.sample(model, 2, label=3, guidance=2.0).shape == (2, 4, 5, 3)


def test_the_spec_file_names_the_values(tmp_path):
    path = tmp_path / "spec.json"
    names = {"x": "sample", "time": "timestep", "time_scale": -999, "channels_first": True}
    path.write_text(json.dumps({**json.loads(to_json(SPEC)), "network": names}))
    assert read_spec(path) == (
        SPEC,
        Names("sample", "timestep", time_scale=-999, channels_first=True),
    )
    path.write_text(to_json(SPEC))
    assert read_spec(path) == (SPEC, Names())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"y": "a"}, "spec network key"),
        ({"x": 3}, "spec.network.x: expected a str, got 3"),
        ({"time_scale": "big"}, "spec.network.time_scale: expected a float"),
        ({"time_scale": 1e300}, "spec.network.time_scale"),
        ({"channels_first": 1}, "spec.network.channels_first: expected a bool"),
    ],
)
def test_a_wrong_name_is_one_line(tmp_path, names, words):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({**json.loads(to_json(SPEC)), "network": names}))
    with pytest.raises(ValueError, match=words) as caught:
        read_spec(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[", "[]", "3", '{"network": 3}', "{}"])
def test_no_spec_is_one_line(tmp_path, text):
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(ValueError, match="spec") as caught:
        read_spec(tmp_path / "spec.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"time": "t"}, r"expected inputs sample \(B, 3, 4, 5\), t \(B\)"),
        ({"channels_first": False}, r"sample \(B, 4, 5, 3\).*got sample \(n, 3, 4, 5\)"),
        ({"prediction": "eps"}, "an output eps"),
    ],
)
def test_names_and_shapes_of_both_sides_are_said(tmp_path, changes, words):
    network = theirs(tmp_path / "theirs.onnx")
    names = Names(**{**NAMES.__dict__, **changes})
    with pytest.raises(ModelError, match=words) as caught:
        export_onnx(network, SPEC, tmp_path / "a.onnx", names=names)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.onnx"]


def test_other_types_are_named(tmp_path):
    network = theirs(tmp_path / "theirs.onnx")
    proto = onnx.ModelProto()
    proto.ParseFromString(network.read_bytes())
    for index, kind, words in (
        (0, TensorProto.FLOAT16, "expected sample as float32, got float16"),
        (1, TensorProto.INT32, "expected timestep as float32 or int64, got int32"),
        (2, TensorProto.FLOAT, "expected cls as int64, got float"),
    ):
        wrong = onnx.ModelProto()
        wrong.CopyFrom(proto)
        wrong.graph.input[index].type.tensor_type.elem_type = kind
        network.write_bytes(wrong.SerializeToString())
        with pytest.raises(ModelError, match=words):
            export_onnx(network, SPEC, tmp_path / "a.onnx", names=NAMES)


def test_a_spec_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    for name in ("absent.json", "binary.json"):
        with pytest.raises(ValueError, match=f"{name}: expected a spec in JSON"):
            read_spec(tmp_path / name)


def test_a_graph_that_is_not_safe_is_not_opened(tmp_path):
    network = theirs(tmp_path / "theirs.onnx", domain="com.microsoft")
    with pytest.raises(ModelError, match="standard operators"):
        export_onnx(network, SPEC, tmp_path / "a.onnx", names=NAMES)
    network.write_bytes(b"no model")
    with pytest.raises(ModelError, match="expected"):
        export_onnx(network, SPEC, tmp_path / "a.onnx", names=NAMES)
    with pytest.raises(FileNotFoundError):
        export_onnx(tmp_path / "absent.onnx", SPEC, tmp_path / "a.onnx")


def test_the_gate_sees_a_time_that_is_put_wrong(tmp_path, monkeypatch):
    from export import onnx_export

    honest = onnx_export.adapted

    def wrong(proto, spec, names):
        return honest(proto, spec, Names(**{**names.__dict__, "time_offset": 990.0}))

    monkeypatch.setattr(onnx_export, "adapted", wrong)
    with pytest.raises(ParityError, match="nothing was written"):
        export_onnx(
            theirs(tmp_path / "theirs.onnx"),
            SPEC,
            tmp_path / "a.onnx",
            names=NAMES,
            form="sampler",
        )
    assert not (tmp_path / "a.onnx").exists()


def test_a_model_of_ours_needs_no_spec(tmp_path):
    network = theirs(tmp_path / "theirs.onnx")
    export_onnx(network, SPEC, tmp_path / "a.onnx", names=NAMES)
    with pytest.raises(ModelError, match="a model of ours"):
        export_onnx(tmp_path / "a.onnx", SPEC, tmp_path / "b.onnx")


def test_products_cannot_be_checked(tmp_path):
    network = theirs(tmp_path / "theirs.onnx")
    with pytest.raises(ValueError, match="export from torch or MLX"):
        export_onnx(network, SPEC, tmp_path / "a.onnx", names=NAMES, form="likelihood")


def test_the_new_file_is_valid_onnx(tmp_path):
    export_onnx(theirs(tmp_path / "theirs.onnx"), SPEC, tmp_path / "a.onnx", names=NAMES)
    proto = onnx.ModelProto()
    proto.ParseFromString((tmp_path / "a.onnx").read_bytes())
    onnx.checker.check_model(proto, full_check=True)
