"""The commands on sets with names of classes, in colour, and between forms."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
import models
from models import Flatten, Linear, Sequential
from twinkernels import cli


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    out, error = capsys.readouterr()
    return int(end.value.code or 0), out, error


def picture(colour: int, side: int = 8) -> np.ndarray:
    image = np.full((side, side, 3), 20, np.uint8)
    image[..., colour] = 220
    return image


def brightest(names: tuple[str, ...]) -> Sequential:
    """A network whose answer is the brightest of three colours."""
    model = Sequential([Flatten(), Linear(3)], (8, 8, 3), "numpy", normalisation=(0.0, 255.0))
    w = np.tile(np.eye(3, dtype=np.float32), (64, 1))
    model.set_parameters({"1.w": w, "1.b": np.zeros(3)})
    model.classes = names
    model.save("model.safetensors")
    return model


def folders(root: str, **classes: int) -> None:
    for name, colour in classes.items():
        (Path(root) / name).mkdir(parents=True)
        for at in range(7):
            Image.fromarray(picture(colour, 8 + at)).save(Path(root) / name / f"{at}.png")


def test_answers_have_names_and_labels_find_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    brightest(("red", "green", "blue"))
    folders("own", blue=2, red=0)  # in another order than the network's, and without one of its classes
    asked = ("evaluate", "model.safetensors", "--data", "own", "--backend", "numpy")
    status, out, error = call(capsys, *asked, "--top", "2")
    assert (status, error) == (0, "")
    assert out.splitlines()[-2:] == ["test top-2 accuracy 1.0000", "test accuracy 1.0000"]
    _, out, _ = call(capsys, *asked, "--confusion")
    assert [line.split() for line in out.splitlines()[:4]] == [
        ["label", "red", "green", "blue"],
        ["red", "7", "0", "0"],
        ["green", "0", "0", "0"],
        ["blue", "0", "0", "7"],
    ]
    _, out, _ = call(capsys, "predict", "model.safetensors", "own/blue/3.png", "--backend", "numpy")
    assert out.split("\t")[1] == "blue"
    folders("more", grey=1, red=0)
    status, _, error = call(capsys, "evaluate", "model.safetensors", "--data", "more", "--backend", "numpy")
    assert status == 2
    assert error == "twinkernels: more: class 'grey' is none of the model's, which are red, green, blue\n"


def test_more_than_there_are_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    brightest(("red", "green", "blue"))
    folders("own", blue=2, red=0)
    status, _, error = call(
        capsys, "evaluate", "model.safetensors", "--data", "own", "--backend", "numpy", "--top", "9"
    )
    assert (status, error) == (2, "twinkernels: top: k is 9, expected 1 to 3, the number of classes\n")


def test_a_colour_picture_and_a_network_for_grey_ones(capsys: pytest.CaptureFixture[str]) -> None:
    model = Sequential([Flatten(), Linear(2)], (8, 8, 1), "numpy", normalisation=(0.0, 255.0))
    model.classes = ("dark", "light")
    model.save("grey.safetensors")
    Image.fromarray(picture(1)).save("colour.png")
    status, out, _ = call(capsys, "predict", "grey.safetensors", "colour.png", "--backend", "numpy")
    assert status == 0
    assert out.startswith("colour.png\t")


def test_a_submission_is_whole_or_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    model = models.build("mlp-512", "numpy", normalisation=(0.0, 255.0))
    model.save("model.safetensors")
    np.savetxt("test.csv", np.zeros((3, 784)), "%d", ",")
    arguments = ("predict", "model.safetensors", "test.csv", "--backend", "numpy", "--submission", "out.csv")
    status, out, _ = call(capsys, *arguments)
    assert (status, out) == (0, "3 answers in out.csv\n")
    assert Path("out.csv").read_text().splitlines()[0] == "ImageId,Label"
    Path("out.csv").unlink()
    Path("test.csv").write_text("1,2\n")
    status, _, error = call(capsys, *arguments)
    assert status == 2
    assert "test.csv: line 1: 2 columns, expected 785" in error
    assert not Path("out.csv").exists()


def test_convert(capsys: pytest.CaptureFixture[str]) -> None:
    folders("own/train", blue=2, red=0)
    folders("own/test", blue=2, red=0)
    status, out, error = call(capsys, "convert", "own", "own.npz")
    assert (status, out) == (0, "14 and 14 images in own.npz\n")
    assert error == "twinkernels: pictures of 7 sizes are scaled to 32 x 32\n"
    assert data.load("own.npz").classes == ("blue", "red")
    status, _, error = call(capsys, "convert", "own.npz", "idx")
    assert (status, error) == (
        2,
        "twinkernels: save: idx holds grey images, these are (32, 32, 3); npz and png hold colours\n",
    )
    assert not Path("idx").exists()
    status, _, error = call(capsys, "convert", "own.npz", "own.npz")
    assert (status, error) == (2, "twinkernels: own.npz exists already, expected a new file or folder\n")
    assert call(capsys, "convert", "own.npz", "again", "--to", "png")[0] == 0
    held = io.BytesIO(Path("again/train/blue/00000.png").read_bytes())
    np.testing.assert_array_equal(np.array(Image.open(held)), data.load("own.npz").train.images[0])
