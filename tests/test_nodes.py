"""Names never clash, and a constant that stands twice is kept once."""

import numpy as np

from export.nodes import Nodes


def test_every_name_is_new_and_prefixed():
    g = Nodes("p")
    names = [*g.ops("Split", 3, "x"), g.op("Neg", "x"), g.ints(1), g.floats(1.0)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("p") for name in names)


def test_equal_constants_are_kept_once():
    g = Nodes("p")
    assert g.ints(1, 2) == g.ints(1, 2)
    assert len({g.ints(1), g.floats(1.0), g.array(np.array(1, np.int64)), g.ints(1, 2)}) == 4
    large = np.zeros(1000, np.float32)
    assert g.array(large) == g.array(large) != g.array(large.copy())
