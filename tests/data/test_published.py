"""Every set as it is published: files made in its form, and broken ones."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data
import data.convert
import data.folder
import data.pictures
import data.published
from data import DataFormatError, DataNotFoundError, Dataset

from ..support.processes import run

N, M = 14, 7


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *(shape or (28, 28))), np.uint8)


def labels(count: int, classes: int = 10) -> np.ndarray:
    return (np.arange(count) % classes).astype(np.uint8)


def idx(folder: Path, names: dict[str, np.ndarray], suffix: str = ".gz") -> Path:
    for name, array in names.items():
        data.write_idx(folder / (name + suffix), array)
    return folder


def rows(images: np.ndarray, own: np.ndarray | None = None, header: str = "", last: bool = False) -> bytes:
    flat = images.reshape(len(images), -1)
    if own is not None:
        flat = np.column_stack([flat, own] if last else [own, flat])
    return (header + "".join(",".join(map(str, row)) + "\n" for row in flat.tolist())).encode()


def png(image: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, form)
    return file.getvalue()


def holds(dataset: Dataset, train: np.ndarray, test: np.ndarray, classes: tuple[str, ...] | None) -> None:
    for split, images in ((dataset.train, train), (dataset.test, test)):
        expected = images if images.ndim == 4 else images[..., np.newaxis]
        np.testing.assert_array_equal(split.images, expected)
        assert split.images.dtype == split.labels.dtype == np.uint8
        np.testing.assert_array_equal(split.labels, labels(len(images), len(classes or "0123456789")))
    assert dataset.classes == classes


TRAIN, TEST = pixels(N), pixels(M, seed=1)
DIGITS = tuple("0123456789")


def test_qmnist_has_the_digit_in_the_first_column_of_int32(tmp_path: Path) -> None:
    def table(count: int) -> np.ndarray:
        return np.column_stack([labels(count), *(np.arange(count) + 1000 for _ in range(7))]).astype(np.int32)

    names = {"images-idx3-ubyte": TRAIN, "labels-idx2-int": table(N)}
    idx(tmp_path, {f"qmnist-train-{name}": array for name, array in names.items()})
    idx(tmp_path, {"qmnist-test-images-idx3-ubyte": TEST, "qmnist-test-labels-idx2-int": table(M)})
    holds(data.load(tmp_path), TRAIN, TEST, DIGITS)
    data.write_idx(tmp_path / "qmnist-test-labels-idx2-int.gz", labels(M))
    with pytest.raises(DataFormatError, match=r"labels-idx2-int\.gz: holds \(7,\) uint8, expected \(N, 8\)"):
        data.load(tmp_path)
    (tmp_path / "qmnist-test-labels-idx2-int.gz").unlink()
    with pytest.raises(DataNotFoundError, match="lacks qmnist-test-labels-idx2-int"):
        data.load(tmp_path)


def emnist(folder: Path, kind: str) -> Path:
    classes, first = len(data.published.EMNIST[kind]), int(kind == "letters")
    for part, images in (("train", TRAIN), ("test", TEST)):
        turned = np.ascontiguousarray(images.transpose(0, 2, 1))
        idx(folder, {f"emnist-{kind}-{part}-images-idx3-ubyte": turned})
        idx(folder, {f"emnist-{kind}-{part}-labels-idx1-ubyte": labels(len(images), classes) + np.uint8(first)})
    return folder


@pytest.mark.parametrize("kind", ["byclass", "bymerge", "balanced", "letters", "digits", "mnist"])
def test_emnist_is_turned_upright_and_its_letters_begin_with_a(tmp_path: Path, kind: str) -> None:
    classes = data.published.EMNIST[kind]
    assert len(classes) == {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26}.get(kind, 10)
    holds(data.load(emnist(tmp_path, kind)), TRAIN, TEST, classes)
    data.write_idx(tmp_path / f"emnist-{kind}-test-labels-idx1-ubyte.gz", np.full(M, 70, np.uint8))
    with pytest.raises(DataFormatError, match=rf"{kind}-test-labels-idx1-ubyte\.gz: labels from 70 to 70, expected"):
        data.load(tmp_path)


def test_one_of_several_splits_is_named(tmp_path: Path) -> None:
    emnist(emnist(tmp_path, "letters"), "digits")
    with pytest.raises(DataNotFoundError, match=r"several splits of EMNIST, .*/emnist-letters, .*/emnist-digits"):
        data.load(tmp_path)
    holds(data.load(tmp_path / "emnist-letters"), TRAIN, TEST, data.published.EMNIST["letters"])


@pytest.mark.parametrize(("folder", "first"), [("fashion-mnist", "T-shirt/top"), ("KMNIST", "o"), ("mine", None)])
def test_idx_sets_by_mnists_names_are_known_by_their_folder(tmp_path: Path, folder: str, first: str | None) -> None:
    own = tmp_path / folder
    own.mkdir()
    idx(own, dict(zip(data.folder.IDX_NAMES, (TRAIN, labels(N), TEST, labels(M)), strict=True)))
    found = data.load(own)
    assert (found.classes[0] if found.classes else None) == first


def test_gzip_is_known_by_content_and_not_by_name(tmp_path: Path) -> None:
    names = dict(zip(data.folder.IDX_NAMES, (TRAIN, labels(N), TEST, labels(M)), strict=True))
    for at, (name, array) in enumerate(names.items()):
        data.write_idx(tmp_path / "plain", array)
        content = (tmp_path / "plain").read_bytes()
        # Half of them packed and named as if they were not, the others the other way round.
        (tmp_path / (name if at % 2 else f"{name}.gz")).write_bytes(gzip.compress(content) if at % 2 else content)
    (tmp_path / "plain").unlink()
    holds(data.load(tmp_path), TRAIN, TEST, None)


def test_fashion_csv_and_names_with_a_number_behind(tmp_path: Path) -> None:
    header = "label," + ",".join(f"pixel{i}" for i in range(1, 785)) + "\n"
    (tmp_path / "fashion-mnist_train.csv").write_bytes(rows(TRAIN, labels(N), header))
    (tmp_path / "fashion-mnist_test.csv").write_bytes(rows(TEST, labels(M), header))
    holds(data.load(tmp_path), TRAIN, TEST, data.published.FASHION)
    few = tmp_path / "few"
    few.mkdir()
    (few / "mnist_train_100.csv").write_bytes(rows(TRAIN, labels(N)))
    (few / "mnist_test_10.csv").write_bytes(rows(TEST, labels(M)))
    holds(data.load(few), TRAIN, TEST, None)
    (few / "mnist_train_60.csv").write_bytes(rows(TRAIN, labels(N)))
    with pytest.raises(DataNotFoundError, match=r"holds mnist_train_100\.csv, mnist_train_60\.csv, expected one"):
        data.load(few)


def test_kuzushiji_in_npz(tmp_path: Path) -> None:
    for name, part, images in (("kmnist", "train", TRAIN), ("kmnist", "test", TEST)):
        np.savez_compressed(tmp_path / f"{name}-{part}-imgs.npz", images)
        np.savez_compressed(tmp_path / f"{name}-{part}-labels.npz", labels(len(images)))
    holds(data.load(tmp_path), TRAIN, TEST, data.published.KUZUSHIJI)
    np.savez(tmp_path / "kmnist-test-labels.npz", np.array([object()]))
    with pytest.raises(DataFormatError, match=r"kmnist-test-labels\.npz: arr_0\.npy holds pickled objects"):
        data.load(tmp_path)
    (tmp_path / "kmnist-test-labels.npz").unlink()
    with pytest.raises(DataNotFoundError, match=r"lacks kmnist-test-labels\.npz"):
        data.load(tmp_path)


def test_kuzushiji_49_and_its_class_map(tmp_path: Path) -> None:
    for part, images in (("train", pixels(98)), ("test", pixels(49))):
        np.savez_compressed(tmp_path / f"k49-{part}-imgs.npz", images)
        np.savez_compressed(tmp_path / f"k49-{part}-labels.npz", labels(len(images), 49))
    characters = [chr(0x3042 + i) for i in range(49)]
    lines = [f"{i},U+{ord(c):X},{c}\n" for i, c in enumerate(characters)]
    (tmp_path / "k49_classmap.csv").write_text("index,codepoint,char\n" + "".join(lines), encoding="utf-8")
    holds(data.load(tmp_path), pixels(98), pixels(49), tuple(characters))


def test_keras_archive(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=TRAIN, y_train=labels(N), x_test=TEST, y_test=labels(M))
    for source in (path, tmp_path):
        holds(data.load(source), TRAIN, TEST, None)
    np.savez(
        tmp_path / "colour.npz",
        x_train=pixels(5, 8, 8, 3),
        y_train=labels(5)[:, None],
        x_test=pixels(3, 8, 8, 3),
        y_test=labels(3),
    )
    holds(data.load(tmp_path / "colour.npz"), pixels(5, 8, 8, 3), pixels(3, 8, 8, 3), None)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataFormatError, match=r"mnist\.npz: not a readable \.npz file"):
        data.load(path)
    np.savez(path, x_train=TRAIN)
    with pytest.raises(DataFormatError, match=r"mnist\.npz: lacks y_train, x_test, y_test; holds x_train"):
        data.load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": np.array("one")}, r"classes are \(\) <U3, expected the names one by one"),
        ({"classes": np.array(["a", "b"])}, "label 9, and names of 2 classes"),
        ({"classes": np.full(10, 0xFFFFFFFF, np.uint32).view("<U1")}, "classes are no text"),
        ({"classes": np.array([*"abcdefghi", "\x1b[2J"])}, r"class '\\x1b\[2J' has characters that cannot be shown"),
        ({"x_test": TEST[:1], "y_test": np.array(3)}, r"labels are \(\) int64, expected \(1,\) of integers"),
        ({"y_test": labels(M) / 2}, "labels are .* float64"),
    ],
)
def test_a_broken_keras_archive(tmp_path: Path, changed: dict[str, np.ndarray], message: str) -> None:
    whole = {"x_train": TRAIN, "y_train": labels(N), "x_test": TEST, "y_test": labels(M)}
    np.savez(tmp_path / "mnist.npz", **whole | changed)  # type: ignore[arg-type]
    with pytest.raises(DataFormatError, match=rf"mnist\.npz: {message}"):
        data.load(tmp_path / "mnist.npz")


def test_a_npz_that_promises_too_much_allocates_nothing(tmp_path: Path) -> None:
    import zipfile

    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(tmp_path / "mnist.npz", "w") as archive:
        archive.writestr("x_train.npy", head.getvalue())
    with pytest.raises(DataFormatError, match="more than"):
        data.load(tmp_path / "mnist.npz")


def test_kaggles_digits_with_a_test_part_that_has_no_labels(tmp_path: Path) -> None:
    names = ",".join(f"pixel{i}" for i in range(784)) + "\n"
    (tmp_path / "train.csv").write_bytes(rows(TRAIN, labels(N), "label," + names))
    (tmp_path / "test.csv").write_bytes(rows(TEST, None, names))
    (tmp_path / "sample_submission.csv").write_text("ImageId,Label\n1,0\n")
    found = data.load(tmp_path)
    assert (len(found.train.labels), len(found.test.labels)) == (12, 2)
    assert "a seventh is tested on" in found.note
    assert found.classes == DIGITS
    read = data.read_images(tmp_path / "test.csv")[1]
    np.testing.assert_array_equal(read[..., 0], TEST)
    (tmp_path / "test.csv").write_bytes(rows(TEST, None, names)[:-9])
    with pytest.raises(DataFormatError, match=r"test\.csv: line 8: 78\d columns, expected 784 \(28 x 28 pixels\)"):
        data.load(tmp_path)


def test_letters_in_one_table(tmp_path: Path) -> None:
    path = tmp_path / "A_Z Handwritten Data.csv"
    path.write_bytes(rows(pixels(52), labels(52, 26)))
    found = data.load(path)
    assert found.classes == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert len(found.test.labels) == 7
    assert len(np.unique(np.concatenate([found.train.labels, found.test.labels]))) == 26
    assert data.load(tmp_path).classes == found.classes
    path.write_bytes(rows(TRAIN, np.full(N, 26)))
    with pytest.raises(DataFormatError, match="label 26, expected 0 to 25"):
        data.load(path)


@pytest.mark.parametrize("form", ["csv", "arff"])
def test_openml_joins_both_halves(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.published, "OPENML", (60, 70))
    names = [f"pixel{i}" for i in range(1, 785)]
    header = ",".join([*names, "class"]) + "\n"
    if form == "arff":
        attributes = [f"@ATTRIBUTE {name} real" for name in names] + ["@ATTRIBUTE class {0,1,2,3,4,5,6,7,8,9}"]
        header = "\n".join(["% MNIST", "@RELATION mnist_784", "", *attributes, "", "@DATA"]) + "\n"
    path = tmp_path / f"mnist_784.{form}"
    path.write_bytes(rows(pixels(70), labels(70), header, last=True))
    found = data.load(path)
    np.testing.assert_array_equal(found.train.images[..., 0], pixels(70)[:60])
    np.testing.assert_array_equal(found.test.labels, labels(70)[60:])
    assert found.note == ""
    path.write_bytes(rows(pixels(70), labels(70), header.replace("@DATA", "@OTHER"), last=True).replace(b",", b";", 2))
    with pytest.raises(DataFormatError, match=str(path.name)):
        data.load(path)


def cifar(folder: Path, fine: bool = False) -> tuple[np.ndarray, np.ndarray]:
    images, own = pixels(20, 32, 32, 3), labels(20, 100 if fine else 10)
    planes = images.transpose(0, 3, 1, 2).reshape(20, -1)
    records = np.column_stack([*([own // 5] if fine else []), own, planes]).astype(np.uint8)
    names = ["train.bin"] if fine else [f"data_batch_{i}.bin" for i in range(1, 6)]
    for part, name in zip(np.split(records, len(names)), names, strict=True):
        (folder / name).write_bytes(part.tobytes())
    (folder / ("test.bin" if fine else "test_batch.bin")).write_bytes(records[:10].tobytes())
    return images, images[:10]


def test_cifar_10_in_colour(tmp_path: Path) -> None:
    train, test = cifar(tmp_path)
    holds(data.load(tmp_path), train, test, data.published.CIFAR)
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    assert data.load(tmp_path).classes == tuple("abcdefghij")
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(DataFormatError, match=r"batches\.meta\.txt: label 9, and names of 2 classes"):
        data.load(tmp_path)
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataFormatError, match=r"data_batch_3\.bin: 12291 bytes, expected records of 3073"):
        data.load(tmp_path)
    path.unlink()
    with pytest.raises(DataNotFoundError, match=r"lacks data_batch_3\.bin"):
        data.load(tmp_path)


def test_cifar_100_by_its_fine_labels(tmp_path: Path) -> None:
    train, test = cifar(tmp_path, fine=True)
    (tmp_path / "fine_label_names.txt").write_text("".join(f"class {i}\n" for i in range(100)))
    holds(data.load(tmp_path), train, test, tuple(f"class {i}" for i in range(100)))
    (tmp_path / "test.bin").write_bytes(bytes([0, 100]) + bytes(3072))
    with pytest.raises(DataFormatError, match=r"test\.bin: label 100 of sample 0, expected 0 to 99"):
        data.load(tmp_path)


def libsvm(images: np.ndarray, own: np.ndarray) -> bytes:
    lines = []
    for image, label in zip(images.reshape(len(images), -1), own, strict=True):
        cells = (f"{i}:{value / 127.5 - 1:.6f}" for i, value in enumerate(image.tolist(), 1))
        lines.append(f"{label + 1} {' '.join(cells)} \n")
    return "".join(lines).encode()


@pytest.mark.parametrize("packed", [False, True])
def test_usps_counts_from_one(tmp_path: Path, packed: bool) -> None:
    train, test = pixels(N, 16, 16), pixels(M, 16, 16, seed=1)
    for name, images in (("usps", train), ("usps.t", test)):
        content = libsvm(images, labels(len(images)))
        (tmp_path / (name + ".bz2" * packed)).write_bytes(bz2.compress(content) if packed else content)
    holds(data.load(tmp_path), train, test, DIGITS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"11 1:0.5", "line 1: expected a label from 1 to 10"),
        (b"1 257:0.5", "line 1: expected a label"),
        (b"1 1:2.5", "line 1: a value outside of -1 to 1"),
        (b"1 1:nan", "line 1: a value outside of -1 to 1"),
        (b"one two", "line 1: expected a label"),
        (b"1 inf:0.5", "line 1: expected a label"),
        (b"1 1:0.5" + b" " * 20_000, "line 1: more than 16384 bytes a line"),
        (b"2\n" * 70_000, "line 65537: more than 65536 lines"),
        (b"", "no rows"),
    ],
)
def test_broken_libsvm(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "usps").write_bytes(line)
    (tmp_path / "usps.t").write_bytes(line)
    with pytest.raises(DataFormatError, match=message):
        data.load(tmp_path)


def parquet(path: Path, images: np.ndarray, own: list[int], names: tuple[str, ...] | None) -> None:
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow import parquet as files

    cells = [{"bytes": png(image), "path": None} for image in images]
    found = arrow.table({"image": cells, "label": own})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        found = found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    files.write_table(found, path)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not list threads")
def test_parquet_is_read_without_threads(tmp_path: Path) -> None:
    """Arrow's may outlive the error of a damaged file, and C's exit waits for them."""
    for part, images in (("train", TRAIN), ("test", TEST)):
        parquet(tmp_path / f"{part}-00000-of-00001.parquet", images, labels(len(images)).tolist(), None)
    program = f"""
import pathlib
import data, pyarrow.parquet
threads = lambda: len(list(pathlib.Path("/proc/self/task").iterdir()))
before = threads()
data.load({str(tmp_path)!r})
print(threads() - before)
"""
    assert run(program) == ["0"]


def test_parquet_of_hugging_face(tmp_path: Path) -> None:
    names = tuple(f"digit {i}" for i in range(10))
    parquet(tmp_path / "train-00000-of-00001.parquet", TRAIN, labels(N).tolist(), names)
    parquet(tmp_path / "test-00000-of-00001.parquet", TEST, labels(M).tolist(), names)
    holds(data.load(tmp_path), TRAIN, TEST, names)
    parquet(tmp_path / "test-00000-of-00001.parquet", TEST, [300] * M, names)
    with pytest.raises(DataFormatError, match="label 300 of sample 0, expected 0 to 255"):
        data.load(tmp_path)
    for wrong, kind in ((["one"] * M, "(large_)?string"), ([0.5] * M, "double")):
        parquet(tmp_path / "test-00000-of-00001.parquet", TEST, wrong, names)  # type: ignore[arg-type]
        with pytest.raises(DataFormatError, match=f"label holds {kind}, expected integers"):
            data.load(tmp_path)
    parquet(tmp_path / "test-00000-of-00001.parquet", TEST, labels(M).tolist(), names[:2])
    with pytest.raises(DataFormatError, match=r"label \d, and names of 2 classes"):
        data.load(tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataFormatError, match="not a readable parquet file"):
        data.load(tmp_path)


def test_digits_of_scikit_learn() -> None:
    pytest.importorskip("sklearn", reason="the extra `sklearn` is not installed")
    found = data.load("sklearn-digits")
    assert found.train.images.shape == (1541, 8, 8, 1)
    assert (found.train.images.min(), found.train.images.max()) == (0, 255)
    assert found.classes == DIGITS


def folders(root: Path, images: np.ndarray, names: tuple[str, ...], ending: str = "png", form: str = "PNG") -> Path:
    for at, image in enumerate(images):
        own = root / names[at % len(names)]
        own.mkdir(parents=True, exist_ok=True)
        (own / f"{at:03}.{ending}").write_bytes(png(image, form))
    return root


def test_folders_of_pictures_in_colour(tmp_path: Path) -> None:
    train, test = pixels(N, 9, 7, 3), pixels(M, 9, 7, 3, seed=1)
    folders(tmp_path / "train", train, ("cat", "dog"))
    folders(tmp_path / "test", test, ("cat", "dog"))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("of cats")
    found = data.load(tmp_path)
    assert found.classes == ("cat", "dog")
    np.testing.assert_array_equal(found.train.images, np.concatenate([train[::2], train[1::2]]))
    np.testing.assert_array_equal(found.test.labels, [0, 0, 0, 0, 1, 1, 1])
    assert "left out, being no pictures" in found.note
    assert "notes.txt" in found.note
    assert data.load(tmp_path, size=(4, 4)).train.images.shape == (N, 4, 4, 3)
    folders(tmp_path / "test", test, ("bird",))
    with pytest.raises(DataNotFoundError, match="bird is a class that training has not; it has cat, dog"):
        data.load(tmp_path)


@pytest.mark.parametrize(("ending", "form"), [("bmp", "BMP"), ("gif", "GIF"), ("webp", "WEBP"), ("jpg", "JPEG")])
def test_every_kind_of_picture_and_none_that_is_left_out_in_silence(tmp_path: Path, ending: str, form: str) -> None:
    folders(tmp_path, pixels(N, 8, 8), ("10", "9"), ending, form)
    found = data.load(tmp_path)
    assert found.classes == ("9", "10")
    assert found.train.images.shape == (12, 8, 8, 3 if form == "WEBP" else 1)
    (tmp_path / "9" / "photo.heic").write_bytes(b"")
    with pytest.raises(DataFormatError, match=r"photo\.heic: pictures of this kind are not read"):
        data.load(tmp_path)


def test_pictures_of_several_sizes_are_scaled_and_broken_ones_named(tmp_path: Path) -> None:
    folders(tmp_path, pixels(10, 8, 8, 3), ("a", "b"))
    folders(tmp_path / "c", pixels(4, 40, 50), ("",))
    found = data.load(tmp_path)
    assert found.train.images.shape[1:] == (32, 32, 3)
    assert "pictures of 2 sizes are scaled to 32 x 32" in found.note
    photo = Image.fromarray(pixels(1, 30, 90, 3)[0])
    exif = photo.getexif()
    exif[data.pictures.ORIENTATION] = 6
    photo.save(tmp_path / "turned.jpg", exif=exif)
    assert data.pictures.picture_size(tmp_path / "turned.jpg") == (90, 30)
    for name in "de":
        folders(tmp_path / "large", pixels(7, 70, 70, 3), (name,))
    assert data.load(tmp_path / "large").note.startswith("pictures of 70 x 70 are scaled to 32 x 32")
    (tmp_path / "a" / "000.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataFormatError, match=r"000\.png: not a readable picture"):
        data.load(tmp_path)


@pytest.mark.parametrize("name", ["mnist.pkl.gz", "data_batch_1", "data.pickle"])
def test_pickles_are_refused_with_what_to_use(tmp_path: Path, name: str) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return exit, (7,)

    path = tmp_path / name
    path.write_bytes(pickle.dumps(Trap()))
    sources: list[Path] = [tmp_path, *([path] if "." in name else [])]
    for source in sources:
        with pytest.raises(DataFormatError, match=r"is a pickle, which can run any .* instead"):
            data.load(source)


def test_a_set_is_copied_with_its_names(tmp_path: Path) -> None:
    found = Dataset((TRAIN, labels(N)), (TEST, labels(M)), classes=DIGITS, note="said")
    twin = pickle.loads(pickle.dumps(found))
    assert (twin.classes, twin.note) == (DIGITS, "said")
    np.testing.assert_array_equal(twin.train.images, TRAIN)
    assert Dataset(*found).classes is None


@pytest.mark.parametrize("form", data.convert.FORMS)
def test_every_form_gives_back_what_went_in(tmp_path: Path, form: str) -> None:
    own = Dataset((TRAIN[..., None], labels(N)), (TEST[..., None], labels(M)), classes=tuple("abcdefghij"))
    target = data.save(own, tmp_path / "set", form)
    found = data.load(target)
    order = np.argsort(own.train.labels, kind="stable") if form == "png" else np.arange(N)
    np.testing.assert_array_equal(found.train.images, own.train.images[order])
    np.testing.assert_array_equal(found.train.labels, own.train.labels[order])
    assert found.classes == (own.classes if form in ("npz", "png") else None)
    with pytest.raises(FileExistsError, match="exists already"):
        data.save(own, target, form)


def test_colour_needs_a_form_that_has_it(tmp_path: Path) -> None:
    own = Dataset((pixels(4, 5, 5, 3), labels(4)), (pixels(2, 5, 5, 3), labels(2)))
    for form in ("npz", "png"):
        np.testing.assert_array_equal(data.load(data.save(own, tmp_path / form, form)).test.images, own.test.images)
    for form in ("idx", "csv"):
        with pytest.raises(ValueError, match=f"save: {form} holds grey images"):
            data.save(own, tmp_path / form, form)
    with pytest.raises(ValueError, match="save: form is 'hdf5', expected one of idx, csv, npz, png"):
        data.save(own, tmp_path / "set", "hdf5")
