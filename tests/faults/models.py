"""Model files that are wrong in one way each, sealed as their author would seal them."""

# ruff: noqa: E501  (tables: one fault a line)

import random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtimes import modelfile
from tests.conftest import faces_bytes

node = helper.make_node
GOOD = faces_bytes()


def changed(change):
    """The good model after change(ModelProto), sealed again."""
    model = onnx.ModelProto.FromString(GOOD)
    del model.metadata_props[-1]
    change(model)
    return modelfile.seal(model.SerializeToString())


def spec(old, new):
    def change(model):
        assert old in model.metadata_props[0].value
        model.metadata_props[0].value = model.metadata_props[0].value.replace(old, new)

    return changed(change)


def before_output(*nodes, **weights):
    """Nodes from `x` to the scalar `r`, which is added to the prediction."""

    def change(model):
        model.graph.node[-1].output[0] = "plain"
        model.graph.node.extend([*nodes, node("Add", ["plain", "r"], ["prediction"])])
        model.graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()
        )

    return changed(change)


def total(name):
    return node("ReduceSum", [name], ["r"], keepdims=0)


def weight(change):
    return changed(lambda model: change(model.graph.initializer[0]))


def external(tensor, location="../canary"):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def constant(tensor):
    made = node("Constant", [], ["c"])
    made.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    return made


def outside(location="../canary"):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    external(tensor, location)
    return tensor


def body(*nodes):
    return helper.make_graph(list(nodes), "body", [], [])


def sparse(model):
    made = model.graph.sparse_initializer.add(dims=[2])
    made.values.CopyFrom(outside())


def fan_out(model):
    """Functions that call each other four times, nine levels deep: 4^9 nodes in under a kilobyte."""
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    model.opset_import.add(domain="f", version=1)
    model.graph.node.append(node("f9", ["x"], ["y"], domain="f"))
    for level in range(10):
        name = f"f{level - 1}" if level else "Neg"
        calls = [
            node(name, ["a" if k == 0 else f"v{k}"], [f"v{k + 1}" if k < 3 else "b"],
                 domain="f" if level else "")
            for k in range(4)
        ]  # fmt: skip
        model.functions.append(
            helper.make_function("f", f"f{level}", ["a"], ["b"], calls, imports)
        )


def loop(model):
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**62), "trips"))
    model.graph.node.append(node("Loop", ["trips", ""], [], body=body()))


FORTY_THOUSAND = np.array([40_000, 40_000])
DOUBLINGS = [node("Concat", [f"c{k}", f"c{k}"], [f"c{k + 1}"], axis=0) for k in range(30)]
MODELS = {
    "good": lambda: GOOD,
    "empty": lambda: b"",
    "html": lambda: b"<!DOCTYPE html><html>404</html>",
    "lfs": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    "plain": lambda: changed(lambda m: m.ClearField("metadata_props"))[:-90],
    "half": lambda: GOOD[: len(GOOD) // 2],
    "cut": lambda: GOOD[:-1],
    "not json": lambda: spec("{", "{not JSON"),
    "shape": lambda: spec('"shape":[8,8,1]', '"shape":[8,9,1]'),
    "classes": lambda: spec('"classes":3,"kind":"label","names":["cat","dog","owl"]',
                            '"classes":9,"kind":"label","names":[]'),
    "version": lambda: spec('"version":1', '"version":999'),
    "controls": lambda: spec('"name":"faces"', '"name":"\\u001b[2Jfaces\\nok"'),
    "nan json": lambda: spec('"guidance":1.5', '"guidance":NaN'),
    "deep json": lambda: spec("{", "[" * 100_000 + "{"),
    "name": lambda: changed(lambda m: rename(m, "x", "y")),
    "dtype": lambda: changed(retype),
    "opset": lambda: changed(lambda m: setattr(m.opset_import[0], "version", 999)),
    "ir": lambda: changed(lambda m: setattr(m, "ir_version", 999)),
    "external": lambda: weight(external),
    "external absolute": lambda: weight(lambda t: external(t, "/etc/passwd")),
    "external constant": lambda: before_output(constant(outside()), total("c")),
    "external sparse": lambda: changed(sparse),
    "external nested": lambda: changed(
        lambda m: m.graph.node.append(node("If", ["c"], ["y"], then_branch=body(constant(outside()))))
    ),
    "loop": lambda: changed(loop),
    "if": lambda: changed(lambda m: m.graph.node.append(node("If", ["c"], ["y"], then_branch=body()))),
    "scan": lambda: changed(
        lambda m: m.graph.node.append(node("Scan", ["x"], ["y"], body=body(), num_scan_inputs=1))
    ),
    "nested": lambda: changed(lambda m: m.graph.node.append(node("Relu", ["x"], ["y"], body=body()))),
    "random": lambda: before_output(node("RandomNormal", [], ["c"], shape=[2]), total("c")),
    "domain": lambda: changed(lambda m: setattr(m.graph.node[1], "domain", "com.microsoft")),
    "domain import": lambda: changed(lambda m: m.opset_import.add(domain="evil", version=1)),
    "python op": lambda: changed(
        lambda m: m.graph.node.append(node("PyOp", ["x"], ["y"], domain="ai.onnx.contrib"))
    ),
    "function fan": lambda: changed(fan_out),
    "training": lambda: changed(lambda m: m.training_info.add()),
    "nodes": lambda: changed(lambda m: m.graph.node.extend([node("Neg", ["x"], ["z"])] * 20_000)),
    "both data": lambda: weight(lambda t: t.float_data.extend([0.0] * 256)),
    "dims": lambda: weight(lambda t: t.dims.__setitem__(0, 5)),
    "dims huge": lambda: weight(lambda t: t.dims.__setitem__(0, 2**40)),
    "dims overflow": lambda: weight(lambda t: t.dims.extend([2**31, 2**31, 2**31])),
    "dims negative": lambda: weight(lambda t: t.dims.__setitem__(0, -4)),
    "string weight": lambda: weight(lambda t: setattr(t, "data_type", 8)),
    "unknown field": lambda: modelfile.seal(modelfile_body() + b"\xa2\x06\x01x"),
    "doubled field": lambda: modelfile.seal(modelfile_body() + b"\x12\x01x\x12\x01y"),
    "fold": lambda: before_output(node("ConstantOfShape", ["s"], ["c"]), total("c"), s=FORTY_THOUSAND),
    "fold 15000": lambda: before_output(
        node("ConstantOfShape", ["s"], ["a"]), node("Identity", ["a"], ["b"]), node("Add", ["a", "b"], ["c"]),
        total("c"), s=np.array([15_000, 15_000]),
    ),
    "doublings": lambda: before_output(
        node("ConstantOfShape", ["s"], ["c0"]), *DOUBLINGS, total("c30"), s=np.array([100])
    ),
    "pad": lambda: before_output(node("Pad", ["x", "p"], ["c"]), total("c"), p=np.array([0] * 4 + [2**40, 0, 0, 0])),
    "tile": lambda: before_output(node("Tile", ["x", "s"], ["c"]), total("c"), s=np.array([1, 2**20, 2**20, 1])),
    "expand": lambda: before_output(node("Expand", ["picture", "s"], ["c"]), total("c"), s=np.array([10**6, 1, 8, 8, 1])),
    "range": lambda: before_output(
        node("Range", ["a", "b", "d"], ["c"]), total("c"), a=np.float32(0), b=np.float32(1e12), d=np.float32(1)
    ),
    "resize": lambda: before_output(
        node("Resize", ["x", "", "s"], ["c"]), total("c"), s=np.array([1, 1e5, 1e5, 1], np.float32)
    ),
    "stuck": lambda: before_output(
        node("ConstantOfShape", ["s"], ["z"]), node("EyeLike", ["z"], ["e"]), node("MatMul", ["e", "z"], ["c"]),
        total("c"), s=np.array([7_500, 7_500]),
    ),
    "nan": lambda: faces_bytes(pictures=np.full((4, 8, 8, 1), np.nan, np.float32)),
    "huge": lambda: faces_bytes(pictures=np.full((4, 8, 8, 1), 3e38, np.float32)),
    "small output": lambda: before_output(
        node("ReduceMean", ["plain", "axis"], ["c"], keepdims=1), total("c"), axis=np.array([0])
    ),
    "cycle": lambda: changed(lambda m: m.graph.node[0].input.__setitem__(0, "prediction")),
}  # fmt: skip


def modelfile_body():
    return GOOD[: -len(modelfile.seal(b""))]


def rename(model, old, new):
    model.graph.input[0].name = new
    model.graph.node[1].input[1] = new


def retype(model):
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.DOUBLE


def flips(count):
    """The good file with one bit changed, `count` times."""
    for bit in random.Random(5).sample(range(8 * len(GOOD)), count):
        content = bytearray(GOOD)
        content[bit // 8] ^= 1 << bit % 8
        yield bytes(content)


def mutants(count):
    """So many different files: the good model after one or two random changes of structure, sealed."""
    rng, seen = random.Random(6), {GOOD, changed(lambda model: None)}
    while count:
        made = changed(lambda model: [mutate(model, rng) for _ in range(rng.randint(1, 2))])
        if made not in seen:  # a change may change nothing, or the same as another
            seen.add(made)
            count -= 1
            yield made


def mutate(model, rng):
    graph = model.graph
    one = rng.choice(graph.node)
    names = [name for each in graph.node for name in (*each.input, *each.output)] + [
        "",
        "nowhere",
        "time",
    ]
    operators = ["Add", "Neg", "Concat", "Gather", "Reshape", "Softmax", "Conv", "Cast", "Loop", "If", "Tile", "Expand", "Pad", "MatMul", "Where", "Shape", "Size", "Range", "OneHot", "TopK", "Slice", "Split", "ReduceSum", "Resize", "GridSample", "Nop"]  # fmt: skip
    values = [*graph.input, *graph.output]
    tensor = rng.choice(graph.initializer) if graph.initializer else TensorProto()
    rng.choice([
        lambda: setattr(one, "op_type", rng.choice(operators)),
        lambda: one.input and one.input.__setitem__(rng.randrange(len(one.input)), rng.choice(names)),
        lambda: one.output.__setitem__(0, rng.choice(names)),
        lambda: one.input.append(rng.choice(names)),
        lambda: len(graph.node) > 1 and graph.node.remove(one),
        lambda: graph.node.add().CopyFrom(one),
        lambda: graph.node.insert(0, node(rng.choice(operators), [rng.choice(names)], ["m"])),
        lambda: tensor.dims.__setitem__(slice(None), [rng.choice([-1, 0, 1, 4, 8, 2**40]) for _ in range(4)]),
        lambda: setattr(tensor, "data_type", rng.randrange(30)),
        lambda: setattr(tensor, "name", rng.choice(names)),
        lambda: setattr(tensor, "raw_data", rng.randbytes(len(tensor.raw_data))),
        lambda: setattr(rng.choice(values).type.tensor_type, "elem_type", rng.randrange(17)),
        lambda: setattr(rng.choice(values), "name", rng.choice(names)),
        lambda: rng.choice(values).type.tensor_type.shape.dim.add(dim_value=rng.choice([-1, 0, 1, 2**40])),
        lambda: one.attribute.append(helper.make_attribute(rng.choice(["axis", "to", "perm"]), rng.randrange(-9, 9))),
        lambda: setattr(model.opset_import[0], "version", rng.choice([1, 7, 13, 18, 23, 28, 2**40])),
        lambda: setattr(model, "ir_version", rng.choice([0, 1, 3, 8, 14, 15, 2**40])),
    ])()  # fmt: skip
