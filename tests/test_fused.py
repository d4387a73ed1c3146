"""The profile `fast` computes what the graph computed, in fewer nodes; what it cannot prove stays."""

from collections import Counter
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import runtimes
from export import export_mlx, forms
from export.fused import PROFILES, rewritten
from export.mlx_export import program, translate
from export.nodes import Nodes
from export.torch_export import _trace
from runtimes import modelfile
from runtimes.session import onnxruntime
from runtimes.spec import Condition, Sampler, Spec, to_json
from toolkit.networks import Sizes, layers_mlx, layers_torch
from toolkit.networks.dit import dit
from toolkit.networks.mlp import mlp

from .mlx_networks import NETWORKS

LABELS = Condition("label", classes=3, names=("a", "b", "c"))
FACES = Spec("faces", (8, 8, 1), condition=LABELS, sampler=Sampler("heun", 2, guidance=1.5))
CLIP = Spec("clip", (2, 4, 4, 1), condition=Condition("context", shape=(4, 5)))
WAYS = Spec("ways", (6, 16), condition=Condition("context", shape=(4, 5)))


class Ways(torch.nn.Module):
    """Attention as others write it: torch's own call, as timm cuts it, by hand, and across to a context."""

    def __init__(self):
        super().__init__()
        self.qkv = torch.nn.ModuleList([torch.nn.Linear(16, 48) for _ in range(3)])
        self.k, self.v = torch.nn.Linear(5, 16), torch.nn.Linear(5, 24)
        self.leave = torch.nn.Linear(24, 16)

    def forward(self, x, time, context):
        def cut(a):
            return a.reshape(*a.shape[:2], 4, -1).transpose(1, 2)

        def joined(a):
            return a.transpose(1, 2).reshape(*x.shape[:2], -1)

        own, h = torch.nn.functional.scaled_dot_product_attention, x + time[:, None, None]
        h = h + joined(own(*(cut(part) for part in self.qkv[0](h).chunk(3, -1))))
        parts = self.qkv[1](h).reshape(*h.shape[:2], 3, 4, 4).permute(2, 0, 3, 1, 4)
        h = h + joined(own(*parts.unbind(0)))
        q, k, v = (cut(part) for part in self.qkv[2](h).chunk(3, -1))
        h = h + joined(((q @ k.transpose(-2, -1)) / 1.5).softmax(-1) @ v)
        return self.leave(joined(own(cut(h), cut(self.k(context)), cut(self.v(context)))))


def filled(build, layers, spec, **sizes):
    """One of our networks, its weights so large that softmax is far from even."""
    module, rng = (
        build(layers, Sizes(spec.shape, spec.condition, **sizes)),
        np.random.default_rng(0),
    )
    arrays = {
        name: (rng.standard_normal(shape) * 1.5 / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in layers.shapes(module).items()
    }
    layers.fill(module, arrays)
    return module


def of_torch(spec, module):
    return _trace(module.eval(), spec, forms.example(spec, 3))


def of_mlx(spec, module):
    names = ["x", "time", spec.condition.kind][: len(forms.example(spec, 1))]
    return translate(program(module, partial(forms.example, spec)), names, output="prediction")


def theirs(name):
    """A network of `mlx_networks` with its spec."""
    spec, make = NETWORKS[name]
    return spec, make()


SMALL = {"width": 32, "depth": 2}
MADE = {  # a graph and how many attentions are in it that can be one node
    "torch dit": (
        lambda: of_torch(FACES, filled(dit, layers_torch, FACES, patch=(2, 2), **SMALL)), 2
    ),
    "torch mlp": (lambda: of_torch(FACES, filled(mlp, layers_torch, FACES, **SMALL)), 0),
    "torch ways": (lambda: of_torch(WAYS, Ways()), 4),
    "mlx dit": (lambda: of_mlx(CLIP, filled(dit, layers_mlx, CLIP, patch=(1, 2, 2), **SMALL)), 2),
    "mlx mlp": (lambda: of_mlx(FACES, filled(mlp, layers_mlx, FACES, **SMALL)), 0),
    "mlx unet": (lambda: of_mlx(*theirs("unet")), 1),
    "mlx video": (lambda: of_mlx(*theirs("video")), 1),
    "mlx points": (lambda: of_mlx(*theirs("points")), 0),  # a mask
}  # fmt: skip


KINDS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


def run(model, batch):
    """Its output on drawn rows."""
    options = onnxruntime().SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime().InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rng, feeds = np.random.default_rng(batch), {}
    for value in session.get_inputs():
        shape = [batch if isinstance(n, str) else n for n in value.shape]
        labels = "int64" in value.type
        drawn = rng.integers(0, 4, shape) if labels else rng.standard_normal(shape)
        feeds[value.name] = drawn.astype(KINDS[value.type])
    return session.run(None, feeds)[0]


def same(a, b, batches=(1, 2, 7)):
    """Assert that two graphs compute the same numbers."""
    for batch in batches:
        x, y = run(a, batch), run(b, batch)
        assert np.linalg.norm(x - y) <= 2e-6 * np.linalg.norm(x), batch


def kinds(model):
    return Counter(node.op_type for node in model.graph.node)


SLOW = ("torch dit", "torch mlp")  # torch's tracer takes seconds; `torch ways` has more to find


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in MADE]
)
def test_fewer_nodes_and_the_same_numbers(name):
    make, attentions = MADE[name]
    before = make()
    kept = before.SerializeToString(deterministic=True)
    after = rewritten(before, "fast")
    onnx.checker.check_model(after, full_check=True)
    assert kinds(after)["Attention"] == attentions
    assert kinds(after)["Softmax"] == kinds(before)["Softmax"] - attentions
    # three or four Transposes and Reshapes, two products and softmax became one
    assert len(after.graph.node) <= len(before.graph.node) - 8 * attentions
    assert after.opset_import[0].version == (23 if attentions else before.opset_import[0].version)
    same(before, after)
    assert before.SerializeToString(deterministic=True) == kept


def test_portable_is_the_graph_itself():
    before = graph()
    assert rewritten(before, "portable") is before
    assert next(iter(PROFILES)) == "portable"


def graph(
    *, heads=2, tokens=5, others=6, width=4, value=3, scale="scores", by=0.5, keys="KEYS", axis=-1,
    between="", twice="", back=(0, 2, 1, 3), kind=TensorProto.FLOAT, leave=None, group=False, opset=20,
    shared=1, rows="batch", wider=1, parts="", order=(0, 1, 2),
):  # fmt: skip
    """softmax(scale q k^T) v, a step at a time; each argument bends one step.

    shared: how many heads share a head of k; rows: of k; wider: how many rows each row is cut into; parts:
    how q, k and v are taken from one tensor, in which `order`.
    """
    g, steps, there = Nodes("n"), {}, {"q": heads, "k": heads // shared, "v": heads}
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    sizes = {"q": (tokens, width), "k": (others, width), "v": (others, value)}
    if parts:
        sizes = dict.fromkeys("qkv", (tokens, width))
        together = g.op("Reshape", "x", g.ints(-1, tokens, 3, heads, width))
        steps["parts"] = g.op("Transpose", together, perm=[2, 0, 3, 1, 4])
    (others, _), (_, value) = sizes["k"], sizes["v"]

    def taken(name):
        """(B, H, L, d)."""
        index = order["qkv".index(name)]
        if parts == "Gather":
            return g.op("Gather", steps["parts"], g.array(np.array(index)), axis=0)
        if parts == "Slice":
            return g.op("Squeeze", g.part(steps["parts"], 0, index, index + 1), g.ints(0))
        return g.op("Transpose", cut(name), perm=[0, 2, 1, 3])

    def cut(name):
        return g.op("Reshape", name, g.ints(-1, sizes[name][0], there[name], sizes[name][1]))

    def scaled(place, a):
        steps[place] = a
        way, _, where = scale.rpartition(" ")
        if where != place:
            return a
        number = by if isinstance(by, str) else g.array(np.asarray(by, dtype))
        pair = (number, a) if way in ("flipped", "over") else (a, number)
        return g.op("Div" if way in ("divided", "over") else "Mul", *pair)

    q = scaled("q", taken("q"))
    if keys == "KEYS" and not parts:
        k = g.op("Transpose", cut("k"), perm=[0, 2, 3, 1])
    elif keys == "chain":  # as torch writes it, the sizes worked out
        whole = taken("k")
        flat = g.op("Reshape", whole, g.ints(-1, others, width))
        last = g.op("Concat", g.size(whole, 0), g.ints(there["k"], width, others), axis=0)
        k = g.op("Reshape", g.op("Transpose", flat, perm=[0, 2, 1]), last)
    else:
        k = g.op("Transpose", taken("k"), perm=[0, 1, 3, 2])
    steps["keys"] = k
    scores = scaled("scores", g.op("MatMul", q, scaled("k", k)))
    if between:
        scores = g.op(between, scores, *(["mask"] if between == "Add" else []))
    steps["weights"] = g.op("Softmax", scores, axis=axis)
    steps["seen"] = g.op("MatMul", steps["weights"], taken("v"))
    steps["back"] = g.op("Transpose", steps["seen"], perm=list(back))
    out = g.op("Reshape", steps["back"], g.ints(*(leave or (-1, tokens, heads * value))))
    if group:
        out = g.op("GroupNormalization", out, g.floats(1.5), g.floats(0.5), num_groups=1)
    ends = {
        n: [rows if n == "k" else "batch", sizes[n][0], there[n] * sizes[n][1] * wider]
        for n in "qkv"
    }
    given = {"x": ["batch", tokens, 3 * heads * width * wider]} if parts else ends
    given |= {"mask": [tokens, others]} if between == "Add" else {}
    given |= {by: [1]} if isinstance(by, str) else {}
    made = helper.make_graph(
        g.nodes,
        "attention",
        [helper.make_tensor_value_info(n, kind, shape) for n, shape in given.items()],
        [
            helper.make_tensor_value_info(n, kind, None)
            for n in [out, *map(steps.get, twice.split())]
        ],
        list(g.constants.values()),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


SCALES = ("scores", "flipped scores", "divided scores", "q", "flipped q", "divided k", "nowhere")


@pytest.mark.parametrize("seed", range(30))
def test_drawn_attentions_become_one_node(seed):
    """Any sizes, any place of the scale, any way to turn the keys and to cut the three."""
    rng = np.random.default_rng(seed)
    names = ("heads", "tokens", "others", "width", "value")
    sizes = {name: int(rng.integers(1, 7)) for name in names}
    by = float(rng.uniform(0.2, 2.0))
    before = graph(
        **sizes,
        by=[by] if rng.random() < 0.5 else by,
        scale=SCALES[seed % len(SCALES)],
        keys=("KEYS", "twice", "chain")[seed % 3],
        axis=int(rng.choice([-1, 3])),
        opset=int(rng.choice([18, 20, 23, 24])),
        parts=("", "Gather", "Slice", "")[seed % 4],
        order=rng.permutation(3).tolist(),
    )
    after = rewritten(before, "fast")
    assert kinds(after).keys() <= {"Attention", "Slice"}
    assert kinds(after)["Attention"] == 1
    assert after.opset_import[0].version == max(23, before.opset_import[0].version)
    same(before, after)


def test_constants_that_are_nodes_are_seen_through():
    """As older exporters write them, here the scale as 1 / 2 and the shapes."""
    before = graph(by="by")
    half = [
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Div", ["one", "two"], ["by"]),
    ]
    for tensor in before.graph.initializer:
        half.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
    nodes, inputs = [*half, *before.graph.node], [v for v in before.graph.input if v.name != "by"]
    del before.graph.node[:], before.graph.initializer[:], before.graph.input[:]
    before.graph.node.extend(nodes)
    before.graph.input.extend(inputs)
    after = rewritten(before, "fast")
    assert kinds(after) == {"Attention": 1}
    same(before, after)


NOT = {
    "scores are returned too": {"twice": "scores"},
    "weights are returned too": {"twice": "weights"},
    "what is seen is returned too": {"twice": "seen"},
    "it is returned before it is joined": {"twice": "back"},
    "turned keys are returned too": {"twice": "keys"},
    "the parts are returned too": {"parts": "Gather", "twice": "parts"},
    "a part counted from the end": {"parts": "Gather", "order": (-3, -2, -1)},
    "softmax over queries": {"axis": 2},
    "a mask": {"between": "Add"},
    "something else before softmax": {"between": "Abs"},
    "a scale that is an input": {"by": "by"},
    "a scale for each head": {"by": [[[0.5]], [[0.7]]]},
    "a negative scale": {"by": -0.5},
    "a scale of nothing": {"by": 0.0},
    "a number over the scores": {"scale": "over scores"},
    "keys that all heads share": {"shared": 2},
    "keys that all rows share": {"rows": 1},
    "rows cut into more rows": {"wider": 2},
    "rows cut into more rows and parts": {"wider": 2, "parts": "Slice"},
    "heads joined otherwise": {"back": (0, 3, 1, 2), "leave": (-1, 5, 6)},
    "tokens joined otherwise": {"leave": (-1, 6, 5)},
    "numbers of 64 bits": {"kind": TensorProto.DOUBLE},
    "an operator that means something else": {"group": True},
}


@pytest.mark.parametrize("name", NOT)
def test_what_cannot_be_proven_stays(name):
    before = graph(**NOT[name])
    after = rewritten(before, "fast")
    assert kinds(after)["Attention"] == 0
    assert after.opset_import[0].version == 20
    same(before, after)


TURNS = {  # (B, 2, 4, 4) to three axes, their new order, to four; whether this is one Transpose
    "the last two": ((-1, 4, 4), [0, 2, 1], (-1, 2, 4, 4), True),
    "cut otherwise before": ((-1, 2, 8), [0, 2, 1], (-1, 2, 4, 4), False),
    "cut otherwise after": ((-1, 4, 4), [0, 2, 1], (-1, 4, 2, 4), False),
    "other axes": ((-1, 4, 4), [1, 0, 2], (-1, 2, 4, 4), False),
}


@pytest.mark.parametrize("name", TURNS)
def test_keys_turned_on_three_axes(name):
    first, perm, last, one = TURNS[name]
    g = Nodes("n")
    flat = g.op("Reshape", "x", g.ints(*first))
    out = g.op("Reshape", g.op("Transpose", flat, perm=perm), g.ints(*last))
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, shape)
        for n, shape in (("x", ["batch", 2, 4, 4]), (out, None))
    ]
    made = helper.make_graph(g.nodes, "turn", ends[:1], ends[1:], list(g.constants.values()))
    before = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    after = rewritten(before, "fast")
    assert (kinds(after) == {"Transpose": 1}) == one
    same(before, after)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(module, a function that writes it as MLX exports it and gives the path)."""
    folder = tmp_path_factory.mktemp("fused")
    module = filled(dit, layers_mlx, FACES, patch=(2, 2), **SMALL)

    def write(name, **options):
        export_mlx(module, FACES, folder / name, overwrite=True, **options)
        return folder / name

    return write


@pytest.mark.parametrize("form", ["network", "sampler", "seeded"])
def test_every_form_around_it_samples_the_same(written, form):
    plain, fast = (written(f"{form}-{word}", form=form, profile=word) for word in PROFILES)
    assert written(f"{form}-default", form=form).read_bytes() == plain.read_bytes()
    file = modelfile.read(fast)
    assert (file.opset, file.operators["Attention"]) == (23, 2)
    assert modelfile.read(plain).opset == 20
    a, b = (runtimes.sample(runtimes.load(path), 3, label="b", seed=1) for path in (plain, fast))
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


@pytest.mark.parametrize("form", forms.PLAIN)
def test_forms_of_simple_operators_refuse_it(written, form):
    with pytest.raises(
        ValueError, match=f"profile: expected portable for the form {form}, got 'fast'"
    ):
        written(f"{form}.onnx", form=form, profile="fast")
    with pytest.raises(FileNotFoundError):
        runtimes.load(written("any", form="network").with_name(f"{form}.onnx"))


def test_smaller_weights_go_with_it(written):
    operators = modelfile.read(written("small", precision="int8", profile="fast")).operators
    assert operators["Attention"] == 2
    assert operators["MatMulInteger"] > 8


def test_the_command_line_takes_it_and_inspect_counts(toolkit, tmp_path):
    network, out = tmp_path / "network.onnx", tmp_path / "fast.onnx"
    onnx.save(of_mlx(FACES, filled(dit, layers_mlx, FACES, patch=(2, 2), **SMALL)), network)
    (tmp_path / "spec.json").write_text(to_json(FACES))
    common = ("export", network, "--spec", tmp_path / "spec.json", "--out", out)
    code, _, err = toolkit(*common, "--profile", "fats")
    assert (code, "did you mean 'fast'?" in err, out.exists()) == (2, True, False)
    assert toolkit(*common, "--profile", "fast")[0] == 0
    words = toolkit("inspect", out)[1]
    assert "opset 23" in words
    assert ", 2 Attention, " in words
    counted = [
        int(part.split()[0]) for part in words.split("operators")[1].split("\n")[0].split(",")
    ]
    assert counted == sorted(counted, reverse=True)
    assert f"{sum(counted)} nodes" in words
