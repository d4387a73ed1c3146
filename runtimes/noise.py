"""noise(seed, draw)[j] = T4(threefry2x32(key = seed, counter = (j, draw))): the same bits everywhere.

A sample's noise depends on its own seed only: not on the batch, its order, the worker or the
language. Integers come from Threefry2x32-20 (Salmon et al. 2011); four bytes of a word index a table
of normal quantiles whose sums are exact in float32, so no compiler can change a bit. Draw 0 is the
initial noise and draw k + 1 the noise of step k; from 2^30 on draws are `uniforms` and `signs`. The
table and golden values are the specification.
"""

import numpy as np
from numpy.typing import NDArray

LARGEST_SEED = 2**53 - 1  # the last integer that JavaScript holds exactly

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))

# Upper half of the table in units of 2^-20: mid-point quantiles q of 256 equal slices of N(0, 1),
# bent by a q^3 + b q^5 so that the mean of four has unit variance and no 4th or 6th cumulant.
_UPPER = """
5257 15770 26285 36802 47323 57847 68376 78911 89452 100001 110558 121125 131702 142290 152890
163503 174131 184773 195431 206105 216798 227510 238241 248993 259768 270565 281386 292233 303106
314006 324935 335894 346884 357906 368961 380051 391177 402341 413543 424786 436070 447398 458770
470188 481654 493170 504736 516356 528030 539761 551551 563400 575313 587290 599334 611447 623631
635890 648225 660638 673134 685714 698382 711141 723993 736943 749993 763148 776411 789786 803277
816890 830627 844495 858499 872643 886933 901377 915978 930746 945686 960806 976114 991619 1007330
1023257 1039409 1055799 1072437 1089337 1106513 1123980 1141753 1159850 1178290 1197095 1216285
1235887 1255928 1276437 1297447 1318997 1341126 1363881 1387313 1411482 1436453 1462303 1489119
1517004 1546075 1576472 1608362 1641946 1677466 1715225 1755602 1799080 1846296 1898103 1955686
2020764 2095957 2185548 2297269 2447311 2679627 3219163
"""
_HALF = np.array(_UPPER.split(), dtype=np.float32) * np.float32(2.0**-20)
TABLE = np.concatenate([-_HALF[::-1], _HALF])  # T[128 + i] = H[i], T[127 - i] = -H[i]


def noise(seeds: NDArray[np.int64], shape: tuple[int, ...], draw: int) -> NDArray[np.float32]:
    """Standard normals (len(seeds), *shape), row i from seeds[i] alone; float32.

    seeds: int64 (B,) in 0..2^53-1 (see `seed_rows`). draw: 0 for the initial noise, k + 1 for step k.
    """
    size = int(np.prod(shape))
    words = threefry_words(seeds, size, draw)
    a, b, c, d = (TABLE[(words >> np.uint32(shift)) & np.uint32(255)] for shift in (0, 8, 16, 24))
    normals: NDArray[np.float32] = ((a + b) + (c + d)) * np.float32(0.5)
    return normals.reshape(len(seeds), *shape)


def signs(seeds: NDArray[np.int64], shape: tuple[int, ...], probe: int) -> NDArray[np.float32]:
    """-1 or +1, float32 (len(seeds), *shape): element j is bit j % 32 of word j // 32, draw 2^31 + probe."""
    size = int(np.prod(shape))
    words = threefry_words(seeds, (size + 31) // 32, 2**31 + probe)
    bits = (words[:, :, None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    ones = bits.reshape(len(seeds), -1)[:, :size].astype(np.float32)
    return (ones * np.float32(2) - np.float32(1)).reshape(len(seeds), *shape)


def uniforms(seeds: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """(w + 1/2) / 2^24 - 1/2 in (-1/2, 1/2), float32 (len(seeds), *shape), w the top 24 bits of draw 2^30."""
    words = threefry_words(seeds, int(np.prod(shape)), 2**30) >> np.uint32(8)
    centred = (words.astype(np.float64) + 0.5) * 2.0**-24 - 0.5
    return centred.astype(np.float32).reshape(len(seeds), *shape)


def threefry_words(seeds: NDArray[np.int64], size: int, draw: int) -> NDArray[np.uint32]:
    """uint32 (B, size): word 0 of counter (j, draw) is element j, word 1 element j + ceil(size / 2)."""
    half = (size + 1) // 2
    keys = seeds.astype(np.uint64)[:, None]
    low, high = (
        (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32),
        (keys >> np.uint64(32)).astype(np.uint32),
    )
    pairs = np.broadcast_to(np.arange(half, dtype=np.uint32), (len(seeds), half))
    first, second = threefry(low, high, pairs, np.full_like(pairs, draw))
    return np.concatenate([first, second], axis=1)[:, :size]


def threefry(
    key0: NDArray[np.uint32],
    key1: NDArray[np.uint32],
    counter0: NDArray[np.uint32],
    counter1: NDArray[np.uint32],
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Threefry2x32 with 20 rounds of add, rotate, xor (Salmon et al. 2011, section 4.1)."""
    keys = (key0, key1, key0 ^ key1 ^ np.uint32(0x1BD11BDA))
    x, y = counter0 + keys[0], counter1 + keys[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x = x + y
            y = ((y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))) ^ x
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def seed_rows(seed: int, count: int) -> NDArray[np.int64]:
    """seed, seed + 1, ..., seed + count - 1: sample i of seed s is sample 0 of seed s + i.

    Raises ValueError unless seed is an integer and every row's seed is within 0..2^53-1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ValueError(f"seed: expected a whole number, got {seed!r}; use 0 to {LARGEST_SEED}")
    if not 0 <= int(seed) <= LARGEST_SEED - max(count - 1, 0):
        raise ValueError(
            f"seed: expected 0 to {LARGEST_SEED} for every sample, got {seed} for {count} of them; "
            "choose a smaller one"
        )
    return np.int64(seed) + np.arange(count, dtype=np.int64)
