"""The page's server: on loopback alone, for its own page alone.

    GET  /        the page
    GET  /model   the network's name, layers, size and where it comes from
    POST /read    {"width": W, "height": H, "ink": base64 of H x W bytes, 255 on 0}
                  -> {"image", "probabilities", "responses", "seconds"}

What is refused is answered {"error": why}. Another page that is open in the same browser could send requests here,
and, by pointing a name of its own at 127.0.0.1, even read the answers; so a request has to name this host and port,
and to come from this origin if it says where it comes from. Who says it twice is refused.
"""

from __future__ import annotations

import base64
import json
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from safetensors import safe_open
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import kernels

from ..runs import model_name
from .reader import Reader

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
MAX_SIDE = 512  # pixels of a drawing
MAX_BODY = 4 * MAX_SIDE**2 // 3 + 1024  # bytes; base64 makes four of three
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def listen(port: int) -> socket.socket:
    """A socket that listens on loopback; port 0 takes any that is free. Raises OSError with one clear sentence."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)  # strerror itself would name the port again
        raise OSError(f"draw: port {port}: {reason}; --port N takes another, --port 0 any that is free") from None


def build(reader: Reader, listener: socket.socket, about: dict[str, Any]) -> uvicorn.Server:
    """The server, whose `run(sockets=[listener])` answers until it is interrupted."""
    config = uvicorn.Config(
        application(reader, listener.getsockname()[1], about),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def describe(path: Path, reader: Reader) -> dict[str, Any]:
    """What the page says about the model in a file: `about` is the sentence in its metadata, if it has one."""
    with safe_open(path, framework="numpy") as file:
        about = (file.metadata() or {}).get("about", "")
    model, sample = reader.model, reader.read(np.full((1, 1), 255, np.uint8))
    return {
        "name": model_name(path),
        "about": about,
        "parameters": sum(array.size for array in model.parameters().values()),
        "layers": [str(node.layer) for node in model.nodes],
        "front": [str(node.layer) for node in reader.front.nodes],
        "image": sample.image.shape,
        "classes": len(sample.probabilities),
        "responses": sample.responses.shape,
        "backends": list(sample.seconds),
        "threads": kernels.get_threads(),
    }


def application(reader: Reader, port: int, about: dict[str, Any]) -> Starlette:
    """The page and what it asks, served at the given port of loopback."""

    async def model(request: Request) -> JSONResponse:
        return JSONResponse(about)

    # Not in a thread: one drawing is read at a time, so that none is timed while others compute.
    async def read(request: Request) -> JSONResponse:
        if [kind.partition(";")[0] for kind in request.headers.getlist("content-type")] != ["application/json"]:
            raise HTTPException(415, "the body is not application/json")
        body = await _body(request)
        try:
            reading = reader.read(_ink(body))
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        maps = np.rint(255 * reading.responses).astype(np.uint8)
        return JSONResponse(
            {
                "image": _text(reading.image),
                "probabilities": [round(float(share), 6) for share in reading.probabilities],
                "responses": _text(maps),
                "seconds": reading.seconds,
            }
        )

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        # What is left of a body that is too large is not waited for.
        headers = {"connection": "close"} if error.status_code == 413 else {}
        return JSONResponse({"error": error.detail}, error.status_code, headers)

    return Starlette(
        routes=[
            Route("/model", model),
            Route("/read", read, methods=["POST"]),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(_OwnPageOnly, port=port)],
        exception_handlers={HTTPException: refuse},
    )


class _OwnPageOnly:
    """Refuses requests for another host or from another origin, and sends HEADERS with every answer."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        if port == 80:
            self._hosts |= {HOST, "localhost"}  # browsers leave the default port out
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        answer: ASGIApp = self._app
        hosts, origins = headers.getlist("host"), headers.getlist("origin")  # all of them: only one is let in
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            answer = JSONResponse({"error": "another host than this server"}, 403)
        elif len(origins) > 1 or not self._origins.issuperset(origins):
            answer = JSONResponse({"error": "another origin than this server's page"}, 403)
        await answer(scope, receive, guarded)


async def _body(request: Request) -> bytes:
    """The body, of which no more than MAX_BODY bytes are ever read."""
    body = bytearray()
    too_large = HTTPException(413, f"the body has more than {MAX_BODY} bytes")
    if int(request.headers.get("content-length", 0)) > MAX_BODY:
        raise too_large
    try:
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                raise too_large
    except ClientDisconnect:
        raise HTTPException(400, "the body ended early") from None
    return bytes(body)


def _ink(body: bytes) -> np.ndarray:
    """The drawing (H, W) uint8 in a request's body; ValueError for anything else."""
    try:
        drawing = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is no JSON") from None
    if not isinstance(drawing, dict) or drawing.keys() != {"width", "height", "ink"}:
        raise ValueError("the body is not {width, height, ink}")
    for name in ("width", "height"):
        if type(drawing[name]) is not int or not 1 <= drawing[name] <= MAX_SIDE:
            raise ValueError(f"{name} is no integer from 1 to {MAX_SIDE}")
    try:
        ink = base64.b64decode(drawing["ink"], validate=True)
    except (TypeError, ValueError):
        raise ValueError("ink is no base64") from None
    height, width = drawing["height"], drawing["width"]
    if len(ink) != height * width:
        raise ValueError(f"ink has {len(ink)} bytes, expected {height} x {width} = {height * width}")
    return np.frombuffer(ink, np.uint8).reshape(height, width)


def _text(pixels: np.ndarray) -> str:
    return base64.b64encode(pixels.tobytes()).decode("ascii")
