"""How many variants of a kernel are ever compiled: one a dtype, whatever the sizes and whatever is left out."""

from __future__ import annotations

from pathlib import Path

from ..support.processes import forked, run

PROGRAM = """
import importlib, pkgutil
import numpy as np
import kernels
from kernels import numba_backend
from kernels.numba_backend.compiler import jit

k = kernels.get("numba")

def variants():
    "The number of compiled variants by kernel, of all those that were used."
    found = {}
    for module in pkgutil.walk_packages(numba_backend.__path__, numba_backend.__name__ + "."):
        module = importlib.import_module(module.name)
        for value in vars(module).values():
            kernel = value if isinstance(value, jit.CompiledKernel) else getattr(value, "__wrapped__", None)
            if isinstance(kernel, jit.CompiledKernel):
                found[kernel.__qualname__] = len(kernel.dispatcher.signatures)
    return {name: number for name, number in found.items() if number}

def ones(*shape):
    return np.ones(shape, dtype)

def linear(n, units, m, bias=True):
    x, w = ones(n, units), ones(units, m)
    y = k.linear(x, w, ones(m) if bias else None)
    k.linear_backward(y, x, w)

def conv2d(n, h, w, c, size, f, bias=True, groups=1, **window):
    x, weights = ones(n, h, w, c), ones(size, size, c // groups, f)
    y = k.conv2d(x, weights, ones(f) if bias else None, groups=groups, **window)
    k.conv2d_backward(y, x, weights, groups=groups, **window)
"""

SHAPES = f"""
{PROGRAM}
for dtype in (np.float32, np.float64):
    for n, units, m in [(1, 1, 1), (7, 5, 3), (32, 100, 10), (33, 17, 65), (1, 300, 40), (130, 64, 64)]:
        linear(n, units, m)
        linear(n, units, m, bias=False)
    for size in (1, 2, 3, 5, 7):
        for c, f, groups in [(1, 16, 1), (3, 10, 1), (16, 32, 1), (17, 9, 1), (8, 8, 8), (6, 12, 3)]:
            uneven = {{"padding": (2, 0), "dilation": (1, 2), "stride": (1, 3)}}
            for window in ({{}}, {{"stride": 2}}, {{"padding": 1}}, uneven):
                conv2d(2, 14, 16, c, size, f, bias=size > 1, groups=groups, **window)
    conv2d(1, 40, 40, 16, 3, 16)
print(set(variants().values()), sorted(variants()))
"""

ARGUMENTS = f"""
{PROGRAM}
dtype = np.float32
x = ones(6, 4)
for number in (float, np.float32, np.float64, int):
    k.sgd(ones(9), ones(9), None, learning_rate=number(1))
    k.sgd(ones(9), ones(9), ones(9), learning_rate=number(1), momentum=number(0))
    k.leaky_relu(x, number(1))
    k.dropout(x, number(0))
for integer in (int, np.int8, np.int32, np.uint64):
    k.dropout(x, 0.5, integer(1), integer(2))
    k.adam(ones(9), ones(9), ones(9), ones(9), integer(3), 0.1)
for labels in (np.int8, np.uint8, np.int32, np.int64, np.uint64):
    k.softmax_cross_entropy(x, np.zeros(6, labels))
print({{name: number for name, number in variants().items() if number != 1}})
"""

READ_ONLY = f"""
{PROGRAM}
dtype = np.float32
x, w, b = ones(6, 4), ones(4, 5), ones(5)
for array in (x, w, b):
    k.linear(x, w, b)
    k.relu(x)
    array.flags.writeable = False
k.linear(x, w, b)
k.relu(x)
print({{name: number for name, number in variants().items() if number != 1}})
"""


def test_shapes_and_what_is_left_out_add_no_variants() -> None:
    (line,) = forked(SHAPES)[0]
    numbers, names = line.split(" ", 1)
    assert numbers == "{2}", line  # one a dtype
    for kernel in ("linear", "linear_backward", "conv2d", "conv2d_backward"):
        assert f"'{kernel}'" in names


def test_types_of_numbers_add_no_variants() -> None:
    assert forked(ARGUMENTS)[0] == ["{}"]


def test_read_only_arrays_add_no_variants() -> None:
    assert forked(READ_ONLY)[0] == ["{}"]


def test_numpy_alone_never_loads_numba() -> None:
    program = """
import sys
import numpy as np
import kernels, models
from models import SGD, Trainer

kernels.set_threads(1)
k = kernels.get("numpy")
k.conv2d(np.ones((1, 5, 5, 2)), np.ones((3, 3, 2, 4)))
trainer = Trainer(models.build("cnn-bn", "numpy"), SGD(0.1), batch_size=2)
trainer.step(np.ones((2, 28, 28, 1), np.float32), np.zeros(2, np.uint8))
print(sorted(name for name in sys.modules if name.split(".")[0] in ("numba", "llvmlite")))
"""
    assert run(program) == ["[]"]


COLLECTION = f"""
import gc
import numba
{PROGRAM}
from numba.core import event

class Watch(event.Listener):
    seen = set()
    def on_start(self, occurrence):
        self.seen.add(gc.isenabled())
    def on_end(self, occurrence):
        pass

event.register("numba:compile", Watch())
dtype = np.float32
k.relu(ones(3))
print(Watch.seen, gc.isenabled())
try:
    numba.njit(lambda x: x.nothing)(1)
except numba.TypingError:
    print(gc.isenabled())
gc.disable()
k.sigmoid(ones(3))
print(gc.isenabled())
"""


def test_no_garbage_is_looked_for_while_a_kernel_compiles_and_then_as_before(tmp_path: Path) -> None:
    assert forked(COLLECTION, NUMBA_CACHE_DIR=tmp_path)[0] == ["{False} True", "True", "False"]
