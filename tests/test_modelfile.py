import contextlib
import hashlib
import os
import random
import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import helper

from runtimes import graph as walker
from runtimes.modelfile import SEAL_KEY, SPEC_KEY, ModelError, check, read, seal
from runtimes.session import open_file

from .problems import graph, mixture_graph, mixture_spec, proto, write_onnx, write_proto

FLOAT = onnx.TensorProto.FLOAT
GRAPH, INITIALIZER, EXTERNAL_DATA, DATA_LOCATION = 7, 5, 13, 14  # field numbers of onnx.proto
X = [("x", FLOAT, ["B", 2]), ("time", FLOAT, ["B"])]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_onnx(tmp_path_factory.mktemp("file") / "mixture.onnx")


def refuse(path, message):
    """Refused by `read`, so before ONNX Runtime, in one line that names the file."""
    with pytest.raises(ModelError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_good_file(whole):
    file = read(whole)
    content = whole.read_bytes()
    model = onnx.load_from_string(content)  # still plain ONNX, to onnx itself
    onnx.checker.check_model(model)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    assert file.metadata == entries
    assert list(entries) == [SPEC_KEY, SEAL_KEY]
    tail = len(seal(b""))
    assert file.digest == entries[SEAL_KEY] == hashlib.sha256(content[:-tail]).hexdigest()
    ops = [node.op_type for node in model.graph.node]
    assert file.operators == {op: ops.count(op) for op in ops}
    assert (file.opset, file.content, file.path) == (20, content, whole)
    assert read(str(whole)) == file


def test_a01_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.onnx: expected a model file, got nothing"):
        read(tmp_path / "a.onnx")
    with pytest.raises(FileNotFoundError, match="got a folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match="got no file"):
        read(tmp_path / "pipe")
    (tmp_path / "empty.onnx").write_bytes(b"")
    refuse(tmp_path / "empty.onnx", "got an empty one")


def test_a01_too_large(tmp_path):
    path = tmp_path / "big.onnx"
    with open(path, "wb") as file:
        file.truncate(2**31)  # sparse: nothing is written
    refuse(path, "expected at most 2 GiB, got 2147483648 bytes")


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
        b"PK\x03\x04" + bytes(60),
        b"\x00",
        random.Random(1).randbytes(5000),
    ],
)
def test_a02_not_onnx(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    refuse(tmp_path / "a.onnx", "expected an ONNX model file")


def test_a02_plain_onnx(tmp_path):
    model = proto(mixture_graph(), mixture_spec())
    del model.metadata_props[:]
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    refuse(tmp_path / "a.onnx", "got a plain ONNX file; write it with 'toolkit export'")
    refuse(write_proto(tmp_path / "b.onnx", model), "expected metadata 'toolkit.spec', got none")


def test_a04_truncated(whole, tmp_path):
    content, path = whole.read_bytes(), tmp_path / "a.onnx"
    for end in (*range(1, len(content), 97), len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(ModelError):
            read(path)
    for cut in (content[:-1], content[: -len(seal(b"")) // 2], content + b"\0", content[1:]):
        path.write_bytes(cut)
        refuse(path, "truncated or changed: SHA-256 differs")


def test_a05_one_flipped_bit(whole):
    content, rng = bytearray(whole.read_bytes()), random.Random(0)
    refused = 0
    for _ in range(200):
        at, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
        content[at] ^= bit
        with pytest.raises(ModelError):
            check(whole, bytes(content))
        content[at] ^= bit
        refused += 1
    assert refused == 200
    check(whole, bytes(content))


def test_two_spliced_files(whole):
    """The tail of one file on the body of another, a seal in the middle, a second seal."""
    content = whole.read_bytes()
    tail = len(seal(b""))
    with pytest.raises(ModelError, match="SHA-256 differs"):
        check(whole, content[:-tail] + seal(b"other")[-tail:])
    with pytest.raises(ModelError, match="SHA-256 differs"):
        check(whole, content + content[:50])
    with pytest.raises(ModelError, match="SHA-256 differs"):
        check(whole, content + content[-tail:])
    with pytest.raises(ModelError, match="once, got it twice"):
        check(whole, seal(content))


def external(name="w"):
    tensor = onnx.TensorProto(name=name, data_type=FLOAT, dims=[2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../x")
    return tensor


def add(weights=(), nodes=None):
    nodes = nodes or [helper.make_node("Add", ["x", "w"], ["prediction"])]
    return proto(graph(nodes, X, ["B", 2], weights), mixture_spec())


@pytest.mark.parametrize(
    "hidden", ["initializer", "constant", "list", "no location", "no entries"]
)
def test_a09_external_data(tmp_path, hidden):
    """Also re-sealed by somebody who wants it read; `read` never starts ONNX Runtime."""
    tensor = external()
    if hidden == "no location":
        tensor.ClearField("data_location")
    if hidden == "no entries":
        del tensor.external_data[:]
    constant = onnx.NodeProto(op_type="Constant", output=["w"])
    attribute = constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    if hidden == "list":
        attribute.tensors.append(tensor)
    else:
        attribute.t.CopyFrom(tensor)
    use = helper.make_node("Add", ["x", "w"], ["prediction"])
    inside = hidden in ("constant", "list")
    model = add([] if inside else [tensor], [constant, use] if inside else [use])
    refuse(write_proto(tmp_path / "a.onnx", model), "stored in another file")


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


@pytest.mark.parametrize("number", [EXTERNAL_DATA, DATA_LOCATION])
def test_a09_a_tag_that_protobuf_cuts_to_32_bits(tmp_path, number):
    """ONNX Runtime's protobuf drops the upper bits of a five-byte tag and sees field 13 or 14."""
    kind = 2 if number == EXTERNAL_DATA else 0
    tag = bytes([(number << 3 | kind) | 0x80, 0x80, 0x80, 0x80, 0x10])
    entry = onnx.StringStringEntryProto(key="location", value="x").SerializeToString()
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[2]).SerializeToString()
    tensor += tag + (varint(len(entry)) + entry if kind == 2 else b"\x01")
    model = add()
    inner = model.graph.SerializeToString() + field(INITIALIZER, tensor)
    model.ClearField("graph")
    path = tmp_path / "a.onnx"
    path.write_bytes(seal(model.SerializeToString() + field(GRAPH, inner)))
    refuse(path, "broken fields")


def test_a09_a_second_graph_field_is_walked_too(tmp_path):
    """Protobuf merges repeated single messages."""
    model = add()
    more = onnx.GraphProto(initializer=[external()]).SerializeToString()
    path = tmp_path / "a.onnx"
    path.write_bytes(seal(model.SerializeToString() + field(GRAPH, more)))
    refuse(path, "stored in another file")


def body(inputs=()):
    return graph([helper.make_node("Identity", ["x"], ["prediction"])], [], ["B", 2])


NODES = {
    "Loop": helper.make_node("Loop", ["", ""], ["prediction"], body=body()),
    "If": helper.make_node("If", ["c"], ["prediction"], then_branch=body(), else_branch=body()),
    "Scan": helper.make_node("Scan", ["x"], ["prediction"], body=body(), num_scan_inputs=1),
    "SequenceMap": helper.make_node("SequenceMap", ["x"], ["prediction"], body=body()),
    # nested graphs are the point, whatever the operator is called
    "Relu": helper.make_node("Relu", ["x"], ["prediction"], body=body()),
    "RandomNormal": helper.make_node("RandomNormal", [], ["prediction"], shape=[1, 2]),
    "RandomNormalLike": helper.make_node("RandomNormalLike", ["x"], ["prediction"]),
    "RandomUniform": helper.make_node("RandomUniform", [], ["prediction"], shape=[1, 2]),
    "RandomUniformLike": helper.make_node("RandomUniformLike", ["x"], ["prediction"]),
    "Bernoulli": helper.make_node("Bernoulli", ["x"], ["prediction"]),
    "Multinomial": helper.make_node("Multinomial", ["x"], ["prediction"]),
    "Dropout": helper.make_node("Dropout", ["x"], ["prediction"]),
    "com.microsoft.Gelu": helper.make_node("Gelu", ["x"], ["prediction"], domain="com.microsoft"),
    "mine.Relu": helper.make_node("Relu", ["x"], ["prediction"], domain="mine"),
}


@pytest.mark.parametrize("name", NODES)
def test_a14_operators_that_are_refused(tmp_path, name):
    refuse(write_proto(tmp_path / "a.onnx", add(nodes=[NODES[name]])), name)


@pytest.mark.parametrize("name", ["Loop", "Scan"])
def test_a14_control_flow_without_its_body(tmp_path, name):
    refuse(write_proto(tmp_path / "a.onnx", add(nodes=[helper.make_node(name, [], ["y"])])), name)


def test_the_long_name_of_the_standard_domain(tmp_path):
    node = helper.make_node("Neg", ["x"], ["prediction"], domain="ai.onnx")
    assert read(write_proto(tmp_path / "a.onnx", add(nodes=[node]))).operators == {"Neg": 1}


def test_functions_are_refused(tmp_path):
    model = add(nodes=[helper.make_node("F", ["x"], ["prediction"], domain="f")])
    relu = helper.make_node("Relu", ["a"], ["b"])
    model.functions.append(
        helper.make_function("f", "F", ["a"], ["b"], [relu], [helper.make_opsetid("", 20)])
    )
    refuse(write_proto(tmp_path / "a.onnx", model), "no model functions|F")


def test_sparse_weights_are_refused(tmp_path):
    model = add()
    model.graph.sparse_initializer.add()
    refuse(write_proto(tmp_path / "a.onnx", model), "sparse tensor")


def test_doubled_metadata_is_refused(tmp_path):
    model = add()
    model.metadata_props.add(key=SPEC_KEY, value="{}")
    refuse(write_proto(tmp_path / "a.onnx", model), "once, got it twice")


def test_too_many_nodes(tmp_path, monkeypatch):
    nodes = [helper.make_node("Neg", ["x"], ["prediction"])] * 11
    path = write_proto(tmp_path / "a.onnx", add(nodes=nodes))
    assert read(path).operators == {"Neg": 11}
    monkeypatch.setattr(walker, "MOST_NODES", 10)
    refuse(path, "expected at most 10 nodes")


def test_metadata_that_is_no_text(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(
        seal(add().SerializeToString() + field(14, field(1, b"k") + field(2, b"\xff")))
    )
    refuse(path, "broken fields")


def test_any_bytes_are_refused_or_read():
    """5,000 re-sealed byte mutants of a good body: a ModelError or a ModelFile, never another error."""
    good, rng = bytearray(add().SerializeToString()), random.Random(3)
    for _ in range(5000):
        body = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        with contextlib.suppress(ModelError):
            check("a.onnx", seal(bytes(body)))


def mutant(model, rng):
    """One random change of structure: of a node, an attribute, a weight, a name or a version."""
    nodes, weights = model.graph.node, model.graph.initializer
    node = nodes[rng.randrange(len(nodes))]
    names = [name for n in nodes for name in (*n.input, *n.output)] + ["", "nowhere"]
    ops = ["Add", "Neg", "Concat", "Gather", "Reshape", "Softmax", "Conv", "Cast", "Loop", "Nop"]
    kind = rng.randrange(9)
    if kind == 0:
        node.op_type = rng.choice(ops)
    elif kind == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif kind == 2:
        node.output[0] = rng.choice(names)
    elif kind == 3:
        nodes.remove(node)
    elif kind == 4:
        nodes.add().CopyFrom(node)
    elif kind == 5:
        tensor = rng.choice(weights)
        tensor.dims[:] = [rng.choice([-1, 0, 1, 2, 3, 2**40]) for _ in range(rng.randrange(4))]
    elif kind == 6:
        rng.choice(weights).data_type = rng.randrange(0, 25)
    elif kind == 7:
        value = rng.choice([*model.graph.input, *model.graph.output])
        value.type.tensor_type.elem_type = rng.randrange(0, 17)
    else:
        node.attribute.append(
            helper.make_attribute(rng.choice(["axis", "to", "perm"]), rng.randrange(-9, 9))
        )


def test_structural_mutants(capfd):
    """500 mutants, sealed again: refused with a ModelError or they run, and nothing is printed."""
    good, rng = proto(mixture_graph(), mixture_spec()), random.Random(11)
    x, ran, lines = np.zeros((3, 2), np.float32), 0, set()
    for _ in range(500):
        model = onnx.ModelProto()
        model.CopyFrom(good)
        for _ in range(rng.randrange(1, 3)):
            mutant(model, rng)
        try:
            file = check("mutant.onnx", seal(model.SerializeToString()))
            out = open_file(file, provider="cpu", threads=1).network(x, 0.5)
        except ModelError as error:
            lines |= {len(str(error).splitlines())}
            continue
        assert out.shape == x.shape
        assert out.dtype == np.float32
        ran += 1
    assert 0 < ran < 400
    assert lines == {1}
    assert capfd.readouterr() == ("", "")


def test_bytes_that_look_like_an_ort_file_inside(tmp_path):
    """Bytes 4..7 "ORTM" would make ONNX Runtime read another format than the one that was checked."""
    # field 1, a number of four bytes up to "O"; field 10 ("R"), "T" = 84 bytes from "M" on
    start = b"\x08\x8a\x80\x80O" + b"RTM" + bytes(83)
    good = add(nodes=[helper.make_node("Neg", ["x"], ["prediction"])]).SerializeToString()
    path = tmp_path / "a.onnx"
    path.write_bytes(seal(start + good))
    assert path.read_bytes()[4:8] == b"ORTM"
    refuse(path, "a field that is not expected")  # no model has a field 10


def test_words_of_a_stranger_stay_in_one_line(tmp_path):
    """Names inside a file are quoted in errors; they may hold anything."""
    evil = "Evil\n\x1b[2J" + "x" * 10_000
    model = proto(mixture_graph(), mixture_spec())
    model.graph.node[0].domain = evil
    path = tmp_path / "a.onnx"
    write_proto(path, model)
    with pytest.raises(ModelError, match="Evil") as error:
        read(path)
    assert str(error.value).isprintable()
    assert len(str(error.value)) <= 2000


def test_a_large_file_without_a_seal_is_refused_by_its_end(tmp_path):
    """Two gigabytes of zeros cost nothing on disk; they must not cost two of memory."""
    path = tmp_path / "a.onnx"
    with open(path, "wb") as file:
        file.truncate(2**31 - 1)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="expected a seal at the end, got none"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
