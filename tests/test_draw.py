"""The draw page's server: drawings read over HTTP, and what it refuses."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from processes import stopped

import data
import kernels
import models
from models import cli, draw
from models.draw import SHIPPED, Reader, server

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
