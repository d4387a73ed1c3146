"""One flat graph of a whole run gives what the host loop gives, and phones take it in one piece."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

import runtimes
from export import export_torch
from export.placement import PROVIDERS, Placement, placement
from export.unrolled import MOST_BATCH, unrolled
from runtimes import modelfile
from runtimes.sample import plan
from runtimes.spec import Condition, Sampler, Spec
from toolkit.cli import main
from toolkit.networks import NETWORKS, Sizes, layers_torch

from .problems import mixture_spec, write_onnx

LABELS = Condition("label", classes=10)
TOKENS = Condition("context", shape=(3, 5))


def dit(path, condition):
    """A small DiT whose every weight matters, exported."""
    sizes = Sizes((4, 4, 2), condition, width=16, depth=2, heads=2, patch=(2, 2))
    module, rng = NETWORKS["dit"](layers_torch, sizes), np.random.default_rng(1)
    shapes = layers_torch.shapes(module).items()
    layers_torch.fill(
        module, {k: (0.2 * rng.standard_normal(s)).astype(np.float32) for k, s in shapes}
    )
    spec = Spec(
        "small", sizes.shape, condition=condition, sampler=Sampler("heun", 4, guidance=2.0)
    )
    export_torch(module, spec, path)
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """name -> path of an exported network."""
    folder = tmp_path_factory.mktemp("unrolled")
    return {
        "mixture": write_onnx(folder / "mixture.onnx"),
        "labelled": write_onnx(folder / "labelled.onnx", labelled=True),
        "noise": write_onnx(folder / "noise.onnx", spec=mixture_spec(prediction="noise")),
        "dit": dit(folder / "dit.onnx", LABELS),
        "tokens": dit(folder / "tokens.onnx", TOKENS),
    }


def request(model, n):
    kind, rng = model.spec.condition.kind, np.random.default_rng(2)
    if kind == "label":
        return {"label": rng.integers(0, model.spec.condition.classes, n).tolist()}
    if kind == "context":
        shape = model.spec.condition.shape
        return {"context": rng.standard_normal((n, *shape)).astype(np.float32)}
    return {}


def feeds(proto, todo, weight):
    """What the inputs of an unrolled graph are given for a plan."""
    values = feeds_of(todo, weight)
    return {value.name: values[value.name] for value in proto.graph.input}


def feeds_of(todo, weight):
    """Every value that an unrolled graph could take."""
    spec, n = todo.model.spec, len(todo.seeds)
    values = {"x": todo.first(0, n, todo.times[0]), "guidance": np.full(n, weight, np.float32)}
    if spec.condition.kind == "label":
        values["label"] = np.eye(spec.condition.classes + 1, dtype=np.float32)[todo.condition]
    if spec.condition.kind == "context":
        values["context"] = todo.condition
    return values


def run(proto, values):
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (sample,) = session.run(["sample"], values)
    return sample


def assert_close(sample, state):
    """To 1e-6 of the state's scale."""
    assert np.abs(sample - state).max() <= 1e-6 * max(1.0, np.abs(state).max())


def made(paths, name, n, **wanted):
    model = runtimes.load(paths[name])
    todo = plan(model, n, **request(model, n), **wanted)
    network = onnx.load_model_from_string(model.file.content)
    return unrolled(network, model.spec, n, todo.tableau), todo


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    ("solver", "steps"), [("heun", 4), ("dpmpp_2m", 5), ("rk4", 2), ("ab2", 4)]
)
@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("mixture", 1.0),
        ("noise", 1.0),
        ("labelled", 1.0),
        ("labelled", 2.5),
        ("dit", 1.0),
        ("dit", 2.0),
        ("tokens", 2.0),
    ],
)
def test_whole_run_is_the_host_loop(paths, name, weight, solver, steps, n):
    proto, todo = made(paths, name, n, solver=solver, steps=steps, seed=3, guidance=weight)
    *_, last = todo.states(0, n)
    sample = run(proto, feeds(proto, todo, weight))
    assert (sample.shape, sample.dtype) == (last.x.shape, np.float32)
    assert_close(sample, last.x)


def test_guidance_in_an_interval_doubles_only_the_rows_inside(paths):
    proto, todo = made(paths, "dit", 3, solver="euler", steps=4, guidance=2.0, interval=(0.2, 0.6))
    assert [row.guided for row in todo.tableau.rows] == [False, False, True, True][
        : todo.calls
    ] or 1
    assert [row.guided for row in todo.tableau.rows] == [False, True, True, False]
    joined = [node for node in proto.graph.node if list(node.input) == [node.input[0]] * 2]
    assert Counter(node.op_type for node in joined)["Concat"] == 2
    *_, last = todo.states(0, 3)
    assert_close(run(proto, feeds(proto, todo, 2.0)), last.x)


def test_each_row_has_its_own_guidance(paths):
    proto, todo = made(paths, "labelled", 3, solver="heun", steps=4, guidance=2.0)
    values = feeds(proto, todo, 2.0)
    values["guidance"] = np.array([1.0, 2.0, 4.0], np.float32)
    together = run(proto, values)
    for row, weight in enumerate(values["guidance"]):
        alone = run(proto, {**values, "guidance": np.full(3, weight, np.float32)})
        np.testing.assert_array_equal(together[row], alone[row])
    assert np.abs(together - run(proto, feeds(proto, todo, 2.0))).max() > 1e-3


def test_weights_stand_once_and_times_not_at_all(paths):
    network = onnx.load_model_from_string(paths["dit"].read_bytes())
    first, _ = made(paths, "dit", 2, solver="euler", steps=1, guidance=1.0)
    many, _ = made(paths, "dit", 2, solver="euler", steps=9, guidance=1.0)
    names = Counter(tensor.name for tensor in many.graph.initializer)
    assert set(names.values()) == {1}
    weights = sum(len(tensor.raw_data) for tensor in network.graph.initializer)
    size = [sum(len(t.raw_data) for t in proto.graph.initializer) for proto in (first, many)]
    assert size[0] <= weights
    # of a further step there is one time embedding, (1, width), and a step size
    assert size[1] - size[0] <= 8 * (16 + 1) * 4
    assert [value.name for value in many.graph.input] == ["x", "label"]


def test_the_same_request_gives_the_same_bytes(paths):
    first, second = (made(paths, "dit", 2, solver="heun", steps=2)[0] for _ in range(2))
    assert first.SerializeToString() == second.SerializeToString()


def test_a_network_may_call_its_values_as_the_graph_would(paths):
    """Names that two sides choose alike would put two values in one place."""
    model = runtimes.load(paths["labelled"])
    network = onnx.load_model_from_string(model.file.content)
    todo = plan(model, 2, label=[1, 2], solver="euler", steps=3, guidance=2.0)
    plain = run(unrolled(network, model.spec, 2, todo.tableau), values := feeds_of(todo, 2.0))
    for number, tensor in enumerate(network.graph.initializer):
        for node in network.graph.node:
            names = [f"value_{number}" if n == tensor.name else n for n in node.input]
            node.input[:] = names
        tensor.name = f"value_{number}"
    np.testing.assert_array_equal(
        run(unrolled(network, model.spec, 2, todo.tableau), values), plain
    )


def test_a_weight_of_one_and_an_empty_slot_cost_nothing(points):
    """x <- x + h (-x): three nodes a step."""
    model = runtimes.load(points)
    todo = plan(model, 2, solver="euler", steps=5)
    proto = unrolled(onnx.load_model_from_string(model.file.content), model.spec, 2, todo.tableau)
    assert Counter(node.op_type for node in proto.graph.node) == {"Mul": 2 * 5, "Add": 5}
    *_, last = todo.states(0, 2)
    np.testing.assert_allclose(run(proto, feeds(proto, todo, 1.0)), last.x, atol=1e-6)


def test_phones_take_it_in_one_piece_and_not_the_network(paths):
    proto, _ = made(paths, "dit", 2, solver="heun", steps=3, guidance=2.0)
    after = {row.provider: row for row in placement(proto.SerializeToString())}
    before = {row.provider: row for row in placement(paths["dit"].read_bytes())}
    assert set(after) == set(before) == set(PROVIDERS)
    for name in ("coreml", "nnapi"):
        assert after[name].whole
        assert (after[name].refused, after[name].unsized) == ((), 0)
        assert not before[name].whole
        assert before[name].unsized > 0
    assert "LayerNormalization" in before["nnapi"].refused
    assert not after["coreml-nn"].whole  # it has no mean over axes


@pytest.mark.parametrize(
    ("partitions", "taken", "whole"), [(1, 9, True), (1, 8, False), (2, 9, False), (0, 0, False)]
)
def test_whole_is_every_node_in_one_piece(partitions, taken, whole):
    assert Placement("coreml", partitions, taken, 9, (), 0).whole is whole


@pytest.mark.parametrize("solver", ["ancestral", "euler_maruyama"])
def test_noisy_solver_is_refused_with_what_to_take_instead(paths, solver):
    with pytest.raises(ValueError, match=r"solver: expected one without noise .*heun or dpmpp_2m"):
        made(paths, "mixture", 2, solver=solver, steps=3)


@pytest.mark.parametrize("batch", [0, MOST_BATCH + 1, 2.0, True])
def test_batch_is_a_whole_number(paths, batch):
    model = runtimes.load(paths["mixture"])
    network = onnx.load_model_from_string(model.file.content)
    with pytest.raises(ValueError, match="batch: expected a whole number from 1 to 4096"):
        unrolled(network, model.spec, batch, plan(model, 1).tableau)


def test_too_many_steps_are_refused(paths):
    with pytest.raises(
        ValueError, match="steps: expected an unrolled graph of at most 20000 nodes"
    ):
        made(paths, "dit", 1, solver="euler", steps=200)


def test_spec_of_other_classes_is_refused(paths):
    model = runtimes.load(paths["labelled"])
    spec = mixture_spec(labelled=True, condition=Condition("label", classes=5))
    network = onnx.load_model_from_string(model.file.content)
    with pytest.raises(ValueError, match="expected a table of 6 labels by its spec, got 9"):
        unrolled(network, spec, 2, plan(model, 1, label=0).tableau)


# toolkit check


def command(capsys, *args):
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, args)))
    return (caught.value.code, *capsys.readouterr())


@pytest.fixture
def sealed(paths, tmp_path):
    """The unrolled run as a file of ours."""
    proto, todo = made(paths, "mixture", 2, solver="heun", steps=2)
    for key, text in ((modelfile.SPEC_KEY, runtimes.spec.to_json(todo.model.spec)),):
        proto.metadata_props.add(key=key, value=text)
    path = tmp_path / "unrolled.onnx"
    path.write_bytes(modelfile.seal(proto.SerializeToString()))
    return path


def test_check_prints_who_takes_how_much(sealed, capsys):
    code, out, err = command(capsys, "check", sealed, "--require", "coreml", "--require", "nnapi")
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split()[:3] == ["provider", "partitions", "nodes"]
    assert [row.split()[0] for row in rows] == list(PROVIDERS)
    name, partitions, nodes, left = rows[0].split()
    assert (name, partitions, left) == ("coreml", "1", "-")
    assert len(set(nodes.split("/"))) == 1


def test_check_fails_where_a_required_provider_takes_part_of_it(paths, capsys):
    code, out, err = command(capsys, "check", paths["dit"], "--require", "coreml")
    assert code == 1
    assert err.startswith(f"error: {paths['dit']}: expected one partition with all ")
    assert err.count("\n") == 1
    assert "of free size" in out
    assert command(capsys, "check", paths["dit"])[0] == 0


def test_check_refuses_other_names_and_changed_files(sealed, tmp_path, capsys):
    code, _, err = command(capsys, "check", sealed, "--require", "coremll")
    assert code == 2
    assert "did you mean 'coreml'" in err
    content = bytearray(sealed.read_bytes())
    content[100] ^= 1
    (tmp_path / "changed.onnx").write_bytes(content)
    code, out, err = command(capsys, "check", tmp_path / "changed.onnx")
    assert (code != 0, out) == (True, "")
    assert "truncated or changed" in err


def test_a_graph_that_does_not_open_is_one_line(tmp_path):
    node = onnx.helper.make_node("Add", ["x", "nothing"], ["prediction"])
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    out = onnx.helper.make_tensor_value_info("prediction", onnx.TensorProto.FLOAT, [2])
    graph = onnx.helper.make_graph([node], "broken", [value], [out])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    )
    with pytest.raises(runtimes.ModelError, match="expected a graph ONNX Runtime opens") as caught:
        placement(model.SerializeToString())
    assert "\n" not in str(caught.value)
