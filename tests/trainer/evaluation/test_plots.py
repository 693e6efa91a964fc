"""Drawn results, looked at pixel by pixel: what must be in them, and that it fits."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.commands import ROOT
from trainer.evaluation import plots
from trainer.evaluation.plots import annotated, confusion, confusion_matrix, drawable, picture_grid


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


def num_of(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((pixels(image) == colour).all(axis=2).sum())


def cells_of(dense: torch.Tensor) -> torch.Tensor:
    """(M, 3): those of a matrix that are not 0."""
    places = dense.nonzero()
    return torch.cat([places, dense[dense != 0][:, None]], dim=1)


def eye(num: int, count: int = 1) -> torch.Tensor:
    """The cells of a net that is always right."""
    return cells_of(count * torch.eye(num, dtype=torch.int64))


@pytest.mark.parametrize("num", [1, 2, 10, 37, 100, 101, 1000, 1200])
def test_a_matrix_of_any_size_is_an_image_of_bearable_size(num: int) -> None:
    names = [f"c{i}" for i in range(num)]
    image = confusion(eye(num), names)
    assert (pixels(image) == pixels(confusion_matrix(eye(num), names))).all()
    assert 150 < max(image.size) < 1500
    assert image.width < 1.8 * image.height
    assert image.height < 1.8 * image.width


def test_cells_have_the_colour_of_their_share() -> None:
    """A hundred classes, each taken for itself: cells of 11 pixels without a number in them."""
    names = [""] * 100
    of_scale = num_of(confusion_matrix(torch.zeros(0, 3, dtype=torch.int64), names), plots.HUE)
    whole = confusion_matrix(eye(100, 5), names)
    assert num_of(whole, plots.HUE) == 100 * 11**2 + of_scale
    row = torch.zeros(100, 100, dtype=torch.int64)
    row[0, :4] = torch.tensor([64, 25, 10, 1])
    image = pixels(confusion_matrix(cells_of(row), names))
    left = image.shape[1] - 7 * plots.TEXT - 1100  # as the scale's room is
    shades = [image[plots.GAP + 5, left + 11 * k + 5, 0] for k in range(5)]
    assert shades == sorted(shades)
    assert len(set(shades)) == 5  # one image in a hundred shows, too
    assert shades[4] == 255


def test_counts_stand_in_the_cells_while_they_fit() -> None:
    def drawn(count: int, num: int) -> np.ndarray:
        return pixels(confusion_matrix(eye(num, count), ["x"] * num))

    assert (drawn(1, 10) != drawn(7, 10)).any()
    assert (drawn(1, 100) == drawn(7, 100)).all()
    assert (drawn(10**9, 20) == drawn(10**9 + 1, 20)).all()


def test_names_stand_on_both_sides() -> None:
    cells = cells_of(torch.tensor([[3, 1], [0, 4]]))
    one, other = (pixels(confusion_matrix(cells, ["cat", name])) for name in ("dog", "god"))
    rows, columns = np.nonzero((one != other).any(axis=2))
    assert (columns < 70).any()  # beside the matrix
    assert (rows > 200).any()  # below it
    assert not ((columns >= 75) & (rows < 200)).any()  # and nowhere else
    long = confusion_matrix(cells, ["cat", "a name of more than a hundred letters " * 4])
    assert long.width < 500


def test_classes_without_images_are_white() -> None:
    image = confusion_matrix(torch.zeros(0, 3, dtype=torch.int64), ["a", "b"])
    assert num_of(image, plots.WHITE) > 192**2


def test_more_classes_than_pixels_are_a_list_of_confusions() -> None:
    """Which grows neither with the classes nor with the confusions."""
    names = [f"c{k}" for k in range(50_000)]
    one, other = (torch.tensor([[7, 7, 90], [7, 8, 2], [40_000, k, 3]]) for k in (9, 10))
    drawn = [pixels(confusion(cells, names)) for cells in (one, other, one.flip(0))]
    assert drawn[0].shape == drawn[1].shape
    rows, _ = np.nonzero((drawn[0] != drawn[1]).any(axis=2))
    assert rows.max() < 2 * (plots.TEXT + plots.GAP) + plots.GAP  # the commonest comes first
    assert (drawn[0] == drawn[2]).all()
    right = confusion(torch.tensor([[7, 7, 90]]), names)
    assert right.height < drawn[0].shape[0]
    worst = torch.stack([torch.arange(2000), torch.arange(2000) + 1, torch.ones(2000).long()], 1)
    assert confusion(worst, ["a very long name of a class " * 3] * 50_000).height < 800


def test_names_are_written_in_letters_that_the_font_has() -> None:
    assert drawable("cat", 3) == "cat"
    assert drawable("T-shirt/top", 0) == "T-shirt/top"
    assert drawable("Café crème", 3) == "Cafe creme"
    assert drawable("猫", 3) == "3"
    assert drawable("a\nb", 4) == "4"


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_grid_shows_each_image_enlarged_pixel_by_pixel(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (5, channels, 32, 32), dtype=torch.uint8, generator=generator)
    image = pixels(picture_grid(pictures, [f"picture {i}\nof five" for i in range(5)]))
    windows = np.lib.stride_tricks.sliding_window_view(image[:, :, 0], (128, 128))
    shown = pictures if channels == 3 else pictures[:, :1].repeat(1, 3, 1, 1)
    found = []
    for picture in shown.numpy():
        large = picture.transpose(1, 2, 0).repeat(4, axis=0).repeat(4, axis=1)
        ys, xs = np.nonzero(windows[:, :, 0, 0] == large[0, 0, 0])
        at = [(y, x) for y, x in zip(ys, xs, strict=True)
              if (image[y : y + 128, x : x + 128] == large).all()]  # fmt: skip
        found += at
    assert len(found) == 5
    assert found == sorted(found)  # in rows
    assert len({y for y, _ in found}) == 2


def test_captions_stand_below_their_images() -> None:
    black = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    one = pixels(picture_grid(black, ["a", "b", "c", "d"]))
    other = pixels(picture_grid(black, ["a", "b", "c", "e"]))
    rows, columns = np.nonzero((one != other).any(axis=2))
    assert rows.min() > one.shape[0] / 2
    assert columns.min() > one.shape[1] / 2
    long = picture_grid(black, ["a", "b", "c", "long " * 99])
    assert pixels(long).shape == one.shape
    assert picture_grid(black[:0], []).width > 0
    with pytest.raises(ValueError, match="shorter"):
        picture_grid(black, ["a"])


def test_large_images_are_made_smaller_and_long_ones_stay_long() -> None:
    grid = picture_grid(torch.zeros(1, 3, 1000, 500, dtype=torch.uint8), [""])
    assert grid.height < 200
    strip = annotated(Image.new("L", (2000, 20)), [("a", 1.0)])
    assert strip.width == 1024


def test_an_annotated_image_keeps_its_pixels_above_bars_of_the_probabilities() -> None:
    small = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    image = annotated(Image.fromarray(small), [("cat", 0.75), ("dog", 0.25), ("cow", 0.0)])
    drawn = pixels(image)
    np.testing.assert_array_equal(drawn[:360, :360], small.repeat(18, axis=0).repeat(18, axis=1))
    full = (drawn[360:] == plots.HUE).all(axis=2).sum(axis=1)
    lengths = [int(n) for n in full[full > 100]]
    assert lengths
    room = image.width - 2 * plots.GAP
    assert set(lengths) <= {round(0.75 * room) + 1, round(0.25 * room) + 1}
    large = annotated(Image.new("RGB", (800, 600), "red"), [("cat", 1.0)])
    assert num_of(large, (255, 0, 0)) == 800 * 600


@pytest.mark.parametrize("text", ["cat", "i" * 200, "W" * 200, "a cat on a mat " * 14])
@pytest.mark.parametrize("width", [1, 40, 120, 400])
def test_a_long_name_is_cut_where_one_letter_more_would_not_fit(text: str, width: int) -> None:
    """Against trying every length, one by one."""
    fitting = [n for n in range(len(text)) if plots._width(text[:n] + "...", 12) <= width]
    whole = plots._width(text, 12) <= width
    expected = text if whole else text[: max(fitting, default=0)] + "..."
    assert plots._cut(text, 12, width) == expected


def test_a_long_name_costs_no_more_than_a_few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    width = plots._width
    monkeypatch.setattr(plots, "_width", lambda *given: looks.append(1) or width(*given))
    assert plots._cut("a" * 100_000, 12, 120).endswith("...")
    assert len(looks) < 20


def test_drawing_needs_no_torch() -> None:
    code = (
        "import sys, trainer.evaluation.plots; print('torch' in sys.modules, 'PIL' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr
