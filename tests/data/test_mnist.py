import gzip
import hashlib
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import data
from data import mnist


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Four made-up files in place of the real ones, by name: what a mirror serves."""
    rng = np.random.default_rng(0)
    packed = {}
    for name, count in zip(mnist.SHA256, (6, 6, 4, 4), strict=True):
        array = rng.integers(0, 10, (count, 28, 28) if "images" in name else count).astype(np.uint8)
        data.write_idx(tmp_path / "array", array)
        content = (tmp_path / "array").read_bytes()
        monkeypatch.setitem(mnist.SHA256, name, hashlib.sha256(content).hexdigest())
        packed[f"{name}.gz"] = gzip.compress(content, 1)
    (tmp_path / "array").unlink()
    return packed


@pytest.fixture
def serve(monkeypatch):
    """Start a mirror on the loopback that answers from a dict of name: bytes; gives its address and log."""
    servers = []
    for name in "NO_PROXY", "no_proxy":
        monkeypatch.setenv(name, "*")

    def start(content):
        fetched = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.removeprefix("/mnist/")
                body = content.get(name)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                if self.command == "GET":
                    fetched.append(name)
                    self.wfile.write(body or b"")

            do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/mnist/", fetched

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("TWINKERNELS_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    return tmp_path / "twinkernels" / "mnist"


@pytest.fixture
def dead():
    """An address where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/mnist/"


def content(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_download_then_cache(files, serve, cache, monkeypatch, capfd):
    mirror, fetched = serve(files)
    monkeypatch.setattr(mnist, "MIRRORS", (mirror,))
    train, test = data.load("mnist")
    assert train.images.shape == (6, 28, 28, 1)
    assert test.labels.shape == (4,)
    assert content(cache) == sorted(files) == sorted(fetched)
    data.load("mnist")
    assert len(fetched) == 4
    assert capfd.readouterr() == ("", "")


def test_only_what_is_missing_is_fetched(files, serve, cache, monkeypatch):
    mirror, fetched = serve(files)
    monkeypatch.setattr(mnist, "MIRRORS", (mirror,))
    cache.mkdir(parents=True)
    kept = "t10k-labels-idx1-ubyte.gz"
    (cache / kept).write_bytes(files[kept])
    data.load("mnist")
    assert sorted(fetched) == sorted(set(files) - {kept})


def test_progress_shows_on_a_terminal(files, serve, cache, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(mnist, "MIRRORS", (serve(files)[0],))
    data.load("mnist")
    out, err = capfd.readouterr()
    assert out == ""
    assert "train-images-idx3-ubyte" in err


def test_the_second_mirror_steps_in(files, serve, cache, dead, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (dead, serve(files)[0]))
    assert len(data.load("mnist").train.labels) == 6


def test_the_second_mirror_finishes_what_the_first_began(files, serve, cache, monkeypatch):
    some = dict(list(files.items())[:2])
    first, from_first = serve(some)
    second, from_second = serve(files)
    monkeypatch.setattr(mnist, "MIRRORS", (first, second))
    data.load("mnist")
    assert from_first[:2] == list(some)
    assert from_second == list(files)[2:]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: gzip.compress(gzip.decompress(packed) + b"!"),
        lambda packed: packed[:-5],
        lambda packed: b"<html>Log in first</html>",
    ],
    ids=["content", "cut", "no gzip"],
)
def test_a_wrong_checksum_removes_the_file_and_says_so(files, serve, cache, monkeypatch, spoil):
    name = "train-labels-idx1-ubyte.gz"
    mirror, _ = serve(files | {name: spoil(files[name])})
    monkeypatch.setattr(mnist, "MIRRORS", (mirror,))
    with pytest.raises(data.DataNotFoundError, match=f"{name} had a wrong checksum and was removed"):
        data.load("mnist")
    assert content(cache) == ["train-images-idx3-ubyte.gz"]


def test_a_wrong_checksum_sends_on_to_the_next_mirror(files, serve, cache, monkeypatch):
    spoilt, _ = serve(dict.fromkeys(files, b"junk"))
    good, fetched = serve(files)
    monkeypatch.setattr(mnist, "MIRRORS", (spoilt, good))
    assert len(data.load("mnist").test.labels) == 4
    assert len(fetched) == 4


def test_a_mirror_without_the_files_is_reported_by_status(serve, cache, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (serve({})[0],))
    with pytest.raises(data.DataNotFoundError, match="HTTP status 404"):
        data.load("mnist")


def test_offline_is_one_sentence_that_says_how_to_go_on(cache, dead, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (dead, dead))
    with pytest.raises(data.DataNotFoundError) as caught:
        data.load("mnist")
    message = str(caught.value)
    for word in "$TWINKERNELS_DATA", "--data PATH", "--data strokes", "no connection", str(cache):
        assert word in message
    assert "\n" not in message
    assert "urllib" not in message
    assert "Errno" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_mirror_that_never_answers_is_given_up(cache, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(mnist, "TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(mnist, "MIRRORS", (f"http://127.0.0.1:{silent.getsockname()[1]}/",))
        with pytest.raises(data.DataNotFoundError, match="no connection"):
            data.load("mnist")


def test_a_name_that_never_resolves_is_given_up(cache, monkeypatch):
    release, waited_out = threading.Event(), []

    class Hanging:
        """As a name look-up hangs: whatever timeout the request was given."""

        def __init__(self, *arguments, **options):
            pass

        def __call__(self, *arguments, **options):
            if not release.wait(10):
                waited_out.append(arguments)

    monkeypatch.setattr("pooch.HTTPDownloader", Hanging)
    monkeypatch.setattr(mnist, "TIMEOUT", 0.05)
    with pytest.raises(data.DataNotFoundError, match=r"amazonaws\.com: no connection"):
        data.load("mnist")
    assert not waited_out
    release.set()


def test_the_environment_names_a_folder(files, tmp_path, monkeypatch):
    for name, packed in files.items():
        (tmp_path / name).write_bytes(packed)
    monkeypatch.setenv("TWINKERNELS_DATA", str(tmp_path))
    monkeypatch.setattr(mnist, "MIRRORS", ())
    assert len(data.load("mnist").train.labels) == 6


def test_an_environment_that_names_no_data_is_no_reason_to_download(tmp_path, monkeypatch):
    monkeypatch.setenv("TWINKERNELS_DATA", str(tmp_path))
    monkeypatch.setattr(mnist, "download", lambda folder: pytest.fail("downloads"))
    with pytest.raises(data.DataNotFoundError, match=r"^\$TWINKERNELS_DATA: .* holds no data") as caught:
        data.load("mnist")
    assert str(tmp_path) in str(caught.value)
    monkeypatch.setenv("TWINKERNELS_DATA", str(tmp_path / "none"))
    with pytest.raises(data.DataNotFoundError, match=r"^\$TWINKERNELS_DATA: .* does not exist"):
        data.load("mnist")


@pytest.mark.skipif(
    not os.environ.get("TWINKERNELS_DATA"), reason="needs real MNIST: set TWINKERNELS_DATA to its folder"
)
def test_real_mnist():
    train, test = data.load("mnist")
    assert train.images.shape == (60_000, 28, 28, 1)
    assert test.images.shape == (10_000, 28, 28, 1)
    for split, first in (train, [5, 0, 4, 1, 9]), (test, [7, 2, 1, 0, 4]):
        assert split.labels[:5].tolist() == first
    for (_, expected), array in zip(mnist.SHA256.items(), (*train, *test), strict=True):
        header = bytes([0, 0, 8, 3 if array.ndim == 4 else 1])
        header += np.array(array.shape[:3], ">u4").tobytes()
        assert hashlib.sha256(header + array.tobytes()).hexdigest() == expected
    mean, std = data.statistics(train)
    assert round(mean, 3) == 33.318
    assert round(std, 3) == 78.567
