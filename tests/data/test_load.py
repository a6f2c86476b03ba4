import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import data

IDX = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


def arrays(count, height=28, width=28, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width), np.uint8), rng.integers(0, 10, count).astype(np.uint8)


TRAIN, TEST = arrays(6), arrays(4, seed=1)


def fill(folder, suffix="", dot=False, train=TRAIN, test=TEST):
    for name, array in zip(IDX, (*train, *test), strict=True):
        data.write_idx(folder / ((name.replace("-idx", ".idx") if dot else name) + suffix), array)
    return folder


def csv_bytes(images, labels):
    rows = np.column_stack([labels, images.reshape(len(images), -1)])
    return "".join(",".join(map(str, row)) + "\n" for row in rows.tolist()).encode()


def same(dataset, train=TRAIN, test=TEST):
    assert isinstance(dataset, data.Dataset)
    for split, (images, labels) in zip(dataset, (train, test), strict=True):
        assert isinstance(split, data.Split)
        assert split.images.dtype == split.labels.dtype == np.uint8
        np.testing.assert_array_equal(split.images, images[..., None])
        np.testing.assert_array_equal(split.labels, labels)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dot", [False, True])
def test_idx_folder_in_every_spelling(tmp_path, suffix, dot):
    fill(tmp_path, suffix, dot)
    same(data.load(tmp_path))
    same(data.load(str(tmp_path)))


def test_spellings_may_be_mixed(tmp_path):
    fill(tmp_path)
    (tmp_path / IDX[0]).rename(tmp_path / "train-images.idx3-ubyte")
    (tmp_path / f"{IDX[3]}.gz").write_bytes(gzip.compress((tmp_path / IDX[3]).read_bytes()))
    (tmp_path / IDX[3]).unlink()
    same(data.load(tmp_path))


def test_idx_images_of_another_size(tmp_path):
    train, test = arrays(3, 5, 9), arrays(2, 5, 9)
    same(data.load(fill(tmp_path, train=train, test=test)), train, test)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_csv_folder(tmp_path, suffix):
    pack = gzip.compress if suffix else bytes
    (tmp_path / f"mnist_train.csv{suffix}").write_bytes(pack(csv_bytes(*TRAIN)))
    (tmp_path / f"mnist_test.csv{suffix}").write_bytes(pack(csv_bytes(*TEST)))
    same(data.load(tmp_path))


def test_a_folder_named_like_a_source_needs_a_path(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    fill(tmp_path / "mnist")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TWINKERNELS_DATA", raising=False)
    same(data.load("./mnist"))


def test_strokes_is_the_embedded_source():
    train, test = data.load("strokes")
    assert train.images.shape == (20_000, 28, 28, 1)
    assert test.images.shape == (5_000, 28, 28, 1)
    assert train.labels.shape == (20_000,)
    assert test.labels.shape == (5_000,)
    assert {part.dtype for split in (train, test) for part in split} == {np.dtype(np.uint8)}


def test_a_name_that_is_nothing():
    message = 'load: source is neither "strokes" nor "mnist", and mnits does not exist'
    with pytest.raises(data.DataNotFoundError, match=message):
        data.load("mnits")
    with pytest.raises(TypeError, match="load: source is 7"):
        data.load(7)
    assert issubclass(data.DataNotFoundError, FileNotFoundError)
    assert issubclass(data.DataFormatError, ValueError)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(data.DataNotFoundError, match="is not a folder; expected a folder with train-images"):
        data.load(tmp_path / "a")


def test_a_folder_without_data_lists_what_was_sought_and_found(tmp_path):
    with pytest.raises(data.DataNotFoundError, match=r"holds no data; expected .*; found nothing"):
        data.load(tmp_path)
    for number in range(10):
        (tmp_path / f"cat{number}.png").touch()
    with pytest.raises(data.DataNotFoundError) as caught:
        data.load(tmp_path)
    for word in (*IDX, "mnist_train.csv", "mnist_test.csv", str(tmp_path), "cat0.png", "cat7.png and 2 more"):
        assert word in str(caught.value)


@pytest.mark.parametrize("missing", IDX)
def test_a_missing_member_is_named(tmp_path, missing):
    fill(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(data.DataNotFoundError, match=f"lacks {missing}; found") as caught:
        data.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_csv_is_named(tmp_path):
    (tmp_path / "mnist_train.csv").write_bytes(csv_bytes(*TRAIN))
    with pytest.raises(data.DataNotFoundError, match=r"lacks mnist_test\.csv; found mnist_train\.csv"):
        data.load(tmp_path)


@pytest.mark.parametrize(
    ("member", "array", "message"),
    [
        (0, np.zeros((6, 784), np.uint8), r"\(6, 784\) uint8, expected \(N, H, W\) uint8"),
        (0, np.zeros((6, 28, 28), np.float32), r"\(6, 28, 28\) float32, expected"),
        (0, np.zeros((0, 28, 28), np.uint8), r"\(0, 28, 28\) uint8, expected .* not empty"),
        (0, np.zeros((6, 0, 28), np.uint8), "not empty"),
        (1, np.zeros((6, 1), np.uint8), r"\(6, 1\) uint8, expected \(N,\) uint8"),
        (1, np.zeros(6, np.int32), r"\(6,\) int32"),
        (1, np.zeros(5, np.uint8), "5 labels for the 6 images of train-images-idx3-ubyte"),
        (3, np.zeros(5, np.uint8), "5 labels for the 4 images of t10k-images-idx3-ubyte"),
        (2, np.zeros((4, 28, 27), np.uint8), "images are 28 x 27, those of train-images-idx3-ubyte 28 x 28"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path, member, array, message):
    data.write_idx(fill(tmp_path) / IDX[member], array)
    with pytest.raises(data.DataFormatError, match=message) as caught:
        data.load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / IDX[member]))


def test_import_is_light():
    heavy = "{'pooch', 'rich', 'requests', 'numba', 'scipy', 'matplotlib', 'torch', 'models'}"
    code = f"import sys, data; print(sorted({heavy} & set(sys.modules)))"
    root = Path(data.__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert result.stdout.strip() == "[]"


def test_the_names_are_public():
    assert all(hasattr(data, name) for name in data.__all__)
