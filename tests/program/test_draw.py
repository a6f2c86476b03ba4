"""The draw page's server: drawings read over HTTP, and what it refuses."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors import safe_open

import data
import kernels
import models
from twinkernels import cli, draw
from twinkernels.draw import SHIPPED, Reader, front, server

from ..support.processes import ROOT

SIDE = 196
# One hand's digits: strokes of points, in hundredths of the paper's side.
DIGITS = {
    0: ["50,15 34,25 28,50 35,78 50,85 66,75 72,50 65,24 50,15"],
    1: ["52,15 50,50 48,85"],
    2: ["30,30 38,16 55,14 66,26 62,44 45,64 28,84 72,84"],
    3: ["30,22 45,13 62,17 66,30 55,43 43,46 60,50 69,64 60,80 42,85 27,76"],
    4: ["36,15 28,52 72,52", "60,30 58,85"],
    5: ["64,15 36,15 33,45 50,40 66,50 68,68 56,84 38,84 28,76"],
    6: ["60,14 44,26 34,46 31,66 38,82 54,86 66,76 66,62 54,54 40,60 33,70"],
    7: ["28,18 70,18 45,85"],
    8: ["62,24 50,14 37,22 38,36 50,47 64,60 66,76 50,86 34,76 36,60 50,47 62,36 62,24"],
    9: ["64,30 54,16 38,20 33,36 44,47 58,42 65,28 64,50 58,85"],
}


def rasterised(digit: int, pen: float = 0.085) -> np.ndarray:
    """A digit as the page sends it: ink (SIDE, SIDE) uint8, drawn four times as large and shrunk."""
    page = Image.new("L", (4 * SIDE, 4 * SIDE))
    brush = ImageDraw.Draw(page)
    width = pen * 4 * SIDE
    for stroke in DIGITS[digit]:
        points = [tuple(4 * SIDE * float(c) / 100 for c in point.split(",")) for point in stroke.split()]
        brush.line(points, fill=255, width=round(width))
        for x, y in points:
            brush.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return np.asarray(page.resize((SIDE, SIDE), Image.Resampling.BOX))


def request(digit: int = 3, **changes: object) -> bytes:
    ink = base64.b64encode(rasterised(digit).tobytes()).decode()
    return json.dumps({"width": SIDE, "height": SIDE, "ink": ink} | changes).encode()


def ask(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one answer."""
    connection = http.client.HTTPConnection(server.HOST, port, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def read(port: int, body: bytes, **headers: str) -> tuple[int, dict]:
    status, _, answer = ask(port, "POST", "/read", body, **({"content_type": "application/json"} | headers))
    return status, json.loads(answer)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    before = kernels.get_threads()
    kernels.set_threads(1)
    yield Reader(models.load(SHIPPED))
    kernels.set_threads(before)


@pytest.fixture(scope="module")
def port(reader: Reader) -> Iterator[int]:
    """The port of a server in a thread of its own."""
    with server.listen(0) as listener:
        serving = server.build(reader, listener, server.describe(SHIPPED, reader))
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        serving.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


# Reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pen", [0.04, 0.085, 0.12])
@pytest.mark.parametrize("digit", DIGITS)
def test_each_digit_is_read(port: int, digit: int, pen: float) -> None:
    ink = rasterised(digit, pen)
    status, answer = read(port, request(ink=base64.b64encode(ink.tobytes()).decode()))
    assert status == 200
    assert int(np.argmax(answer["probabilities"])) == digit
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-5)
    image = np.frombuffer(base64.b64decode(answer["image"]), np.uint8).reshape(28, 28)
    np.testing.assert_array_equal(image, data.frame(ink))


def test_both_backends_are_timed(port: int) -> None:
    _, answer = read(port, request())
    assert list(answer["seconds"]) == kernels.names()
    assert all(0 < seconds < 10 for seconds in answer["seconds"].values())


def test_the_answer_is_the_models(reader: Reader, k: kernels.Kernels) -> None:
    reading = Reader(models.load(SHIPPED, k.name)).read(rasterised(5))
    logits = models.load(SHIPPED, k.name).predict(reading.image[None, ..., None])
    np.testing.assert_array_equal(reading.probabilities, k.softmax(logits)[0])


def test_responses_are_the_first_convolutions_normalised_and_cut_at_zero(reader: Reader) -> None:
    k, model = kernels.get("numpy"), models.load(SHIPPED, "numpy")
    reading = reader.read(rasterised(5))
    p = model.parameters() | model.statistics()
    y = k.conv2d(model.prepare(reading.image[None, ..., None]), p["0.w"], p["0.b"])
    y = k.relu(k.batchnorm_inference(y, p["1.gamma"], p["1.beta"], p["1.running_mean"], p["1.running_var"]))[0]
    assert reading.responses.shape == (16, 24, 24)
    np.testing.assert_allclose(reading.responses, np.moveaxis(y, -1, 0) / y.max(), atol=1e-5)


def test_the_front_of_a_graph_leaves_other_branches_out() -> None:
    model = models.Graph(
        {
            "pool": (models.MaxPool2d(2), "input"),
            "left": (models.Conv2d(4, 3, padding=1), "pool"),
            "right": (models.Conv2d(4, 3, padding=1), "pool"),
            "bent": (models.Tanh(), "left"),
            "sum": (models.Add(), "bent", "right"),
            "means": (models.GlobalAvgPool2d(), "sum"),
        },
        output="means",
        input_shape=(28, 28, 1),
        backend="numpy",
    )
    part = front(model)
    assert [node.name for node in part.nodes] == ["pool", "left", "bent"]
    assert part.output_shape == ("N", 14, 14, 4)
    for name, array in part.parameters().items():
        np.testing.assert_array_equal(array, model.parameters()[name])


def test_an_mlps_units_are_one_map() -> None:
    model = models.build("mlp-512", "numpy", normalisation=(33.0, 78.0))
    reading = Reader(model).read(rasterised(2))
    units = np.maximum(front(model).predict(reading.image[None, ..., None])[0], 0)
    assert reading.responses.shape == (1, 23, 23)  # 512 units and 17 fields that stay empty
    np.testing.assert_allclose(reading.responses.ravel()[:512], units / units.max())
    assert (reading.responses.ravel()[512:] == 0).all()


@pytest.mark.parametrize(
    ("layers", "shape", "words"),
    [
        ([models.Linear(10)], (4,), "expected grey images"),
        ([models.Flatten(), models.Linear(10)], (28, 28, 3), "expected grey images"),
        ([models.Flatten(), models.ReLU()], (28, 28, 1), "no convolution and no linear layer"),
        ([models.Conv2d(3, 5)], (28, 28, 1), r"expected \(N, classes\)"),
    ],
)
def test_models_that_read_no_digits_are_refused(layers: list, shape: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Reader(models.Sequential(layers, shape, "numpy", normalisation=(0.0, 1.0)))


def test_softmax_is_not_taken_twice() -> None:
    layers = [models.Flatten(), models.Linear(10)]
    plain = models.Sequential(layers, (28, 28, 1), "numpy", normalisation=(0.0, 255.0))
    ended = models.Sequential([*layers, models.Softmax()], (28, 28, 1), "numpy", normalisation=(0.0, 255.0))
    ink = rasterised(4)
    np.testing.assert_allclose(Reader(plain).read(ink).probabilities, Reader(ended).read(ink).probabilities)


# What ships -----------------------------------------------------------------------------------------------------


def stated() -> dict[str, float]:
    """The test accuracies that the shipped file states, by data set."""
    with safe_open(SHIPPED, framework="numpy") as file:
        return {name: float(figure) for figure, name in re.findall(r"(0\.\d{4}) on (\w+)", file.metadata()["about"])}


def test_the_shipped_model_is_small_and_reads_strokes_as_it_states() -> None:
    assert SHIPPED.stat().st_size < 100_000
    model = models.load(SHIPPED)
    assert [str(layer) for layer in model.layers] == [str(layer) for layer in models.build("cnn-bn").layers]
    assert model.evaluate(*data.load("strokes").test).accuracy == pytest.approx(stated()["strokes"], abs=0.0005)


@pytest.mark.skipif(not os.environ.get("TWINKERNELS_DATA"), reason="TWINKERNELS_DATA does not say where MNIST is")
def test_the_shipped_model_reads_mnist_as_it_states() -> None:
    assert models.load(SHIPPED).evaluate(*data.load("mnist").test).accuracy == pytest.approx(
        stated()["MNIST"], abs=0.0005
    )


# What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"1" * 10_000, "no JSON"),
        (b"null", "not {width, height, ink}"),
        (b"[1, 2]", "not {width, height, ink}"),
        (b'{"width": 1}', "not {width, height, ink}"),
        (request(more=1), "not {width, height, ink}"),
        (request(width=0), "width is no integer from 1 to 512"),
        (request(width=-1), "width is no integer"),
        (request(width=10**30), "width is no integer"),
        (request(height=True), "height is no integer"),
        (request(height=196.0), "height is no integer"),
        (request(height="196"), "height is no integer"),
        (request(width=195), "expected 196 x 195 = 38220"),
        (request(ink="AAAA"), "ink has 3 bytes"),
        (request(ink="?" * 100), "ink is no base64"),
        (request(ink="ä"), "ink is no base64"),
        (request(ink=[0] * 38416), "ink is no base64"),
        (request(ink=None), "ink is no base64"),
        (request(ink=base64.b64encode(bytes(SIDE * SIDE)).decode()), "no ink"),
    ],
)
def test_a_malformed_drawing_is_answered_with_the_reason(port: int, body: bytes, words: str) -> None:
    status, answer = read(port, body)
    assert status == 400
    assert words in answer["error"]
    assert read(port, request(7))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "kind", "expected"),
    [
        ("GET", "/", "", 200),
        ("GET", "/script.js", "", 200),
        ("GET", "/model", "", 200),
        ("GET", "/read", "", 404),
        ("DELETE", "/model", "", 405),
        ("POST", "/", "application/json", 405),
        ("POST", "/read", "text/plain", 415),  # which other pages may send unasked
        ("POST", "/read", "", 415),
        ("GET", "/nowhere", "", 404),
        ("GET", "/../server.py", "", 404),
        ("GET", "/%2e%2e/server.py", "", 404),
        ("GET", "//etc/passwd", "", 404),
    ],
)
def test_every_answer_has_its_status_and_says_what_browsers_may_do(
    port: int, method: str, path: str, kind: str, expected: int
) -> None:
    body = request() if method == "POST" else None
    status, headers, _ = ask(port, method, path, body, **({"content_type": kind} if kind else {}))
    assert status == expected
    assert {name: headers.get(name) for name in server.HEADERS} == server.HEADERS
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("path", ["/", "/model", "/read"])
def test_another_host_is_refused(port: int, path: str) -> None:
    method, body = ("POST", request()) if path == "/read" else ("GET", None)
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", f"[::1]:{port}", ""):
        status, _, answer = ask(port, method, path, body, host=host, content_type="application/json")
        assert (status, json.loads(answer)) == (403, {"error": "another host than this server"}), host
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert ask(port, method, path, body, host=host, content_type="application/json")[0] == 200


def test_another_origin_is_refused(port: int) -> None:
    for origin in ("null", "https://evil.example", f"http://127.0.0.1:{port + 1}", f"https://127.0.0.1:{port}", ""):
        status, answer = read(port, request(), origin=origin)
        assert (status, answer["error"]) == (403, "another origin than this server's page"), origin
    for host in ("127.0.0.1", "localhost"):
        assert read(port, request(), origin=f"http://{host}:{port}")[0] == 200


@pytest.mark.parametrize(
    "line", ["Origin: http://127.0.0.1:{}", "Host: 127.0.0.1:{}", "Content-Type: application/json"]
)
@pytest.mark.parametrize("first", [True, False])
def test_who_says_twice_where_it_comes_from_is_refused(port: int, line: str, first: bool) -> None:
    name = line.partition(":")[0]
    allowed, other = line.format(port), {"Content-Type": "Content-Type: text/plain"}.get(name, f"{name}: evil.example")
    rest = [f"Host: 127.0.0.1:{port}"] * (name != "Host") + ["Content-Type: application/json"] * (name == "Origin")
    lines = [allowed, other] if first else [other, allowed]
    start = ["POST /read HTTP/1.1", *rest, "Connection: close", f"Content-Length: {len(request())}"]
    answer = raw(port, "\r\n".join([*start, *lines, "", ""]).encode() + request())
    expected = {"Origin": b"403", "Host": b"400", "Content-Type": b"415"}[name]
    assert answer.split()[1] == expected


def overflowing(layers: list[models.Layer]) -> models.Sequential:
    model = models.Sequential(layers, (28, 28, 1), "numpy", normalisation=(0.0, 1.0))
    model.set_parameters({name: np.full_like(array, 1e36) for name, array in model.parameters().items()})
    return model


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("squashed", [False, True])
def test_a_model_that_overflows_is_told(squashed: bool) -> None:
    layers = [models.Flatten(), models.Linear(10), *([models.Dropout(0.5), models.Tanh()] if squashed else [])]
    with pytest.raises(ValueError, match="the model's numbers overflow: its "):
        Reader(overflowing(layers))


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_a_drawing_by_which_the_model_overflows_is_answered(port: int, reader: Reader, monkeypatch: Any) -> None:
    layers = [models.Flatten(), models.Linear(10)]
    monkeypatch.setattr(reader, "model", overflowing(layers))
    status, answer = read(port, request())
    assert status == 400
    assert answer["error"] == "the model's numbers overflow: its answers to 1 of 1 images are not finite"
    monkeypatch.undo()
    assert read(port, request())[0] == 200


def raw(port: int, sent: bytes) -> bytes:
    """What comes back for bytes sent as they are, up to the end of the connection."""
    with socket.create_connection((server.HOST, port), timeout=30) as connection:
        connection.sendall(sent)
        received = b""
        try:
            while part := connection.recv(1 << 16):
                received += part
        except ConnectionResetError:  # how some systems end a connection with unread bytes
            pass
        return received


def head(port: int, *lines: str) -> bytes:
    start = ("POST /read HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json", *lines)
    return "\r\n".join([*start, "", ""]).encode()


def test_a_body_that_says_it_is_huge_is_refused_unread(port: int) -> None:
    answer = raw(port, head(port, "Content-Length: 10000000000"))  # and not one byte of it
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"more than" in answer


def test_a_body_of_unknown_length_is_read_up_to_the_limit(port: int) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    most = server.MAX_BODY // 0x10000 + 1
    answer = raw(port, head(port, "Transfer-Encoding: chunked") + chunk * most)  # without an end
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00" * 40, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_is_refused(port: int, sent: bytes) -> None:
    assert raw(port, sent).startswith(b"HTTP/1.1 400 ")
    assert read(port, request())[0] == 200


def test_connections_that_break_off_leave_the_server_well(port: int, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        with socket.create_connection((server.HOST, port)) as connection:
            connection.sendall(head(port, "Content-Length: 50000", "Expect: 100-continue"))
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")  # now it waits for the body
            connection.sendall(b"{" * 1000)
    assert read(port, request())[0] == 200
    assert caplog.records == []


def test_parallel_drawings_are_each_read_as_they_are(port: int) -> None:
    digits = [n % 10 for n in range(120)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda digit: read(port, request(digit)), digits))
    assert {status for status, _ in answers} == {200}
    assert [int(np.argmax(answer["probabilities"])) for _, answer in answers] == digits


# The command ----------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on standard error of a command that must end with status 2."""
    with pytest.raises(SystemExit) as end:
        cli.main(["draw", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1)
    return err


def test_only_loopback_listens() -> None:
    with server.listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with server.listen(0) as listener:
        taken = listener.getsockname()[1]
        assert f"port {taken}: Address already in use; --port N takes another" in refused(capsys, "--port", taken)


def test_wrong_arguments_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    assert "--port" in refused(capsys, "--port", 70_000)
    assert "no model at" in refused(capsys, tmp_path, "--port", 0)
    assert "unknown backend" in refused(capsys, "--backend", "cuda", "--port", 0)
    models.build("mlp-512", "numpy").save(tmp_path / "bare.safetensors")
    assert "no normalisation" in refused(capsys, tmp_path / "bare.safetensors", "--port", 0)


def test_without_the_extra_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(draw, "server")
    monkeypatch.delitem(sys.modules, "twinkernels.draw.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'twinkernels[draw]'" in refused(capsys)


def test_interrupted_the_command_ends_with_one_line() -> None:
    command = [sys.executable, "-m", "twinkernels", "draw", "--port", "0"]
    # A shell starts background jobs with SIGINT ignored, which a child inherits unless it is caught here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with child:
        assert child.stdout is not None
        line = child.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:(\d+)/ ", line)
        assert found, line
        page = http.client.HTTPConnection(server.HOST, int(found[1]), timeout=30)
        page.request("GET", "/model")
        assert json.loads(page.getresponse().read())["name"] == "cnn-bn"
        child.send_signal(signal.SIGINT)  # while the page's connection is open
        out, err = child.communicate(timeout=30)
        page.close()
    assert (child.returncode, out, err) == (130, "", "twinkernels: interrupted\n")
