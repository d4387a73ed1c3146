import math
from dataclasses import replace

import numpy as np
import pytest

from export import conformance, densities
from runtimes.solvers import SOLVERS
from runtimes.trace import trace
from toolkit.cli import main

PAIR = {"schedules": ("cosine",), "predictions": ("data",)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("densities")
    assert conformance.write_all(folder, **PAIR) == 2 * len(densities.DENSITIES)
    return folder


def measured(folder, solvers=()):
    return {row.what: row for row in conformance.rows(folder, "cpu", "cosine", "data", solvers)}


def test_every_solver_and_density_is_measured_and_none_is_off(folder):
    found = measured(folder)
    assert set(found) == {*SOLVERS, *(f"exact {name}" for name in densities.DENSITIES)}
    assert {row.what for row in found.values() if row.off} == set()
    for name, solver in SOLVERS.items():
        # a number above the floor was found for each: no order passes by not being measured
        assert found[name].order >= 0.8 * solver.order, name
        assert found[name].gap < 5e-6


def test_a_wrong_weight_is_off(folder, monkeypatch):
    """Heun that forgets its second slope is Euler."""
    monkeypatch.setitem(SOLVERS, "heun", replace(SOLVERS["heun"], steps=SOLVERS["euler"].steps))
    trace.cache_clear()
    try:
        row = measured(folder, ["heun"])["heun"]
    finally:
        trace.cache_clear()
    assert row.off
    assert row.order == pytest.approx(1.0, abs=0.1)


def test_a_wrong_density_is_off(folder, monkeypatch):
    known = densities.DENSITIES["images"]
    shifted = replace(known, means=known.means + 1e-3)
    monkeypatch.setitem(densities.DENSITIES, "images", shifted)
    found = measured(folder, ["euler"])
    assert [name for name, row in found.items() if row.off] == ["exact images"]


def test_order_of_errors():
    third = {n: 2.0 * n**-3.0 for n in (4, 6, 9)}
    assert conformance.order_of(third, 1e-6) == (pytest.approx(3.0), 9)
    assert conformance.order_of({4: 1e-1, 6: 1e-2, 9: 1e-9}, 1e-6)[1] == 6
    order, steps = conformance.order_of({4: 1e-1, 6: 1e-9}, 1e-6)
    assert math.isnan(order)
    assert steps == 6


@pytest.mark.parametrize(
    ("change", "off"),
    [
        ({}, False),
        ({"gap": 1e-4}, True),
        ({"gap": math.nan}, True),
        ({"order": 1.5}, True),
        ({"order": 2.9}, False),
        ({"order": math.nan}, False),
    ],
)
def test_what_is_off(change, off):
    row = conformance.Row("cpu", "heun", "linear", "v", 1e-7, 2, 1.95, 1e-3, 14)
    row = replace(row, **change)
    assert row.off is off
    assert ("OFF: v" in conformance.table([row])) is off


def run(*words):
    with pytest.raises(SystemExit) as stop:
        main(["conformance", *words])
    return stop.value.code or 0


def test_command_prints_the_table_and_keeps_the_files(tmp_path, capfd):
    solvers = ("heun", "ancestral")
    words = [word for name in solvers for word in ("--solver", name)]
    words += ["--schedule", "linear", "--prediction", "v", "--out", str(tmp_path / "d")]
    assert run(*words, "--jobs", "1") == 0
    out = capfd.readouterr().out
    for name in solvers:
        assert f"cpu  {name} " in out
    assert ", 0 off: " in out
    assert len(list((tmp_path / "d").iterdir())) == 2 * len(densities.DENSITIES)


def test_command_exits_1_when_something_is_off(capfd, monkeypatch):
    monkeypatch.setattr(conformance, "GAP", 1e-12)
    one = ("--solver", "euler", "--schedule", "linear", "--prediction", "v", "--jobs", "1")
    assert run(*one) == 1
    assert "OFF: v" in capfd.readouterr().out


def test_processes_give_the_same_rows(folder):
    tasks = {"solvers": ("rk4",), "schedules": ("cosine",), "predictions": ("data", "data")}
    one, two = conformance.measure(folder, jobs=2, **tasks)
    assert [row.what for row in one] == [row.what for row in two]
    np.testing.assert_array_equal([row.error for row in one], [row.error for row in two])


def test_unknown_names_are_one_line(capfd):
    assert run("--schedule", "linaer") == 2
    assert "did you mean 'linear'" in capfd.readouterr().err


def test_mistakes_are_one_line(tmp_path, capfd):
    (tmp_path / "file").touch()
    assert run("--out", str(tmp_path / "file")) == 2
    assert "file: expected a folder or none, got a file" in capfd.readouterr().err
    assert run("--jobs", "0") == 2
    assert capfd.readouterr().err.startswith("error: jobs: expected a whole number from 1")


def test_a_name_given_twice_is_measured_once(capfd):
    one = ("--solver", "euler", "--schedule", "linear", "--prediction", "v", "--jobs", "1")
    assert run(*one, *one[:6]) == 0
    assert capfd.readouterr().out.count("cpu  euler ") == 1
