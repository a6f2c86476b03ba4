"""Data that stay on the disk: read as they are asked for, in an order that does not need the whole."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
from data import DataFormatError, DiskArray, Reader, WindowOrder, folder, windows
from models import SGD, Adam, Checkpoints, Conv2d, Flatten, Linear, Sequential, SoftmaxCrossEntropy, Trainer

from ..support.processes import ROOT

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (1000, 6, 5, 1), dtype=np.uint8)
LABELS = RNG.integers(0, 4, 1000).astype(np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The images in three files, one of them empty, of both formats."""
    data.write_idx(tmp_path / "a.idx", IMAGES[:301])
    np.save(tmp_path / "b.npy", IMAGES[:0])
    np.save(tmp_path / "c.npy", IMAGES[301:])
    return [tmp_path / name for name in ("a.idx", "b.npy", "c.npy")]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 4 samples, windows of 12."""
    monkeypatch.setattr(windows, "MOST", 4)
    monkeypatch.setattr(windows, "BLOCKS", 3)


def test_reads_as_an_array_does(files: list[Path]) -> None:
    whole = DiskArray.open(*files)
    assert (whole.shape, whole.ndim, whole.dtype, len(whole)) == (IMAGES.shape, 4, np.uint8, 1000)
    mask = RNG.random(1000) < 0.1
    for index in (slice(None), slice(290, 310), slice(5, 700, 63), slice(9, 3), -1, np.array([999, 0, -5, 301]), mask):
        np.testing.assert_array_equal(whole[index], IMAGES[index])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(whole))[299:303], IMAGES[299:303])
    part = whole.rows([(10, 20), (295, 305), (900, 1000)])
    np.testing.assert_array_equal(part[:], np.concatenate([IMAGES[10:20], IMAGES[295:305], IMAGES[900:]]))
    np.testing.assert_array_equal(whole.with_row(30)[300:302], IMAGES[300:302].reshape(2, 30))
    with pytest.raises(IndexError):
        whole[1000]


def test_what_cannot_be_read_so_is_refused(tmp_path: Path, files: list[Path]) -> None:
    def refused(content: Any, message: str, *before: Path) -> None:
        path = tmp_path / "bad.npy"
        path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
        with pytest.raises(DataFormatError, match=message):
            DiskArray.open(*before, path)

    refused(b"", "not an IDX file")
    refused(b"\x93NUMPY\x01\x00\xff\xff", "not a readable .npy header")
    refused(files[2].read_bytes()[:-1], "implies 20970 bytes of data, found 20969")
    refused(files[2].read_bytes() + b"x", "found 20971")
    refused(np.asfortranarray(IMAGES[..., 0]), "Fortran order")
    refused(b"\0\0\x08\x03" + bytes(4) + b"\xff" * 8, "expected at most 1073741824 bytes each")
    refused(np.array([{}]), r"holds '\|O' in C order")
    refused(b"\x93NUMPY\x03\x00", r"version \[03 00\]")
    header = b"{'descr': '<f1', 'fortran_order': False, 'shape': (3,)}"
    refused(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header, "no type of numbers")
    refused(np.float32(3), "implies")
    refused(np.zeros(3, ">f4"), "byte order of this machine")
    refused(IMAGES[:, 1:], r"rows are \(5, 5, 1\) uint8, those of a.idx \(6, 5, 1\) uint8", files[0])
    whole = DiskArray.open(files[2])
    files[2].write_bytes(files[2].read_bytes()[:500])
    with pytest.raises(DataFormatError, match="has become shorter"):
        whole[:]


@pytest.mark.parametrize("count", [1, 4, 11, 12, 13, 24, 50, 997])
def test_every_sample_comes_once(small: None, count: int) -> None:
    order = WindowOrder(count, 30, seed=3, epoch=1)
    seen: list[int] = []
    for window in range(order.windows):
        assert order.start(window) == len(seen)
        ranges, places = order.samples(window)
        rows = np.concatenate([np.arange(*pair) for pair in ranges])
        assert order.at(len(seen)) == order.at(len(seen) + len(rows) - 1) == window
        seen += rows[places].tolist()
    assert sorted(seen) == list(range(count))
    again, other = (WindowOrder(count, 30, seed=3, epoch=epoch) for epoch in (1, 2))
    assert again.samples(0)[1].tolist() == order.samples(0)[1].tolist()
    assert count < 50 or [again.samples(i)[0] for i in (0, 1)] != [other.samples(i)[0] for i in (0, 1)]


@pytest.mark.parametrize("size", [1, 7, 40])
def test_the_reader_gives_the_orders_samples(files: list[Path], small: None, size: int) -> None:
    reader = Reader(DiskArray.open(*files), LABELS, size, lambda part: part.astype(np.int64))
    seen: list[int] = []
    for epoch, begin in ((0, 0), (1, 500), (2, 0)):
        reader.begin(5, epoch)
        for start in range(begin, 1000, size):
            here, which = reader.take(start, min(1000, start + size))
            np.testing.assert_array_equal(reader.images[here], IMAGES[which])
            np.testing.assert_array_equal(reader.targets[here], LABELS[which])
            assert 1 <= reader.together(start) <= 12
            seen += which.tolist() if epoch == 2 else []
    reader.close()
    assert sorted(seen) == list(range(1000))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_statistics_in_one_pass(tmp_path: Path, dtype: type) -> None:
    images = IMAGES.astype(dtype) + dtype(100 if dtype is np.float32 else 0)
    np.save(tmp_path / "x.npy", images)
    found = data.statistics((DiskArray.open(tmp_path / "x.npy"), LABELS))
    np.testing.assert_allclose(found, (images.mean(dtype=np.float64), images.std(dtype=np.float64)), rtol=1e-12)


def test_statistics_of_the_largest_numbers_are_exact(tmp_path: Path) -> None:
    images = np.full((1300, 31, 33), 255, np.uint8)
    images[-1, -1, -1] = 0
    np.save(tmp_path / "x.npy", images)
    n = images.size
    mean, std = data.statistics((DiskArray.open(tmp_path / "x.npy"), np.zeros(1300, np.uint8)))
    assert mean == 255 * (n - 1) / n
    assert std == math.sqrt(255**2 * (n - 1) / n**2)


def test_split_sets_so_many_aside(files: list[Path]) -> None:
    for count in (1, 64, 100, 999):
        rest, held_out = data.split((DiskArray.open(*files), LABELS), count, seed=4)
        assert (len(held_out.labels), len(rest.labels)) == (count, 1000 - count)
        both = np.concatenate([rest.images[:], held_out.images[:]]).reshape(1000, -1)
        assert sorted(map(bytes, both)) == sorted(map(bytes, IMAGES.reshape(1000, -1)))
        assert np.concatenate([rest.labels, held_out.labels]).sum() == LABELS.sum()


def network() -> Sequential:
    return Sequential([Conv2d(2, 3), Flatten(), Linear(4)], (6, 5, 1), "numpy", 3)


class Interrupted(Exception):
    pass


def test_a_fit_from_the_disk_is_one_of_the_samples_in_that_order(files: list[Path], small: None) -> None:
    whole = DiskArray.open(*files)
    trainer = Trainer(network(), SGD(0.1), batch_size=32)
    history = trainer.fit(whole, LABELS, epochs=2, validation=(whole.rows([(0, 600)]), LABELS[:600]))
    other = Trainer(network(), SGD(0.1), batch_size=32)
    other.model.normalisation = trainer.model.normalisation
    for epoch in range(2):
        order = WindowOrder(1000, 30, 3, epoch)
        parts = [
            np.concatenate([np.arange(*pair) for pair in ranges])[p]
            for ranges, p in map(order.samples, range(order.windows))
        ]
        samples = np.concatenate(parts)
        for start in range(0, 1000, 32):
            other.step(IMAGES[samples[start : start + 32]], LABELS[samples[start : start + 32]])
    for name, array in other.model.parameters().items():
        np.testing.assert_array_equal(trainer.model.parameters()[name], array)
    assert history.validation_accuracy[-1] == trainer.model.evaluate(IMAGES[:600], LABELS[:600]).accuracy


@pytest.mark.parametrize(
    "loss",
    [
        SoftmaxCrossEntropy(weighted=True),
        SoftmaxCrossEntropy(class_weights=(1.0, 2.0, 3.0, 4.0)),
        SoftmaxCrossEntropy(ignore_index=3),
    ],
    ids=["weighted", "class_weights", "ignore_index"],
)
def test_losses_that_weigh_samples_are_refused(files: list[Path], loss: SoftmaxCrossEntropy) -> None:
    trainer = Trainer(network(), SGD(0.1), loss, batch_size=32)
    with pytest.raises(ValueError, match=r"x is a DiskArray and the loss .* weighs samples [^\n]*ignore_index[^\n]*$"):
        trainer.fit(DiskArray.open(*files), LABELS, epochs=1)
    assert trainer.model.normalisation is None


def test_weights_of_samples_are_refused(files: list[Path]) -> None:
    trainer = Trainer(network(), SGD(0.1), batch_size=32)
    with pytest.raises(ValueError, match="sample_weight is given and the loss does not weigh"):
        trainer.fit(DiskArray.open(*files), LABELS, epochs=1, sample_weight=np.ones(1000))


def test_other_numbers_are_refused_unread(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES.astype(np.int64))
    with pytest.raises(TypeError, match=r"x has dtype int64, expected uint8 images or floats$"):
        Trainer(network(), SGD(0.1)).fit(DiskArray.open(tmp_path / "x.npy"), LABELS, epochs=1)


def test_batches_of_one_compiled_call_see_every_window(files: list[Path], small: None) -> None:
    """The program is linked once, and the memory that it reads is written anew by each window."""
    whole = DiskArray.open(*files)
    fits = []
    for how in ("raise", "skip"):  # of which the second takes step by step
        model = Sequential([Flatten(), Linear(4)], (6, 5, 1), "numba", 3)
        trainer = Trainer(model, SGD(0.1), batch_size=4, on_nonfinite=how)
        history = trainer.fit(whole, LABELS, epochs=3)
        fits.append((history.loss, history.accuracy, [p.tobytes() for p in model.parameters().values()]))
    assert fits[0] == fits[1]


@pytest.mark.parametrize(
    "options", [{"average": 0.9, "accumulate": 3}, {"learning_rates": {"0": 0.0}}], ids=["average", "frozen"]
)
def test_the_steps_of_a_trainer_with_options_too(files: list[Path], small: None, options: dict[str, Any]) -> None:
    whole = DiskArray.open(*files)
    trainer, other = (Trainer(network(), SGD(0.1, clip_norm=0.1), batch_size=32, **options) for _ in range(2))
    trainer.fit(whole, LABELS, epochs=1)
    other.model.normalisation = trainer.model.normalisation
    order = WindowOrder(1000, 30, 3, 0)
    samples = np.concatenate(
        [
            np.concatenate([np.arange(*pair) for pair in ranges])[places]
            for ranges, places in map(order.samples, range(order.windows))
        ]
    )
    for start in range(0, 1000, 32):
        other.step(IMAGES[samples[start : start + 32]], LABELS[samples[start : start + 32]])
    for name, array in other.changing().items():
        np.testing.assert_array_equal(trainer.changing()[name], array)


@pytest.mark.parametrize("options", [{}, {"augment": data.Augment(rotation=9)}, {"last_batch": "merge"}])
def test_resumes_exactly(files: list[Path], small: None, tmp_path: Path, options: dict[str, Any]) -> None:
    whole = DiskArray.open(*files)
    ends = []
    for out, until in ((tmp_path / "a", 0), (tmp_path / "b", 41)):
        for resume in (False, True):
            trainer = Trainer(network(), Adam(0.01), batch_size=48, shards=2)
            kept = Checkpoints(out, every_steps=3)
            stop = until if not resume else 0
            original = trainer.run_step if trainer.sharded is None else trainer.sharded_step

            def step(*given: Any, trainer: Trainer = trainer, stop: int = stop, original: Any = original) -> Any:
                if stop and trainer.steps == stop:
                    raise Interrupted
                return original(*given)

            trainer.sharded_step = step  # type: ignore[method-assign]
            try:
                trainer.fit(whole, LABELS, epochs=3, checkpoints=kept, resume=resume, **options)
            except Interrupted:
                continue
        ends.append([array.tobytes() for array in trainer.changing().values()])
    assert ends[0] == ends[1]


def test_a_folder_of_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, (start, stop) in enumerate(((0, 300), (300, 900))):
        np.save(tmp_path / f"train-images-{i:05}.npy", IMAGES[start:stop, ..., 0])
        np.save(tmp_path / f"train-labels-{i:05}.npy", LABELS[start:stop])
    with pytest.raises(data.DataNotFoundError, match=r"lacks test-images.npy, test-labels.npy; found train-images"):
        data.load(tmp_path)
    np.save(tmp_path / "test-images.npy", IMAGES[900:, ..., 0])
    np.save(tmp_path / "test-labels.npy", LABELS[900:])
    train, test = data.load(tmp_path)
    np.testing.assert_array_equal(train.images, IMAGES[:900])
    np.testing.assert_array_equal(test.labels, LABELS[900:])
    monkeypatch.setattr(folder, "MAX_BYTES", 20_000)
    with pytest.raises(DataFormatError, match="exceeds the limit of 20000 bytes"):
        data.load(tmp_path)
    with pytest.raises(ValueError, match="on_disk is 'no', expected True or False"):
        data.load(tmp_path, on_disk="no")  # type: ignore[arg-type]
    train, test = data.load(tmp_path, on_disk=True)
    assert isinstance(train.images, DiskArray)
    np.testing.assert_array_equal(train.images[:], IMAGES[:900])
    assert isinstance(test.images, np.ndarray)
    np.save(tmp_path / "train-labels-00001.npy", LABELS[300:899])
    with pytest.raises(DataFormatError, match=r"599 labels for the 600 images of train-images-00001.npy"):
        data.load(tmp_path)


@pytest.fixture
def room_for_holes(tmp_path: Path) -> Iterator[Path]:
    """A folder; where there is one in memory, since a disk's holes are read into the system's cache page by page."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def test_four_gigabytes_in_less_than_one(room_for_holes: Path) -> None:
    """Of a file that is sparse: a hole reads as zeros, and takes no room."""
    count = 44 * 10**8 // 784  # elements that 32 bits do not count
    with open(room_for_holes / "train-images-idx3-ubyte", "wb") as file:
        file.write(bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28)))
        file.write(RNG.integers(0, 256, 784 * 100, dtype=np.uint8).tobytes())
        file.truncate(16 + 784 * count)
    data.write_idx(room_for_holes / "train-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    data.write_idx(room_for_holes / "t10k-images-idx3-ubyte", RNG.integers(0, 256, (10, 28, 28), dtype=np.uint8))
    data.write_idx(room_for_holes / "t10k-labels-idx1-ubyte", np.arange(10, dtype=np.uint8))
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1500 << 20, 1500 << 20)); "
        "from twinkernels import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "finally: print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    options = [
        "train",
        "mlp-512",
        "--backend",
        "numpy",
        "--iterations",
        "50",
        "--threads",
        "1",
        "--data",
        str(room_for_holes),
    ]
    done = subprocess.run(
        [sys.executable, "-c", program, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-2]) < 800_000  # kB; getrusage's figure begins with that of who started the process


@pytest.mark.parametrize("form", ["idx", "csv", "npz", "png"])
def test_what_stays_on_the_disk_is_not_saved_in_another_form(files: list[Path], tmp_path: Path, form: str) -> None:
    dataset = data.Dataset((DiskArray.open(*files), LABELS), (IMAGES, LABELS))
    with pytest.raises(ValueError, match="save: images of train are a DiskArray, expected arrays"):
        data.save(dataset, tmp_path / "out", form)
    assert not (tmp_path / "out").exists()
