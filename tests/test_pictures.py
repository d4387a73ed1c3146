"""pictures.py: pixels by the formula, tilings by position, files decoded back by Pillow."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from toolkit import pictures


def random_pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (0, 255), (-3.0, 5.0)])
def test_every_pixel_value_survives_the_trip_to_its_range(value_range):
    low, high = value_range
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    images = (low + pixels / 255.0 * (high - low)).astype(np.float32)
    back = pictures.to_pixels(images, value_range)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, pixels)


@pytest.mark.parametrize(
    "value_range", [(-1.7e308, 1.7e308), (0.0, 5e-324), (-1e300, 0.0), (1.0, 1.0 + 2**-52)]
)
def test_any_range_a_spec_may_name_gives_pixels(value_range):
    low, high = value_range
    images = np.array([low, high], np.float64).clip(-3e38, 3e38).reshape(2, 1, 1, 1)
    pixels = pictures.to_pixels(images, value_range).ravel()
    assert 0 <= pixels[0] <= pixels[1] <= 255


def test_pixels_round_to_the_nearest_and_clip():
    x = np.array([-1e38, -1.5, -1.0, 0.4 * 2 / 255 - 1, 0.6 * 2 / 255 - 1, 1.0, 7.0, 1e38])
    np.testing.assert_array_equal(pictures.to_pixels(x), [0, 0, 0, 0, 1, 255, 255, 255])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_refused(bad):
    x = np.zeros((2, 3, 3, 1), np.float32)
    x[1, 2, 0, 0] = bad
    with pytest.raises(ValueError, match=r"got 1 of 18 NaN or infinite; save them as \.npy"):
        pictures.to_pixels(x)


@pytest.mark.parametrize("value_range", [(1.0, -1.0), (0.5, 0.5), (0.0, float("nan"))])
def test_an_empty_range_is_refused(value_range):
    with pytest.raises(ValueError, match="expected low < high"):
        pictures.to_pixels(np.zeros(3), value_range)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("columns", [None, 1, 3, 99])
@pytest.mark.parametrize("gap", [0, 3])
def test_each_image_lies_where_reading_order_says(channels, columns, gap):
    images = random_pixels(7, 5, 4, channels)
    page = pictures.grid(images, columns, gap)
    across = min(columns or 3, 7)
    zoom = (page.shape[1] - gap) // across - gap
    zoom, left_over = divmod(zoom, 4)
    assert left_over == 0
    seen = np.zeros(page.shape[:2], bool)
    for k, image in enumerate(images):
        top = gap + k // across * (5 * zoom + gap)
        left = gap + k % across * (4 * zoom + gap)
        cell = page[top : top + 5 * zoom, left : left + 4 * zoom]
        seen[top : top + 5 * zoom, left : left + 4 * zoom] = True
        for a in (0, zoom // 2, zoom - 1):  # every corner of an enlarged pixel has its colour
            np.testing.assert_array_equal(cell[a::zoom, (zoom - 1 - a) :: zoom], image)
    assert (page[~seen] == pictures.BACKGROUND).all()


@pytest.mark.parametrize("shape", [(64, 8, 8, 1), (1, 28, 28, 1), (16, 28, 28, 3), (9, 64, 64, 3)])
def test_a_grid_is_about_six_hundred_wide(shape):
    height, width, channels = pictures.grid(random_pixels(*shape)).shape
    assert channels == shape[-1]
    assert 500 <= width <= 640
    assert 500 <= height <= 640


def test_large_images_are_not_shrunk_and_a_tall_grid_stays_short():
    assert pictures.grid(random_pixels(4, 700, 700, 3), gap=1).shape == (1403, 1403, 3)
    assert pictures.grid(random_pixels(64, 8, 8, 1), columns=1).shape[0] < 1400


@pytest.mark.parametrize(("n", "rows", "columns"), [(1, 1, 1), (8, 2, 4), (10, 2, 5), (64, 8, 8)])
def test_near_square_tilings_fill_their_last_row(n, rows, columns):
    height, width, _ = pictures.grid(random_pixels(n, 700, 700, 1), gap=0).shape
    assert (height // 700, width // 700) == (rows, columns)


@pytest.mark.parametrize("channels", [2, 5])
def test_odd_channels_show_the_first(channels):
    images = random_pixels(4, 6, 6, channels)
    np.testing.assert_array_equal(pictures.grid(images), pictures.grid(images[..., :1]))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 4, 4, 1), np.float32), "call to_pixels first"),
        (np.zeros((4, 4, 1), np.uint8), "call to_pixels first"),
        (np.zeros((0, 4, 4, 1), np.uint8), "at least one picture"),
    ],
)
def test_what_is_no_stack_of_pictures_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        pictures.grid(images)


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"gap": -1}])
def test_impossible_tilings_are_refused(wrong):
    with pytest.raises(ValueError, match="columns >= 1 and gap >= 0"):
        pictures.grid(random_pixels(2, 4, 4, 1), **wrong)


@pytest.mark.parametrize("count", [2, 3, 12, 13, 21, 500])
def test_a_pick_is_even_and_keeps_both_ends(count):
    chosen = pictures.pick(count, 12)
    assert chosen[0] == 0
    assert chosen[-1] == count - 1
    assert len(chosen) == min(count, 12)
    gaps = np.diff(chosen)
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("steps", [1, 20])
def test_a_strip_runs_from_noise_to_data_one_sample_a_row(steps):
    # state k of sample i is flat, with a pixel value that tells k and i apart
    k, i = np.meshgrid(np.arange(steps + 1), np.arange(3), indexing="ij")
    values = (10 * k + i).astype(np.float32)
    states = np.broadcast_to(values[..., None, None, None], (steps + 1, 3, 4, 4, 1))
    picture = pictures.strip(states, (0, 255))
    columns = min(steps + 1, 12)
    height, width = picture.shape[0] / 3, picture.shape[1] / columns
    middles = np.array(
        [
            [picture[int((r + 0.5) * height), int((c + 0.5) * width), 0] for c in range(columns)]
            for r in range(3)
        ]
    )
    np.testing.assert_array_equal(middles, values[pictures.pick(steps + 1, 12)].T)


def test_a_strip_shows_the_first_rows_of_many_and_refuses_other_ranks():
    states = np.random.default_rng(0).uniform(-1, 1, (3, 50, 4, 4, 1))
    np.testing.assert_array_equal(pictures.strip(states), pictures.strip(states[:, :8]))
    with pytest.raises(ValueError, match=r"expected \(steps \+ 1, n, H, W, C\)"):
        pictures.strip(states[0])
    with pytest.raises(ValueError, match="columns >= 2"):
        pictures.strip(states, columns=1)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_a_png_decodes_to_the_same_numbers(tmp_path, channels, mode):
    pixels = random_pixels(9, 13, channels)
    path = pictures.save_png(tmp_path / "a.png", pixels)
    with Image.open(path) as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image).reshape(9, 13, channels), pixels)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def decoded(path):
    with Image.open(path) as image:
        frames = [frame.copy() for frame in ImageSequence.Iterator(image)]
        return np.stack([np.asarray(frame.convert("RGB")) for frame in frames]), [
            frame.info["duration"] for frame in frames
        ]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gif_of_few_colours_decodes_to_the_same_frames(tmp_path, channels):
    frames = random_pixels(6, 14, 17, channels)  # 238 pixels: no frame has more colours
    path = pictures.save_gif(tmp_path / "a.gif", frames)
    got, _ = decoded(path)
    np.testing.assert_array_equal(got, np.broadcast_to(frames, (6, 14, 17, 3)))


def test_a_gif_of_moving_parts_keeps_what_stands_still(tmp_path):
    frames = np.full((5, 20, 20, 3), 255, np.uint8)
    for k, frame in enumerate(frames):
        frame[3:6, 3 * k : 3 * k + 3] = (200, 10 * k, 30)
    got, _ = decoded(pictures.save_gif(tmp_path / "a.gif", frames))
    np.testing.assert_array_equal(got, frames)


def test_a_gif_of_many_colours_comes_close(tmp_path):
    y, x = np.mgrid[0:64, 0:64]
    frames = np.stack([np.stack([4 * x, 4 * y, 2 * x + 40 * k], -1) for k in range(3)])
    got, _ = decoded(pictures.save_gif(tmp_path / "a.gif", frames.astype(np.uint8)))
    assert np.abs(got.astype(int) - frames).mean() < 6


def test_opacity_in_a_gif_shows_the_background(tmp_path):
    frames = np.zeros((2, 4, 4, 4), np.uint8)
    frames[1, ..., 3] = 255
    got, _ = decoded(pictures.save_gif(tmp_path / "a.gif", frames))
    assert (got[0] == pictures.BACKGROUND).all()
    assert (got[1] == 0).all()


def test_a_gif_loops_for_ever_and_rests_at_its_end(tmp_path):
    path = pictures.save_gif(tmp_path / "a.gif", random_pixels(10, 4, 4, 1), seconds=2.0)
    _, durations = decoded(path)
    assert durations == [200] * 9 + [1200]
    with Image.open(path) as image:
        assert image.info["loop"] == 0
    _, durations = decoded(pictures.save_gif(path, random_pixels(10, 4, 4, 1), seconds=0.01))
    assert durations == [20] * 9 + [1020]


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_no_duration_is_refused(tmp_path, seconds):
    with pytest.raises(ValueError, match="seconds: expected > 0"):
        pictures.save_gif(tmp_path / "a.gif", random_pixels(2, 4, 4, 1), seconds)


def test_a_gif_of_nothing_and_a_wrong_ending_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one picture"):
        pictures.save_gif(tmp_path / "a.gif", [])
    with pytest.raises(ValueError, match=r"ending in \.png, got '\.jpg'"):
        pictures.save_png(tmp_path / "a.jpg", random_pixels(4, 4, 1))
    with pytest.raises(ValueError, match=r"ending in \.gif, got ''"):
        pictures.save_gif(tmp_path / "a", random_pixels(2, 4, 4, 1))
    assert not list(tmp_path.iterdir())


def test_without_pillow_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    for save, shape in ((pictures.save_png, (4, 4, 1)), (pictures.save_gif, (2, 4, 4, 1))):
        ending = save.__name__[-3:]
        with pytest.raises(ValueError, match=r'pip install "toolkit\[pictures\]", or write \.npy'):
            save(tmp_path / f"a.{ending}", random_pixels(*shape))
    assert not list(tmp_path.iterdir())
