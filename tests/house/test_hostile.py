"""Files from anywhere: taken, or refused with one typed error, in bounded memory, whatever they say of themselves."""

from __future__ import annotations

import bz2
import functools
import gzip
import json
import os
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.progress import Progress

import data
import models
from data import files, mnist
from fuzz.__main__ import CORPUS, MEMORY
from fuzz.targets import TARGETS, answer, seeds, with_architecture
from models import ModelFormatError

from ..support.processes import after

# Any content --------------------------------------------------------------------------------------------------------

Edits = list[tuple[float, int, bytes]]
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), st.binary(max_size=9)), min_size=1, max_size=4)


def edited(content: bytes, edits: Edits) -> bytes:
    """The content with some bytes replaced, each edit at a place from 0, the start, to 1, the end."""
    for place, cut, put in edits:
        at = round(place * len(content))
        content = content[:at] + put + content[at + cut :]
    return content


@pytest.mark.parametrize("target", TARGETS)
def test_valid_files_are_taken(target: str) -> None:
    assert seeds(target)
    for content in seeds(target):
        assert answer(target, content) == ""


@pytest.mark.parametrize("target", TARGETS)
def test_any_change_is_taken_or_refused_with_the_typed_error(target: str) -> None:
    @given(st.sampled_from(seeds(target)), EDITS)
    @settings(max_examples=150)
    def check(content: bytes, edits: Edits) -> None:
        answer(target, edited(content, edits))

    check()


@pytest.mark.parametrize("target", ["idx_gz", "csv_gz"])
def test_any_change_inside_a_gzip_file(target: str) -> None:
    @given(st.sampled_from(seeds(target)), EDITS)
    @settings(max_examples=100)
    def check(content: bytes, edits: Edits) -> None:
        answer(target, gzip.compress(edited(gzip.decompress(content), edits), 1))

    check()


@pytest.mark.parametrize("target", TARGETS)
@given(content=st.binary(max_size=200))
@example(content=b"")
@settings(max_examples=50)
def test_bytes_at_random(target: str, content: bytes) -> None:
    answer(target, content)


@pytest.mark.parametrize("target", ["idx", "idx_gz", "model"])
def test_a_file_cut_off_anywhere_or_with_more_at_its_end_is_refused(target: str) -> None:
    for content in seeds(target)[:4]:
        for kept in range(0, len(content), 1 if len(content) < 200 else 23):
            assert answer(target, content[:kept]), f"the first {kept} bytes of {len(content)}"
        assert answer(target, content + b"\1")


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_fuzzer_found(target: str) -> None:
    found = sorted((CORPUS / target).iterdir())
    assert found
    for path in found:
        answer(target, path.read_bytes())


# Memory -------------------------------------------------------------------------------------------------------------


def honest_bomb(path: Path, start: bytes, block: bytes, count: int) -> None:
    """A gzip file of `start` and `count` times `block`, each a member of its own; no header in it lies."""
    path.write_bytes(gzip.compress(start) + gzip.compress(block) * count)


def gzip_idx(path: Path) -> None:
    honest_bomb(path, b"\0\0\x08\x03" + struct.pack(">3I", 1 << 20, 32, 32), bytes(1 << 20), 1 << 10)


def gzip_floats(path: Path) -> None:
    honest_bomb(path, b"\0\0\x0e\x01" + struct.pack(">I", 1 << 27), bytes(1 << 20), 1 << 10)


def gzip_csv(path: Path) -> None:
    honest_bomb(path, b"", (b"0," * 784 + b"0\n") * 1000, 1000)


def png(path: Path) -> None:
    from PIL import Image

    Image.new("1", (9000, 9000)).save(path, "PNG")  # Pillow's own limit is a warning, and at twice this size


def huge_layer(path: Path) -> None:
    nodes = json.loads(seeds("architecture")[0])["nodes"]
    nodes[1][1]["outputs"] = 1 << 30
    path.write_bytes(architecture(nodes=nodes))


def huge_start(path: Path) -> None:
    init = {"type": "Constant", "value": "x" * 500_000}
    path.write_bytes(architecture(**linear(init=init)))


def huge_header(path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' + b" " * (90 << 20) + b"}"
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def huge_file(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(seeds("model")[0])
        file.truncate(1 << 40)


def npz(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x_train.npy", "w") as stream,
    ):
        head = {"descr": "|u1", "fortran_order": False, "shape": (500 << 20,)}
        np.lib.format.write_array_header_1_0(stream, head)
        for _ in range(500):
            stream.write(bytes(1 << 20))


def bz2_line(path: Path) -> None:
    path.write_bytes(bz2.compress(b"1" * (1 << 20)) * 1000)


BOMBS: dict[Callable[[Path], None], tuple[str, str]] = {
    gzip_idx: ("data.read_idx", "inflates to more than the limit"),
    gzip_floats: ("data.read_idx", "inflates to more than the limit"),
    gzip_csv: ("data.read_csv", "inflates to more than the limit"),
    npz: ("(lambda path: data.published.keras_archive(Path(path)))", "inflates to more than 16 times its size"),
    bz2_line: ("(lambda path: data.published._sparse(Path(path)))", "line 1: more than 16384 bytes a line"),
    png: ("data.read_picture", "at most 16777216 are read"),
    huge_layer: ("models.load", "1.w has shape .*, expected .*1073741824"),
    huge_start: ("models.load", "Constant: value is 'x+"),
    huge_header: ("models.load", "a header of 9437"),
    huge_file: ("models.load", "1099511627776 bytes, expected at most"),
}

LOADED = ("data", "models")

# Linux hands the largest size of a process on to the program that it starts; VmHWM is the program's own.
REFUSED = """
import re, resource, sys
from pathlib import Path
import data, models
try:
    {reader}({path!r})
except (data.DataFormatError, models.ModelFormatError) as error:
    print(error)
status = Path("/proc/self/status")
if status.exists():
    print(int(re.search("VmHWM: *\\t* *([0-9]+) kB", status.read_text())[1]) >> 10)
else:
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // scale)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell a process its largest size")
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_bomb_is_refused_in_bounded_memory(tmp_path: Path, bomb: Callable[[Path], None]) -> None:
    reader, message = BOMBS[bomb]
    bomb(tmp_path / "bomb.gz")
    status, (said, peak), errors = after(LOADED, REFUSED.format(reader=reader, path=str(tmp_path / "bomb.gz")))
    assert (status, errors) == (0, "")
    assert re.search(message, said)
    assert int(peak) < MEMORY


def test_a_gzip_file_may_inflate_in_proportion_to_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "INFLATED", 10_000)
    noise = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)
    data.write_idx(tmp_path / "noise.gz", noise)
    np.testing.assert_array_equal(data.read_idx(tmp_path / "noise.gz"), noise)
    data.write_idx(tmp_path / "few.gz", noise[:9_000] * 0)
    assert len(data.read_idx(tmp_path / "few.gz")) == 9_000
    data.write_idx(tmp_path / "zeros.gz", noise * 0)
    with pytest.raises(data.DataFormatError, match=r"zeros.gz: inflates to more than the limit of 10000 bytes"):
        data.read_idx(tmp_path / "zeros.gz")


def test_a_larger_model_is_loaded_where_the_caller_allows_it(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(seeds("model")[0])
    size = path.stat().st_size
    assert models.load(path, "numpy", max_bytes=size).parameters()
    with pytest.raises(ModelFormatError, match=rf"{size} bytes, expected at most {size - 1}; load\(\.\.\., max_bytes="):
        models.load(path, "numpy", max_bytes=size - 1)


def test_a_download_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "MAX_DOWNLOAD", 100)
    bar = mnist._Bar(Progress(disable=True), "train-images-idx3-ubyte")
    bar.update(60)
    with pytest.raises(data.DataFormatError, match=r"train-images-idx3-ubyte.gz is larger than 100 bytes"):
        bar.update(60)


# What is no file ----------------------------------------------------------------------------------------------------

SPECIAL = """
import data, models
from pathlib import Path
for reader in data.read_idx, data.read_csv, data.read_picture, models.load, data.read_images:
    try:
        reader(Path({path!r}))
        print("taken")
    except (data.DataFormatError, FileNotFoundError) as error:
        print(error)
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device", "compressed pipe"])
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("file.gz" if kind == "compressed pipe" else "file")
    if "pipe" in kind:
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.symlink_to("/dev/zero")
    refusal = f"{path}: not a regular file"
    said = [refusal, refusal, refusal, f"no model at {path}", refusal]
    assert after(LOADED, SPECIAL.format(path=str(path))) == (0, said, "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_a_folder_of_data_is_no_data(tmp_path: Path) -> None:
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"):
        data.write_idx(tmp_path / name, np.zeros((2, 28, 28) if "images" in name else 2, np.uint8))
    os.mkfifo(tmp_path / "t10k-labels-idx1-ubyte")
    with pytest.raises(data.DataNotFoundError, match="lacks t10k-labels-idx1-ubyte"):
        data.load(tmp_path)


def test_a_link_to_a_file_is_followed_and_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(seeds("model")[0])
    (tmp_path / "array").write_bytes(seeds("idx")[0])
    for name, reader in ("model", models.load), ("array", data.read_idx):
        (tmp_path / f"to-{name}").symlink_to(tmp_path / name)
        reader(tmp_path / f"to-{name}")
        (tmp_path / f"{name}-circle").symlink_to(f"{name}-circle")
        with pytest.raises(OSError, match=f"{name}-circle"):
            reader(tmp_path / f"{name}-circle")


# Models -------------------------------------------------------------------------------------------------------------


def architecture(at: int = 0, **changes: Any) -> bytes:
    """A model file of which only the architecture is changed."""
    return with_architecture(json.dumps(json.loads(seeds("architecture")[at]) | changes))


def line(*layers: dict[str, Any]) -> dict[str, Any]:
    """Changes to an architecture: Flatten and these layers in a line."""
    entries = [{"type": "Flatten"}, *layers]
    nodes = [[str(i), layer, [str(i - 1) if i else "input"]] for i, layer in enumerate(entries)]
    return {"nodes": nodes, "output": str(len(layers))}


def relu(name: str = "a", *inputs: str) -> list[Any]:
    return [name, {"type": "ReLU"}, list(inputs or ["input"])]


def conv(**fields: Any) -> dict[str, Any]:
    return {"nodes": [["0", {"type": "Conv2d", "filters": 2, "size": 3, **fields}, ["input"]]]}


def linear(**fields: Any) -> dict[str, Any]:
    return line({"type": "Linear", "outputs": 3, **fields})


def nested(depth: int) -> Any:
    return functools.reduce(lambda inner, _: [inner], range(depth), [])


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "path up": ({"nodes": [relu("../x")]}, r"node name '../x' is not allowed"),
    "path up inside": ({"nodes": [relu("a/../../x")]}, "is not allowed"),
    "path up for Windows": ({"nodes": [relu("a\\..\\x")]}, "is not allowed"),
    "terminal's command": ({"nodes": [relu("\x1b[2J")]}, r"node name '\\x1b\[2J' is not allowed"),
    "half a character": ({"nodes": [relu("\ud800")]}, "not a readable model"),
    "long name": ({"nodes": [relu("a" * 201)]}, "is not allowed"),
    "name twice": ({"nodes": [relu("a"), relu("a")]}, "two nodes have one name"),
    "no line": ({"nodes": [relu("1"), relu("0", "1")], "output": "0"}, "not a readable model"),
    "many nodes": ({"nodes": [relu(str(i)) for i in range(1001)]}, "1001 nodes, expected at most 1000"),
    "many inputs": ({"nodes": [["a", {"type": "Add"}, ["input"] * 4001]]}, "4001 inputs of nodes, expected at most"),
    "many axes": ({"input_shape": [1] * 9}, "9 axes of the input, expected at most 8"),
    "nodes as text": ({"nodes": "abc" * 5}, "not a readable model"),
    "nodes by name": ({"nodes": {"abc": 1}}, "not a readable model"),
    "inputs as text": ({"nodes": [["a", {"type": "ReLU"}, "b"]]}, "not a readable model"),
    "inputs in lists": ({"nodes": [["a", {"type": "ReLU"}, [["b"]]]]}, "not a readable model"),
    "nested": ({"nodes": nested(500)}, "not a readable model"),
    "nested layers": (
        linear(init=functools.reduce(lambda i, _: {"type": "Linear", "init": i}, range(300), {})),
        "not a",
    ),
    "dtype as an expression": ({"dtype": "(2,3"}, "dtype is .2,3, expected float32 or float64"),
    "dtype as a list": ({"dtype": [["a", "f4"]]}, "not a readable model"),
    "text for a number": (linear(outputs="3"), "Linear: outputs is '3', expected <class 'int'>"),
    "truth for a number": (linear(outputs=True), "Linear: outputs is True"),
    "text for truth": (linear(bias="no"), "Linear: bias is 'no'"),
    "fraction": (linear(outputs=3.0), "Linear: outputs is 3.0"),
    "layer for an initialiser": (linear(init={"type": "ReLU"}), r"Linear: init is ReLU\("),
    "text for a gain": (linear(init={"type": "HeNormal", "gain": "x"}), "HeNormal: gain is 'x'"),
    "infinite gain": (linear(init={"type": "HeUniform", "gain": float("inf")}), "not a readable model"),
    "three strides": (conv(stride=[1, 1, 1]), r"Conv2d: stride is \(1, 1, 1\)"),
    "number beyond 32 bits": (conv(stride=2**31), "Conv2d: stride is 2147483648"),
    "number beyond any": (conv(padding=10**400), "Conv2d: padding is 1000"),
    "unknown class": (line({"type": "Layer"}), "unknown layer 'Layer'"),
    "class of Python's": (line({"type": "__import__", "name": "os"}), "unknown layer '__import__'"),
    "private field": (line({"type": "Linear", "outputs": 3, "__class__": 1}), "unknown fields"),
    "zero axis": ({"input_shape": [0, 2, 1]}, "input_shape is 0"),
    "huge input": ({"input_shape": [2**32, 2**32, 1]}, "not a readable model"),
    "text for a seed": ({"seed": "0"}, "seed is '0'"),
    "text for a mean": ({"normalisation": ["1", "2"]}, "mean is '1'"),
    "NaN for a mean": ({"normalisation": [float("nan"), 1.0]}, "mean is nan"),
    "three numbers": ({"normalisation": [1.0, 2.0, 3.0]}, "not a readable model"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_an_architecture_of_tricks_is_refused(tmp_path: Path, name: str) -> None:
    changes, message = REFUSALS[name]
    path = tmp_path / "m.safetensors"
    path.write_bytes(architecture(**changes))
    with pytest.raises(ModelFormatError, match=message) as error:
        models.load(path, "numpy")
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    assert said.isprintable()
    assert len(said) < len(str(path)) + models.encoding.MAX_MESSAGE + 50


def test_a_sample_that_grows_between_the_layers_is_refused(tmp_path: Path) -> None:
    """The tensors fit, and the first prediction would take all memory."""
    path = tmp_path / "m.safetensors"
    nodes = json.loads(seeds("architecture")[1])["nodes"]
    nodes[0][1] |= {"padding": [100_000, 100_000]}
    path.write_bytes(architecture(1, nodes=nodes))
    with pytest.raises(ModelFormatError, match="one sample takes"):
        models.load(path, "numpy")


def test_a_sample_that_stays_small_is_answered_whatever_the_padding(tmp_path: Path) -> None:
    """Nine windows, eight of them outside the image: neither memory nor time is spent on what lies between."""
    path = tmp_path / "m.safetensors"
    nodes = json.loads(seeds("architecture")[1])["nodes"]
    nodes[0][1] |= {"padding": [10**9, 10**9], "stride": [10**9, 10**9]}
    path.write_bytes(architecture(1, nodes=nodes))
    assert models.load(path, "numpy").predict(np.ones((1, 6, 6, 1), np.float32)).shape == (1, 2)


def test_a_tensor_that_is_not_finite_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for bad in np.nan, np.inf, -np.inf:
        content = bytearray(seeds("model")[0])
        content[-4:] = np.float32(bad).tobytes()
        path.write_bytes(content)
        with pytest.raises(ModelFormatError, match=r"m\.safetensors: .*[13]\.[wb] is not finite"):
            models.load(path, "numpy")


@pytest.mark.parametrize("length", [0, 1, 2**32, 2**63, 2**64 - 1])
def test_a_header_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + seeds("model")[0][8:])
    with pytest.raises(ModelFormatError):
        models.load(path, "numpy")


@dataclass(frozen=True)
class Note(models.Layer):
    """A layer that only says something."""

    text: str

    def lower(self, plan: models.PlanBuilder, p: SimpleNamespace, *x: Any) -> Any:
        return x[0], None


def test_what_cannot_be_loaded_is_not_saved(tmp_path: Path) -> None:
    many = models.Sequential([models.ReLU()] * 1001, (2,), "numpy")
    long = models.Sequential([Note("x" * models.saving.MAX_METADATA)], (2,), "numpy")
    wide = models.Sequential([models.MaxPool2d(9000, stride=1, padding=8999)], (9, 9, 1), "numpy")
    for model, message in (many, "1001 nodes"), (long, "characters of architecture"), (wide, "one sample takes"):
        with pytest.raises(ModelFormatError, match=message):
            model.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
