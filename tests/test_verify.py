"""The parity gate: it measures what it says, and a difference anywhere opens it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import runtimes
from export.verify import BATCHES, STEPS, ParityError, Report, Row, compare


class Twin:
    """The faces model in numpy, off by `error` where `wrong(x, t, condition)` says so."""

    def __init__(self, model, error=0.0, wrong=lambda x, t, condition: True):
        self.spec, self.model, self.error, self.wrong = model.spec, model, error, wrong

    def network(self, x, t, condition=None):
        out = self.model.network(x, t, condition)
        return out + np.float32(self.error) if self.wrong(x, t, condition) else out


@pytest.fixture
def model(faces):
    return runtimes.load(faces)


def test_equal_sides_agree_exactly_at_every_step_and_batch(model):
    report = compare(Twin(model), model, framework="numpy")
    assert report.worst.absolute == 0.0
    paths = [(row.batch, row.step) for row in report.rows if row.what != "network"]
    assert paths == [(batch, step) for batch in BATCHES for step in range(STEPS + 1)]
    assert [row.batch for row in report.rows if row.what == "network"] == list(BATCHES)


def test_errors_are_measured_absolutely_and_relatively(model):
    with pytest.raises(ParityError) as caught:
        compare(Twin(model, 0.5), model, framework="numpy")
    network = caught.value.report.rows[0]
    assert network.absolute == pytest.approx(0.5, abs=1e-6)
    assert network.relative == pytest.approx(network.absolute / 2.0, rel=0.9)


def test_constant_error_grows_along_the_path_as_theory_says(model):
    """dx/dt = picture - x + e, so the error at t is e (1 - exp(-t)) up to the solver's own."""
    with pytest.raises(ParityError) as caught:
        compare(Twin(model, 1e-2), model, framework="numpy")
    path = [
        row.absolute
        for row in caught.value.report.rows
        if row.what != "network" and row.batch == 1
    ]
    expected = [1e-2 * (1 - math.exp(-step / STEPS)) for step in range(STEPS + 1)]
    np.testing.assert_allclose(path, expected, atol=3e-5)


HIDDEN = {
    "only the null label": lambda x, t, condition: (condition == 3).any(),
    "only one time": lambda x, t, condition: np.ndim(t) > 0 and (np.asarray(t) > 0.9).any(),
    "only batches above one": lambda x, t, condition: len(x) == 7,
    "only late": lambda x, t, condition: np.ndim(t) == 0 and t > 0.93,
}


@pytest.mark.parametrize("where", HIDDEN)
def test_an_error_in_one_corner_is_found(model, where):
    with pytest.raises(ParityError, match="nothing was written"):
        compare(Twin(model, 1e-2, HIDDEN[where]), model, framework="numpy")


def test_tolerance_decides(model):
    twin = Twin(model, 1e-5)
    assert compare(twin, model, framework="numpy").worst.relative > 1e-7
    with pytest.raises(ParityError, match="at most 1e-07"):
        compare(twin, model, framework="numpy", tolerance=1e-7)


def test_nan_is_the_worst_error_there_is():
    rows = (Row("network", 1, 0, 1.0, 1.0), Row("network", 7, 0, math.nan, math.nan))
    report = Report("a", "b", 1e-4, rows)
    assert report.worst is rows[1]
    assert "BEYOND" in report.table()


def test_report_survives_json(model):
    report = compare(Twin(model), model, framework="numpy")
    raw = json.loads(report.to_json())
    again = Report(**{**raw, "rows": tuple(Row(**row) for row in raw["rows"])})
    assert again == report
    assert replace(report, framework="torch") != report
