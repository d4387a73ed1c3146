import math
import re

import numpy as np
import onnx
import pytest

import runtimes
from runtimes.charts import CHARTS
from runtimes.likelihood import (
    EXACT_UP_TO,
    bits_per_dimension,
    dequantised,
    exact,
    hutchinson,
    likelihood,
)
from runtimes.modelfile import FORM_KEY, ModelError
from runtimes.noise import seed_rows
from runtimes.predictions import PREDICTIONS
from runtimes.schedules import SCHEDULES
from runtimes.spec import Spec

from .problems import (
    MIXTURE,
    ROUND,
    TILTED,
    image_graph,
    mixture_graph,
    mixture_spec,
    proto,
    starts,
    write_onnx,
    write_proto,
)

TIGHT = {"rtol": 1e-8, "atol": 1e-8}
problems = pytest.mark.parametrize(
    "problem", [MIXTURE, ROUND, TILTED], ids=["mixture", "round", "tilted"]
)


def dims(problem):
    return 2 if problem is MIXTURE else len(problem.mean)


class Exact:
    """A perfect network and J v by central differences in float64, one row at a time."""

    def __init__(self, problem, schedule="linear", prediction="velocity"):
        self.problem, self.calls = problem, 0
        self.spec = Spec("exact", (dims(problem),), schedule=schedule, prediction=prediction)

    def at(self, x, t):
        """At a few points of one time."""
        answer = self.problem.network(self.spec.prediction, SCHEDULES[self.spec.schedule])
        return answer(x, float(t))

    def network(self, x, t, condition=None):
        rows = zip(x.astype(float), t, strict=True)
        return np.stack([self.at(row[None], s)[0] for row, s in rows])

    def product(self, x, t, condition, probe):
        self.calls += len(x)
        h, x, probe = 1e-5, x.astype(float), probe.astype(float)
        around = np.stack([x, x + h * probe, x - h * probe], axis=1)
        rows = zip(around, t, strict=True)
        here, ahead, behind = np.stack([self.at(row, s) for row, s in rows], axis=1)
        return here, (ahead - behind) / (2 * h)


def truth(problem, schedule, x, t):
    scales = SCHEDULES[schedule](t)
    return problem.log_density(x.astype(float), float(scales.alpha), float(scales.sigma))


def points(problem, count=4, seed=3):
    """Where the data is, and where it is not."""
    return (0.8 * starts(count, dims(problem), seed)).astype(np.float32)


# Against exact log-densities


@problems
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", ["velocity", "data", "v"])
def test_exact_density(problem, schedule, prediction):
    """alpha(0) = 0, so what the ODE draws is the data."""
    x = points(problem)
    found = likelihood(Exact(problem, schedule, prediction), x, **TIGHT)
    assert found.time == (0.999 if prediction == "data" else 1.0)
    np.testing.assert_allclose(
        found.log_density, truth(problem, schedule, x, found.time), atol=1e-5
    )
    assert found.log_density.dtype == np.float64
    assert found.probes == 0


def pushed(problem, schedule, x, start, end):
    """Of N(0, sigma_start^2) carried along the closed-form flow, an affine map."""
    rule, size = SCHEDULES[schedule], dims(problem)

    def back(points):
        return problem.flow_map(points, rule(end), rule(start))

    jacobian = back(np.eye(size)) - back(np.zeros((1, size)))
    sigma = float(rule(start).sigma)
    z = back(x.astype(float)) / sigma
    normal = -0.5 * (z**2).sum(1) - 0.5 * size * math.log(2 * math.pi) - size * math.log(sigma)
    return normal + np.linalg.slogdet(jacobian)[1]


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("problem", [ROUND, TILTED], ids=["round", "tilted"])
def test_density_of_what_the_ode_draws_from_any_start(problem, schedule, chart):
    """Where alpha is not 0 at the start, in every chart: m, D and sigma each have to stand."""
    x, times = points(problem), (0.1, 0.9)
    found = likelihood(Exact(problem, schedule, "v"), x, times=times, chart=chart, **TIGHT)
    np.testing.assert_allclose(found.log_density, pushed(problem, schedule, x, *times), atol=2e-5)
    rule = SCHEDULES[schedule]
    np.testing.assert_allclose(
        found.noise, problem.flow_map(x.astype(float), rule(0.9), rule(0.1)), atol=1e-5
    )


def test_vp_whole_path_has_the_density_of_its_samples():
    """alpha(0) = 6.6e-3: not quite the data's density, exactly the samples'."""
    x = points(ROUND)
    found = likelihood(Exact(ROUND, "vp", "v"), x, **TIGHT).log_density
    np.testing.assert_allclose(found, pushed(ROUND, "vp", x, 0.0, 1.0), atol=1e-5)
    assert 1e-4 < np.abs(found - truth(ROUND, "vp", x, 1.0)).max() < 0.1


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_gives_the_same_density(prediction):
    x = points(MIXTURE)
    found = likelihood(Exact(MIXTURE, "linear", prediction), x, times=(0.05, 0.95), **TIGHT)
    other = likelihood(Exact(MIXTURE, "linear", "v"), x, times=(0.05, 0.95), **TIGHT)
    np.testing.assert_allclose(found.log_density, other.log_density, atol=1e-5)


# In every framework, float32


def write_likelihood(path, graph=None, spec=None, form="likelihood"):
    from export.derivatives import with_product

    model = with_product(
        proto(mixture_graph() if graph is None else graph, spec or mixture_spec())
    )
    if form is not None:
        model.metadata_props.add(key=FORM_KEY, value=form)
    return write_proto(path, model)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """The mixture's velocity with its exact products, on ONNX Runtime."""
    path = write_likelihood(tmp_path_factory.mktemp("likelihood") / "mixture.onnx")
    return runtimes.load(path, threads=1)


def torch_mixture():
    import torch

    from export import TorchModel

    means, variance = torch.tensor(MIXTURE.means, dtype=torch.float32), MIXTURE.variance

    class Velocity(torch.nn.Module):
        def forward(self, x, time):
            t = time[:, None]
            spread = t * t * variance + (1 - t) ** 2
            away = x[:, None] - t[:, :, None] * means
            parts = torch.softmax(-0.5 * (away**2).sum(-1) / spread, 1)
            white = (parts[:, :, None] * away).sum(1) / spread
            return parts @ means + t * variance * white - (1 - t) * white

    return TorchModel(mixture_spec(), Velocity())


def mlx_mixture():
    import mlx.core as mx

    from export import MlxModel

    means, variance = mx.array(MIXTURE.means.astype(np.float32)), MIXTURE.variance

    def velocity(x, time):
        t = time[:, None]
        spread = t * t * variance + (1 - t) ** 2
        away = x[:, None] - t[:, :, None] * means
        parts = mx.softmax(-0.5 * (away**2).sum(-1) / spread, axis=1)
        white = (parts[:, :, None] * away).sum(1) / spread
        return parts @ means + t * variance * white - (1 - t) * white

    return MlxModel(mixture_spec(), velocity)


@pytest.mark.parametrize("framework", ["torch", "mlx", "onnxruntime"])
def test_float32_frameworks_reach_the_exact_density(framework, mixture):
    model = {"torch": torch_mixture, "mlx": mlx_mixture, "onnxruntime": lambda: mixture}[
        framework
    ]()
    x = points(MIXTURE, 16)
    found = likelihood(model, x, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.log_density, truth(MIXTURE, "linear", x, 1.0), atol=1e-5)
    once = likelihood(model, x, probes=3, rtol=1e-6, atol=1e-6, seed=4)
    again = likelihood(Exact(MIXTURE), x, probes=3, rtol=1e-6, atol=1e-6, seed=4)
    np.testing.assert_allclose(once.log_density, again.log_density, atol=3e-5)


@pytest.mark.parametrize("framework", ["torch", "mlx"])
def test_models_also_sample_and_agree(framework, mixture):
    model = {"torch": torch_mixture, "mlx": mlx_mixture}[framework]()
    mine = runtimes.sample(model, 5, steps=10, seed=2)
    np.testing.assert_allclose(mine, runtimes.sample(mixture, 5, steps=10, seed=2), atol=1e-5)


def test_density_integrates_to_one(mixture):
    """Over a square that holds all but 1e-6 of the data."""
    side = np.linspace(-4, 4, 41)
    x = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype(np.float32)
    found = likelihood(mixture, x, rtol=1e-4, atol=1e-4, batch=2000)
    assert np.exp(found.log_density).sum() * 0.2**2 == pytest.approx(1.0, abs=1e-3)


# Hutchinson's estimate


def test_unbiased_within_four_standard_errors():
    """The same point 300 times, each with its own probe, on a Jacobian that is not diagonal."""
    x = np.repeat(points(TILTED, 1), 300, axis=0)
    found = likelihood(Exact(TILTED), x, probes=1, rtol=1e-4, atol=1e-4).log_density
    right = truth(TILTED, "linear", x[:1], 1.0)[0]
    error = found.std() / math.sqrt(300)
    assert error > 1e-3
    assert abs(found.mean() - right) < 4 * error


def test_more_probes_come_closer():
    x = np.repeat(points(TILTED, 1), 40, axis=0)
    right = truth(TILTED, "linear", x[:1], 1.0)[0]
    options = {"rtol": 1e-4, "atol": 1e-4}
    one, many = (likelihood(Exact(TILTED), x, probes=k, **options) for k in (1, 16))
    away = [np.sqrt(np.mean((found.log_density - right) ** 2)) for found in (one, many)]
    assert away[1] < away[0] / 2


def test_exact_where_the_jacobian_is_diagonal():
    x = points(ROUND)
    found = likelihood(Exact(ROUND), x, probes=1, **TIGHT)
    np.testing.assert_allclose(found.log_density, truth(ROUND, "linear", x, 1.0), atol=1e-5)
    assert found.probes == 1


def test_traces_of_a_known_matrix():
    matrix = np.arange(16.0).reshape(4, 4)

    def product(x, t, rows, probe):
        return x, (probe.reshape(-1, 4) @ matrix.T).reshape(x.shape)

    x, t, rows = np.ones((3, 2, 2), np.float32), np.zeros(3), np.array([0, 2, 3])
    np.testing.assert_array_equal(exact(product, x, t, rows)[1], [30.0] * 3)  # 0 + 5 + 10 + 15
    found = [hutchinson(seed_rows(0, 4), (2, 2), k)(product, x, t, rows)[1] for k in (1, 2, 600)]
    assert len(set(found[0].tolist())) > 1
    np.testing.assert_allclose(found[2], 30.0, atol=4 * math.sqrt(2 * 600 / 600) * 4)


# Rows, seeds, calls


@pytest.mark.parametrize("probes", [0, 2])
def test_bits_of_a_row_do_not_depend_on_its_batch(mixture, probes):
    x = points(MIXTURE, 9)
    options = {"probes": probes, "rtol": 1e-4, "atol": 1e-4, "seed": 5}
    whole = likelihood(mixture, x, **options)
    for batch in (1, 2, 4):
        parts = likelihood(mixture, x, batch=batch, **options)
        for word in ("log_density", "noise", "calls", "accepted", "rejected"):
            np.testing.assert_array_equal(getattr(whole, word), getattr(parts, word))
    alone = likelihood(mixture, x[6:7], **{**options, "seed": 5 + 6})
    assert alone.log_density[0] == whole.log_density[6]


@pytest.mark.parametrize(("probes", "each"), [(0, 2), (1, 1), (3, 3)])
def test_calls_are_counted(probes, each):
    model = Exact(MIXTURE)
    found = likelihood(model, points(MIXTURE), probes=probes)
    assert found.calls.sum() == model.calls
    np.testing.assert_array_equal(found.calls, each * (2 + 6 * (found.accepted + found.rejected)))


def test_large_samples_take_a_probe_unless_told_otherwise(tmp_path):
    spec = Spec("image", (4, 6, 3), prediction="velocity")
    assert math.prod(spec.shape) > EXACT_UP_TO
    model = runtimes.load(write_likelihood(tmp_path / "a.onnx", image_graph(), spec))
    x = np.random.default_rng(0).standard_normal((40, 4, 6, 3)).astype(np.float32)
    guess = likelihood(model, x, rtol=1e-3, atol=1e-3)
    right = likelihood(model, x, probes=0, rtol=1e-3, atol=1e-3)
    assert (guess.probes, right.probes) == (1, 0)
    away = guess.log_density - right.log_density
    assert np.abs(away).min() > 0
    assert abs(away.mean()) < 4 * away.std() / math.sqrt(40)


def test_labels_choose_the_density(tmp_path):
    graph = mixture_graph(labelled=True)
    path = write_likelihood(tmp_path / "a.onnx", graph, mixture_spec(labelled=True))
    model, x = runtimes.load(path), points(MIXTURE, 3)
    found = likelihood(model, x, label=[0, 5, 2], rtol=1e-6, atol=1e-6).log_density
    away = x - MIXTURE.means[[0, 5, 2]]
    var = MIXTURE.variance
    np.testing.assert_allclose(
        found, -0.5 * (away**2).sum(1) / var - math.log(2 * math.pi * var), atol=1e-4
    )
    null = likelihood(model, x, label="none", rtol=1e-6, atol=1e-6).log_density
    np.testing.assert_allclose(null, truth(MIXTURE, "linear", x, 1.0), atol=1e-4)


# Grey levels


def test_bits_of_uniform_levels():
    """Density 1 / (16 step) per number over 16 levels is 4 bits."""
    log_density = np.full(3, -5 * math.log(16 * 0.25))
    np.testing.assert_allclose(bits_per_dimension(log_density, 5, 0.25), 4.0)
    np.testing.assert_allclose(bits_per_dimension(np.array([-2 * math.log(2)]), 2), 1.0)


def test_dequantised_stays_in_its_cell_and_depends_on_its_row_alone():
    levels = np.random.default_rng(0).integers(0, 17, (50, 8, 8, 1))
    x = (levels / 8 - 1).astype(np.float32)
    shaken = dequantised(x, 0.125, seed=3)
    np.testing.assert_array_equal(np.round((shaken + 1) * 8), levels)
    u = (shaken - x) / 0.125
    assert abs(u.mean()) < 4 / math.sqrt(12 * u.size)
    assert u.std() == pytest.approx(1 / math.sqrt(12), rel=0.03)
    np.testing.assert_array_equal(dequantised(x[7:9], 0.125, seed=10), shaken[7:9])


# Mistakes


BAD = {
    "shape": ({"data": np.zeros((4, 3), np.float32)}, r"data: expected float32 \(4, 2\)"),
    "nan": ({"data": np.full((4, 2), np.nan, np.float32)}, "data: expected finite"),
    "empty": ({"data": np.zeros((0, 2), np.float32)}, "n: expected"),
    "probes": ({"probes": -1}, "probes: expected a whole number from 0"),
    "tolerance": ({"rtol": 0.0}, "rtol: expected"),
    "method": ({"method": "bosh"}, "did you mean 'bosh3'"),
    "labels": (
        {"label": [0, 1]},
        r"label: expected one for all or one for each of \d+ rows, got 2",
    ),
    "ragged": ({"data": [[0.0], [0.0, 1.0]]}, "data: expected one array"),
    "no times": ({"times": True}, "times: expected a list of times, got True"),
    "model": ({"model": "a.onnx"}, "model: expected an opened model, got 'a.onnx'"),
    "falling": ({"times": (1.0, 0.0)}, "increasing"),
    "label": ({"label": 2}, "label: expected none"),
    "seed": ({"seed": -1}, "seed: expected"),
    "budget": ({"most_calls": 0}, "most_calls: expected"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistake_is_one_line_before_any_call(name):
    model, (changes, message) = Exact(MIXTURE), BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        likelihood(**{"model": model, "data": points(MIXTURE), **changes})
    assert "\n" not in str(caught.value)
    assert model.calls == 0


def test_budget_names_step_t_and_sample(mixture):
    with pytest.raises(
        FloatingPointError, match=r"step \d+, t = 0\.\d+: .*20 network calls.*sampl"
    ):
        likelihood(mixture, points(MIXTURE), rtol=1e-9, atol=1e-9, most_calls=20)


# The file's form


def test_ordinary_file_says_what_to_do(tmp_path):
    model = runtimes.load(write_onnx(tmp_path / "a.onnx"))
    assert model.form == "network"
    with pytest.raises(ValueError, match=r"expected a file of the form 'likelihood', .*--form"):
        likelihood(model, points(MIXTURE))


def test_likelihood_file_samples_too(tmp_path, mixture):
    plain = runtimes.load(write_onnx(tmp_path / "a.onnx"), threads=1)
    assert mixture.form == "likelihood"
    np.testing.assert_allclose(
        runtimes.sample(mixture, 5, seed=1), runtimes.sample(plain, 5, seed=1), atol=1e-6
    )


def test_form_and_graph_have_to_fit(tmp_path):
    with pytest.raises(ModelError, match=r"expected inputs x.*got .*probe"):
        runtimes.load(write_likelihood(tmp_path / "a.onnx", form=None))
    with pytest.raises(
        ModelError, match=r"expected the form network, likelihood, .*, got 'other'"
    ):
        runtimes.load(write_likelihood(tmp_path / "b.onnx", form="other"))
    model = proto(mixture_graph(), mixture_spec())
    model.metadata_props.add(key=FORM_KEY, value="likelihood")
    with pytest.raises(ModelError, match=r"expected inputs .*probe"):
        runtimes.load(write_proto(tmp_path / "c.onnx", model))


def test_wrong_probe_is_refused(mixture):
    x = points(MIXTURE)
    for probe in (x[:1], x.astype(float)):
        with pytest.raises(ValueError, match="probe: expected float32"):
            mixture.product(x, 0.5, None, probe)


def test_graph_is_valid_onnx(tmp_path):
    path = write_likelihood(tmp_path / "a.onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)


# Command line


def run(*args):
    from toolkit.cli import main

    with pytest.raises(SystemExit) as stop:
        main(["likelihood", *map(str, args)])
    return stop.value.code


def test_cli_says_what_python_says(tmp_path, capsys):
    path = write_likelihood(tmp_path / "a.onnx")
    x = points(MIXTURE, 12)
    np.savez(tmp_path / "x.npz", x=x)
    code = run(path, tmp_path / "x.npz", "-n", 10, "--tolerance", 1e-4, "-o", tmp_path / "out.npz")
    out = capsys.readouterr().out
    found = likelihood(runtimes.load(path), x[:10], rtol=1e-4, atol=1e-4)
    assert code == 0
    assert f"{found.log_density.mean():.4f} +- " in out
    assert "exact" in out
    assert "continuous" in out
    with np.load(tmp_path / "out.npz") as saved:
        np.testing.assert_array_equal(saved["log_density"], found.log_density)
        np.testing.assert_allclose(
            saved["bits_per_dimension"], -found.log_density / 2 / math.log(2)
        )
        assert saved["calls"].shape == (10,)
    code = run(path, tmp_path / "x.npz", "--step", 0.1, "--probes", 2, "--seed", 3)
    out = capsys.readouterr().out
    assert code == 0
    found = likelihood(runtimes.load(path), dequantised(x, 0.1, 3), probes=2, seed=3)
    bits = bits_per_dimension(found.log_density, 2, 0.1)
    assert f"{bits.mean():.4f} +- " in out
    assert "uniform noise of one level, 0.1, added: an upper bound" in out
    assert "2 random probes a row" in out


def test_cli_takes_labels_from_the_data(tmp_path, capsys):
    path = write_likelihood(
        tmp_path / "a.onnx", mixture_graph(labelled=True), mixture_spec(labelled=True)
    )
    x, y = points(MIXTURE, 12), np.arange(12) % 8
    np.savez(tmp_path / "x.npz", x=x, y=y)
    assert run(path, tmp_path / "x.npz") == 0
    mean = likelihood(runtimes.load(path), x, label=y).log_density.mean()
    assert f"{mean:.4f} +- " in capsys.readouterr().out
    assert run(path, tmp_path / "x.npz", "--label", "none") == 0
    mean = likelihood(runtimes.load(path), x, label="none").log_density.mean()
    assert f"{mean:.4f} +- " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tolerance", "nan"], "error: tolerance: expected 1e-12"),
        (["--solver", "heun"], "error: solver: expected one of dopri5, bosh3"),
        (["--probes", "-1"], "probes: expected"),
        (["--step", "-1"], "step: expected"),
        (["-n", "0"], "count: expected"),
        (["-o", "a.txt"], "out: expected a file ending in .npz"),
        (["--label", "3"], "label: expected none"),
    ],
)
def test_cli_mistake_is_one_line(tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    path = write_likelihood(tmp_path / "a.onnx")
    np.savez(tmp_path / "x.npz", x=points(MIXTURE))
    before = sorted(tmp_path.iterdir())
    assert run(path, "x.npz", *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.iterdir()) == before


def test_cli_exports_the_form_and_reads_it(tmp_path, capsys, monkeypatch):
    """A run's weights, its file of the other form, and data sets by name."""
    import torch

    from toolkit import cli, train_torch

    spec = mixture_spec(name="moons")
    monkeypatch.setattr(train_torch, "load", lambda run, which: (torch_mixture().module, spec))
    path = tmp_path / "a.onnx"
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", "run", "--backend", "torch", "--form", "likelihood", "-o", str(path)])
    assert stop.value.code == 0
    assert "product" in capsys.readouterr().out
    assert run(path, "two-moons", "-n", 5, "--tolerance", 1e-3) == 0
    assert "5" in re.search(r"rows +(\d+)", capsys.readouterr().out)[1]
    with pytest.raises(SystemExit):
        cli.main(["inspect", str(path)])
    assert re.search(r"form +likelihood", capsys.readouterr().out)
    assert torch.is_grad_enabled()


def test_cli_guesses_the_form(tmp_path, capsys):
    from toolkit import cli

    with pytest.raises(SystemExit) as stop:
        cli.main(["export", "run", "--form", "likelyhood", "-o", str(tmp_path / "a.onnx")])
    assert stop.value.code == 2
    assert "did you mean 'likelihood'" in capsys.readouterr().err
