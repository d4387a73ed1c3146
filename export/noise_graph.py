"""`runtimes.noise` as ONNX nodes: the same bits from every runtime.

In int64, for ONNX Runtime's kernels for unsigned words are missing here and there (WebGPU, older
builds): a word lives in the low 32 bits, a rotation is one multiplication whose upper half comes back.
"""

import numpy as np

from runtimes.noise import ROTATIONS, TABLE

from .nodes import Nodes

PARITY = 0x1BD11BDA  # Salmon et al. 2011, section 4.1


def normals(g: Nodes, seeds: str, draws: str, size: int) -> str:
    """noise(seeds, (size,), d) for every draw d: float32 (R, B, size) from int64 (B,) and int64 (R,)."""
    half = (size + 1) // 2
    seeds = g.op("Unsqueeze", seeds, g.ints(1))  # (B, 1)
    low, high = masked(g, seeds), g.op("Div", seeds, g.ints(1 << 32))
    pairs = g.op("Range", *(g.array(np.array(n, np.int64)) for n in (0, half, 1)))
    x, y = threefry(g, (low, high), pairs, g.op("Unsqueeze", draws, g.ints(1, 2)))
    words = g.part(g.op("Concat", x, y, axis=2), 2, 0, size)
    parts = [
        g.op("Div", words, g.ints(1 << shift)) if shift else words for shift in (0, 8, 16, 24)
    ]
    table = g.array(TABLE)
    a, b, c, d = (
        g.op("Gather", table, g.op("BitwiseAnd", part, g.ints(255)), axis=0) for part in parts
    )
    total = g.op("Add", g.op("Add", a, b), g.op("Add", c, d))
    return g.op("Mul", total, g.floats(0.5))


def threefry(g: Nodes, key: tuple[str, str], first: str, second: str) -> tuple[str, str]:
    """Threefry2x32 with 20 rounds on counters that broadcast: see `runtimes.noise.threefry`."""
    mixed = g.op("BitwiseXor", g.op("BitwiseXor", *key), g.ints(PARITY))
    keys = (*key, mixed)
    x, y = g.op("Add", first, keys[0]), g.op("Add", second, keys[1])
    x, y = masked(g, x), masked(g, y)
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x = masked(g, g.op("Add", x, y))
            up = g.op("Mul", y, g.ints(1 << rotation))
            turned = g.op("Add", masked(g, up), g.op("Div", up, g.ints(1 << 32)))
            y = g.op("BitwiseXor", turned, x)
        x = masked(g, g.op("Add", x, keys[(group + 1) % 3]))
        y = g.op("Add", g.op("Add", y, keys[(group + 2) % 3]), g.ints(group + 1))
        y = masked(g, y)
    return x, y


def masked(g: Nodes, words: str) -> str:
    """words mod 2^32."""
    return g.op("BitwiseAnd", words, g.ints(0xFFFFFFFF))


def row_seeds(g: Nodes, seed: str, rows: str) -> str:
    """int64 (B,): the seeds as given, one per row, or seed, seed + 1, ... from a single one."""
    zero, one = (g.array(np.array(n, np.int64)) for n in (0, 1))
    counted = g.op("Range", zero, g.op("Squeeze", rows), one)
    alone = g.op("Cast", g.op("Equal", g.size(seed, 0), g.ints(1)), to=7)
    return g.op("Add", seed, g.op("Mul", counted, alone))
