"""Images from pictures, files and folders, and how a digit is framed."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import data
from data import strokes
from data.frame import ink_of, is_pair, one_digit, taken

frame = importlib.import_module("data.frame")  # the module, beside which `data` has a function of its name


def centre(image: np.ndarray) -> list[float]:
    return [float(np.average(np.arange(n), weights=image.sum(1 - axis))) for axis, n in enumerate(image.shape)]


# The frame -------------------------------------------------------------------------------------------------------


def test_what_is_framed_already_stays_where_it_is() -> None:
    images, _ = strokes.generate(200, seed=5)
    # The box of the ink that is not FAINT; a faint row at its edge is lost, and its absence may move the centre.
    whole = [image for image in images if max(np.ptp(np.argwhere(image > 50), axis=0)) == 19]
    assert len(whole) > 150
    kept = [np.where(data.frame(image) > 0, image, 0) for image in whole]
    assert np.mean([np.array_equal(data.frame(image), same) for image, same in zip(whole, kept, strict=True)]) > 0.9


@pytest.mark.skipif(not os.environ.get("TWINKERNELS_DATA"), reason="TWINKERNELS_DATA does not say where MNIST is")
def test_mnist_is_framed_as_mnist() -> None:
    images = data.load("mnist").test.images[:2000, ..., 0]
    framed = [data.frame(np.kron(image, np.ones((3, 3), np.uint8))) for image in images]
    assert np.mean([np.array_equal(*pair) for pair in zip(images, framed, strict=True)]) > 0.6
    assert (
        np.mean([np.abs(np.subtract(centre(a), centre(b))).max() < 0.51 for a, b in zip(images, framed, strict=True)])
        > 0.9
    )


@pytest.mark.parametrize("scale", [1, 3, 10])
@pytest.mark.parametrize("turned", [False, True])
def test_a_bar_becomes_twenty_pixels_long_and_keeps_its_aspect(scale: int, turned: bool) -> None:
    page = np.zeros((60 * scale, 90 * scale), np.uint8)
    page[10 * scale : 50 * scale, 70 * scale : 78 * scale] = 255
    framed = data.frame(page.T if turned else page)
    expected = np.zeros((28, 28), np.uint8)
    expected[4:24, 12:16] = 255
    np.testing.assert_array_equal(framed, expected.T if turned else expected)


def test_a_pixel_is_the_mean_of_what_it_covers() -> None:
    page = np.zeros((40, 40), np.uint8)
    page[::2] = 200
    page[:, 0] = page[0] = page[39] = 200
    framed = data.frame(page)
    assert framed.shape == (28, 28)
    assert framed[10, 10] == 100
    assert framed.sum() == pytest.approx(page.sum() / 4, rel=0.01)


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    frame_height=st.integers(7, 40),
    frame_width=st.integers(7, 40),
    seed=st.integers(0, 1000),
)
def test_any_ink_fits_its_box_and_lies_in_the_middle(
    height: int, width: int, frame_height: int, frame_width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    page = rng.integers(0, 256, (height, width), dtype=np.uint8)
    page[rng.random(page.shape) < 0.7] = 0
    page[rng.integers(height), rng.integers(width)] = 255
    framed = data.frame(page, frame_height, frame_width)
    assert framed.shape == (frame_height, frame_width)
    assert framed.any()
    rows, columns = (np.flatnonzero(framed.any(axis)) for axis in (1, 0))
    for used, room in (rows, frame_height), (columns, frame_width):
        assert np.ptp(used) < max(round(room * 5 / 7), 1) + 1
    for middle, used, room in zip(centre(framed), (rows, columns), framed.shape, strict=True):
        at_the_edge = used[0] == 0 or used[-1] == room - 1
        assert abs(middle - room / 2) <= 0.75 or at_the_edge


def test_position_and_size_on_the_page_do_not_matter() -> None:
    digit = strokes.generate(1, seed=3)[0][0]
    small = np.kron(digit, np.ones((4, 4), np.uint8))
    large = np.kron(digit, np.ones((8, 8), np.uint8))
    page = np.zeros((300, 400), np.uint8)
    page[20:244, 170:394] = large
    np.testing.assert_array_equal(data.frame(small), data.frame(page))


@pytest.mark.parametrize(
    "page", [np.zeros((9, 9), np.uint8), np.full((9, 9), 50, np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_a_page_without_ink_is_refused(page: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no ink"):
        data.frame(page)


def test_shade_and_noise_are_paper() -> None:
    page = np.zeros((120, 160))
    page[30:90, 70:85] = 1
    columns = np.arange(160)
    shaded = 180 + 60 * columns / 160 + np.random.default_rng(0).normal(0, 4, page.shape) - 150 * page
    framed = data.frame(ink_of(np.rint(shaded).astype(np.uint8)))
    np.testing.assert_allclose(framed, data.frame(np.uint8(255) * page.astype(np.uint8)), atol=50)
    to_the_edge = np.full((20, 20), 255, np.uint8)
    to_the_edge[:, :4] = 0
    np.testing.assert_array_equal(ink_of(to_the_edge), 255 - to_the_edge)


def test_ink_is_what_differs_from_the_paper() -> None:
    paper = np.full((20, 20), 200, np.uint8)
    paper[5:15, 8:12] = 80
    assert ink_of(paper).max() == 255
    assert ink_of(paper)[0, 0] == 0
    board = 255 - paper
    np.testing.assert_array_equal(ink_of(board), ink_of(paper))
    shadow = np.full((20, 20), 200, np.uint8)
    shadow[5:15, 8:12] = 170
    with pytest.raises(ValueError, match="no ink"):
        data.frame(ink_of(shadow))


# Pictures --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digit() -> np.ndarray:
    return strokes.generate(1, seed=8)[0][0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("size", [28, 280])
def test_pictures_of_every_mode_show_the_same_digit(digit: np.ndarray, tmp_path: Path, mode: str, size: int) -> None:
    page = Image.fromarray(255 - digit).resize((size, size), Image.Resampling.NEAREST)
    deep = Image.fromarray(np.asarray(page).astype(np.uint16) * 257)
    picture = deep if mode == "I;16" else page.convert(mode, dither=Image.Dither.NONE)
    assert picture.mode == mode
    path = tmp_path / ("page.jpg" if mode == "CMYK" else "page.png")
    picture.save(path, **({"quality": 100} if mode == "CMYK" else {}))
    names, images = data.read_images(path)
    assert names == [str(path)]
    assert images.shape == (1, 28, 28, 1)
    assert images.dtype == np.uint8
    difference = np.abs(images[0, ..., 0].astype(int) - (digit if size == 28 else data.frame(digit)))
    assert difference.max() <= {"1": 255, "CMYK": 30}.get(mode, 2)
    assert difference.mean() < 8


def test_what_is_transparent_is_paper(digit: np.ndarray, tmp_path: Path) -> None:
    picture = np.zeros((28, 28, 4), np.uint8)  # black ink, opaque where the digit is
    picture[..., 3] = digit
    Image.fromarray(picture).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(data.read_images(tmp_path / "clear.png")[1][0, ..., 0], digit)


def test_what_is_transparent_is_paper_in_sixteen_bits_too(tmp_path: Path) -> None:
    levels = np.full((28, 28), 1000, np.uint16)
    levels[4:24, 12:16] = 60000
    Image.fromarray(levels).save(tmp_path / "deep.png", transparency=1000)
    picture = data.read_picture(tmp_path / "deep.png")
    assert (picture[4:24, 12:16] == 60000 >> 8).all()
    assert (picture[0] == 255).all()


@pytest.mark.parametrize("kind", ["bmp", "gif", "webp"])
def test_other_kinds_of_pictures_are_read(digit: np.ndarray, tmp_path: Path, kind: str) -> None:
    (tmp_path / "3").mkdir()
    options = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(255 - digit).save(tmp_path / "3" / f"a.{kind}", **options)
    images, labels = data.read_labelled(tmp_path)
    assert labels.tolist() == [3]
    np.testing.assert_array_equal(images[0, ..., 0], digit)


def test_a_picture_that_would_be_left_out_is_named(digit: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    Image.fromarray(digit).save(tmp_path / "3" / "a.png")
    Image.fromarray(digit).save(tmp_path / "3" / "b.tiff")
    with pytest.raises(data.DataFormatError, match=r"3/b\.tiff: pictures of this kind are not read"):
        data.read_labelled(tmp_path)


@pytest.mark.parametrize("name", ["IMG_0001.HEIC", "IMG_0001.jpg"])
def test_a_telephones_picture_is_called_what_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x28ftypheic" + bytes(100))
    with pytest.raises(data.DataFormatError, match=f"{name}: not a readable picture but HEIC"):
        data.read_images(tmp_path / name)


def test_several_pictures_in_one_file_are_refused(digit: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(digit).save(tmp_path / "a.gif", save_all=True, append_images=[Image.fromarray(255 - digit)])
    with pytest.raises(data.DataFormatError, match=r"a\.gif.*2 pictures in one file"):
        data.read_picture(tmp_path / "a.gif")


def test_a_photograph_is_turned_as_its_camera_says(digit: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    Image.fromarray(np.rot90(digit)).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(data.read_images(tmp_path / "photo.png")[1][0, ..., 0], digit)


def test_a_page_is_framed_wherever_the_digit_is(digit: np.ndarray, tmp_path: Path) -> None:
    page = Image.new("RGB", (700, 500), (235, 230, 220))
    page.paste((20, 30, 90), (390, 40), Image.fromarray(digit).resize((280, 280), Image.Resampling.NEAREST))
    page.save(tmp_path / "page.jpg")
    image = data.read_images(tmp_path / "page.jpg")[1][0, ..., 0]
    assert np.abs(image.astype(int) - data.frame(digit)).mean() < 6


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.png", b"", "not a readable picture"),
        ("text.png", b"hello", "not a readable picture"),
        ("cut.png", None, "not a readable picture"),
        ("vector.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a readable picture"),
    ],
)
def test_a_file_that_is_no_picture_is_named(
    digit: np.ndarray, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is None:
        Image.fromarray(digit).save(tmp_path / "whole.png")
        content = (tmp_path / "whole.png").read_bytes()[:-30]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(data.DataFormatError, match=f"{name}: {words}"):
        data.read_images(tmp_path / name)


def test_a_picture_without_end_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (100_000, 2_000)).save(tmp_path / "bomb.png")
    with pytest.raises(data.DataFormatError, match=r"bomb\.png: not a readable picture"):
        data.read_images(tmp_path / "bomb.png")


# Paper that is not evenly white, and marks that are no digit ---------------------------------------------------------


def page_of(digit: np.ndarray, scale: int = 4, paper: float = 255, ink: float = 0) -> np.ndarray:
    return paper + (ink - paper) * np.kron(digit, np.ones((scale, scale))) / 255


def read(page: np.ndarray, folder: Path) -> np.ndarray:
    Image.fromarray(np.rint(page).clip(0, 255).astype(np.uint8)).save(folder / "page.png")
    return data.read_images(folder / "page.png")[1][0, ..., 0]


def off(image: np.ndarray, digit: np.ndarray) -> float:
    """The mean difference from the digit as it is framed from an even page."""
    return float(np.abs(image.astype(int) - data.frame(digit)).mean())


@pytest.mark.parametrize("edges", ["tl", "br", "tb", "lr", "tlr", "tlbr", "l"])
@pytest.mark.parametrize(("scale", "dark", "inset"), [(4, 0, 0), (4, 120, 0), (4, 0, 6), (1, 0, 0)])
def test_a_forms_lines_are_no_ink(
    digit: np.ndarray, tmp_path: Path, edges: str, scale: int, dark: float, inset: int
) -> None:
    page = page_of(digit, scale)
    for edge in edges:
        side = {"t": page, "b": page[::-1], "l": page.T, "r": page.T[::-1]}[edge]
        side[inset : inset + (3 if scale > 1 else 1)] = dark
    assert off(read(page, tmp_path), digit) < 2


def test_a_digit_may_touch_a_forms_line_and_lie_in_a_box(digit: np.ndarray, tmp_path: Path) -> None:
    rows = np.flatnonzero(digit.any(axis=1))
    page = page_of(digit[rows[0] :])
    page[:4] = page[:, :4] = 0
    cut = digit.copy()
    cut[rows[0]] = 0  # what lies under the line
    assert off(read(page, tmp_path), cut) < 2
    box = np.full((160, 180), 255.0)
    box[20:140, 30:150] = 0
    box[24:136, 34:146] = page_of(digit)
    assert off(read(box, tmp_path), digit) < 2


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize(("paper", "ink"), [(200, 0), (220, 0), (240, 0), (120, 0), (120, 60), (70, 20), (60, 200)])
def test_the_papers_brightness_does_not_matter(
    digit: np.ndarray, tmp_path: Path, scale: int, paper: int, ink: int
) -> None:
    assert off(read(page_of(digit, scale, paper, ink), tmp_path), digit) < 3


@pytest.mark.parametrize("darkest", [150, 110, 70])
@pytest.mark.parametrize("scale", [1, 4])
def test_the_papers_shading_does_not_matter(digit: np.ndarray, tmp_path: Path, scale: int, darkest: int) -> None:
    page = page_of(digit, scale)
    light = np.linspace(1, darkest / 255, page.shape[1])
    assert off(read(page * light, tmp_path), digit) < 3
    assert off(read(page.T * light, tmp_path), digit.T) < 3


@pytest.mark.parametrize("deviation", [15, 20, 30])
@pytest.mark.parametrize("scale", [4, 10])
def test_the_papers_grain_does_not_matter(digit: np.ndarray, tmp_path: Path, scale: int, deviation: float) -> None:
    page = page_of(digit, scale, 210, 20)
    page += np.random.default_rng(0).normal(0, deviation, page.shape)
    assert off(read(page, tmp_path), digit) < 8


@pytest.mark.parametrize("size", [3, 8])
def test_specks_are_no_ink(digit: np.ndarray, tmp_path: Path, size: int) -> None:
    page = page_of(digit)
    page[1 : 1 + size, 1 : 1 + size] = page[-1 - size : -1, 2 : 2 + size] = 20
    assert off(read(page, tmp_path), digit) < 1


def test_a_digit_in_two_pieces_stays_whole() -> None:
    five = np.zeros((112, 112), np.uint8)
    five[20:26, 40:80] = five[40:46, 30:70] = five[40:90, 64:70] = five[84:90, 30:70] = 255
    np.testing.assert_array_equal(one_digit(five), five)


def test_a_bar_that_fills_its_picture_is_a_digit() -> None:
    seven = np.zeros((60, 40), np.uint8)
    seven[:8] = seven[:, 30:38] = 255
    np.testing.assert_array_equal(one_digit(seven), seven)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("blank", "no ink in the picture"),
        ("blank 28 x 28", "no ink in the picture"),
        ("grain", "no ink in the picture"),
        ("lines", "no ink in the picture but along its edge"),
        ("speck", "no ink in the picture but specks"),
        ("beside", "more than one digit"),
        ("below", "more than one digit"),
        ("marks", "full of marks"),
    ],
)
def test_what_is_no_digit_is_refused_and_named(digit: np.ndarray, tmp_path: Path, kind: str, words: str) -> None:
    page = page_of(np.zeros((28, 28)))
    if kind == "blank 28 x 28":
        page = np.full((28, 28), 255.0)
    elif kind == "grain":
        page += np.random.default_rng(0).normal(-25, 20, page.shape)
    elif kind == "lines":
        page[:4] = page[:, :4] = 0
    elif kind == "speck":
        page[50:53, 60:63] = 0
    elif kind == "beside":
        page = np.hstack([page_of(digit)] * 2)
    elif kind == "below":
        page = np.vstack([page_of(digit)] * 2)
    elif kind == "marks":
        page = np.full((240, 240), 255.0)
        page[50:80, 50:60] = 0
        page[100:230:12, 10:230:12] = page[101:230:12, 10:230:12] = page[100:230:12, 11:230:12] = 0
    with pytest.raises(data.DataFormatError, match=rf"page\.png: .*{words}"):
        read(page, tmp_path)


def halves(turned: bool) -> np.ndarray:
    """Two digits in an even picture of 28 x 28, side by side or one below the other."""
    images, made = strokes.generate(2, seed=8)[0], np.zeros((28, 28), np.uint8)
    for start, half in zip((1, 15), images, strict=True):
        made[4:24, start : start + 12] = data.frame(half.T if turned else half, 28, 17)[4:24, 3:15]
    return made.T if turned else made


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("paper", [0, 255])
def test_two_digits_in_an_even_picture_of_the_networks_size_are_refused(
    tmp_path: Path, turned: bool, paper: int
) -> None:
    with pytest.raises(data.DataFormatError, match=r"page\.png: more than one digit in the picture"):
        read(np.abs(paper - halves(turned).astype(float)), tmp_path)


def test_a_digit_in_pieces_is_no_pair() -> None:
    for image in strokes.generate(500, seed=2)[0]:
        assert not is_pair(image)
    four = np.zeros((28, 28), np.uint8)
    four[4:15, 8:11] = four[13:15, 8:15] = four[4:24, 17:19] = 255  # its strokes apart
    assert not is_pair(four)


@pytest.mark.parametrize("size", [28, 56, 112, 280])
@pytest.mark.parametrize("kind", ["uniform", "normal", "squares"])
def test_noise_alone_is_refused(size: int, kind: str) -> None:
    rng = np.random.default_rng(size)
    for _ in range(3):
        noise = rng.normal(128, 40, (size, size)) if kind == "normal" else rng.uniform(0, 255, (size, size))
        if kind == "squares":
            noise = noise[: size // 4, : size // 4].repeat(4, axis=0).repeat(4, axis=1)
        with pytest.raises(ValueError, match=r"no ink|full of marks|more than one"):
            taken(np.rint(noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize(("light", "most"), [(170, 3), (120, 5)])
def test_a_shadows_sharp_edge_through_the_digit_does_not_matter(
    digit: np.ndarray, tmp_path: Path, turns: int, light: float, most: float
) -> None:
    page = page_of(digit)
    np.rot90(page, turns)[:, 50:] *= light / 255
    assert off(read(page, tmp_path), digit) < most


def test_marks_are_what_hangs_together() -> None:
    inked = np.array([[1, 1, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 1, 0, 1], [1, 1, 1, 0, 1]], bool)
    found = sorted((mark.cells.tolist(), mark.edges, mark.height, mark.width) for mark in frame._marks(inked))
    assert found == [
        ([[0, 0], [0, 1], [1, 2]], 2, 2, 3),
        ([[0, 4]], 2, 1, 1),
        ([[3, 0], [3, 2], [4, 0], [4, 1], [4, 2]], 2, 2, 3),
        ([[3, 4], [4, 4]], 2, 2, 1),
    ]
    assert frame._marks(np.zeros((3, 3), bool)) == []


def test_the_papers_cells_are_means_and_their_levels_lie_between() -> None:
    grey = np.random.default_rng(0).uniform(0, 255, (57, 33)).astype(np.float32)
    np.testing.assert_allclose(frame._cells(grey, 16), frame._means(57, 16) @ grey, rtol=1e-5)
    cells = np.random.default_rng(1).uniform(0, 1, (32, 20))
    filled = frame._filled(cells)
    reach = round(frame.REACH * 32)
    padded = np.pad(cells, 2 * reach, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1,) * 2).max(axis=(2, 3))
    inside = np.where(np.pad(np.ones(cells.shape, bool), reach), windows, np.inf)
    expected = np.lib.stride_tricks.sliding_window_view(inside, (2 * reach + 1,) * 2).min(axis=(2, 3))
    np.testing.assert_array_equal(filled, expected)
    ramp = frame._between(np.arange(4, dtype=np.float32)[:, np.newaxis], 8)[:, 0]
    np.testing.assert_allclose(ramp, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])


@pytest.mark.skipif(not os.environ.get("TWINKERNELS_DATA"), reason="TWINKERNELS_DATA does not say where MNIST is")
def test_mnist_is_read_from_pictures_as_it_is(tmp_path: Path) -> None:
    for image in data.load("mnist").test.images[:200, ..., 0]:
        np.testing.assert_array_equal(read(image, tmp_path), image)
        np.testing.assert_array_equal(read(255.0 - image, tmp_path), image)


# Files and folders -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled() -> tuple[np.ndarray, np.ndarray]:
    images, labels = strokes.generate(30, seed=1)
    return images, labels


def test_labels_are_the_folders_names(labelled: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    images, labels = labelled
    for at, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / f"{label:02}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{at:02}.png")
    (tmp_path / "notes").mkdir()
    (tmp_path / "999").mkdir()
    split = data.read_labelled(tmp_path)
    order = np.argsort(labels, kind="stable")
    np.testing.assert_array_equal(split.labels, labels[order])
    np.testing.assert_array_equal(split.images[..., 0], images[order])
    assert split.labels.dtype == np.uint8
    again = data.load_test(tmp_path)
    np.testing.assert_array_equal(again.images, split.images)


def test_an_idx_file_finds_its_labels_beside_it(labelled: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    images, labels = labelled
    data.write_idx(tmp_path / "t10k-images.idx3-ubyte.gz", images)
    with pytest.raises(data.DataNotFoundError, match="has no labels"):
        data.read_labelled(tmp_path / "t10k-images.idx3-ubyte.gz")
    data.write_idx(tmp_path / "t10k-labels.idx1-ubyte.gz", labels)
    split = data.load_test(tmp_path / "t10k-images.idx3-ubyte.gz")
    np.testing.assert_array_equal(split.images[..., 0], images)
    np.testing.assert_array_equal(split.labels, labels)
    data.write_idx(tmp_path / "t10k-labels.idx1-ubyte.gz", labels[:-1])
    with pytest.raises(data.DataFormatError, match=r"t10k-labels.*holds \(29,\) uint8, expected \(30,\) uint8"):
        data.load_test(tmp_path / "t10k-images.idx3-ubyte.gz")


def test_data_sets_keep_their_names_and_folders(labelled: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    images, labels = labelled
    for prefix in ("train", "t10k"):
        data.write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", images)
        data.write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", labels)
    np.testing.assert_array_equal(data.load_test(tmp_path).labels, labels)
    assert len(data.load_test("strokes").labels) == 5_000
    with pytest.raises(data.DataNotFoundError, match="nowhere does not exist"):
        data.load_test("nowhere")


def test_images_may_have_another_size(labelled: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    Image.fromarray(labelled[0][0]).save(tmp_path / "digit.png")
    assert data.read_images(tmp_path, 14, 21)[1].shape == (1, 14, 21, 1)
    data.write_idx(tmp_path / "wide-idx3-ubyte", np.zeros((3, 14, 21), np.uint8))
    assert data.read_images(tmp_path / "wide-idx3-ubyte", 14, 21)[1].shape == (3, 14, 21, 1)
    with pytest.raises(data.DataFormatError, match=r"holds \(3, 14, 21\) uint8, expected \(N, 28, 28\)"):
        data.read_images(tmp_path / "wide-idx3-ubyte")
    data.write_idx(tmp_path / "none-idx3-ubyte", np.zeros((0, 28, 28), np.uint8))
    with pytest.raises(data.DataFormatError, match="not empty"):
        data.read_images(tmp_path / "none-idx3-ubyte")
