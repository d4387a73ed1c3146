import math
from dataclasses import replace

import numpy as np
import pytest

from toolkit import data, metrics
from toolkit.metrics import figures, report


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def rng():
    return np.random.default_rng(0)


# sliced Wasserstein


def test_swd_in_one_dimension_is_w2():
    a = normal(1, 50, 1)
    assert metrics.sliced_wasserstein(a, a + 3, rng=rng()) == pytest.approx(3)
    assert metrics.sliced_wasserstein(a, 2 * a, rng=rng()) == pytest.approx(
        math.sqrt((a**2).mean())
    )


def test_swd_of_unequal_sizes_by_hand():
    a, b = np.array([[0.0], [3.0]]), np.array([[0.0], [0.0], [3.0]])
    # the quantile functions differ by 3 between 1/2 and 2/3
    assert metrics.sliced_wasserstein(a, b, rng=rng()) == pytest.approx(math.sqrt(9 / 6))
    assert metrics.sliced_wasserstein(b, a, rng=rng()) == pytest.approx(math.sqrt(9 / 6))


@pytest.mark.parametrize("times", [2, 3, 7])
def test_swd_of_a_set_with_its_own_repetition_is_zero(times):
    a = normal(2, 41, 5)
    assert metrics.sliced_wasserstein(a, np.tile(a, (times, 1)), rng=rng()) < 1e-12


def test_swd_of_a_shifted_copy_in_many_dimensions():
    a, shift = normal(3, 30, 8), normal(4, 8)
    # (shift . d)^2 has mean |shift|^2 / 8 over unit directions, spread below 2 times its mean
    got = metrics.sliced_wasserstein(a, a + shift, rng=rng(), directions=20_000) ** 2
    assert got == pytest.approx((shift**2).mean(), rel=5 * 2 / math.sqrt(20_000))


def test_swd_takes_images_and_is_symmetric():
    a, b = normal(5, 20, 4, 4, 1), normal(6, 31, 4, 4, 1)
    one = metrics.sliced_wasserstein(a, b, rng=rng())
    assert one == metrics.sliced_wasserstein(b.reshape(31, 16), a, rng=rng())
    assert one != metrics.sliced_wasserstein(a, b, rng=np.random.default_rng(1))


# energy distance


def test_energy_distance_by_hand():
    a, b = np.array([[0.0], [2.0]]), np.array([[1.0], [3.0]])
    assert metrics.energy_distance(a, b) == pytest.approx(2 * 6 / 4 - 2 - 2)


def test_energy_distance_of_two_gaussians():
    d = 1.5
    # E|N(m, 2)| = sqrt 2 sqrt(2/pi) exp(-m^2/4) + m erf(m/2), the difference of two unit normals
    cross = 2 / math.sqrt(math.pi) * math.exp(-(d**2) / 4) + d * math.erf(d / 2)
    expected = 2 * cross - 2 * 2 / math.sqrt(math.pi)
    got = [
        metrics.energy_distance(normal(s, 300, 1), normal(s + 1000, 300, 1) + d) for s in range(40)
    ]
    assert np.mean(got) == pytest.approx(expected, abs=4 * np.std(got) / math.sqrt(40))


def test_energy_distance_has_no_bias():
    got = [metrics.energy_distance(normal(s, 20, 3), normal(s + 1000, 30, 3)) for s in range(400)]
    assert abs(np.mean(got)) < 4 * np.std(got) / 20
    # fine enough to see the V-statistic, which is too large by 2.26 (1/20 + 1/30) = 0.19
    assert 4 * np.std(got) / 20 < 0.05


def test_distances_do_not_depend_on_the_chunk(monkeypatch):
    a, b = normal(7, 37, 3), normal(8, 23, 3) + 1
    figure = (metrics.energy_distance, metrics.recall, metrics.precision)
    whole = [f(a, b) for f in figure]
    monkeypatch.setattr(figures, "CHUNK", 50)
    np.testing.assert_allclose([f(a, b) for f in figure], whole, rtol=1e-8)


def test_distances_survive_a_large_offset():
    a, b = normal(9, 30, 3), normal(10, 30, 3)
    near, far = (metrics.energy_distance(a + at, b + at) for at in (0, 1e6))
    assert far == pytest.approx(near, abs=1e-8)


# Frechet


def test_frechet_of_an_affine_copy():
    a = normal(11, 200, 6)
    # means differ by 3 + a's own, covariance is 4 times: tr(C + 4C - 2 (4 C^2)^(1/2)) = tr C
    expected = ((a.mean(0) + 3) ** 2).sum() + np.trace(np.cov(a.T))
    assert metrics.frechet_pixels(a, 2 * a + 3) == pytest.approx(expected, rel=1e-12)


def test_frechet_against_the_matrix_square_root():
    from scipy.linalg import sqrtm

    a, b = normal(12, 200, 5) @ normal(13, 5, 5), normal(14, 150, 5) @ normal(15, 5, 5)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected += np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert metrics.frechet_pixels(a, b) == pytest.approx(expected, rel=1e-10)


def test_frechet_with_fewer_rows_than_dimensions():
    a = normal(16, 10, 50)
    assert metrics.frechet_pixels(a, a) == pytest.approx(0, abs=1e-12)
    expected = (a.mean(0) ** 2).sum() + ((a - a.mean(0)) ** 2).sum() / 9
    assert metrics.frechet_pixels(a, 2 * a) == pytest.approx(expected, rel=1e-12)


# recall, precision, nearest neighbours


def test_recall_and_precision_by_hand():
    samples = np.array([[0.0], [1.0], [10.0]])  # reach of the nearest neighbour: 1, 1, 9
    real = np.array([[-0.5], [-1.5], [5.0], [20.0]])  # in, out, in the last ball, out
    assert metrics.recall(real, samples, k=1) == 0.5
    # reach of the real rows: 1, 1, 5.5, 15; every sample is in some ball
    assert metrics.precision(real, samples, k=1) == 1.0
    assert metrics.precision(real[:2], samples, k=1) == pytest.approx(1 / 3)


def test_k_needs_that_many_neighbours():
    with pytest.raises(ValueError, match="k: expected fewer than 5 neighbours, got 5"):
        metrics.recall(normal(0, 9, 2), normal(1, 5, 2))
    with pytest.raises(ValueError, match="expected 2 rows or more, got 1 and 9"):
        metrics.energy_distance(normal(0, 1, 2), normal(1, 9, 2))


def test_nearest_neighbour_ratio_by_hand():
    train, held_out = np.array([[0.0], [10.0]]), np.array([[1.0], [7.0]])
    assert metrics.nearest_neighbour_ratio(held_out, train, held_out) == 1.0
    assert metrics.nearest_neighbour_ratio(train, train, held_out) == 0.0
    assert metrics.nearest_neighbour_ratio(train + 4, train, held_out) == 2.0
    with pytest.raises(ValueError, match="expected rows that are not in train"):
        metrics.nearest_neighbour_ratio(held_out, train, train)


# judges and the Gaussian


def test_accuracies_see_the_labels():
    y = np.repeat([0, 1], 50)
    x, more = (normal(seed, 100, 2) * 0.1 + y[:, None] for seed in (17, 18))
    assert metrics.classifier_accuracy(more, y, x, y) == 1.0
    assert metrics.classifier_accuracy(more, 1 - y, x, y) == 0.0
    assert metrics.train_on_samples_accuracy(x, y, more, y) == 1.0
    assert metrics.train_on_samples_accuracy(x, 1 - y, more, y) == 0.0
    # samples of one label teach one word
    assert metrics.train_on_samples_accuracy(x[:50], y[:50], more[:80], y[:80]) == 50 / 80


def test_per_class_gaussian_has_the_moments_of_each_class():
    y = np.repeat([0, 2], [30, 10])
    x = normal(19, 40, 3) @ normal(20, 3, 3) + y[:, None]
    drawn, labels = metrics.per_class_gaussian(x, y, 40_000, rng())
    np.testing.assert_array_equal(np.bincount(labels), [30_000, 0, 10_000])
    for label in (0, 2):
        mine, real = drawn[labels == label], x[y == label]
        scale = np.trace(np.cov(real.T))
        np.testing.assert_allclose(
            mine.mean(0), real.mean(0), atol=5 * math.sqrt(scale / len(mine))
        )
        np.testing.assert_allclose(np.cov(mine.T), np.cov(real.T), atol=0.06 * scale)


def test_per_class_gaussian_of_singular_data():
    x = np.zeros((12, 2, 3))
    x[:, 0, 0] = np.arange(12)
    drawn, labels = metrics.per_class_gaussian(x, np.r_[np.zeros(11, int), 1], 24, rng())
    assert drawn.shape == (24, 2, 3)
    assert np.isfinite(drawn).all()
    assert np.abs(drawn.reshape(24, -1)[:, 1:]).max() < 1e-12  # what never varied never varies
    assert len(np.unique(drawn[labels == 0, 0, 0])) == 22
    np.testing.assert_allclose(drawn[labels == 1, 0, 0], 11)  # a single row has no spread


# the report on digits


DIGITS = data.load("digits")


def new_digits(generator):
    return DIGITS.held_out.x, DIGITS.held_out.y


def copier(generator):
    rows = generator.integers(0, 898, 899)
    return DIGITS.x[rows] + 0.1 * generator.standard_normal((899, 8, 8, 1)), DIGITS.y[rows]


def without_five_digits(generator):
    x, y = DIGITS.held_out.x[DIGITS.held_out.y < 5], DIGITS.held_out.y[DIGITS.held_out.y < 5]
    return x, y


def wrong_labels(generator):
    return DIGITS.held_out.x, (DIGITS.held_out.y + 1) % 10


def uniform_noise(generator):
    return generator.uniform(-1, 1, (899, 8, 8, 1)), np.arange(899) % 10


def shrunk(generator):
    """Every digit half way to the mean of its label, as too few steps leave it."""
    x, y = DIGITS.held_out.x, DIGITS.held_out.y
    means = np.stack([DIGITS.x[DIGITS.y == digit].mean(axis=0) for digit in range(10)])
    return (x + means[y]) / 2, y


# samples: the gates they must miss
FAULTS = {
    new_digits: set(),
    copier: {"NN ratio"},
    without_five_digits: {"SWD", "ED2", "train-on-samples accuracy"},
    wrong_labels: {"train-on-samples accuracy"},
    uniform_noise: {"SWD", "ED2", "recall", "train-on-samples accuracy"},
    shrunk: {"SWD", "ED2", "recall"},
}


@pytest.fixture(scope="module")
def reports():
    """{samples: {name: Row}} of every faulty set."""
    found = {}
    for samples in FAULTS:
        x, y = samples(np.random.default_rng(1))
        found[samples] = {row.name: row for row in metrics.evaluate(x, y, DIGITS)}
    return found


@pytest.mark.parametrize("samples", FAULTS)
def test_gates_see_every_fault_and_no_other(reports, samples):
    assert {row.name for row in reports[samples].values() if row.missed} == FAULTS[samples]


def test_only_the_ratio_sees_a_copier(reports):
    """Why the ratio stands beside the distances: on those a copier beats the Gaussian."""
    rows = reports[copier]
    assert rows["NN ratio"].samples < 0.4
    for name in ("SWD", "ED2", "FD pixels"):
        assert rows[name].samples < rows[name].baseline


def test_missing_modes_lower_recall(reports):
    row = reports[without_five_digits]["recall"]
    assert row.samples < 0.7 * row.floor
    assert row.samples < row.baseline


def test_accuracy_and_precision_prove_nothing(reports):
    for name in ("accuracy", "precision"):
        assert reports[shrunk][name].samples > 0.99
        assert reports[shrunk][name].gate is None
    assert reports[wrong_labels]["accuracy"].samples < 0.02


def test_baseline_is_worse_than_real_data(reports):
    for row in reports[new_digits].values():
        if row.name in ("NN ratio", "accuracy"):  # about as good as real, by construction
            assert row.baseline == pytest.approx(row.floor, rel=0.15)
        elif row.better == "lower":
            assert row.baseline > 1.4 * row.floor
        else:
            assert row.baseline < row.floor


# Measured once for this split and judge by other code; what random draws move has a wider margin.
@pytest.mark.parametrize(
    ("column", "name", "value", "margin"),
    [
        ("floor", "SWD", 0.0215, 0.002),
        ("floor", "FD pixels", 0.074, 0.001),
        ("floor", "ED2", 0.0, 0.00005),
        ("floor", "precision", 0.97, 0.005),
        ("floor", "recall", 0.96, 0.005),
        ("floor", "accuracy", 0.991, 0.0005),
        ("baseline", "SWD", 0.0401, 0.004),
        ("baseline", "FD pixels", 0.170, 0.02),
        ("baseline", "ED2", 0.0170, 0.004),
        ("baseline", "precision", 0.93, 0.03),
        ("baseline", "recall", 0.71, 0.04),
        ("baseline", "NN ratio", 1.20 / 1.12, 0.02),
        ("baseline", "accuracy", 0.988, 0.012),
        ("baseline", "train-on-samples accuracy", 0.966, 0.015),
    ],
)
def test_digits_calibration(reports, column, name, value, margin):
    assert getattr(reports[new_digits][name], column) == pytest.approx(value, abs=margin)


def test_new_digits_are_their_own_floor(reports):
    rows = reports[new_digits]
    assert rows["SWD"].samples == pytest.approx(0, abs=1e-12)
    assert rows["FD pixels"].samples == pytest.approx(0, abs=1e-9)
    assert rows["NN ratio"].samples == rows["NN ratio"].floor == 1.0


def test_samples_are_clipped_and_rounded_first(reports):
    x, y = new_digits(None)
    generator = np.random.default_rng(2)
    moved = x + generator.uniform(-0.06, 0.06, x.shape)  # less than half a grey level
    moved[x == 1] += 5
    moved[x == -1] -= 5
    rows = metrics.evaluate_digits(moved, y)
    assert rows == list(reports[new_digits].values())


def test_report_is_deterministic_and_the_seed_matters():
    x, y = DIGITS.held_out.x[:60], DIGITS.held_out.y[:60]
    first, again, other = (metrics.evaluate_digits(x, y, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


# the report on other data


def test_arrays_see_a_gaussian_in_place_of_a_mixture():
    moons = data.load("two-moons")
    train, held_out = moons.x[:1500], moons.held_out.x[:1000]
    good = metrics.evaluate_arrays(moons.x[2000:2800], held_out, train)
    assert [row.name for row in good] == ["SWD", "ED2", "recall", "NN ratio"]
    assert not [row.name for row in good if row.missed]
    one = np.zeros(len(train), int)
    gaussian, _ = metrics.per_class_gaussian(train, one, 800, np.random.default_rng(9))
    worse = {row.name: row for row in metrics.evaluate_arrays(gaussian, held_out, train)}
    for row in good:
        if row.better == "lower":
            assert worse[row.name].samples > 3 * row.samples
            assert row.floor < 0.5 * row.baseline
    half = moons.x[2000:2800]
    half = half[half[:, 0] > 0]
    dropped = {row.name: row for row in metrics.evaluate_arrays(half, held_out, train)}
    assert dropped["recall"].missed
    assert dropped["SWD"].samples > 3 * good[0].samples


def test_evaluate_uses_labels_for_the_baseline_and_the_grid_for_rounding():
    y = np.arange(300) % 2
    x = np.where(y[:, None] == 1, 4.0, -4.0) + normal(21, 300, 3)
    x = (np.round(x * 2) / 2).astype(np.float32)
    half = data.Data("blobs", x[150:], y[150:], classes=2, step=0.5)
    blobs = data.Data("blobs", x[:150], y[:150], classes=2, step=0.5, held_out=half)
    whole = {row.name: row for row in metrics.evaluate(x[150:] + 0.2, y[150:], blobs)}
    assert whole["SWD"].samples < 0.2  # rounded back
    far, near = (
        metrics.evaluate_arrays(shown, half.x, blobs.x, step=0.5)
        for shown in (9 * x[150:], np.clip(9 * x[150:], blobs.x.min(), blobs.x.max()))
    )
    assert far == near  # without a range of its own the grid ends where the data does
    one = metrics.evaluate_arrays(x[150:], half.x, blobs.x)[1]
    assert whole["ED2"].baseline < 0.3 * one.baseline


def test_samples_and_baseline_of_bounded_data_are_clipped_to_its_range():
    """Pictures are all black and white; a Gaussian would be grey, and brighter than white."""
    x = np.sign(normal(23, 400, 6)).astype(np.float32)
    half = data.Data("ink", x[200:], value_range=(-1.0, 1.0))
    ink = data.Data("ink", x[:200], value_range=(-1.0, 1.0), held_out=half)
    calm, loud, open_ = (
        {row.name: row for row in metrics.evaluate(shown, np.zeros(200, int), one)}
        for shown, one in (
            (x[200:], ink),
            (3 * x[200:], ink),
            (3 * x[200:], replace(ink, value_range=None)),
        )
    )
    assert loud["ED2"] == calm["ED2"]
    assert open_["ED2"].samples > calm["ED2"].samples + 1.0
    assert open_["ED2"].baseline != calm["ED2"].baseline


def test_evaluate_does_not_take_a_file_named_digits_for_digits():
    x = normal(22, 40, 2).astype(np.float32)
    mine = data.Data("digits", x[:20], held_out=data.Data("digits", x[20:]))
    rows = metrics.evaluate(x[20:], np.zeros(20, int), mine)
    assert len(rows) == 4


# the table and the errors


def test_table_is_aligned_and_says_what_was_missed():
    rows = [
        report.Row("ED2", 0.5, 0.0, 0.017, "lower", 0.017),
        report.Row("recall", 0.7, 0.96, 0.71, "higher", 0.6),
        report.Row("precision", 0.99, 0.97, 0.93, "higher"),
    ]
    lines = metrics.table(rows, 899).splitlines()
    assert lines[0].startswith("899 samples")
    assert len(lines) == 5
    ends = [lines[1].index(word) + len(word) for word in ("samples", "floor", "baseline")]
    for row, line in zip(rows, lines[2:], strict=True):
        assert line.startswith(row.name)
        for end, value in zip(ends, (row.samples, row.floor, row.baseline), strict=True):
            assert line[:end].endswith(f"{value:.4f}")
    assert lines[2].endswith("<= 0.0170  MISSED")
    assert lines[3].endswith(">= 0.6000  pass")
    assert lines[4].endswith("0.9300")


@pytest.mark.parametrize(
    ("samples", "better", "gate", "missed"),
    [
        (1.0, "lower", 1.0, False),
        (1.1, "lower", 1.0, True),
        (1.0, "higher", 1.0, False),
        (0.9, "higher", 1.0, True),
        (math.nan, "lower", 1.0, True),
        (math.nan, "higher", 1.0, True),
        (math.nan, "higher", None, False),
    ],
)
def test_row_missed(samples, better, gate, missed):
    assert report.Row("x", samples, 0.0, 0.0, better, gate).missed is missed


BROKEN = DIGITS.x[:20].copy()
BROKEN[3, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (DIGITS.x[:20, :4], DIGITS.y[:20], r"expected \(n, 8, 8, 1\) .* got \(20, 4, 8, 1\)"),
        (DIGITS.x[:9], DIGITS.y[:9], r"n of 10 or more, got \(9, 8, 8, 1\)"),
        (BROKEN, DIGITS.y[:20], "got 1 NaN or Inf, the first in row 3"),
        (DIGITS.x[:20], DIGITS.y[:19], r"expected 20 integers, got int64 \(19,\)"),
        (DIGITS.x[:20], DIGITS.y[:20] * 1.0, "expected 20 integers, got float64"),
        (DIGITS.x[:20], DIGITS.y[:20] * 0 + 10, r"labels: expected 0..9, got 10..10"),
        (DIGITS.x[:20], DIGITS.y[:20] * 0 - 1, r"labels: expected 0..9, got -1..-1"),
    ],
)
def test_bad_samples_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message) as error:
        metrics.evaluate(x, y, DIGITS)
    assert "\n" not in str(error.value)


def test_data_without_held_out_rows_is_refused():
    with pytest.raises(ValueError, match="mine: expected rows held out, got none"):
        metrics.evaluate(np.zeros((20, 2)), None, data.Data("mine", np.zeros((20, 2))))


def test_report_tables_agree():
    assert set(report.GATES) | set(report.BEAT_THE_BASELINE) <= set(report.BETTER)
    assert not set(report.GATES) & set(report.BEAT_THE_BASELINE)
    assert len(set(report.STREAMS.values())) == len(report.STREAMS)
