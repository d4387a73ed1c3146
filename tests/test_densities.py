"""The known densities against scipy, and their .onnx files against both."""

import numpy as np
import onnx
import pytest
from scipy.stats import multivariate_normal

import runtimes
from export import conformance, density_graphs
from export.densities import DENSITIES
from runtimes.predictions import PREDICTIONS
from runtimes.schedules import SCHEDULES

names = pytest.mark.parametrize("name", DENSITIES)
ALPHA, SIGMA = 0.6, 0.5


def cases(name):
    """(x, condition, means of the parts that are let through) row by row."""
    density, rng = DENSITIES[name], np.random.default_rng(1)
    x = rng.standard_normal((4, *density.shape))
    if density.condition.kind == "label":
        labels = np.array([0, 1, len(density.means), len(density.means) - 1])
        means = [density.means if k == len(density.means) else density.means[[k]] for k in labels]
        return x, labels, means
    if density.condition.kind == "context":
        contexts = rng.standard_normal((4, *density.condition.shape))
        return x, contexts, [density.means + c.ravel() @ density.lift for c in contexts]
    return x, None, [density.means] * 4


def covariance(name):
    density = DENSITIES[name]
    own = density.axes @ np.diag(density.variances) @ density.axes.T
    return ALPHA**2 * own + SIGMA**2 * np.eye(len(own))


@names
def test_log_density_is_scipys(name):
    x, condition, means = cases(name)
    got = DENSITIES[name].laws(x, ALPHA, SIGMA, condition)["log_density"]
    cov = covariance(name)
    for row, (point, centres) in enumerate(zip(x, means, strict=True)):
        parts = [multivariate_normal(ALPHA * m, cov).logpdf(point.ravel()) for m in centres]
        exact = np.logaddexp.reduce(parts) - np.log(len(parts))
        assert got[row] == pytest.approx(exact, rel=1e-9, abs=1e-9)


@names
def test_score_is_its_gradient_and_tweedie_gives_the_ends(name):
    density = DENSITIES[name]
    x, condition, _ = cases(name)
    laws = density.laws(x, ALPHA, SIGMA, condition)
    step = 1e-5 * np.random.default_rng(2).standard_normal(x.shape)
    up, down = (density.laws(x + s * step, ALPHA, SIGMA, condition) for s in (1, -1))
    slope = (laws["score"] * step).reshape(4, -1).sum(1)
    np.testing.assert_allclose(
        (up["log_density"] - down["log_density"]) / 2, slope, rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(laws["noise"], -SIGMA * laws["score"], rtol=1e-12)
    np.testing.assert_allclose(ALPHA * laws["data"] + SIGMA * laws["noise"], x, atol=1e-12)


def test_paths_of_ornstein_and_uhlenbeck():
    """Correlation e^-1/4 from one step to the next and none between columns."""
    density = DENSITIES["ornstein_uhlenbeck"]
    own = (density.axes * density.variances @ density.axes.T).reshape(11, 3, 11, 3)
    assert own[4, 1, 4, 1] == pytest.approx(1.0)
    assert own[4, 1, 7, 1] == pytest.approx(np.exp(-0.75))
    np.testing.assert_allclose(own[:, 0, :, 2], 0.0, atol=1e-14)


def test_conditions_and_shapes_that_a_client_must_meet():
    kinds = {density.condition.kind for density in DENSITIES.values()}
    assert kinds == {"none", "label", "context"}
    shapes = {density.shape for density in DENSITIES.values()}
    assert shapes == {(2,), (5, 7, 3), (4, 6, 8, 2), (11, 3)}


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_table_of_every_schedule_and_prediction(tmp_path, schedule, prediction):
    path = density_graphs.write(tmp_path / "a.onnx", "overlapping", schedule, prediction)
    model = runtimes.load(path, provider="cpu", threads=1)
    assert conformance.network_gap(model, DENSITIES["overlapping"]) < 5e-6


@names
def test_a_model_file_passes_every_check_of_load_and_samples(tmp_path, name):
    path = density_graphs.write(tmp_path / "a.onnx", name, "linear", "velocity")
    model = runtimes.load(path, provider="cpu", threads=1)
    words = {"none": {}, "label": {"label": [0, "none"]}}.get(model.spec.condition.kind)
    if words is None:
        words = {"context": np.zeros(model.spec.condition.shape, np.float32)}
    assert runtimes.sample(model, 3, steps=3, **words).shape == (3, *DENSITIES[name].shape)
    onnx.checker.check_model(onnx.load(path), full_check=True)


@names
def test_laws_file_is_the_laws(tmp_path, name):
    path = density_graphs.write_laws(tmp_path / "laws.onnx", name, "cosine")
    spec = density_graphs.spec_of(name, "cosine", "data")
    assert conformance.laws_gap(path, "cpu", spec) < 1e-5
