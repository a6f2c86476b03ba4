import gzip
import re
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import data
from data import idx

TYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]
GOOD = b"\0\0\x08\x03" + struct.pack(">3I", 2, 2, 2) + bytes(range(8))


def refuses(path, content, message):
    path.write_bytes(content)
    with pytest.raises(data.DataFormatError, match=message) as caught:
        data.read_idx(path)
    assert str(path) in str(caught.value)


@given(
    array=st.sampled_from(TYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
    ),
    suffix=st.sampled_from(["", ".gz"]),
)
def test_write_then_read_gives_the_same_array(tmp_path_factory, array, suffix):
    path = tmp_path_factory.mktemp("idx") / f"array{suffix}"
    data.write_idx(path, array)
    back = data.read_idx(path)
    assert back.dtype == array.dtype
    assert back.dtype.isnative
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable
    assert back.flags.c_contiguous
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_layout_is_big_endian_with_type_code_and_dimensions(tmp_path):
    data.write_idx(tmp_path / "a", np.array([[1, -2, 259]], np.int16))
    assert (tmp_path / "a").read_bytes() == bytes.fromhex("00000b02 00000001 00000003 0001fffe0103")


def test_write_takes_any_byte_order_and_strides(tmp_path):
    array = np.arange(12, dtype=">i4").reshape(3, 4)[::-1, ::2]
    data.write_idx(tmp_path / "a", array)
    np.testing.assert_array_equal(data.read_idx(str(tmp_path / "a")), array)


def test_equal_arrays_give_equal_gzip_bytes(tmp_path):
    for name in "a.gz", "b.gz":
        data.write_idx(tmp_path / name, np.arange(9, dtype=np.uint8))
    packed = (tmp_path / "a.gz").read_bytes()
    assert packed == (tmp_path / "b.gz").read_bytes()
    assert packed[4:8] == bytes(4)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(GOOD)

    def fail(source, target):
        assert source.read_bytes() != GOOD
        raise OSError("disk")

    monkeypatch.setattr("data.files.os.replace", fail)
    with pytest.raises(OSError, match="disk"):
        data.write_idx(path, np.zeros(3, np.uint8))
    assert path.read_bytes() == GOOD
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, np.uint16), "array is uint16, expected one of uint8, int8"),
        (np.zeros(3, bool), "array is bool"),
        (np.zeros((1,) * 5, np.uint8), "array has rank 5"),
        (np.array(1, np.uint8), "array has rank 0"),
    ],
)
def test_write_refuses_what_idx_cannot_hold(tmp_path, array, message):
    with pytest.raises(ValueError, match=message):
        data.write_idx(tmp_path / "a", array)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not an IDX file: starts with \[\]"),
        (b"\0\0\x08", r"starts with \[00 00 08\]"),
        (b"\0\x01" + GOOD[2:], r"starts with \[00 01 08 03\]"),
        (b"\0\0\x0a" + GOOD[3:], "type code 0x0a, expected one of 0x08 .uint8."),
        (b"\0\0\x08\0\x07", "rank 0, expected 1 to 4"),
        (b"\0\0\x08\x05" + bytes(25), "rank 5, expected 1 to 4"),
        (b"\0\0\x08\xff", "rank 255"),
        (GOOD[:13], "header ends after 13 of 16 bytes"),
        (GOOD[:16], r"\(2, 2, 2\) uint8 implies 8 bytes of data, found 0"),
        (GOOD[:-1], "implies 8 bytes of data, found 7"),
        (GOOD + b"\0", "implies 8 bytes of data, found more"),
        (b"\0\0\x0d\x01" + struct.pack(">I", 2) + bytes(7), "implies 8 bytes of data, found 7"),
    ],
)
def test_malformed_files(tmp_path, content, message):
    refuses(tmp_path / "a", content, message)


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (2**16, 2**16, 1), (0, 2**32 - 1, 2**32 - 1), (2**28,)])
def test_a_lying_header_is_refused_before_anything_is_allocated(tmp_path, shape):
    (tmp_path / "a").write_bytes(b"\0\0\x0e" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape))
    tracemalloc.start()
    with pytest.raises(data.DataFormatError, match="exceeds the limit of 1073741824 bytes"):
        data.read_idx(tmp_path / "a")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_memory_follows_the_content_not_the_header(tmp_path, name):
    content = b"\0\0\x08\x01" + struct.pack(">I", 1 << 30) + bytes(100)
    (tmp_path / name).write_bytes(gzip.compress(content) if name == "a.gz" else content)
    tracemalloc.start()
    with pytest.raises(data.DataFormatError, match="implies 1073741824 bytes of data, found 100"):
        data.read_idx(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_gzip_bomb_is_inflated_one_byte_past_the_header_only(tmp_path, monkeypatch):
    bomb = tmp_path / "a.gz"
    bomb.write_bytes(gzip.compress(GOOD + bytes(64 << 20)))
    asked = []
    take = idx.take
    monkeypatch.setattr(idx, "take", lambda stream, size: asked.append(size) or take(stream, size))
    tracemalloc.start()
    with pytest.raises(data.DataFormatError, match="implies 8 bytes of data, found more"):
        data.read_idx(bomb)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert asked == [4, 12, 9]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda packed: packed[:-4], "damaged gzip file: Compressed file ended"),
        (lambda packed: packed[:-12], "damaged gzip file: Compressed file ended"),
        (lambda packed: packed[:5], "damaged gzip file"),
        (lambda packed: packed[:-8] + b"\1\2\3\4" + packed[-4:], "damaged gzip file: CRC check failed"),
        (lambda packed: packed[:-4] + b"\1\2\3\4", "damaged gzip file: Incorrect length"),
        (lambda packed: packed[:10] + b"\xff" * 8 + packed[18:], "damaged gzip file: Error -3"),
        (lambda packed: packed + b"junk", "damaged gzip file: Not a gzipped file"),
        (lambda packed: b"", "not an IDX file"),
    ],
)
def test_damaged_gzip(tmp_path, damage, message):
    refuses(tmp_path / "a.gz", damage(gzip.compress(GOOD)), message)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "a.png"])
@pytest.mark.parametrize("content", [GOOD, gzip.compress(GOOD)], ids=["plain", "gzip"])
def test_gzip_is_told_by_content_and_not_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(data.read_idx(tmp_path / name), np.arange(8).reshape(2, 2, 2))
    names, images = data.read_images(tmp_path / name, 2, 2)
    assert images.shape == (2, 2, 2, 1)
    assert names == [f"{tmp_path / name}[0]", f"{tmp_path / name}[1]"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none"))):
        data.read_idx(tmp_path / "none")
