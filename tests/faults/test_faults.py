"""The battery under pytest: one test for each row."""

import pytest

from .rows import ROWS


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_fault(row, tmp_path):
    row.check(tmp_path)
