"""Ready-made tableaus survive the metadata, run what they say, and a stranger's are looked at."""

import json

import numpy as np
import pytest

from runtimes import tableaus
from runtimes.solvers import SOLVERS
from runtimes.spec import Sampler
from runtimes.tableau import MOST_ROWS, MOST_SLOTS, check_dense

from .problems import mixture_spec


def test_the_metadata_brings_back_every_number():
    kept = tableaus.kept(mixture_spec(labelled=True, sampler=Sampler("unipc3", 12)))
    back = tableaus.from_json(tableaus.to_json(kept))
    assert [(one.solver, one.steps) for one in back][:2] == [("unipc3", 12), ("euler", 5)]
    for a, b in zip(kept, back, strict=True):
        assert (a.solver, a.steps, a.grid, a.sigma, a.ends) == (
            b.solver,
            b.steps,
            b.grid,
            b.sigma,
            b.ends,
        )
        np.testing.assert_array_equal(a.tensor, b.tensor)
        np.testing.assert_allclose(a.times, b.times, atol=1e-6)
        assert b.ends[-1] == len(b.tensor) - 1


def test_each_is_named_once_and_the_recommended_comes_first():
    for steps in (10, 7):
        names = [
            (o.solver, o.steps)
            for o in tableaus.kept(mixture_spec(sampler=Sampler("heun", steps)))
        ]
        assert names[0] == ("heun", steps)
        assert len(set(names)) == len(names)


def test_the_registry_has_the_solvers_that_are_kept():
    assert set(tableaus.SOLVERS_KEPT) <= set(SOLVERS)


def entry(**changes):
    (one, *_) = json.loads(tableaus.to_json(tableaus.kept(mixture_spec())))
    return json.dumps([{**one, **changes}])


BROKEN = {
    "no json": "[",
    "no list": '{"solver": 1}',
    "an empty object": "{}",
    "a text": '"euler"',
    "missing key": json.dumps([{"solver": "euler"}]),
    "wrong size": entry(shape=[16, 2, 2]),
    "negative size": entry(shape=[-16, 2, 3]),
    "not base64": entry(data="?"),
    "short": entry(data=""),
    "ends beyond": entry(ends=[99]),
    "ends disorder": entry(ends=[3, 1, 5, 7, 9, 11, 13, 15]),
    "times": entry(times=[0.0, 1.0]),
    "deep": "[" * 100_000,
    "endless ends": entry(ends=[float("inf")]),
    "broken ends": entry(ends=[1.9, 3, 5, 7, 9, 11, 13, 15]),
    "no finite sigma": entry(sigma=float("nan")),
    "a text for sigma": entry(sigma="1"),
    "a time beyond floats": entry(times=[0] * 8 + [10**400]),
    "steps in words": entry(steps="8"),
    "a list for a name": entry(solver=["x"]),
    "a size to be guessed": entry(shape=[-1, 3, 4]),
    "a huge size": entry(shape=[10**9, 3, 4]),
    "fitted for other calls": entry(solver="fitted", steps=2),
    "a fit the wrong way round": entry(fit={"guidance": [3, 1], "error": 0.1, "off": []}),
    "a fit beyond floats": entry(fit={"guidance": [10**400, 1], "error": 0.1, "off": []}),
    "a negative error": entry(fit={"guidance": [1, 3], "error": -1, "off": []}),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_metadata_is_one_line(fault):
    with pytest.raises(ValueError, match="tableaus: expected a list of tableaus") as caught:
        tableaus.from_json(BROKEN[fault])
    assert "\n" not in str(caught.value)


GOOD = np.array([[[1, 0.5, 0], [0, 1, 0]]], np.float32)


def changed(where, value):
    array = GOOD.copy()
    array[where] = value
    return array


WRONG = {
    "no array": [[[1.0, 0.5, 0.0]]],
    "double": GOOD.astype(np.float64),
    "flat": GOOD[0],
    "no rows": GOOD[:0],
    "too many rows": np.broadcast_to(GOOD, (MOST_ROWS + 1, 2, 3)),
    "wide": np.zeros((1, 2, 5), np.float32),
    "narrow": np.zeros((1, 2, 2), np.float32),
    "no slots": np.zeros((1, 1, 2), np.float32),
    "too many slots": np.zeros((1, MOST_SLOTS + 2, MOST_SLOTS + 3), np.float32),
    "NaN": changed((0, 1, 1), np.nan),
    "infinite": changed((0, 0, 0), np.inf),
    "half guided": changed((0, 0, 2), 0.5),
    "negative time": changed((0, 0, 1), -1.0),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_tableau_is_refused_in_one_line(fault):
    with pytest.raises(ValueError, match="tableau: expected") as caught:
        check_dense(WRONG[fault])
    assert "\n" not in str(caught.value)


def test_a_right_one_is_passed_on():
    assert check_dense(GOOD) is GOOD
