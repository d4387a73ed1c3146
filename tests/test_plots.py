"""plots.py: what a Figure contains is read from the Figure, what a file contains by Pillow."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from PIL import Image

from toolkit import plots


def lines_of(page):
    return {line.get_label(): line for line in page.axes[0].lines}


def collections_of(axes, kind):
    return [found for found in axes.collections if type(found) is kind]


def falling(n=400, low=0.3, seed=0):
    k = np.arange(n)
    return (low + np.exp(-k / 50)) * np.exp(0.1 * np.random.default_rng(seed).standard_normal(n))


def test_a_loss_plot_holds_the_losses_a_smooth_line_and_the_line_to_beat():
    losses = falling()
    lines = lines_of(plots.loss_figure(range(400), losses, floor=0.5, floor_label="constant"))
    assert set(lines) == {"raw", "smoothed", "constant"}
    np.testing.assert_array_equal(lines["raw"].get_ydata(), losses)
    assert list(lines["constant"].get_ydata()) == [0.5, 0.5]
    smooth = lines["smoothed"].get_ydata()
    assert np.abs(np.diff(smooth[50:])).max() < 0.2 * np.abs(np.diff(losses[50:])).max()
    assert lines["raw"].get_alpha() < 0.5


def test_without_a_floor_there_are_two_lines():
    assert set(lines_of(plots.loss_figure([0, 1, 2], [3.0, 2.0, 1.0]))) == {"raw", "smoothed"}


def test_the_smoothed_loss_keeps_constants_and_straight_lines():
    np.testing.assert_allclose(plots.smoothed(np.full(100, 0.7)), 0.7, rtol=1e-12)
    line = 5.0 - 0.01 * np.arange(300)
    np.testing.assert_allclose(plots.smoothed(line)[:270], line[:270], rtol=1e-12)  # no lag


@pytest.mark.parametrize(
    ("losses", "floor", "scale"),
    [
        (falling(low=0.3), None, "linear"),
        (falling(low=0.001), None, "log"),
        (falling(low=0.001), 0.0005, "log"),
        (falling(low=0.001), 0.0, "linear"),
        (falling(low=0.001) - 0.5, None, "linear"),
        (np.full(5, 2.0), 2.0, "linear"),
        (np.zeros(5), None, "linear"),
        ([1.0], None, "linear"),
    ],
)
def test_the_axis_suits_the_losses_and_shows_the_end_and_the_floor(losses, floor, scale):
    (axes,) = plots.loss_figure(np.arange(len(losses)), losses, floor=floor).axes
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert low < lines_of(axes.figure)["smoothed"].get_ydata()[-1] < high
    assert floor is None or low < floor < high


def test_one_spike_does_not_flatten_the_curve():
    losses = falling(1000)
    losses[500] = 1e4
    (axes,) = plots.loss_figure(range(1000), losses).axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[1] < 1e3


def test_a_diverged_loss_leaves_a_gap():
    lines = lines_of(plots.loss_figure(range(5), [3.0, 2.0, np.nan, np.inf, 1.0]))
    np.testing.assert_array_equal(np.isnan(lines["raw"].get_ydata()), [0, 0, 1, 1, 0])
    np.testing.assert_array_equal(lines["smoothed"].get_xdata(), [0, 1, 4])


@pytest.mark.parametrize(
    ("steps", "losses"), [([], []), ([1, 2], [1.0]), ([1], [np.nan]), ([[1]], [[1.0]])]
)
def test_losses_that_cannot_be_drawn_are_refused(steps, losses):
    with pytest.raises(ValueError, match="losses: expected a step for each"):
        plots.loss_figure(steps, losses)


def test_the_floor_changes_pixels_of_its_colour_only_where_there_is_one(tmp_path):
    def orange(path):
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        return (np.abs(pixels - (0xD5, 0x5E, 0x00)).sum(-1) < 30).sum()

    plain = plots.loss_curve(tmp_path / "a.png", range(400), falling())
    beaten = plots.loss_curve(tmp_path / "b.png", range(400), falling(), floor=0.8)
    assert orange(plain) == 0
    assert orange(beaten) > 300


def test_samples_beside_data_share_their_axes():
    rng = np.random.default_rng(0)
    samples, data = rng.standard_normal((50, 2)), 3 * rng.standard_normal((70, 2))
    page = plots.scatter_figure(samples, data, title="moons")
    assert [axes.get_title() for axes in page.axes] == ["data", "samples"]
    assert page.get_suptitle() == "moons"
    for axes, points in zip(page.axes, (data, samples), strict=True):
        (dots,) = collections_of(axes, PathCollection)
        np.testing.assert_array_equal(np.asarray(dots.get_offsets()), points)
        assert axes.get_xlim() == page.axes[0].get_xlim()
        assert axes.get_ylim() == page.axes[0].get_ylim()
        low, high = np.transpose([axes.get_xlim(), axes.get_ylim()])
        assert (low < np.concatenate([samples, data])).all()
        assert (np.concatenate([samples, data]) < high).all()
        np.testing.assert_allclose((high - low)[0], (high - low)[1])
    assert len(plots.scatter_figure(samples).axes) == 1


def test_coincident_points_still_have_an_axis(tmp_path):
    plots.scatter(tmp_path / "a.png", np.ones((4, 2), np.float32))
    (axes,) = plots.scatter_figure(np.ones((4, 2))).axes
    assert axes.get_xlim()[0] < 1 < axes.get_xlim()[1]


def test_trajectories_start_at_noise_and_end_at_data():
    states = np.random.default_rng(0).standard_normal((5, 8, 2)).astype(np.float32)
    times = np.linspace(0, 1, 5)
    (axes,) = plots.flow_figure(states, times).axes
    (paths,) = collections_of(axes, LineCollection)
    segments = np.stack(paths.get_segments()).reshape(4, 8, 2, 2)
    np.testing.assert_array_equal(segments[:, :, 0], states[:-1])
    np.testing.assert_array_equal(segments[:, :, 1], states[1:])
    np.testing.assert_allclose(paths.get_array().reshape(4, 8)[:, 0], [0.125, 0.375, 0.625, 0.875])
    noise, data = collections_of(axes, PathCollection)
    np.testing.assert_array_equal(np.asarray(noise.get_offsets()), states[0])
    np.testing.assert_array_equal(np.asarray(data.get_offsets()), states[-1])


def test_many_trajectories_are_thinned():
    states = np.random.default_rng(0).standard_normal((3, 1000, 2))
    (axes,) = plots.flow_figure(states, np.linspace(0, 1, 3)).axes
    (paths,) = collections_of(axes, LineCollection)
    assert len(paths.get_segments()) == 2 * plots.LINES


@pytest.mark.parametrize("times", [[0.0, 1.0], [[0.0, 0.5, 1.0]], 0.5])
def test_a_time_is_needed_for_every_state(times):
    with pytest.raises(ValueError, match="times: expected one for each"):
        plots.flow_figure(np.zeros((3, 4, 2)), times)


def ring(n=6, length=1.4):
    angle = 2 * np.pi * np.arange(n) / n
    radius = length / (2 * np.sin(np.pi / n))
    return radius * np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)


def rotation(seed):
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    return q * np.linalg.det(q)


def test_near_atoms_are_joined_whatever_the_scale_or_view():
    expected = {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5)}
    for seed, scale in enumerate((0.01, 1.0, 300.0)):
        points = scale * ring() @ rotation(seed) + 5
        assert {tuple(pair) for pair in plots.near_pairs(points).tolist()} == expected
    assert plots.near_pairs(ring()[:1]).shape == (0, 2)


def test_the_view_is_a_rotation_onto_the_widest_plane():
    thin = np.random.default_rng(0).standard_normal((30, 3)) * (3, 2, 0.1)
    for seed in range(5):
        view = plots.flat_view(thin @ rotation(seed))
        np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(view), 1.0)
        spread = (thin @ rotation(seed) @ view.T).std(0)
        assert spread[0] > spread[1] > spread[2]


def test_a_panel_shows_all_atoms_and_true_bond_lengths():
    samples = np.stack([ring() @ rotation(seed) for seed in range(5)]).astype(np.float32)
    page = plots.molecule_figure(samples)
    drawn = [axes for axes in page.axes if axes.collections]
    assert len(drawn) == 5
    assert len(page.axes) == 8  # two rows of four
    for axes in drawn:
        (atoms,) = axes.collections
        assert len(atoms.get_offsets()) == 6
        assert len(axes.lines) == 6
        for bond in axes.lines:  # a flat ring seen from above is not shortened
            np.testing.assert_allclose(np.hypot(*np.diff(bond.get_xydata(), axis=0)[0]), 1.4, 1e-5)


def test_given_bonds_are_drawn_and_checked():
    samples = np.stack([ring(), ring()])
    page = plots.molecule_figure(samples, bonds=[(0, 3)])
    assert [len(axes.lines) for axes in page.axes] == [1, 1]
    assert [len(axes.lines) for axes in plots.molecule_figure(samples, bonds=[]).axes] == [0, 0]
    with pytest.raises(ValueError, match="bonds: expected atoms 0 to 5, got 0 to 6; count from 0"):
        plots.molecule_figure(samples, bonds=[(0, 6)])


@pytest.mark.parametrize("atoms", [1, 2])
def test_the_smallest_molecules_can_be_drawn(tmp_path, atoms):
    plots.molecules(tmp_path / "a.png", np.random.default_rng(0).standard_normal((2, atoms, 3)))


def test_only_a_few_of_many_molecules_are_drawn():
    many = np.stack([ring()] * 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "save", lambda path, page: page)
        page = plots.molecules("a.png", many)
    assert sum(bool(axes.collections) for axes in page.axes) == plots.PANELS


@pytest.mark.parametrize(
    ("draw", "shape"),
    [
        (plots.scatter_figure, (5, 3)),
        (plots.scatter_figure, (0, 2)),
        (plots.molecule_figure, (5, 4)),
        (plots.molecule_figure, (2, 4, 2)),
    ],
)
def test_other_shapes_and_numbers_that_are_none_are_refused(draw, shape):
    with pytest.raises(ValueError, match=r"samples: expected shape \(n, .*\), got \("):
        draw(np.zeros(shape))
    good = np.full((3, 4, 3) if draw is plots.molecule_figure else (3, 2), np.nan)
    with pytest.raises(ValueError, match="NaN or infinite"):
        draw(good)


def test_files_are_pngs_written_whole_and_nothing_global_is_touched(tmp_path):
    before = dict(matplotlib.rcParams)
    pyplot = "matplotlib.pyplot" in sys.modules
    points = np.random.default_rng(0).standard_normal((3, 20, 2))
    plots.loss_curve(tmp_path / "loss.png", [0, 1], [2.0, 1.0])
    plots.scatter(tmp_path / "scatter.png", points[0], points[1], title="two")
    plots.flow_path(tmp_path / "flow.png", points, [0, 0.5, 1])
    plots.molecules(tmp_path / "molecules.png", ring()[None])
    names = {"loss.png", "scatter.png", "flow.png", "molecules.png"}
    assert {file.name for file in tmp_path.iterdir()} == names
    for name in names:
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG"
            pixels = np.asarray(image.convert("L"))
        assert (pixels[0] == 255).all()  # a white page
        assert (pixels < 200).any()  # with something on it
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot
    with pytest.raises(ValueError, match=r"ending in \.png"):
        plots.scatter(tmp_path / "a.pdf", points[0])


def test_the_same_losses_give_the_same_file(tmp_path):
    a, b = (plots.loss_curve(tmp_path / f"{name}.png", [0, 1], [2.0, 1.0]) for name in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_without_matplotlib_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r'pip install "toolkit\[pictures\]", or write \.npy'):
        plots.scatter(tmp_path / "a.png", np.zeros((3, 2)))
