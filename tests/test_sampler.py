"""The loop inside a graph is the loop outside it: every solver, guided or not, whole or in pieces."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import runtimes
from export import density_graphs, forms
from export.densities import DENSITIES
from export.sampler import sampler, seeded
from runtimes import ModelError, modelfile, tableaus
from runtimes.noise import noise, seed_rows
from runtimes.predictions import PREDICTIONS
from runtimes.sample import plan
from runtimes.schedules import SCHEDULES
from runtimes.solvers import SOLVERS
from runtimes.spec import Condition, Sampler, Spec, to_json
from runtimes.tableau import dense

from .problems import image_graph, mixture_graph, mixture_spec, proto

CLOSE = 1e-6  # of the largest state: float32 sums in another order


def write(path, form, graph, spec, batch=3):
    """A model file of that form around a graph or a model, without the gate's comparison."""
    network = graph if isinstance(graph, onnx.ModelProto) else proto(graph, spec)
    grown = forms.GROW[form](network, spec, batch)
    notes = {modelfile.SPEC_KEY: to_json(spec), modelfile.FORM_KEY: form}
    if form in modelfile.SAMPLERS:
        notes[modelfile.TABLEAUS_KEY] = tableaus.to_json(tableaus.kept(spec))
    path.write_bytes(forms.sealed(grown, notes))
    return runtimes.load(path, threads=1)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The mixture by its form and by whether it has labels."""
    folder = tmp_path_factory.mktemp("forms")
    return {
        (form, labelled): write(
            folder / f"{form}-{labelled}.onnx",
            form,
            mixture_graph(labelled),
            mixture_spec(labelled),
        )
        for form in ("network", "sampler", "seeded")
        for labelled in (False, True)
    }


def request(labelled, weight=1.0):
    return {"label": [0, 3, 5], "guidance": weight} if labelled else {}


@pytest.mark.parametrize("weight", [None, 1.0, 2.5])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_in_the_graph_is_the_host_loop(opened, solver, weight):
    asked = {"solver": solver, "steps": 7, "seed": 3, **request(weight is not None, weight)}
    for n in (1, 7):
        models = [opened[form, weight is not None] for form in ("network", "sampler", "seeded")]
        host, *inside = (runtimes.sample(model, n, **asked) for model in models)
        stepped = runtimes.sample(models[1], n, how="step", **asked)
        chunked = runtimes.sample(models[1], n, progress=lambda done, total: None, **asked)
        for x in (*inside, stepped, chunked):
            np.testing.assert_allclose(x, host, rtol=0, atol=CLOSE * max(1, np.abs(host).max()))


@pytest.mark.parametrize("name", ["heun", "dpmpp_3m", "ancestral"])
def test_every_state_is_seen_in_the_graph(opened, name):
    asked = {"solver": name, "steps": 6, "seed": 1, **request(True, 2.0)}
    host = list(runtimes.stream(opened["network", True], 5, **asked))
    inside = list(runtimes.stream(opened["sampler", True], 5, **asked))
    assert len(host) == len(inside) == 6
    for a, b in zip(host, inside, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_path_and_prediction_in_the_graph_is_the_host_loop(tmp_path, schedule, prediction):
    """On a network that is wrong for most of them: only the two loops are compared."""
    spec = mixture_spec(schedule=schedule, prediction=prediction)
    host = write(tmp_path / "n.onnx", "network", mixture_graph(), spec)
    inside = write(tmp_path / "s.onnx", "sampler", mixture_graph(), spec)
    largest = 4 * inside.tableaus[0].sigma  # of the noise a run starts from
    for name in ("heun", "dpmpp_2m", "ancestral"):
        a, b = (runtimes.sample(m, 5, solver=name, steps=5, seed=2) for m in (host, inside))
        np.testing.assert_allclose(a, b, rtol=0, atol=4e-6 * max(largest, np.abs(a).max()))


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Both forms of every known density, by its name."""
    folder, found = tmp_path_factory.mktemp("known"), {}
    for name in DENSITIES:
        path = density_graphs.write(folder / f"{name}.onnx", name, "linear", "velocity")
        network = onnx.ModelProto()
        network.ParseFromString(path.read_bytes())
        spec = density_graphs.spec_of(name, "linear", "velocity")
        inside = write(folder / f"{name}-loop.onnx", "sampler", network, spec)
        found[name] = runtimes.load(path, threads=1), inside
    return found


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", DENSITIES)
def test_every_known_density_in_the_graph_is_the_host_loop(known, name, solver):
    host, inside = known[name]
    told = {}
    if host.spec.condition.kind == "label":
        told = {"label": list(range(host.spec.condition.classes)), "guidance": 1.5}
    elif host.spec.condition.kind == "context":
        shape = (7, *host.spec.condition.shape)
        context = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        told = {"context": context, "guidance": 1.5}
    asked = {"solver": solver, "steps": 6, "seed": 8, **told}
    a, b = (runtimes.sample(model, 7, **asked) for model in (host, inside))
    # some densities tear neighbours apart: as far as a start one rounding away ends up elsewhere
    start = noise(seed_rows(8, 7), host.spec.shape, 0)
    torn = np.abs(runtimes.decode(host, start * np.float32(1 + 2**-23), **asked) - a).max()
    np.testing.assert_allclose(a, b, rtol=0, atol=CLOSE * max(1, np.abs(a).max()) + 4 * torn)


@pytest.mark.parametrize("kind", ["none", "label", "context"])
def test_a_network_of_images_with_any_condition(tmp_path, kind):
    condition = {
        "none": Condition(),
        "label": Condition("label", classes=4),
        "context": Condition("context", shape=(5,)),
    }[kind]

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = torch.nn.Conv2d(3, 3, 3, padding=1)
            self.table = torch.nn.Embedding(5, 3)
            self.line = torch.nn.Linear(5, 3)

        def forward(self, x, time, told=None):
            h = torch.tanh(self.mix(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
            e = {"none": 0.0, "label": 0.0, "context": 0.0}[kind]
            if kind == "label":
                e = self.table(told)[:, None, None]
            elif kind == "context":
                e = self.line(told)[:, None, None]
            return h + e + x * time[:, None, None, None]

    from export import export_torch

    torch.manual_seed(0)
    spec = Spec(
        "net", (4, 6, 3), condition=condition, value_range=(-1.0, 1.0), sampler=Sampler("heun", 4)
    )
    module = Net()
    for form in ("network", "sampler", "seeded"):
        report = export_torch(module, spec, tmp_path / f"{form}.onnx", form=form)
        assert report.worst.relative < 1e-5
    told = {
        "none": {},
        "label": {"label": [0, 1, 2, 3], "guidance": 3.0},
        "context": {
            "context": np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32),
            "guidance": 3.0,
        },
    }[kind]
    found = {
        form: runtimes.sample(runtimes.load(tmp_path / f"{form}.onnx"), 4, seed=6, **told)
        for form in ("network", "sampler", "seeded")
    }
    for form in ("sampler", "seeded"):
        np.testing.assert_allclose(found[form], found["network"], rtol=0, atol=1e-5)
    raw = onnxruntime.InferenceSession(str(tmp_path / "seeded.onnx"))
    feeds = {"seed": np.arange(6, 10)}
    if kind != "none":
        feeds[kind] = {"label": np.arange(4), "context": told.get("context")}[kind]
        sample, image = raw.run(["sample", "image"], feeds)  # the file's own guidance: 1
        plain = runtimes.sample(
            runtimes.load(tmp_path / "network.onnx"), 4, seed=6, **{**told, "guidance": 1.0}
        )
        np.testing.assert_allclose(sample, plain, rtol=0, atol=1e-5)
    else:
        sample, image = raw.run(["sample", "image"], feeds)
    assert image.dtype == np.uint8
    exact = np.clip((sample.astype(np.float64) + 1.0) * 127.5, 0, 255)
    assert np.abs(image - exact).max() <= 0.5 + 1e-4


def test_defaults_are_the_recommended_run(opened):
    """A bare session, given only what has no default."""
    for labelled in (False, True):
        model = opened["sampler", labelled]
        seeds = seed_rows(0, 4)
        feeds = {"x": noise(seeds, (2,), 0)[None]} | ({"label": np.arange(4)} if labelled else {})
        (sample,) = model.run(["sample"], feeds, 4)
        told = {"label": [0, 1, 2, 3]} if labelled else {}
        host = runtimes.sample(opened["network", labelled], 4, **told)
        np.testing.assert_allclose(sample, host, rtol=0, atol=2e-6)


def test_pieces_of_a_tableau_go_on_from_the_slots(opened):
    model = opened["sampler", False]
    ready = tableaus.ready(model.spec, "dpmpp_3m", 9, "uniform")
    x = noise(seed_rows(4, 3), (2,), 0)
    (whole,) = model.run(["sample"], {"x": x[None], "tableau": ready.tensor}, 3)
    slots = x[None]
    for start, stop in ((0, 1), (1, 5), (5, 9)):
        feeds = {"x": slots, "tableau": ready.tensor[start:stop]}
        sample, slots = model.run(["sample", "slots"], feeds, 3)
    assert slots.shape[0] == ready.tensor.shape[1] - 1
    np.testing.assert_array_equal(sample, whole)


def test_the_tableau_of_one_row_that_changes_nothing_is_the_network(opened):
    x = noise(seed_rows(0, 7), (2,), 0)
    times = np.linspace(0, 1, 7, dtype=np.float32)
    for labelled in (False, True):
        told = np.arange(7) % 9 if labelled else None
        a, b = (opened[f, labelled].network(x, times, told) for f in ("network", "sampler"))
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


@pytest.mark.parametrize("form", ["sampler", "seeded"])
def test_labels_are_as_many_as_rows_or_one_for_all(opened, form):
    """Any other number would be taken for rows without a label."""
    model, seeds = opened[form, True], np.arange(4)
    start = {"x": noise(seeds, (2,), 0)[None]} if form == "sampler" else {"seed": seeds}
    run = lambda label: model.run(["sample"], {**start, "label": np.array(label)}, 4)[0]  # noqa: E731
    np.testing.assert_array_equal(run([7]), run([7, 7, 7, 7]))
    for label in ([7, 7], [7, 7, 7], [7, 3, 5, 1, 0], [1] * 8):
        with pytest.raises(ModelError):
            run(label)


def test_a_row_does_not_depend_on_its_neighbours(opened):
    """Served rows of different seeds and weights, alone and together: the same bits of noise."""
    model = opened["seeded", True]
    tableau = tableaus.ready(model.spec, "ancestral", 6, "uniform").tensor
    seeds, labels = np.array([5, 0, 2**40]), np.array([1, 7, 3])
    weights = np.array([1.0, 3.0, -0.5], np.float32)

    def run(rows):
        feeds = {"seed": seeds[rows], "label": labels[rows], "guidance": weights[rows]}
        return model.run(["sample"], {**feeds, "tableau": tableau}, len(seeds[rows]))[0]

    together = run(slice(0, 3))
    alone = np.concatenate([run(slice(i, i + 1)) for i in range(3)])
    np.testing.assert_allclose(alone, together, rtol=0, atol=2e-6)
    host = opened["network", True]
    for i in range(3):
        x = runtimes.sample(
            host,
            1,
            label=int(labels[i]),
            guidance=float(weights[i]),
            seed=int(seeds[i]),
            solver="ancestral",
            steps=6,
        )
        np.testing.assert_allclose(together[i], x[0], rtol=0, atol=4e-6)


def count_rows_called(model, flags, weight):
    """How many rows the network saw in all: a Scan's body is counted by the profile's shapes."""
    session_options = onnxruntime.SessionOptions()
    session_options.enable_profiling = True
    session_options.log_severity_level = 4
    session_options.profile_file_prefix = str(model.file.path.with_suffix(""))
    session = onnxruntime.InferenceSession(model.file.content, session_options)
    table = tableaus.ready(model.spec, "euler", len(flags), "uniform").tensor.copy()
    table[:, 0, table.shape[1]] = flags
    feeds = {"x": noise(seed_rows(0, 4), (2,), 0)[None], "label": np.arange(4), "tableau": table}
    session.run(["sample"], {**feeds, "guidance": np.array([weight], np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text())
    shapes = [
        event["args"]["input_type_shape"][0]["float"]
        for event in events
        if event.get("args", {}).get("op_name") == "Softmax"
        and event["name"].endswith("kernel_time")
    ]
    return [shape[0] for shape in shapes]


def test_only_guided_rows_call_the_network_with_both_halves(opened):
    model = opened["sampler", True]
    assert count_rows_called(model, [1, 0, 1], 2.0) == [8, 4, 8]
    assert count_rows_called(model, [1, 1, 1], 1.0) == [
        4,
        4,
        4,
    ]  # a weight of 1 needs no second half


def test_weights_stand_once_and_inside_the_loop():
    spec = Spec("image", (4, 6, 3))
    network = proto(image_graph(), spec)
    made = sampler(network, spec)
    (scan,) = (node for node in made.graph.node if node.op_type == "Scan")
    body = next(a.g for a in scan.attribute if a.name == "body")
    kernels = [tensor for tensor in body.initializer if list(tensor.dims) == [3, 3, 3, 3]]
    assert len(kernels) == 1
    assert not [t for t in made.graph.initializer if list(t.dims) == [3, 3, 3, 3]]
    assert [node.op_type for node in made.graph.node].count("Scan") == 1


def test_convolutions_in_the_loop_are_laid_out_anew(tmp_path):
    """Outside the Scan's own graph ONNX Runtime would leave them as they are, a quarter slower."""
    spec = Spec("image", (8, 8, 16))
    made = sampler(proto(image_graph((8, 8, 16)), spec), spec)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(made.SerializeToString(), options)
    optimised = onnx.ModelProto()
    optimised.ParseFromString((tmp_path / "optimised.onnx").read_bytes())
    (scan,) = (node for node in optimised.graph.node if node.op_type == "Scan")
    body = next(a.g for a in scan.attribute if a.name == "body")
    domains = {node.domain for node in body.node if node.op_type == "Conv"}
    wide = "com.microsoft.nchwc"
    alone = tmp_path / "alone.onnx"
    options.optimized_model_filepath = str(alone)
    onnxruntime.InferenceSession(proto(image_graph((8, 8, 16)), spec).SerializeToString(), options)
    bare = onnx.ModelProto()
    bare.ParseFromString(alone.read_bytes())
    assert domains == {node.domain for node in bare.graph.node if node.op_type == "Conv"}
    assert domains <= {wide, ""}


def test_graphs_are_valid_onnx():
    for labelled in (False, True):
        spec = mixture_spec(labelled)
        for grow in (sampler, seeded):
            grown = grow(proto(mixture_graph(labelled), spec), spec)
            onnx.checker.check_model(grown, full_check=True)


def test_a_file_costs_little_more_than_its_network():
    """Weights once; the loop, the noise and the ready-made tableaus within 20 kB."""
    for labelled in (False, True):
        spec = mixture_spec(labelled)
        network = proto(mixture_graph(labelled), spec).ByteSize()
        notes = len(tableaus.to_json(tableaus.kept(spec)))
        for grow in (sampler, seeded):
            size = grow(proto(mixture_graph(labelled), spec), spec).ByteSize()
            assert size + notes < network * 1.02 + 30_000


def test_a_start_of_ones_own_and_later_noise_agree(opened):
    data = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    mask = np.array([1, 0])
    for verb, more in (("edit", {"strength": 0.6}), ("inpaint", {"mask": mask}), ("decode", {})):
        given = [data] if verb != "inpaint" else [data, more.pop("mask")]
        for solver in ("heun", "ancestral"):
            a, b = (
                getattr(runtimes, verb)(opened[f, False], *given, solver=solver, steps=8, **more)
                for f in ("network", "sampler")
            )
            np.testing.assert_allclose(a, b, rtol=0, atol=4e-6)


def test_a_tableau_the_loop_counts_on_by_draws(opened):
    """`before` moves the draws of a later part, as inpainting needs."""
    todo = plan(opened["network", False], 1, solver="ancestral", steps=4)
    rows = dense(todo.tableau, before=10)[:, 0, -1]
    assert rows.tolist()[:-1] == [11.0, 12.0, 13.0]


def test_edm_starts_at_its_own_noise_level(tmp_path):
    spec = replace(mixture_spec(), schedule="edm", prediction="edm", sampler=Sampler("heun", 6))
    model = write(tmp_path / "a.onnx", "seeded", mixture_graph(), spec)
    assert model.tableaus[0].sigma == pytest.approx(80.0)
    sample, *_ = model.run(["sample"], {"seed": np.arange(3)}, 3)
    host = runtimes.sample(write(tmp_path / "b.onnx", "network", mixture_graph(), spec), 3)
    np.testing.assert_allclose(sample, host, rtol=0, atol=1e-4 * np.abs(host).max())
