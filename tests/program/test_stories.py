"""The stories of docs/estimators.md from beginning to end: each command as it stands there, in a few lines."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
import models
from models import graph
from twinkernels import cli, runs

PAGE = (Path(__file__).parents[2] / "docs" / "estimators.md").read_text(encoding="utf-8")
KAGGLE, PHOTOS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PIPELINE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]


@pytest.fixture(autouse=True)
def _plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (graph, runs):
        monkeypatch.setattr(module, "DEFAULT_BACKEND", "numpy")


def tell(story: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the story's own commands; what they print."""
    printed = ""
    for line in story.splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "twinkernels":
            with pytest.raises(SystemExit) as end:
                cli.main(words[1:])
            out, error = capsys.readouterr()
            assert end.value.code == 0, error
            printed += out
    return printed


def test_no_story_is_longer_than_six_lines() -> None:
    assert max(len(story.splitlines()) for story in (KAGGLE, PHOTOS)) <= 6
    assert len([line for line in PIPELINE.splitlines() if not re.match("(from|import) ", line)]) <= 6


def test_from_kaggles_files_to_a_submission(capsys: pytest.CaptureFixture[str]) -> None:
    train, test = data.load("strokes")
    header = ",".join(f"pixel{i}" for i in range(784))
    Path("digits").mkdir()
    for name, images, labels in (("train", train.images[:350], train.labels[:350]), ("test", test.images[:20], None)):
        rows = images.reshape(len(images), -1)
        rows = rows if labels is None else np.column_stack([labels, rows])
        head = header if labels is None else f"label,{header}"
        np.savetxt(f"digits/{name}.csv", rows, "%d", ",", header=head, comments="")
    Path("digits/sample_submission.csv").write_text("ImageId,Label\n" + "".join(f"{i},0\n" for i in range(1, 21)))
    assert "20 answers in submission.csv" in tell(KAGGLE, capsys)
    lines = Path("submission.csv").read_text().splitlines()
    assert lines[0] == "ImageId,Label"
    assert [line.partition(",")[0] for line in lines[1:]] == [str(at) for at in range(1, 21)]
    answers = models.load("runs/digits/model.safetensors", "numpy").predict(test.images[:20]).argmax(axis=1)
    assert [int(line.partition(",")[2]) for line in lines[1:]] == answers.tolist()


def test_from_photos_to_a_classifier_in_colour(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)

    def photo(colour: int) -> bytes:
        pixels = rng.integers(0, 90, (90, 120, 3), np.uint8)
        pixels[..., colour] += 120
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG")
        return file.getvalue()

    for half, count in (("train", 16), ("test", 4)):
        for colour, name in enumerate(("cherry", "leaf")):
            folder = Path("photos") / half / name
            folder.mkdir(parents=True)
            for at in range(count):
                (folder / f"{at}.jpg").write_bytes(photo(colour))
    Path("new.jpg").write_bytes(photo(1))
    printed = tell(PHOTOS, capsys)
    assert re.search(r"^cherry +4 +0$", printed, re.MULTILINE)
    assert re.search(r"^new\.jpg\tleaf\t", printed, re.MULTILINE)
    assert models.load("runs/photos/model.safetensors", "numpy").classes == ("cherry", "leaf")
