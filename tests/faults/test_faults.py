"""The battery under pytest: one test for each row."""

import pytest

from . import rows, training
from .run import run

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


def test_a_child_leaves_no_bytecode_in_this_tree(tmp_path):
    """Cut off at 500 bytes, a module's .pyc would fail every later import of it."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "fresh.py").write_text("NUMBERS = " + repr(list(range(500))))
    program = "import sys; sys.path.insert(0, '.'); import fresh"
    assert run(tmp_path, "python", program, largest_file=500).code == 0
    assert sorted(path.name for path in (tmp_path / "here").rglob("*")) == ["fresh.py"]
