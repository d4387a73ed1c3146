import hashlib

import numpy as np
import pytest
from scipy import stats

from runtimes.noise import (
    LARGEST_SEED,
    TABLE,
    noise,
    seed_rows,
    signs,
    threefry,
    threefry_words,
    uniforms,
)


def u32(*values):
    return [np.array([value], np.uint32) for value in values]


@pytest.mark.parametrize(
    ("key", "counter", "words"),  # Random123's kat_vectors, threefry2x32 with 20 rounds
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_random123_known_answers(key, counter, words):
    got = threefry(*u32(*key), *u32(*counter))
    assert tuple(int(word[0]) for word in got) == words


GOLDEN = [  # seed, draw, 8 words, first and last normal: the specification, shared by all languages
    (
        0,
        0,
        "6b200159 508efb2c 64a626ec b8abc4d1 99ba4efe c0de3f32 fc15e573 0537eb86",
        -2.149135112762451,
        -0.6656193733215332,
    ),
    (
        42,
        0,
        "de79f4b9 268fd86c 8533bc2a 3ffbe4ea 4f6cc618 fe251627 1b41c6e8 dc557f27",
        1.669600486755371,
        -0.18821287155151367,
    ),
    (
        2**40 + 7,
        3,
        "3f704782 cf8ded5f 35d08d82 8804b15b 9d622779 280ac434 62ccfe31 e9fc8ceb",
        -0.7080278396606445,
        2.5285511016845703,
    ),
]


@pytest.mark.parametrize(("seed", "draw", "words", "first", "last"), GOLDEN)
def test_golden_words_and_normals(seed, draw, words, first, last):
    seeds = np.array([seed], np.int64)
    got = threefry_words(seeds, 8, draw)[0]
    assert " ".join(f"{int(word):08x}" for word in got) == words
    normals = noise(seeds, (8,), draw)[0]
    assert normals.dtype == np.float32
    assert (float(normals[0]), float(normals[7])) == (first, last)


def test_golden_hash():
    normals = noise(np.arange(16), (4096,), 1)
    digest = hashlib.sha256(normals.astype("<f4").tobytes()).hexdigest()
    assert digest == "10a85b7d05c31f2a20cb88435097c61632bc60a3b9d08632d7c13bea58d46ef6"


def test_table():
    """256 antisymmetric multiples of 2^-20: any order of adding four of them gives the same bits."""
    assert TABLE.shape == (256,)
    assert TABLE.dtype == np.float32
    np.testing.assert_array_equal(TABLE, -TABLE[::-1])
    assert np.all(np.diff(TABLE) > 0)
    steps = TABLE.astype(np.float64) * 2**20
    np.testing.assert_array_equal(steps, np.round(steps))
    assert 4 * steps.max() < 2**24
    a, b, c, d = TABLE[np.random.default_rng(0).integers(0, 256, (4, 10_000))]
    np.testing.assert_array_equal((a + b) + (c + d), ((d + a) + b) + c)


@pytest.mark.parametrize("shape", [(7,), (1,), (3, 5, 3), (2, 4), ()])
def test_a_row_depends_on_its_own_seed_only(shape):
    seeds = np.array([5, 2**52 + 1, 5, 0, 1234567890123])
    many = noise(seeds, shape, 2)
    assert many.shape == (5, *shape)
    for k, seed in enumerate(seeds):
        np.testing.assert_array_equal(noise(np.array([seed]), shape, 2)[0], many[k])
    np.testing.assert_array_equal(noise(seeds[::-1], shape, 2), many[::-1])
    np.testing.assert_array_equal(many[0], many[2])


def test_shape_only_folds_the_row():
    seeds = np.arange(3)
    np.testing.assert_array_equal(
        noise(seeds, (4, 3, 2), 1), noise(seeds, (24,), 1).reshape(3, 4, 3, 2)
    )


def test_odd_sizes_drop_the_last_word():
    seeds = np.array([3])
    np.testing.assert_array_equal(noise(seeds, (7,), 0), noise(seeds, (8,), 0)[:, :7])


def test_draws_and_seeds_differ():
    rows = [
        noise(np.array([seed]), (32,), draw)[0] for seed in (0, 1, 2**32) for draw in (0, 1, 2)
    ]
    assert len({row.tobytes() for row in rows}) == 9
    assert np.abs(np.corrcoef(rows) - np.eye(9)).max() < 0.7


def test_no_rows():
    assert noise(np.zeros(0, np.int64), (4,), 0).shape == (0, 4)


def test_moments_and_distribution():
    """2^16 samples of one seed, and one sample of 2^16 seeds."""
    for z in (
        noise(np.array([11]), (2**16,), 0).ravel(),
        noise(np.arange(2**16), (1,), 3).ravel(),
    ):
        z, n = z.astype(np.float64), 2**16
        # standard errors of the moments of a normal: 1, 2, 15, 96 over n
        for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert abs(np.mean(z**power) - moment) < 4 * np.sqrt(variance / n)
        assert stats.kstest(z, "norm").pvalue > 1e-3
        assert abs(np.mean(z[1:] * z[:-1])) < 4 / np.sqrt(n)


def test_seed_rows():
    np.testing.assert_array_equal(seed_rows(7, 3), [7, 8, 9])
    assert seed_rows(np.int64(7), 3).dtype == np.int64
    assert seed_rows(LARGEST_SEED - 2, 3)[-1] == LARGEST_SEED
    assert LARGEST_SEED == 2**53 - 1


@pytest.mark.parametrize("seed", [-1, 2**53, 2**64, 1.5, True, None, "1", np.float64(3), [1]])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match="seed: expected"):
        seed_rows(seed, 1)


def test_every_row_of_a_seed_must_fit():
    with pytest.raises(ValueError, match="for every sample"):
        seed_rows(LARGEST_SEED, 2)


# Probes and dequantisation: draws of their own


def test_signs_are_the_bits_of_their_draw_lowest_first():
    """Seed 9's word 0 of counter (0, 2^31 + 3), by the block function alone."""
    (word,), _ = threefry(*u32(9, 0), *u32(0, 2**31 + 3))
    bits = f"{int(word):032b}"[::-1]
    got = signs(np.array([9], np.int64), (4, 8), 3).reshape(-1)
    assert got.dtype == np.float32
    assert "".join("1" if sign > 0 else "0" for sign in got) == bits
    assert set(got.tolist()) == {-1.0, 1.0}


def test_signs_are_even_and_independent():
    found = signs(seed_rows(0, 200), (10, 10), 0).reshape(200, 100).astype(float)
    assert abs(found.mean()) < 4 / np.sqrt(found.size)
    other = signs(seed_rows(0, 200), (10, 10), 1).reshape(200, 100)
    assert abs((found * other).mean()) < 4 / np.sqrt(found.size)
    products = found.T @ found / 200 - np.eye(100)
    assert np.abs(products).max() < 6 / np.sqrt(200)


def test_signs_and_uniforms_depend_on_their_row_alone():
    for make in (lambda seeds: signs(seeds, (3, 5), 2), lambda seeds: uniforms(seeds, (3, 5))):
        whole = make(seed_rows(4, 6))
        np.testing.assert_array_equal(make(seed_rows(6, 2)), whole[2:4])
        assert len({row.tobytes() for row in whole}) == 6


def test_uniforms_fill_the_cell():
    found = uniforms(seed_rows(1, 40), (1000,)).reshape(-1)
    assert -0.5 < found.min() < -0.499
    assert 0.499 < found.max() < 0.5
    assert stats.kstest(found, "uniform", args=(-0.5, 1.0)).pvalue > 1e-3
