import itertools
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from runtimes.spec import Spec
from toolkit import data
from toolkit.data import arrays, batches, toys
from toolkit.data.batches import Order
from toolkit.data.toys import TOYS

every_set = pytest.mark.parametrize("name", data.DATA)
every_toy = pytest.mark.parametrize("name", TOYS)


# every registered set


@every_set
def test_set_keeps_the_contract(name):
    known = data.load(name)
    assert known.name == name
    for part in (known, known.held_out):
        assert part.x.dtype == np.float32
        assert part.x.flags.c_contiguous
        assert np.isfinite(part.x).all()
        assert part.shape == known.shape == part.x.shape[1:]
        assert part.condition == known.condition
        assert (part.classes, part.label_names) == (known.classes, known.label_names)
        if part.value_range:
            assert (part.x.min(), part.x.max()) == part.value_range
        if part.condition == "label":
            assert part.y.dtype == np.int64
            assert part.y.shape == (len(part.x),)
            assert set(part.y) == set(range(part.classes))
            assert len(part.label_names) == part.classes
        else:
            assert part.y is None
            assert part.classes == 0


@every_set
def test_set_is_the_same_every_time(name):
    first, second = data.load(name), data.load(name)
    np.testing.assert_array_equal(first.x, second.x)
    np.testing.assert_array_equal(first.held_out.x, second.held_out.x)


@every_set
def test_held_out_rows_are_not_in_train(name):
    known = data.load(name)
    train = {row.tobytes() for row in known.x}
    assert not [row for row in known.held_out.x if row.tobytes() in train]


@every_toy
def test_seed_draws_another_set(name):
    assert not np.isin(data.load(name, seed=1).x, data.load(name, seed=2).x).all(axis=1).any()


def test_every_toy_is_registered():
    assert set(data.DATA) == {"digits", *TOYS}


# digits


def test_digits_are_all_of_scikit_learn_in_two_balanced_halves():
    from sklearn.datasets import load_digits

    known = data.load("digits")
    assert (len(known.x), len(known.held_out.x)) == (898, 899)
    both = np.concatenate([known.x, known.held_out.x]).reshape(-1, 64)
    levels = (both + 1) * 8  # back to 0..16
    assert known.step == 1 / 8
    np.testing.assert_array_equal(levels, np.round(levels))
    original = load_digits()
    rows = {(*row, label) for row, label in zip(original.data, original.target, strict=True)}
    labels = np.concatenate([known.y, known.held_out.y])
    assert {(*row, label) for row, label in zip(levels, labels, strict=True)} == rows
    counts = np.bincount(known.y) - np.bincount(known.held_out.y)
    assert np.abs(counts).max() <= 1


def test_digits_judge_scores_what_was_published_for_this_split():
    from sklearn.svm import SVC

    known = data.load("digits")
    train, held_out = ((part.x.reshape(-1, 64) + 1) / 2 for part in (known, known.held_out))
    judge = SVC(C=10, gamma=0.6).fit(train, known.y)
    assert judge.score(held_out, known.held_out.y) == pytest.approx(0.991, abs=5e-4)


# toys


MOON_CENTRE = np.array([0.5, 0.25])


def arc_distance(x):
    """To the nearer of the two moons, both arcs of radius sqrt 2."""
    x = x / np.sqrt(2)
    arcs = (x + MOON_CENTRE, MOON_CENTRE - x)
    return np.sqrt(2) * np.minimum(*(half_circle_distance(arc) for arc in arcs))


def half_circle_distance(x):
    ends = np.minimum(np.hypot(x[:, 0] - 1, x[:, 1]), np.hypot(x[:, 0] + 1, x[:, 1]))
    return np.where(x[:, 1] >= 0, np.abs(np.hypot(x[:, 0], x[:, 1]) - 1), ends)


def spiral_distance(x):
    """To the nearest of 4,000 points along the two arms, which reach radius 2 after 1.5 turns."""
    from scipy.spatial import cKDTree

    turn = np.linspace(0, 1.5, 2000)
    arm = 2 * (turn / 1.5) * np.exp(2j * np.pi * turn)
    curve = np.concatenate([arm, -arm])
    return cKDTree(np.stack([curve.real, curve.imag], axis=1)).query(x)[0]


def board_distance(x):
    """0 on a square of even i + j."""
    cells = np.floor(x / np.sqrt(3) * 2).astype(int)
    inside = (np.abs(x) <= np.sqrt(3) + 1e-6).all(axis=1)
    return np.where((cells.sum(axis=1) % 2 == 0) & inside, 0.0, 1.0)


def ring_distance(x):
    angle = np.arange(8) * np.pi / 4
    centres = 0.51**-0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.linalg.norm(x[:, None] - centres, axis=2).min(axis=1)


# name: (distance from where its points should be, the blur's standard deviation)
SUPPORT = {
    "two-moons": (arc_distance, 0.07),
    "eight-gaussians": (ring_distance, 0.1 * 0.51**-0.5),
    "checkerboard": (board_distance, 0.0),
    "spiral": (spiral_distance, 0.04),
    "gaussian-mixture": (
        lambda x: np.linalg.norm(x[:, None] - toys.MEANS, axis=2).min(axis=1),
        toys.VARIANCE**0.5,
    ),
}


@every_toy
def test_toy_lies_where_its_formula_says(name):
    distance, blur = SUPPORT[name]
    far = distance(TOYS[name](20_000, np.random.default_rng(1)).astype(np.float64))
    assert far.max() <= 6 * blur
    assert np.mean(far > 2.5 * blur) < 0.05


@every_toy
def test_toy_is_centred_with_unit_variance(name):
    points = TOYS[name](40_000, np.random.default_rng(2)).astype(np.float64)
    mean, variance = np.zeros(2), 1.0
    if name == "gaussian-mixture":  # it keeps its scale: law of total variance
        mean = toys.WEIGHTS @ toys.MEANS
        variance = toys.VARIANCE + (toys.WEIGHTS @ (toys.MEANS - mean) ** 2).mean()
    np.testing.assert_allclose(points.mean(axis=0), mean, atol=5 / 200)  # 5 standard errors
    assert points.var(axis=0).mean() == pytest.approx(variance, abs=0.025)


@pytest.mark.parametrize(
    ("name", "parts"), [("two-moons", 2), ("eight-gaussians", 8), ("checkerboard", 8)]
)
def test_toy_parts_are_equally_likely(name, parts):
    x = TOYS[name](8_000, np.random.default_rng(3))
    if name == "two-moons":
        upper = half_circle_distance(x / np.sqrt(2) + MOON_CENTRE)
        part = (upper > half_circle_distance(MOON_CENTRE - x / np.sqrt(2))).astype(int)
    elif name == "eight-gaussians":
        part = np.round(np.arctan2(x[:, 1], x[:, 0]) / (np.pi / 4)).astype(int) % 8
    else:
        column, row = np.clip(np.floor(x / np.sqrt(3) * 2).astype(int) + 2, 0, 3).T
        part = column * 2 + row // 2
    counts = np.bincount(part, minlength=parts)
    assert len(counts) == parts
    expected = 8_000 / parts
    np.testing.assert_allclose(counts, expected, atol=5 * expected**0.5)


def grid(half, points):
    axis = np.linspace(-half, half, points)
    x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return x, (axis[1] - axis[0]) ** 2


def test_mixture_density_integrates_to_one():
    x, area = grid(4.5, 301)
    assert np.exp(toys.log_density(x)).sum() * area == pytest.approx(1, abs=1e-9)


def test_mixture_log_density_against_scipy():
    from scipy.special import logsumexp
    from scipy.stats import multivariate_normal

    x = np.random.default_rng(4).uniform(-30, 30, (50, 2))
    parts = [multivariate_normal(mean, 0.15).logpdf(x) for mean in toys.MEANS]
    expected = logsumexp(np.stack(parts), axis=0, b=toys.WEIGHTS[:, None])
    assert toys.log_density(x.astype(np.float32)).dtype == np.float64
    np.testing.assert_allclose(toys.log_density(x), expected, rtol=1e-12)


def test_mixture_samples_have_the_entropy_of_the_density():
    x, area = grid(4.5, 301)
    logs = toys.log_density(x)
    expected = (np.exp(logs) * logs).sum() * area
    drawn = toys.log_density(toys.gaussian_mixture(40_000, np.random.default_rng(5)))
    assert drawn.mean() == pytest.approx(expected, abs=5 * drawn.std() / 200)


# order and batches


@pytest.mark.parametrize(("n", "batch"), [(10, 3), (10, 10), (7, 1), (12, 4), (1, 1)])
def test_order_gives_every_row_once_per_epoch(n, batch):
    order = Order(n, seed=3)
    stream = np.concatenate([order.at(step, batch) for step in range(4 * n)])
    epochs = stream[: len(stream) // n * n].reshape(-1, n)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(n), (len(epochs), 1)))


def test_order_shuffles_anew_every_epoch_and_seed():
    whole = [tuple(Order(50, seed).at(epoch, 50)) for seed in (0, 1) for epoch in range(3)]
    assert len(set(whole)) == 6
    assert tuple(range(50)) not in whole


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_slices_of_the_ranks_are_the_global_batch(world):
    order = Order(13, seed=1)
    for step in range(20):
        parts = [order.at(step, 12, rank=rank, world=world) for rank in range(world)]
        assert {len(part) for part in parts} == {12 // world}
        np.testing.assert_array_equal(np.concatenate(parts), order.at(step, 12))


def test_order_cannot_be_changed_from_outside():
    order = Order(5)
    before = order.at(0, 5)
    order.at(0, 5)[:] = 0
    np.testing.assert_array_equal(order.at(0, 5), before)


def test_batches_continue_where_a_run_stopped():
    x = np.arange(30, dtype=np.float32).reshape(10, 3)
    rows = data.Data("rows", x, np.arange(10), classes=10)
    whole = list(itertools.islice(batches(rows, 4, seed=5), 12))
    resumed = list(itertools.islice(batches(rows, 4, seed=5, start=7), 5))
    for (x, y), (x_again, y_again) in zip(whole[7:], resumed, strict=True):
        np.testing.assert_array_equal(x, x_again)
        np.testing.assert_array_equal(y, y_again)
        np.testing.assert_array_equal(x[:, 0], 3 * y)  # x and y stay together


def test_batches_without_labels_have_none():
    x, y = next(batches(data.Data("rows", np.zeros((4, 2), np.float32)), 2))
    assert x.shape == (2, 2)
    assert y is None


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"batch": 11}, "at least 11 rows for a batch of 11, got 10; give --batch 10 or smaller"),
        ({"batch": 0}, "batch: expected 1 or more, got 0"),
        ({"batch": 8, "world": 3}, "multiple of the 3 ranks, got 8; give --batch 6"),
        ({"batch": 2, "world": 3}, "multiple of the 3 ranks, got 2; give --batch 3"),
        ({"batch": 4, "rank": 2, "world": 2}, "got rank 2 of world 2"),
        ({"batch": 4, "rank": -1}, "got rank -1 of world 1"),
        ({"batch": 4, "start": -1}, "step: expected 0 or more, got -1"),
    ],
)
def test_bad_sizes_fail_before_the_first_batch(sizes, message):
    rows = data.Data("rows", np.zeros((10, 2), np.float32))
    with pytest.raises(ValueError, match=message):
        batches(rows, sizes.pop("batch"), **sizes)


# the user's arrays


def save(tmp_path, **named):
    path = tmp_path / "mine.npz"
    np.savez(path, **named)
    return path


def test_npz_with_labels(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3))
    loaded = data.load(save(tmp_path, x=x, y=np.arange(20, dtype=np.uint8) % 4))
    np.testing.assert_array_equal(loaded.x, x.astype(np.float32))
    np.testing.assert_array_equal(loaded.y, np.arange(20) % 4)
    assert (loaded.name, loaded.classes, loaded.y.dtype) == ("mine", 4, np.int64)
    assert (loaded.held_out, loaded.value_range, loaded.step) == (None, None, None)


@pytest.mark.parametrize("shape", [(6, 5), (6, 2, 5)])
def test_npz_with_contexts(tmp_path, shape):
    loaded = data.load(save(tmp_path, x=np.zeros((6, 3)), y=np.ones(shape)))
    assert (loaded.condition, loaded.classes) == ("context", 0)
    assert (loaded.y.dtype, loaded.y.shape) == (np.float32, shape)


def test_npy_is_x(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(8).reshape(4, 2))
    loaded = data.load(str(tmp_path / "rows.npy"))
    np.testing.assert_array_equal(loaded.x, np.arange(8, dtype=np.float32).reshape(4, 2))
    assert loaded.condition == "none"


def test_uint8_is_pixels(tmp_path):
    x = np.resize(np.array([0, 255, 51, 204], np.uint8), (3, 2, 2, 1))
    loaded = data.load(save(tmp_path, x=x))
    np.testing.assert_allclose(loaded.x[0].ravel(), [-1, 1, -0.6, 0.6], atol=1e-7)
    assert loaded.value_range == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("x", "value_range"),
    [
        (np.full((3, 4, 4), 0.5), (-1.0, 1.0)),
        (np.full((3, 4, 4), 1.5), None),
        (np.full((3, 4, 4), -1.5), None),
        (np.full((3, 4), 0.5), None),
    ],
)
def test_value_range_only_for_bounded_objects(tmp_path, x, value_range):
    assert data.load(save(tmp_path, x=x)).value_range == value_range


@pytest.mark.parametrize(("n", "held_out"), [(999, 0), (1000, 100), (1019, 101)])
def test_a_tenth_is_held_out_from_a_thousand_rows(tmp_path, n, held_out):
    path = save(tmp_path, x=np.arange(n, dtype=float)[:, None], y=np.arange(n) % 7)
    loaded, again = data.load(path, seed=0), data.load(path, seed=1)
    np.testing.assert_array_equal(loaded.x, again.x)
    assert len(loaded.x) == n - held_out
    if not held_out:
        assert loaded.held_out is None
        return
    kept = loaded.held_out
    assert len(kept.x) == held_out
    every = np.concatenate([loaded.x, kept.x]).ravel()
    np.testing.assert_array_equal(np.sort(every), np.arange(n))
    for part in (loaded, kept):
        np.testing.assert_array_equal(part.x.ravel() % 7, part.y)  # x and y stay together
    assert np.abs(np.diff(kept.x.ravel())).max() < 100  # spread over the file, not its tail


OBJECTS = np.empty(2, dtype=object)
NOT_A_NUMBER = np.zeros((4, 3))
NOT_A_NUMBER[2, 1:] = np.nan, np.inf
X = np.zeros((4, 3))
BAD = {
    "no x": ({"images": X}, "expected an array x, got images"),
    "extra": ({"x": X, "z": X, "a": X}, "got also a, z"),
    "objects": ({"x": OBJECTS}, "got object arrays"),
    "text": ({"x": np.array([["a"]])}, "x: expected real numbers, got <U1"),
    "complex": ({"x": X + 0j}, "x: expected real numbers, got complex128"),
    "rank 1": ({"x": np.zeros(3)}, r"x: expected \(n, \*shape\), rank 2 or more, got \(3,\)"),
    "no rows": ({"x": np.zeros((0, 3))}, r"x: expected some rows, got \(0, 3\), which is empty"),
    "no columns": ({"x": np.zeros((3, 0))}, r"got \(3, 0\), which is empty"),
    "nan": ({"x": NOT_A_NUMBER}, r"x: .* got 2 NaN or Inf, the first at \(2, 1\)"),
    "too large": ({"x": X + 1e300}, r"x: .* got 12 NaN or Inf, the first at \(0, 0\)"),
    "y length": ({"x": X, "y": np.zeros(3, int)}, "y: expected 4 rows as in x, got 3"),
    "y scalar": ({"x": X, "y": np.int64(3)}, "y: expected 4 rows as in x, got a single number"),
    "y negative": ({"x": X, "y": np.array([0, 1, -1, 2])}, "y: expected labels 0, .* got -1..2"),
    "y sparse": ({"x": X, "y": np.array([0, 1, 2, 10**9])}, "at most 4 classes .* got 0..1000000"),
    "y float": ({"x": X, "y": np.zeros(4)}, r"y: expected float contexts .* got float \(4,\)"),
    "y rank 4": ({"x": X, "y": np.zeros((4, 1, 1, 1))}, "y: expected float contexts"),
    "y empty": ({"x": X, "y": np.zeros((4, 0))}, "y: expected float contexts"),
    "y matrix": ({"x": X, "y": np.zeros((4, 1), int)}, r"y: expected integer labels \(n,\)"),
    "y text": ({"x": X, "y": np.array(["a"] * 4)}, "y: expected integer labels or float contexts"),
    "y nan": ({"x": X, "y": NOT_A_NUMBER}, "y: expected finite .* got 2 NaN or Inf"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_arrays_are_refused_in_one_line(tmp_path, fault):
    named, message = BAD[fault]
    path = save(tmp_path, **named)
    with pytest.raises(ValueError, match=message) as error:
        data.load(path)
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert "; " in said  # what to do


def test_damaged_files_are_refused_or_read_but_never_raise_anything_else(tmp_path):
    rng = np.random.default_rng(6)
    whole = save(tmp_path, x=np.zeros((20, 3)), y=np.arange(20)).read_bytes()
    np.save(tmp_path / "whole.npy", np.ones((20, 3)))
    header = (tmp_path / "whole.npy").read_bytes()
    refused = []
    for content in (whole, header):
        for _ in range(60):
            damaged = bytearray(content[: rng.integers(0, len(content))])
            if rng.integers(2):
                damaged = bytearray(content)
                damaged[rng.integers(0, 150)] = rng.integers(0, 256)
            path = tmp_path / "damaged.npz"
            path.write_bytes(damaged)
            try:
                data.load(path)
            except ValueError as error:
                refused.append(str(error))
    assert len(refused) > 60
    assert not [message for message in refused if "\n" in message]


def test_a_decompression_bomb_is_refused_unopened(tmp_path):
    """272 MiB of zeros in a quarter of one, written down without ever making it."""
    path, zeros = tmp_path / "bomb.npz", bytes(1 << 24)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as file,
    ):
        claim = {"descr": "<f4", "fortran_order": False, "shape": (17 << 18, 16)}
        np.lib.format.write_array_header_1_0(file, claim)
        for _ in range(17):
            file.write(zeros)
    assert path.stat().st_size < 2 << 20
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"bomb.npz: expected at most 200 .* in x.npy from"):
            data.load(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_what_packs_well_is_no_bomb(tmp_path):
    """Four megabytes of zeros: nothing that could hurt."""
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, x=np.zeros((1000, 1000), np.float32))
    assert not data.load(path).x.any()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path, make):
    make(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"x\.npz: expected a .npz or .npy file, got a"):
        data.load(tmp_path / "x.npz")


def test_a_member_that_is_no_array_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x", b"plain bytes")
    with pytest.raises(ValueError, match=r"x\.npz: expected a .npz or .npy of plain numbers"):
        data.load(tmp_path / "x.npz")


def test_a_header_that_claims_too_much_is_refused(tmp_path):
    path = tmp_path / "huge.npy"
    with open(path, "wb") as file:
        claim = {"descr": "<f8", "fortran_order": False, "shape": (10**15, 3)}
        np.lib.format.write_array_header_1_0(file, claim)
    with pytest.raises(ValueError, match=r"huge.npy: expected a .npz or .npy of plain numbers"):
        data.load(path)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("missing.npz", FileNotFoundError, "missing.npz: .* got no such file; check the path"),
        ("folder/rows", ValueError, "expected a file ending in .npz or .npy, got 'no ending'"),
        ("rows.csv", ValueError, "rows.csv'; choose one of these"),
        ("digist", ValueError, "got 'digist'; did you mean 'digits'?"),
        ("two_moons", ValueError, "digits, two-moons, .* did you mean 'two-moons'?"),
        ("", ValueError, "expected one of digits"),
    ],
)
def test_unknown_names_and_paths(name, error, message):
    with pytest.raises(error, match=message):
        data.load(name)


def test_a_file_of_another_kind_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").write_text("1 2 3")
    with pytest.raises(ValueError, match=r"rows: expected a file ending in .npz or .npy"):
        data.load("rows")
    (tmp_path / "digits").write_text("a file does not hide a name")
    assert data.load("digits").shape == (8, 8, 1)


def test_held_out_rows_cover_everything():
    train, kept = arrays.held_out_rows(2000)
    assert sorted([*train, *kept]) == list(range(2000))


def test_a_model_names_a_built_in_set_and_no_file(tmp_path):
    np.savez(tmp_path / "secret.npz", x=np.zeros((5, 2), np.float32))
    secret = str(tmp_path / "secret.npz")

    def says(name):
        return Spec("net", (2,), training={"data": name})

    assert data.of_model(says("spiral"), None).name == "spiral"
    assert data.of_model(says(secret), None) is None
    assert data.of_model(says(secret), "spiral").name == "spiral"
    assert data.of_model(says("spiral"), secret).x.shape == (5, 2)
    with pytest.raises(ValueError, match=r"data \(a name, or a path"):
        data.of_model(says(secret), "")  # empty is asked for too, and no reason to ask the model
