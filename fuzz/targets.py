"""What is fuzzed: each reader as a function of bytes, which it takes or refuses with its typed error.

Readers are fed from memory, at thousands of inputs a second. Models are mapped by safetensors and so need a file, which
lies in memory too where the system can do that.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import random
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import data
import models
from data import csv, idx, pictures, published
from data.files import plain
from models import checkpoints, encoding
from models.exchange import onnx_writer
from models.exchange.keras_reader import read_keras
from models.exchange.onnx_operators import OPERATORS
from models.exchange.onnx_reader import read_onnx
from twinkernels import recipes, runs

SAMPLE_LIMIT = 1 << 16  # numbers: an accepted model this small must also predict


def answer(target: str, content: bytes) -> str:
    """The words in which a target refuses the input, or "" if it takes it.

    Any error but the typed one comes through, and so does any warning.
    """
    with warnings.catch_warnings(action="error"):
        try:
            TARGETS[target](content)
        except (data.DataFormatError, models.ModelFormatError) as error:
            return str(error)
    return ""


def _idx(content: bytes, name: str = "input") -> None:
    path = Path(name)
    with plain(io.BytesIO(content), path) as stream:
        array = idx.parse(stream, path)
    assert array.dtype.isnative
    assert array.flags.writeable
    assert array.nbytes <= idx.MAX_BYTES


def _idx_gz(content: bytes) -> None:
    _idx(content, "input.gz")


def _csv(content: bytes, name: str = "input") -> None:
    path = Path(name)
    with plain(io.BytesIO(content), path) as stream:
        images, labels = csv.parse(stream, path)
    assert images.shape == (len(labels), 28, 28, 1)
    assert images.dtype == labels.dtype == np.uint8
    assert 2 * images.size <= len(content) or name.endswith(".gz")


def _csv_gz(content: bytes) -> None:
    _csv(content, "input.gz")


def _picture(content: bytes) -> None:
    grey = pictures.parse(io.BytesIO(content), Path("input"))
    assert grey.ndim == 2
    assert grey.dtype == np.uint8
    assert 0 < grey.size <= pictures.MAX_PIXELS


def _pixels(content: bytes) -> None:
    """In colour, as its classes' folders are read."""
    shown = pictures.parse_pixels(io.BytesIO(content), Path("input"))
    assert shown.dtype == np.uint8
    assert shown.shape[2] in (1, 3)
    scaled = pictures.parse_pixels(io.BytesIO(content), Path("input"), (5, 4))
    assert scaled.shape == (5, 4, shown.shape[2])


def _is_split(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] | None = None) -> None:
    assert images.dtype == labels.dtype == np.uint8
    assert images.ndim == 4
    assert 0 < len(images) == len(labels)
    assert classes is None or labels.max() < len(classes)


def _table(content: bytes) -> None:
    """Rows with labels or without."""
    images, labels = csv.read_table(_file(content))
    assert images.shape[1:] == (28, 28, 1)
    if labels is not None:
        published.halves(data.Split(images, labels), None, "input")


def _npz(content: bytes) -> data.Dataset:
    dataset = published.keras_archive(_file(content))
    for own in dataset:
        _is_split(*own, dataset.classes)
    return dataset


def _convert(content: bytes) -> None:
    """What an archive holds, written in every form that can hold it and read again."""
    dataset = _npz(content)
    if sum(own.images.size + len(own.labels) for own in dataset) > SAMPLE_LIMIT or len(dataset.train.labels) > 64:
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for form in data.convert.FORMS:
            try:
                written = data.save(dataset, Path(folder) / form, form)
                again = data.load(written)
            except (ValueError, OSError):  # in words: a form that cannot hold it
                continue
            for own, other in zip(dataset, again, strict=True):
                if form != "png":  # whose labels are the folders that are there
                    assert own.labels.tobytes() == other.labels.tobytes()
                    assert own.images.tobytes() == other.images.tobytes()


def _cifar(content: bytes) -> None:
    for before in (1, 2):
        with suppress(data.DataFormatError):
            _is_split(*published._records(_file(content), before))
    published._records(_file(content), 1)


def _usps(content: bytes) -> None:
    _is_split(*published._sparse(_file(content)), published.DIGITS)


def _parquet(content: bytes) -> None:
    own, classes = published._parquet_file(_file(content))
    _is_split(*own, classes)


def _model(content: bytes) -> None:
    model = models.load(_file(content), backend="numpy")
    _predicts(model)


def _predicts(model: models.Graph) -> None:
    """A model that was taken is sound, and answers where it is small."""
    for array in (model.parameters() | model.statistics()).values():
        assert np.isfinite(array).all()
    if sum(np.prod(value.sized(1), dtype=float) for value in model.plan.values()) <= SAMPLE_LIMIT:
        with np.errstate(all="ignore"):
            model.predict(np.zeros((1, *model.input_shape), np.float32 if model.normalisation is None else np.uint8))


def _onnx(content: bytes) -> None:
    try:
        model = read_onnx(_file(content), "numpy", max_bytes=1 << 26)
    except models.ModelFormatError as error:
        # What is refused is named; where it lies would make every refusal another.
        raise models.ModelFormatError(str(error).partition(": ")[2]) from None
    _predicts(model)


def _hdf5(content: bytes) -> None:
    """A whole model of Keras 2; what Keras 3 packs into its archives is read by the same file."""
    try:
        model = read_keras(_file(content), "numpy", 1 << 26)
    except models.ModelFormatError as error:
        raise models.ModelFormatError(str(error).partition(": ")[2]) from None
    _predicts(model)


def _architecture(content: bytes) -> None:
    """The metadata alone, before the tensors of a whole model: what bytes at random would seldom get past."""
    _model(with_architecture(content.decode("utf-8", "replace")))


def _config(content: bytes) -> None:
    options = runs.parse_options(Path("config.json"), content)
    assert runs.Options.decoded(json.loads(json.dumps(options.encoded()))).encoded() == options.encoded()


def _history(content: bytes) -> None:
    history = runs.parse_history(Path("history.jsonl"), content)
    np.array([history.step, history.epoch, history.skipped], np.int64)
    np.array([history.loss, history.accuracy, history.learning_rate, history.seconds], np.float64)


def _checkpoint(content: bytes) -> None:
    try:
        state = _begun().checkpointer._read(_file(content))
    except checkpoints._OtherFit as error:
        raise models.ModelFormatError(str(error)) from None
    _Fit().go_on(state)


def _state(content: bytes) -> None:
    """What a checkpoint says beside its arrays, with right checksums: what bytes at random would never get past."""
    _checkpoint(with_state(content.decode("utf-8", "replace")))


X, Y = np.arange(24.0).reshape(8, 3) / 24, np.arange(8) % 2


class _Fit:
    """A small fit with all that a checkpoint can hold, at its start."""

    def __init__(self) -> None:
        m = models
        model = m.Sequential([m.Linear(2), m.BatchNorm(), m.Dropout(0.5), m.Linear(2)], (3,), "numpy", 1, np.float64)
        self.trainer = m.Trainer(model, m.Adam(0.1), batch_size=3, schedule=m.OneCycle())
        self.trainer.validates = True
        self.stopping = m.EarlyStopping()
        self.stopping.on_fit_begin(self.trainer, 6)
        arrays = [X, self.trainer.loss.check(Y, len(X), model.output_shape), X, Y]
        options = checkpoints.fit_options(self.trainer, [self.stopping], self.trainer.schedule, None, 6, "keep", arrays)
        self.checkpointer = checkpoints.Checkpointer(
            m.Checkpoints("nowhere"), self.trainer, [self.stopping], options, 3, 6, True
        )

    def go_on(self, state: checkpoints.State) -> None:
        """From a state to the end."""
        fit = self

        class Begin(models.Callback):
            def on_fit_begin(self, trainer: models.Trainer, total_steps: int) -> None:
                fit.checkpointer._apply(state)

        with np.errstate(all="ignore"), suppress(models.NonFiniteError):
            self.trainer.fit(X, Y, epochs=2, validation=(X, Y), callbacks=[self.stopping, Begin()])


_begun = cache(_Fit)


def _on_disk(content: bytes) -> None:
    """Rows that are read as they are asked for; IDX files are read by the same header as in memory."""
    found = data.DiskArray.open(_file(content))
    assert len(found) * found.row_bytes <= len(content)
    assert found[:].shape == found.shape
    found.fingerprint()


def _file(content: bytes) -> Path:
    """A file of this content, the same each time."""
    file, path = _memory()
    os.truncate(file, 0)
    os.pwrite(file, content, 0)
    return path


@cache
def _memory() -> tuple[int, Path]:
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("model")
        return file, Path(f"/proc/self/fd/{file}")
    file, path = tempfile.mkstemp()
    return file, Path(path)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "idx": _idx,
    "idx_gz": _idx_gz,
    "disk": _on_disk,
    "csv": _csv,
    "csv_gz": _csv_gz,
    "picture": _picture,
    "pixels": _pixels,
    "table": _table,
    "npz": lambda content: _npz(content) and None,
    "convert": _convert,
    "cifar": _cifar,
    "usps": _usps,
    "parquet": _parquet,
    "model": _model,
    "onnx": _onnx,
    "hdf5": _hdf5,
    "architecture": _architecture,
    "checkpoint": _checkpoint,
    "state": _state,
    "config": _config,
    "history": _history,
}


# Valid inputs to begin with -----------------------------------------------------------------------------------------


def seeds(target: str) -> list[bytes]:
    """Small valid inputs."""
    return _SEEDS[target]()


def _idx_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "array"
        contents = []
        for dtype in idx.DTYPES.values():
            for shape in ((3,), (2, 2, 2)):
                data.write_idx(path, np.arange(np.prod(shape)).reshape(shape).astype(dtype))
                contents.append(path.read_bytes())
    return contents


def _on_disk_seeds() -> list[bytes]:
    contents = _idx_seeds()[:2]
    for version in (1, 0), (2, 0):
        for dtype in (np.uint8, np.float32):
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.arange(12, dtype=dtype).reshape(3, 2, 2), version)
            contents.append(stream.getvalue())
    return contents


def _csv_seeds() -> list[bytes]:
    row = ",".join(["7", *["0", "255"] * (csv.COLUMNS // 2)]) + "\n"
    header = ",".join(["label", *map(str, range(csv.COLUMNS - 1))]) + "\r\n"
    return [row.encode(), (header + row * 2).encode()]


def _picture_seeds() -> list[bytes]:
    from PIL import Image

    contents = []
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for name in pictures.FORMATS:
        for mode in ("L", "RGB", "1", "RGBA" if name == "PNG" else "L"):
            file = io.BytesIO()
            grey.convert(mode).save(file, name)
            contents.append(file.getvalue())
    return contents


def _table_seeds() -> list[bytes]:
    """With labels behind, in ARFF, and pixels alone."""
    cells = ["0", "255"] * (csv.COLUMNS // 2)
    rows = [",".join([*cells, str(label)]) + "\n" for label in range(7)]
    names = [*(f"pixel{at}" for at in range(csv.COLUMNS - 1)), "class"]
    arff = "% a remark\n@relation a\n" + "".join(f"@attribute '{name}' integer\n" for name in names) + "@data\n"
    headed = ",".join(names) + "\n" + "".join(rows)
    return [headed.encode(), (arff + "".join(rows)).encode(), (",".join(cells) + "\n").encode()]


def _zipped(parts: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


@cache
def _npz_seeds() -> list[bytes]:
    contents = []
    for shape in (4, 3), (28, 28), (2, 2, 3):
        made: dict[str, np.ndarray] = {}
        for part, count in (("train", 3), ("test", 2)):
            made[f"x_{part}"] = np.arange(count * np.prod(shape)).reshape(count, *shape).astype(np.uint8)
            made[f"y_{part}"] = np.arange(count).reshape(-1, 1) if len(shape) == 3 else np.arange(count)
        if shape != (28, 28):
            made["classes"] = np.array(["a", "b", "c"])
        parts = {}
        for name, array in made.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, array)
            parts[f"{name}.npy"] = stream.getvalue()
        contents.append(_zipped(parts))
    return contents


def _usps_seeds() -> list[bytes]:
    text = b"1 1:-1 2:0.5 256:1\n10 3:-.25\n\n2\n"
    return [text, bz2.compress(text)]


@cache
def _parquet_seeds() -> list[bytes]:
    import pyarrow
    import pyarrow.parquet

    contents = []
    features = {"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
    for picture, label in (("image", "label"), ("img", "fine_label")):
        cells = [{"bytes": _picture_seeds()[at], "path": None} for at in (0, 0)]
        table = pyarrow.table({picture: cells, label: [0, 1]})
        if label == "label":
            table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        stream = io.BytesIO()
        pyarrow.parquet.write_table(table, stream, compression="none" if label == "label" else "snappy")
        contents.append(stream.getvalue())
    return contents


def _networks() -> list[models.Graph]:
    m = models
    stem = m.Conv2d(2, (3, 2), padding=1, groups=1, init=m.HeUniform())
    pool = m.MaxPool2d((2, 1), stride=(2, 1))
    return [
        m.Sequential([m.Flatten(), m.Linear(3), m.ReLU(), m.Linear(2, bias=False)], (2, 2, 1), "numpy"),
        m.Sequential([stem, m.BatchNorm(), m.ELU(), pool, m.GlobalAvgPool2d(), m.Linear(2)], (6, 6, 1), "numpy"),
        m.Graph(
            {
                "a": (m.Conv2d(2, 1), "input"),
                "b": (m.MeanNorm(), "a"),
                "drop": (m.Dropout(0.3), "b"),
                "sum": (m.Add(), "a", "drop"),
                "pair": (m.Concat(), "sum", "b"),
                "mean": (m.AvgPool2d(2), "pair"),
                "flat": (m.Flatten(), "mean"),
                "head": (m.Linear(2, init=m.XavierNormal(0.5)), "flat"),
            },
            "head",
            (4, 4, 1),
            "numpy",
            dtype=np.float64,
            normalisation=(33.0, 78.0),
        ),
    ]


@cache
def _model_seeds() -> list[bytes]:
    contents = []
    with tempfile.TemporaryDirectory() as folder:
        for model in _networks():
            model.save(Path(folder) / "model")
            contents.append((Path(folder) / "model").read_bytes())
    return contents


def _way(operator: str) -> Any:
    """What an If does one way."""
    from onnx import TensorProto, helper

    output = helper.make_tensor_value_info(operator, TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node(operator, ["q"], [operator])], operator, [], [output])


@cache
def _onnx_seeds() -> list[bytes]:
    """What this package writes, and a network that works out the shape of its rows."""
    from onnx import TensorProto, helper, numpy_helper

    contents = [onnx_writer.content(model, layout) for model in _networks() for layout in onnx_writer.LAYOUTS]
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.random((2, 1, 3, 3), np.float32),
        "m": rng.random((8, 3), np.float32),
        "first": np.array([0]),
        "rest": np.array([-1]),
        "half": np.array(0.5, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], auto_pad="SAME_UPPER", strides=[2, 2]),
        helper.make_node("Mul", ["c", "half"], ["d"]),
        helper.make_node("Transpose", ["d"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Shape", ["t"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "first"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["s"], axis=0),
        helper.make_node("Reshape", ["t", "s"], ["r"]),
        helper.make_node("MatMul", ["r", "m"], ["l"]),
        helper.make_node("ReduceL2", ["l"], ["size"], axes=[1]),
        helper.make_node("Max", ["l", "l"], ["most"]),
        helper.make_node("Div", ["most", "size"], ["q"]),
        helper.make_node("Equal", ["rest", "rest"], ["yes"]),
        helper.make_node("If", ["yes"], ["way"], then_branch=_way("Abs"), else_branch=_way("Neg")),
        helper.make_node("Softmax", ["way"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return [*contents, bytes(model.SerializeToString())]


@cache
def _hdf5_seeds() -> list[bytes]:
    """A model with what a file of Keras 2 can hold: a model in it, statistics, a join."""
    import h5py

    rng = np.random.default_rng(0)
    inner = [
        {"class_name": "Conv2D", "config": {"name": "c", "filters": 2, "kernel_size": [2, 2], "padding": "valid"}},
        {"class_name": "BatchNormalization", "config": {"name": "b", "axis": 3, "momentum": 0.9, "epsilon": 0.001}},
    ]
    names = ("block", "relu", "sum", "flat", "head")
    reads = (["image"], ["block"], ["block", "relu"], ["sum"], ["flat"])
    layers: list[dict[str, Any]] = [
        {"class_name": "InputLayer", "config": {"name": "image", "batch_input_shape": [None, 3, 3, 1]}},
        {"class_name": "Sequential", "config": {"name": "block", "layers": inner}},
        {"class_name": "Activation", "config": {"name": "relu", "activation": "relu"}},
        {"class_name": "Add", "config": {"name": "sum"}},
        {"class_name": "Flatten", "config": {"name": "flat"}},
        {"class_name": "Dense", "config": {"name": "head", "units": 2, "activation": "softmax", "use_bias": False}},
    ]
    for layer, read in zip(layers, ([], *reads), strict=True):
        layer["inbound_nodes"] = [[[name, 0, 0, {}] for name in read]] * bool(read)
    told = {"name": "m", "layers": layers, "input_layers": [["image", 0, 0]], "output_layers": [["head", 0, 0]]}
    arrays: dict[str, dict[str, tuple[int, ...]]] = {
        "block": {"c/kernel:0": (2, 2, 1, 2), "c/bias:0": (2,), **{f"b/{name}:0": (2,) for name in ("gamma", "beta")}},
        "head": {"head/kernel:0": (8, 2)},
    }
    arrays["block"] |= {f"b/moving_{name}:0": (2,) for name in ("mean", "variance")}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["keras_version"] = "2.3.1"
        file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": told})
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            held = group.create_group(name)
            held.attrs["weight_names"] = [path.encode() for path in arrays.get(name, {})]
            for path, shape in arrays.get(name, {}).items():
                held[path] = rng.random(shape, np.float32)
    return [buffer.getvalue()]


@cache
def _parts(content: bytes) -> tuple[dict[str, object], bytes]:
    """Header and tensors of a model file."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def _text(content: bytes) -> str:
    """A file's own metadata."""
    return str(_parts(content)[0]["__metadata__"]["twinkernels"])  # type: ignore


def _architecture_seeds() -> list[bytes]:
    return [_text(content).encode() for content in _model_seeds()]


def with_architecture(text: str) -> bytes:
    """A model file with this text as its metadata, and the tensors of the seed that it was made from most likely."""
    content = _model_seeds()[2 if "Concat" in text else 1 if "BatchNorm" in text else 0]
    header, tensors = _parts(content)
    changed = json.dumps(header | {"__metadata__": {"twinkernels": text}}).encode()
    return len(changed).to_bytes(8, "little") + changed + tensors


@cache
def _checkpoint_seeds() -> list[bytes]:
    """In the first epoch, at its end, at the end of the fit."""
    contents = []
    with tempfile.TemporaryDirectory() as folder:
        fit = _Fit()
        kept = models.Checkpoints(folder, every_steps=2, keep=9)
        fit.trainer.fit(X, Y, epochs=2, callbacks=[fit.stopping], validation=(X, Y), checkpoints=kept)
        for path in kept.files():
            contents.append(path.read_bytes())
    return contents


def _state_seeds() -> list[bytes]:
    return [_text(content).encode() for content in _checkpoint_seeds()]


def with_state(text: str) -> bytes:
    """A checkpoint with this text as its metadata, and with right checksums."""
    content = _checkpoint_seeds()[0]
    header, tensors = _parts(content)
    with suppress(ValueError, RecursionError, TypeError):
        text = json.dumps(json.loads(text) | {"arrays": json.loads(_text(content))["arrays"]})
    held = {"twinkernels": text, "digest": checkpoints._digest([text.encode()])}
    changed = json.dumps(header | {"__metadata__": held}).encode()
    return len(changed).to_bytes(8, "little") + changed + tensors


def _config_seeds() -> list[bytes]:
    made = [
        recipes.Recipe("a", "b", "mlp-512", models.SGD(0.1), "c", 0.5, epochs=3),
        recipes.Recipe(
            name="a",
            description="b",
            network="cnn-bn",
            optimizer=models.AdamW(0.1),
            published="c",
            floor=0.5,
            iterations=7,
            schedule=models.LinearWarmup(5, models.MultiStep((1, 2))),
            loss=models.SoftmaxCrossEntropy(0.1),
            validation=0.1,
            augment=data.Augment(rotation=3.0, elastic_alpha=1.0),
        ),
    ]
    options = [runs.Options(recipe, "strokes", "numpy", 1, 2, 3, 60.0).encoded() for recipe in made]
    return [json.dumps(each, indent=2).encode() for each in options]


def _history_seeds() -> list[bytes]:
    epoch = dict(zip(models.history.Epoch.__dataclass_fields__, (1, 9, 0.5, 0.9, None, None, 0.1, 2.5, 0), strict=True))
    held_out = epoch | {"epoch": 2, "loss": None, "validation_loss": 0.3, "validation_accuracy": 0.95}
    return [b"", "".join(json.dumps(each) + "\n" for each in (epoch, held_out)).encode()]


_SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "idx": _idx_seeds,
    "idx_gz": lambda: [gzip.compress(content, mtime=0) for content in _idx_seeds()],
    "disk": _on_disk_seeds,
    "csv": _csv_seeds,
    "csv_gz": lambda: [gzip.compress(content, mtime=0) for content in _csv_seeds()],
    "picture": _picture_seeds,
    "pixels": _picture_seeds,
    "table": _table_seeds,
    "npz": _npz_seeds,
    "convert": _npz_seeds,
    "cifar": lambda: [bytes(3073), bytes(3074 * 2)[: 3073 * 2]],
    "usps": _usps_seeds,
    "parquet": _parquet_seeds,
    "model": _model_seeds,
    "onnx": _onnx_seeds,
    "hdf5": _hdf5_seeds,
    "architecture": _architecture_seeds,
    "checkpoint": _checkpoint_seeds,
    "state": _state_seeds,
    "config": _config_seeds,
    "history": _history_seeds,
}

_VALUES = b'null true NaN -Infinity 1e999 0 1 2 3 -1 0.5 [] {} "../x" 2147483648 9223372036854775808 1000000'.split()

WORDS = {
    "table": [b",", b"\n", b"255", b"class", b"label", b"@data", b"@attribute ", b"%"],
    "npz": [b"'descr'", b"'fortran_order': True", b"'<i8'", b"'|O'", b"'<U1'", b"()", b"(1,)", b"\x93NUMPY\1\0"],
    "usps": [b":", b"inf", b"nan", b"1e400", b"-1", b"257", b"\n", b" "],
    "parquet": [b"PAR1", b'"names"', b"[]", b"{}", b"label", b"image", b"bytes"],
    "csv": [b",", b"\n", b"\r", b"255", b"256", b"label", b"+1", b" 0", b'"', b"#"],
    "architecture": [
        *(f'"{name}"'.encode() for name in encoding.KNOWN),
        *_VALUES,
        *b'"Sequential" "Graph" "input" "size" "stride" "padding" "groups" "outputs" "init" "gain" "bias"'.split(),
    ],
    "onnx": [
        *(name.encode() for name in sorted(OPERATORS)),
        *b"pads strides dilations group axis perm kernel_shape auto_pad SAME_LOWER epsilon alpha location data".split(),
    ],
    "hdf5": [b"HEAP", b"SNOD", b"TREE", b"GCOL", b"\xff" * 8, b"kernel:0", b'"Dense"', b'"layers"', b'"inbound_nodes"'],
    "state": [*_VALUES, *b'"options" "numbers" "progress" "history" "callbacks" "samples" "done" "numpy"'.split()],
    "config": [*_VALUES, *(f'"{name}"'.encode() for name in runs.KNOWN), b'"recipe"', b'"numpy"', b'"type"'],
    "history": [*_VALUES, b"\n", b'"epoch"', b'"loss"'],
}
"""What a format is made of, for mutations."""


_JSON = ("architecture", "state", "config", "history")


def mutated_inside(target: str, content: bytes, mutate: Callable[[bytes], bytes], chance: random.Random) -> bytes:
    """A mutation that stays valid on the outside: in what gzip holds, or of the parts of JSON; else any."""
    if chance.random() < 0.75:
        if target.endswith("_gz") and (inner := _inflated(content)) is not None:
            return gzip.compress(mutate(inner), 1, mtime=0)
        if target in ("npz", "convert") and (parts := _unzipped(content)):
            name = chance.choice(sorted(parts))
            return _zipped(parts | {name: mutate(parts[name])})
        if target in _JSON and (other := _rearranged(content, WORDS[target], chance, target == "history")) is not None:
            return other
    return mutate(content)


def _unzipped(content: bytes) -> dict[str, bytes]:
    """What a .npz file holds; nothing where it is damaged or large."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > 1 << 16:
                return {}
            return {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except Exception:  # whatever a damaged archive makes its reader meet
        return {}


def _inflated(content: bytes) -> bytes | None:
    """What a gzip file holds; None where it is damaged or large."""
    try:
        inflater = zlib.decompressobj(wbits=31)
        plain = inflater.decompress(content, 1 << 16)
        return plain if inflater.eof else None
    except zlib.error:
        return None


def _rearranged(content: bytes, words: list[bytes], chance: random.Random, lines: bool) -> bytes | None:
    """JSON, or lines of it, with one of its parts replaced by another or by a word; None where it is no JSON."""
    try:
        whole = [json.loads(line) for line in (content.splitlines() if lines else [content])]
        places = list(_places(whole))
        holder, key = chance.choice(places)
        other, at = chance.choice(places)
        word = chance.choice(words)
        holder[key] = json.loads(word) if chance.random() < 0.7 else other[at]
        return b"\n".join(json.dumps(part).encode() for part in whole)
    except (IndexError, ValueError, RecursionError):
        return None


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)
