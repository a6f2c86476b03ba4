import gzip
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data
from data import csv

HEADER = "label," + ",".join(f"{row}x{column}" for row in range(1, 29) for column in range(1, 29))


def table(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 785), np.uint8)


def text(rows, newline="\n"):
    return "".join(",".join(map(str, row)) + newline for row in rows.tolist())


def write(path, content):
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def same(split, rows):
    assert split.images.shape == (len(rows), 28, 28, 1)
    assert split.images.dtype == np.uint8
    assert split.images.flags.c_contiguous
    assert split.labels.shape == (len(rows),)
    assert split.labels.dtype == np.uint8
    np.testing.assert_array_equal(split.labels, rows[:, 0])
    np.testing.assert_array_equal(split.images.reshape(len(rows), -1), rows[:, 1:])


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize(
    "header",
    ["", HEADER + "\n", "label," + ",".join(map(str, range(784))) + "\r\n"],
    ids=["bare", "header", "numbered header"],
)
def test_header_is_optional_and_detected(tmp_path, name, header):
    rows = table(7)
    same(data.read_csv(write(tmp_path / name, header + text(rows))), rows)


def labelled(count):
    """Rows as MNIST's: labels in the first column, and pixels whose border is empty."""
    rows = table(count, seed=1)
    rows[:, 0] %= 10
    rows[:, [1, -1]] = 0
    return rows


@pytest.mark.parametrize("name", ["class", "Label", '"target"', "'y'"])
def test_a_header_says_that_the_class_comes_last(tmp_path, name):
    rows = labelled(50)
    header = ",".join(f"pixel{at}" for at in range(1, 785)) + f",{name}\n"
    split = data.read_csv(write(tmp_path / "openml.csv", header + text(np.roll(rows, -1, axis=1))))
    same(split, rows)


@pytest.mark.parametrize(
    "header", ["", ",".join(f"column{at}" for at in range(785)) + "\n"], ids=["bare", "names nothing"]
)
def test_a_class_in_the_last_column_is_not_taken_for_a_pixel(tmp_path, header):
    rows = labelled(50)
    same(data.read_csv(write(tmp_path / "first.csv", header + text(rows))), rows)
    with pytest.raises(data.DataFormatError, match=r"last\.csv: the first column cannot hold the labels.*'class'"):
        data.read_csv(write(tmp_path / "last.csv", header + text(np.roll(rows, -1, axis=1))))


def test_a_first_column_of_pixels_is_not_taken_for_labels(tmp_path):
    rows = labelled(300)
    rows[:, 1] = np.arange(300) % 256
    with pytest.raises(data.DataFormatError, match="cannot hold the labels"):
        data.read_csv(write(tmp_path / "last.csv", text(np.roll(rows, -1, axis=1))))


def test_a_file_of_one_class_has_its_label_first(tmp_path):
    rows = labelled(20)
    rows[:, 0] = 7
    rows[3, -1] = 5
    same(data.read_csv(write(tmp_path / "sevens.csv", text(rows))), rows)


@pytest.mark.parametrize(
    "header", [",".join(map(str, range(785))), "0," + ",".join(f"0.{at}" for at in range(1, 785))], ids=["0,1", "0,0.1"]
)
def test_a_header_may_begin_with_a_number(tmp_path, header):
    rows = labelled(20)
    same(data.read_csv(write(tmp_path / "pandas.csv", f"{header}\n{text(rows)}")), rows)


@pytest.mark.parametrize("places", [(0, 784), (3,)])
def test_a_header_that_names_the_class_elsewhere_is_refused(tmp_path, places):
    names = ["class" if at in places else f"p{at}" for at in range(785)]
    with pytest.raises(data.DataFormatError, match="line 1: the header names the class in column"):
        data.read_csv(write(tmp_path / "odd.csv", f"{','.join(names)}\n{text(labelled(3))}"))


def test_what_savetxt_writes_by_default_is_explained(tmp_path):
    np.savetxt(tmp_path / "rows.csv", labelled(2))
    with pytest.raises(data.DataFormatError, match="fmt='%d'"):
        data.read_csv(tmp_path / "rows.csv")


def test_spellings_of_the_same_numbers(tmp_path):
    rows = table(3)
    same(data.read_csv(write(tmp_path / "crlf", text(rows, "\r\n"))), rows)
    same(data.read_csv(write(tmp_path / "no_last_newline", text(rows)[:-1])), rows)
    same(data.read_csv(write(tmp_path / "spaces", text(rows).replace(",", " ,  "))), rows)
    same(data.read_csv(str(write(tmp_path / "byte_order_mark", b"\xef\xbb\xbf" + text(rows).encode()))), rows)


def test_more_lines_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "BLOCK_LINES", 4)
    rows = table(10)
    same(data.read_csv(write(tmp_path / "a.csv", HEADER + "\n" + text(rows))), rows)


@given(rows=st.lists(st.binary(min_size=785, max_size=785), min_size=1, max_size=3))
@settings(max_examples=25)
def test_quick_and_exact_reading_agree(tmp_path_factory, rows):
    rows = np.array([list(row) for row in rows], np.uint8)
    lines = text(rows).splitlines(keepends=True)
    np.testing.assert_array_equal([csv._row("", line) for line in lines], rows)
    np.testing.assert_array_equal(csv._rows(tmp_path_factory.getbasetemp(), 1, lines), rows)


def test_good_lines_are_read_the_quick_way(tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "_row", lambda place, line: pytest.fail(place))
    rows = table(3)
    same(data.read_csv(write(tmp_path / "a.csv", HEADER + "\n" + text(rows))), rows)


def with_cell(column, value, line=3):
    rows = text(table(5)).splitlines()
    cells = rows[line - 1].split(",")
    cells[column - 1] = value
    rows[line - 1] = ",".join(cells)
    return "\n".join(rows) + "\n"


ROW = text(table(1))
BAD = [
    (with_cell(785, "256"), "line 3: column 785: '256' is no integer from 0 to 255"),
    (with_cell(1, "256"), "line 3: column 1: '256'"),
    (with_cell(2, "-1"), "line 3: column 2: '-1'"),
    (with_cell(2, "1.0"), "line 3: column 2: '1.0'"),
    (with_cell(2, "1e1"), "line 3: column 2: '1e1'"),
    (with_cell(2, "1_0"), "line 3: column 2: '1_0'"),
    (with_cell(2, "nan"), "line 3: column 2: 'nan'"),
    (with_cell(2, ""), "line 3: column 2: ''"),
    (with_cell(2, "#7"), "line 3: column 2: '#7'"),
    (with_cell(785, "7#8"), "line 3: column 785: '7#8'"),
    (with_cell(2, '"7"'), "line 3: column 2: '\"7\"'"),
    (with_cell(2, "9" * 5000), "line 3: column 2: '99999999999999999999' is no"),
    (with_cell(2, "²"), "line 3: column 2"),
    (with_cell(1, "five", line=1), "line 1: column 1: 'five'"),
    (with_cell(9, "x", line=1), "line 1: column 9: 'x'"),
    (ROW + ROW[: ROW.rindex(",")] + "\n" + ROW, "line 2: 784 columns, expected 785"),
    (ROW + ROW[:-1] + ",0\n", "line 2: 786 columns, expected 785"),
    (ROW[: ROW.rindex(",")] + "\n", "line 1: 784 columns"),
    (ROW[:-1] + ",\n", "line 1: 786 columns"),
    (ROW + ROW[: len(ROW) // 2], "line 2: .* columns, expected 785"),
    (ROW + "# a remark\n" + ROW, "line 2: 1 columns"),
    ("1;2;3\n", "line 1: 1 columns"),
    (ROW + "\n" + ROW, "line 2: blank"),
    (ROW + "\n", "line 2: blank"),
    (ROW + "  \t\n", "line 2: blank"),
    ("\n" + ROW, "line 1: blank"),
    ("\n", "line 1: blank"),
    ("", "line 1: no rows"),
    (HEADER + "\n", "line 2: no rows"),
    (HEADER + "\n" + HEADER + "\n", "line 2: column 1: 'label'"),
    (HEADER + "\n" + ROW * 2 + "\n", "line 4: blank"),
    ("0" * 20_000, "line 1: longer than 16384 bytes"),
    (ROW + "0," * 20_000 + "\n", "line 2: longer than 16384 bytes"),
]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize(("content", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_content_names_file_and_line(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(data.DataFormatError, match=message) as caught:
        data.read_csv(path)
    assert str(caught.value).startswith(f"{path}: line ")


def test_line_numbers_count_on_over_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "BLOCK_LINES", 2)
    with pytest.raises(data.DataFormatError, match="line 6: 1 columns"):
        data.read_csv(write(tmp_path / "a.csv", HEADER + "\n" + ROW * 4 + "7\n" + ROW))


def test_binary_junk_is_a_format_error(tmp_path):
    for content in (bytes(range(256)), b"\0" * 100, b"\xff\n\xff\n"):
        with pytest.raises(data.DataFormatError, match="line 1"):
            data.read_csv(write(tmp_path / "a.csv", content))


@pytest.mark.parametrize(
    ("bomb", "message"), [(b"0" * (64 << 20), "line 1: longer"), (b"\n" * (64 << 20), "line 1: blank")]
)
def test_a_gzip_bomb_stays_small(tmp_path, bomb, message):
    path = write(tmp_path / "a.csv.gz", bomb)
    tracemalloc.start()
    with pytest.raises(data.DataFormatError, match=message):
        data.read_csv(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_the_whole_file_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "MAX_BYTES", 3 * len(ROW))
    assert len(data.read_csv(write(tmp_path / "a.csv.gz", ROW * 3)).labels) == 3
    with pytest.raises(data.DataFormatError, match="line 4: the file exceeds the limit"):
        data.read_csv(write(tmp_path / "a.csv.gz", ROW * 4))


@pytest.mark.parametrize(
    "damage",
    [lambda packed: packed[:-4], lambda packed: packed[:-8] + b"1234" + packed[-4:]],
    ids=["cut", "checksum"],
)
def test_damaged_gzip(tmp_path, damage):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(damage(gzip.compress(ROW.encode())))
    with pytest.raises(data.DataFormatError, match="damaged gzip file"):
        data.read_csv(path)
