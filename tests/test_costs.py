from dataclasses import replace

import numpy as np
import pytest

import runtimes
from runtimes.solvers import SOLVERS
from toolkit import costs
from toolkit.costs import Cost, Costs

from .problems import MIXTURE, slope, write_onnx

DETERMINISTIC = [name for name, solver in SOLVERS.items() if not solver.noisy]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return runtimes.load(write_onnx(tmp_path_factory.mktemp("costs") / "a.onnx"), threads=1)


@pytest.fixture(scope="module")
def measured(mixture):
    return costs.measure(mixture, 48, None, calls=(12, 24, 48), request={"seed": 5})


def test_every_deterministic_solver_at_the_calls_it_can_make(mixture, measured, monkeypatch):
    assert {row.solver for row in measured.rows} == set(DETERMINISTIC)
    for row in measured.rows:
        assert SOLVERS[row.solver].calls * row.steps + SOLVERS[row.solver].extra in (12, 24, 48)
        assert row.calls == runtimes.plan(mixture, 1, solver=row.solver, steps=row.steps).calls
    monkeypatch.setitem(SOLVERS, "heun", replace(SOLVERS["heun"], extra=1))
    assert costs.steps_of("heun", (1, 4, 7, 9)) == [3, 4]


@pytest.mark.parametrize("name", ["euler", "heun"])
def test_the_error_falls_with_the_order(measured, name):
    rows = sorted((r for r in measured.rows if r.solver == name), key=lambda row: row.steps)
    found = slope([row.steps for row in rows], [row.error for row in rows])
    assert found == pytest.approx(SOLVERS[name].order, abs=0.35)


def test_the_error_is_the_median_distance_to_a_fine_run(mixture):
    (row,) = costs.measure(mixture, 5, None, solvers=["euler"], calls=(8,), request={}).rows
    coarse = runtimes.sample(mixture, 5, solver="euler", steps=8)
    fine = runtimes.sample(mixture, 5, solver="rk4", steps=100)
    assert row.error == pytest.approx(np.median(np.linalg.norm(coarse - fine, axis=1)) / 2**0.5)


def test_the_distance_is_to_the_real_data_given(mixture):
    """Real rows from the mixture itself: fine samples are as near as chance lets them be."""
    rng = np.random.default_rng(0)
    real = MIXTURE.means[rng.integers(8, size=2000)] + 0.15**0.5 * rng.standard_normal((2000, 2))
    near = costs.measure(mixture, 400, real, solvers=["euler"], calls=(4,), request={})
    far = costs.measure(mixture, 400, real + 3, solvers=["euler"], calls=(4,), request={})
    assert abs(near.fine) < 0.02
    assert far.fine > 2
    assert (near.against, far.rows[0].distance > 2) == ("held-out data", True)


def row(solver, steps, calls, error):
    return Cost(solver, steps, calls, error, 0.0)


def test_recommended_is_the_cheapest_that_errs_no_more_than_euler_50():
    usual = row("euler", 50, 50, 1e-2)
    rows = [row("euler", 20, 20, 3e-2), usual, row("heun", 10, 20, 1e-2), row("rk4", 5, 20, 9e-3)]
    found = costs.recommend(Costs((*rows, row("rk4", 2, 8, 1.1e-2)), 0.0, ""))
    assert found == (rows[3], usual)
    assert costs.recommend(Costs((usual,), 0.0, "")) == (usual, usual)
