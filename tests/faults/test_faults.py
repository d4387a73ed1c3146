"""The battery under pytest: one test for each row."""

import pytest

from . import rows, training

ROWS = [*rows.ROWS, *training.ROWS]


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=row.id, marks=[pytest.mark.slow] * row.slow) for row in ROWS],
)
def test_fault(row, tmp_path):
    try:
        row.check(tmp_path)
    except training.Untried as why:
        pytest.skip(str(why))
