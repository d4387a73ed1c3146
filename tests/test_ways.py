"""Which way a plan runs is known before it does, and what a file cannot do is refused in one line."""

import gc
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import runtimes
from export import forms
from runtimes import ModelError, bound, modelfile, tableaus, ways
from runtimes.contracts import MOST_AHEAD
from runtimes.sample import plan
from runtimes.session import Model
from runtimes.spec import Sampler, to_json

from .problems import graph, mixture_graph, mixture_spec, proto
from .test_sampler import opened, write  # noqa: F401 - a fixture


@pytest.mark.parametrize(
    ("form", "asked", "way"),
    [
        ("network", {}, "host"),
        ("sampler", {}, "graph"),
        ("sampler", {"how": "step"}, "step"),
        ("sampler", {"how": "host"}, "host"),
        ("sampler", {"rescale": 0.5, "guidance": 2.0}, "host"),
        ("sampler", {"cfgpp": 0.6}, "host"),
        ("seeded", {}, "seeded"),
    ],
)
def test_the_best_way_that_a_request_allows(opened, form, asked, way):  # noqa: F811
    assert plan(opened[form, True], 2, label=1, **asked).way == way


@pytest.mark.parametrize(
    ("form", "asked", "words"),
    [
        ("network", {"how": "graph"}, "expected host for this model, got 'graph'"),
        ("sampler", {"how": "unrolled"}, "expected graph or step or host"),
        ("sampler", {"how": "grahp"}, "graph"),
        ("sampler", {"how": "graph", "cfgpp": 0.5}, "got cfgpp; leave it out"),
        ("seeded", {"rescale": 0.5, "guidance": 2.0}, "got rescale"),
        ("seeded", {"how": "host"}, "expected seeded for this model"),
    ],
)
def test_an_impossible_way_is_refused_before_anything_runs(opened, form, asked, words):  # noqa: F811
    with pytest.raises(ValueError, match=words) as caught:
        plan(opened[form, True], 2, label=1, **asked)
    assert "\n" not in str(caught.value)


def test_a_start_of_ones_own_needs_an_input(opened):  # noqa: F811
    with pytest.raises(ValueError, match="from noise of its seeds"):
        runtimes.edit(opened["seeded", False], np.zeros((2, 2), np.float32), strength=0.5)


def test_noise_of_ones_own_goes_back_to_the_host_loop(opened):  # noqa: F811
    model, host = opened["sampler", False], opened["network", False]
    for solver, way in (("ancestral", "host"), ("heun", "graph")):
        todo = runtimes.controls.interpolating(model, 4, to=9, solver=solver, steps=5)
        assert todo.way == way
        mine, theirs = (
            runtimes.interpolate(one, 4, to=9, solver=solver, steps=5) for one in (model, host)
        )
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6)


def test_pace_decides_how_many_states_are_seen(opened):  # noqa: F811
    todo = plan(opened["sampler", False], 3, steps=12)
    seen = {pace: [s.step for s in todo.states(0, 3, pace)] for pace in (0.0, 1e-9, 1e9, math.inf)}
    assert seen[0.0] == seen[1e-9] == list(range(13))
    assert seen[1e9] == [0, 1, 12]  # a first step, timed, then all the rest
    assert seen[math.inf] == [0, 12]


def test_noise_is_made_for_as_many_rows_as_memory_is_kept_for(opened, monkeypatch):  # noqa: F811
    whole = plan(opened["sampler", False], 3, solver="ancestral", steps=12)
    last = [s.x for s in whole.states(0, 3, math.inf)][-1]
    # five rows of three samples of two numbers
    monkeypatch.setattr(ways, "MOST_BEFORE", (12 * MOST_AHEAD + 60 * 6) * 5)
    states = list(whole.states(0, 3, math.inf))
    assert [s.step for s in states] == [0, 5, 10, 12]
    np.testing.assert_array_equal(states[-1].x, last)


def test_what_is_made_of_conditions_bounds_the_rows_of_a_run_too(opened, monkeypatch):  # noqa: F811
    todo = plan(opened["sampler", True], 3, label=[1, 2, 3], steps=12)
    assert [s.step for s in todo.states(0, 3, math.inf)] == [0, 12]
    monkeypatch.setattr(ways, "MOST_BEFORE", 12 * MOST_AHEAD * 6 * 9)  # heun has two rows a step
    assert [s.step for s in todo.states(0, 3, math.inf)] == [0, 4, 8, 12]


@pytest.mark.parametrize("labelled", [False, True])
def test_a_seeded_file_draws_as_many_at_once_as_memory_is_kept_for(opened, monkeypatch, labelled):  # noqa: F811
    told = {"label": [1, 2, 3], "guidance": 2.0} if labelled else {}
    asked = {"solver": "ancestral", "steps": 12, "seed": 5, **told}
    together = runtimes.sample(opened["seeded", labelled], 7, **asked)
    seen, run = [], Model.run

    def counted(model, outputs, feeds, rows, calls):
        seen.append(rows)
        return run(model, outputs, feeds, rows, calls)

    row = 7 * 60 * 2 + (14 if labelled else 1) * 12 * MOST_AHEAD  # bytes, of all samples
    monkeypatch.setattr(ways, "MOST_BEFORE", 12 * row * 3 // 7 + 12)
    monkeypatch.setattr(Model, "run", counted)
    apart = runtimes.sample(opened["seeded", labelled], 7, **asked)
    assert seen == [3, 3, 1]
    np.testing.assert_allclose(apart, together, rtol=0, atol=2e-6)


def test_slots_bound_to_a_device_are_those_of_the_host(opened, monkeypatch):  # noqa: F811
    """The way of CUDA, with the CPU in the card's place: the same binding, state by state."""
    todo = plan(opened["sampler", True], 5, label=[1, 7, 3], guidance=2.0, solver="ab3", steps=7)
    host = [state.x for state in todo.states(0, 5)]
    monkeypatch.setattr(ways, "DEVICES", {"cpu": "cpu"})
    assert todo.way == "step"
    for mine, theirs in zip(todo.states(0, 5), host, strict=True):
        np.testing.assert_array_equal(mine.x, theirs)


def test_a_state_that_is_not_finite_is_named(tmp_path):
    """x / (t - 1/2): nothing is wrong before the middle of the path."""
    nodes = [
        helper.make_node("Sub", ["time", "half"], ["away"]),
        helper.make_node("Unsqueeze", ["away", "axis"], ["column"]),
        helper.make_node("Div", ["x", "column"], ["prediction"]),
    ]
    weights = [
        numpy_helper.from_array(np.float32(0.5), "half"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    values = [("x", TensorProto.FLOAT, ["B", 2]), ("time", TensorProto.FLOAT, ["B"])]
    model = write(
        tmp_path / "a.onnx", "sampler", graph(nodes, values, ["B", 2], weights), mixture_spec()
    )
    for how in ("step", "host"):
        with pytest.raises(FloatingPointError, match=r"step 5 of 8, t = 0.625: .*in 2 samples"):
            list(runtimes.stream(model, 2, solver="euler", steps=8, how=how))
    with pytest.raises(FloatingPointError, match=r"step 8 of 8"):
        runtimes.sample(model, 2, solver="euler", steps=8)


@pytest.mark.parametrize("form", ["sampler", "seeded"])
def test_a_graph_that_returns_other_rows_is_refused(tmp_path, form):
    """One row would be spread over all of them."""
    spec = mixture_spec()
    grown = forms.GROW[form](proto(mixture_graph(), spec), spec, 1)
    last = next(node for node in grown.graph.node if "sample" in node.output)
    ends = [onnx.numpy_helper.from_array(np.array([n]), f"end{n}") for n in (0, 1)]
    grown.graph.initializer.extend(ends)
    last.CopyFrom(helper.make_node("Slice", [last.input[0], "end0", "end1"], ["sample"]))
    notes = {modelfile.SPEC_KEY: to_json(spec), modelfile.FORM_KEY: form}
    notes[modelfile.TABLEAUS_KEY] = tableaus.to_json(tableaus.kept(spec))
    (tmp_path / "a.onnx").write_bytes(forms.sealed(grown, notes))
    model = runtimes.load(tmp_path / "a.onnx")
    with pytest.raises(ModelError, match=r"expected states of shape \(4, 2\), got \(1, 2\)"):
        runtimes.sample(model, 4)
    if form == "sampler":
        with pytest.raises(ModelError, match=r"expected predictions of shape \(4, 2\)"):
            model.network(np.zeros((4, 2), np.float32), 0.5)


def test_a_batch_that_no_one_would_unroll_is_refused(tmp_path):
    """sample = x: nothing else is wrong with these files, and the last one opens."""
    spec = mixture_spec(sampler=Sampler("heun", 2))
    notes = {modelfile.SPEC_KEY: to_json(spec), modelfile.FORM_KEY: "unrolled"}
    for batch in (10**9, 4097, 4096):
        x, sample = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 2])
            for name in ("x", "sample")
        )
        same = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["sample"])], "g", [x], [sample]
        )
        (tmp_path / f"{batch}.onnx").write_bytes(forms.sealed(proto(same, spec), notes))
        if batch > 4096:
            with pytest.raises(ModelError, match=f"expected a batch of 1 to 4096, got {batch}"):
                runtimes.load(tmp_path / f"{batch}.onnx")
    assert runtimes.load(tmp_path / "4096.onnx").form == "unrolled"


def test_a_clock_that_stands_still_divides_nothing(opened, monkeypatch):  # noqa: F811
    monkeypatch.setattr(ways.time, "perf_counter", lambda: 5.0)
    for progress in (None, lambda done, total: None):
        runtimes.sample(opened["sampler", False], 2, steps=3, progress=progress)


def test_a_call_by_numbers_of_a_seeded_file_is_refused(opened):  # noqa: F811
    with pytest.raises(ValueError, match="--form network or sampler"):
        opened["seeded", False].network(np.zeros((1, 2), np.float32), 0.5)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """Unrolled for three samples: plain, with labels and no guidance, with labels and a weight of 2."""
    folder = tmp_path_factory.mktemp("unrolled")
    specs = {
        "plain": mixture_spec(sampler=Sampler("dpmpp_2m", 5)),
        "labels": mixture_spec(labelled=True, sampler=Sampler("heun", 4)),
        "guided": mixture_spec(labelled=True, sampler=Sampler("heun", 4, guidance=2.0)),
    }
    return {
        name: write(folder / f"{name}.onnx", "unrolled", mixture_graph(name != "plain"), spec)
        for name, spec in specs.items()
    }


@pytest.mark.parametrize("name", ["plain", "labels", "guided"])
def test_an_unrolled_file_draws_what_the_host_loop_draws(opened, fixed, name):  # noqa: F811
    told = {} if name == "plain" else {"label": [0, 3, 7, 2]}
    best = fixed[name].spec.sampler
    asked = {"solver": best.solver, "steps": best.steps, "guidance": best.guidance}
    for n in (1, 3, 7):
        mine = runtimes.sample(fixed[name], n, seed=4, **told)
        host = runtimes.sample(opened["network", name != "plain"], n, seed=4, **told, **asked)
        np.testing.assert_allclose(mine, host, rtol=0, atol=2e-6)
    assert plan(fixed[name], 1, **({} if name == "plain" else {"label": 0})).way == "unrolled"


def test_the_weight_of_an_unrolled_file_is_an_input(opened, fixed):  # noqa: F811
    for weight in (1.0, -0.5, 3.0):
        told = {"label": 5, "guidance": weight, "seed": 2}
        mine = runtimes.sample(fixed["guided"], 4, **told)
        host = runtimes.sample(opened["network", True], 4, solver="heun", steps=4, **told)
        np.testing.assert_allclose(mine, host, rtol=0, atol=4e-6)


def places(one):
    """The addresses of what a session reads and writes."""
    return [value.data_ptr() for value in (*one.inputs.values(), one.sample)]


@pytest.mark.parametrize("name", ["plain", "labels", "guided"])
def test_an_unrolled_file_is_bound_once_to_a_device(fixed, name, monkeypatch):
    """The way of CUDA, with the CPU in the card's place: other numbers, the same addresses."""
    model, told = fixed[name], {} if name == "plain" else {"label": [0, 3, 7, 2]}
    asked = [{"seed": 4, **told}, {"seed": 9, **told}, {"seed": 4, **told}]
    if name == "guided":
        asked[1]["guidance"] = 3.0
    host = [runtimes.sample(model, 7, **one) for one in asked]
    monkeypatch.setattr(ways, "DEVICES", {"cpu": "cpu"})
    mine = [runtimes.sample(model, 7, **asked[0])]
    first = places(bound.BOUND[model.session])
    with ThreadPoolExecutor(4) as pool:  # one at a time, whoever asks
        mine += pool.map(lambda one: runtimes.sample(model, 7, **one), asked[1:] * 8)
    for found, wanted in zip(mine, [host[0], *host[1:] * 8], strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert places(bound.BOUND[model.session]) == first


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there may be room"
)
@pytest.mark.parametrize("form", ["sampler", "unrolled"])
def test_a_device_without_room_is_one_line(opened, fixed, form, monkeypatch):  # noqa: F811
    """A card that this onnxruntime cannot reach has none: ONNX Runtime says so when it is to allocate."""
    model = fixed["plain"] if form == "unrolled" else opened["sampler", False]
    model = runtimes.load(model.file.path, provider="cpu")  # with nothing bound yet
    monkeypatch.setattr(ways, "DEVICES", {"cpu": "cuda"})
    for _ in range(2):  # nothing half bound is left behind
        with pytest.raises(ModelError, match=r"a network that runs on \d rows, got: ") as e:
            runtimes.sample(model, 4, how="step" if form == "sampler" else "auto")
        assert "\n" not in str(e.value)
        assert "allocate memory" in str(e.value)


def test_arrays_that_do_not_fit_what_was_bound_are_one_line(fixed):
    model = runtimes.load(fixed["plain"].file.path, provider="cpu")
    x = np.zeros((model.session.get_inputs()[0].shape[0], 2), np.float32)
    assert bound.run(model, "cpu", {"x": x}, 5).shape == x.shape
    with pytest.raises(ModelError, match="got: The input size of numpy arrays does not match"):
        bound.run(model, "cpu", {"x": np.concatenate([x, x])}, 5)
    assert bound.run(model, "cpu", {"x": x}, 5).shape == x.shape  # and the lock is free


def test_what_was_bound_goes_with_its_session(fixed, monkeypatch):
    monkeypatch.setattr(ways, "DEVICES", {"cpu": "cpu"})
    model = runtimes.load(fixed["plain"].file.path)
    runtimes.sample(model, 2)
    before = len(bound.BOUND)
    del model
    gc.collect()
    assert len(bound.BOUND) == before - 1


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("guided", {"solver": "euler"}),
        ("guided", {"steps": 5}),
        ("guided", {"grid": "cosine"}),
        ("guided", {"interval": (0.2, 0.6)}),
        ("labels", {"guidance": 2.0}),
    ],
)
def test_another_run_than_the_unrolled_one_is_refused(fixed, name, asked):
    with pytest.raises(
        ValueError, match="expected heun with 4 steps on the grid uniform"
    ) as caught:
        runtimes.sample(fixed[name], 2, label=1, **asked)
    assert "\n" not in str(caught.value)
