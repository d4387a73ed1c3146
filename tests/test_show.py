"""show.py: one call for any name; every (shape, ending) of its tables writes what it says."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from toolkit import pictures, show

SHAPES = {
    "points": (2,),
    "molecules": (5, 3),
    "images": (8, 8, 1),
    "videos": (4, 6, 6, 3),
    "arrays": (7,),
}
STEPS = 3


def states_of(kind, n=5):
    shape = (STEPS + 1, n, *SHAPES[kind])
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


TIMES = np.linspace(0, 1, STEPS + 1)


def frames_of(path):
    with Image.open(path) as image:
        frames = ImageSequence.Iterator(image)
        return np.stack([np.asarray(frame.convert("RGB")) for frame in frames])


def test_kinds_are_told_by_shape():
    assert {kind: show.kind_of(shape) for kind, shape in SHAPES.items()} == {k: k for k in SHAPES}
    assert show.kind_of((3,)) == show.kind_of((16, 7)) == show.kind_of(()) == "arrays"


@pytest.mark.parametrize(("kind", "ending"), list(show.SAMPLES))
def test_every_entry_writes_samples(tmp_path, kind, ending):
    path = show.save_samples(tmp_path / f"a{ending.upper()}", states_of(kind)[-1])
    with Image.open(path) as image:
        assert image.format == ending[1:].upper()
        assert image.width >= 60
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("kind", "ending"), list(show.TRAJECTORIES))
def test_every_entry_writes_a_trajectory(tmp_path, kind, ending):
    path = show.save_trajectory(tmp_path / f"a{ending}", states_of(kind), TIMES)
    with Image.open(path) as image:
        assert image.format == ending[1:].upper()
        assert getattr(image, "n_frames", 1) == (STEPS + 1 if ending == ".gif" else 1)


@pytest.mark.parametrize("kind", list(SHAPES))
def test_arrays_come_back_bit_for_bit_even_if_not_finite(tmp_path, kind):
    states = states_of(kind)
    states.flat[3] = np.nan
    one = np.load(show.save_samples(tmp_path / "a.npy", states[0]))
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, states[0])
    with np.load(show.save_samples(tmp_path / "a.npz", states[0])) as file:
        assert file.files == ["x"]
        np.testing.assert_array_equal(file["x"], states[0])
    np.testing.assert_array_equal(
        np.load(show.save_trajectory(tmp_path / "b.npy", states, TIMES)), states
    )
    with np.load(show.save_trajectory(tmp_path / "b.npz", states, TIMES)) as file:
        np.testing.assert_array_equal(file["x"], states)
        np.testing.assert_array_equal(file["times"], TIMES)


def test_images_are_the_grid_in_their_value_range(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    path = show.save_samples(tmp_path / "a.png", pixels / np.float32(255), (0, 1), columns=2)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), pictures.grid(pixels, 2))


def test_a_video_plays_its_frames_and_lies_flat_as_rows(tmp_path):
    videos = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 6, 1), dtype=np.uint8)
    got = frames_of(show.save_samples(tmp_path / "a.gif", videos, (0, 255)))
    wanted = np.stack([pictures.grid(videos[:, k]) for k in range(4)])
    np.testing.assert_array_equal(got, np.broadcast_to(wanted, got.shape))
    page = np.asarray(Image.open(show.save_samples(tmp_path / "a.png", videos, (0, 255))))
    np.testing.assert_array_equal(page[..., None], pictures.grid(videos.reshape(8, 6, 6, 1), 4))


def test_an_animation_ends_at_the_samples(tmp_path):
    states = states_of("images")
    got = frames_of(show.save_trajectory(tmp_path / "a.gif", states, TIMES))
    wanted = pictures.grid(pictures.to_pixels(states[-1]))
    np.testing.assert_array_equal(got[-1], np.broadcast_to(wanted, got[-1].shape))


def test_moving_points_move_and_their_page_stands_still(tmp_path):
    states = np.zeros((4, 1, 2), np.float32)
    states[:, 0, 0] = [-1, -0.4, 0.4, 1]
    frames = frames_of(show.save_trajectory(tmp_path / "a.gif", states, TIMES)).astype(int)
    blue = (frames[..., 2] - frames[..., 0]) > 60
    middles = [np.argwhere(frame).mean(0) for frame in blue]  # (row, column) of the dot
    assert np.ptp([row for row, _ in middles]) < 1
    columns = np.array([column for _, column in middles])
    steps = np.diff(columns)
    np.testing.assert_allclose(steps / steps.sum(), [0.3, 0.4, 0.3], atol=0.01)


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.txt", ".png"])
def test_an_unknown_ending_lists_the_known_ones(tmp_path, name):
    with pytest.raises(ValueError, match=r"ending in \.png, \.gif, \.npy, \.npz, got"):
        show.save_samples(tmp_path / name, states_of("images")[0])


@pytest.mark.parametrize(
    ("kind", "ending", "possible"),
    [
        ("arrays", ".png", r"expected \.npy or \.npz for arrays of shape \(7,\), got \.png"),
        ("points", ".gif", r"expected \.png or \.npy or \.npz for points"),
        ("images", ".gif", r"expected \.png or \.npy or \.npz for images"),
    ],
)
def test_a_shape_nobody_can_look_at_names_the_endings_left(tmp_path, kind, ending, possible):
    with pytest.raises(ValueError, match=possible):
        show.save_samples(tmp_path / f"a{ending}", states_of(kind)[0])
    assert not list(tmp_path.iterdir())


def test_a_check_needs_no_samples(tmp_path):
    assert show.check(tmp_path / "a.GIF", (8, 8, 1), trajectory=True) == ".gif"
    with pytest.raises(ValueError, match=r"got \.gif"):
        show.check(tmp_path / "a.gif", (8, 8, 1))
    with pytest.raises(ValueError, match="expected an existing folder"):
        show.check(tmp_path / "none" / "a.png", (8, 8, 1))


def test_states_without_their_times_are_refused(tmp_path):
    for states, times in ((states_of("points"), TIMES[:-1]), (np.zeros((4, 2)), TIMES)):
        with pytest.raises(ValueError, match="a time for each"):
            show.save_trajectory(tmp_path / "a.png", states, times)


@pytest.mark.parametrize(("kind", "ending"), list(show.TRAJECTORIES))
def test_no_picture_is_made_of_nan(tmp_path, kind, ending):
    states = states_of(kind)
    states[..., 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        show.save_trajectory(tmp_path / f"a{ending}", states, TIMES)
    assert not list(tmp_path.iterdir())


def test_importing_and_writing_arrays_needs_no_drawing_library(tmp_path):
    code = (
        "import sys, numpy as np; from toolkit import show;"
        f"show.save_samples({str(tmp_path / 'a.npy')!r}, np.zeros((2, 8, 8, 1)));"
        "sys.exit(any(name in sys.modules for name in ('PIL', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
