"""What a user waits for before the first step, and the memory that a step takes."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys

import numpy as np

import kernels
import models

from .bench_kernels import BACKENDS, ready

_EMPTY_CACHE = """
import os, tempfile
folder = tempfile.TemporaryDirectory()
os.environ["NUMBA_CACHE_DIR"] = folder.name
"""
_MODULES = {
    "kernels": "import kernels",
    "models": "import models",
    "data": "import data",
    "numba backend": "import kernels; kernels.get('numba')",
}


def _first_step(network: str) -> str:
    return f"""
import numpy as np
import models
model = models.build("{network}", "numba")
trainer = models.Trainer(model, models.Adam(1e-3), batch_size=8)
trainer.step(np.zeros((8, 28, 28, 1), np.float32), np.zeros(8, np.int64))
"""


class Import:
    """Time of an import in a fresh interpreter."""

    params = (list(_MODULES),)
    param_names = ("what",)
    version = "1"
    number = 1
    timeout = 300

    def timeraw_import(self, what: str) -> str:
        return _MODULES[what]


class Compile:
    """Time from the first import to the end of the first step, compiled anew or taken from the cache."""

    params = (["mlp-512", "cnn-bn"],)
    param_names = ("network",)
    version = "1"
    number = 1
    repeat = 1
    warmup_time = 0
    timeout = 600

    def setup(self, network: str) -> None:
        ready("numba")

    def timeraw_first_step_cold(self, network: str) -> tuple[str, str]:
        return _first_step(network), _EMPTY_CACHE


class Cached(Compile):
    """The same with every kernel in the cache."""

    repeat = 3

    def setup(self, network: str) -> None:
        ready("numba")
        # In a process of its own: this one would be bound to a core by it, and with it those that are timed.
        subprocess.run([sys.executable, "-c", _first_step(network)], check=True)

    def timeraw_first_step_warm(self, network: str) -> str:
        return _first_step(network)

    timeraw_first_step_cold = None  # type: ignore[assignment]


class Compiled:
    """What is measured with every kernel in the cache: a compiler's memory is none of a kernel's.

    asv runs each measurement in a process of its own, and `setup_cache` in another, once a commit and class.
    """

    params: tuple[list[str], ...]
    timeout = 300

    def setup(self, *params: str) -> None:
        ready(params[0])

    def compile(self) -> None:
        """Call everything that is measured."""
        for params in itertools.product(*self.params):
            with contextlib.suppress(NotImplementedError):  # a backend that cannot be loaded here
                self.setup(*params)
                for name in dir(self):
                    if name.startswith("peakmem_"):
                        getattr(self, name)(*params)


class Memory(Compiled):
    """Peak memory of a training step; meaningful as a difference, since imports and LLVM are in it."""

    params = (BACKENDS, ["mlp-512", "cnn-bn"], ["128"])
    param_names = ("backend", "network", "batch")
    version = "2"

    def setup_cache(self) -> None:
        self.compile()

    setup_cache.timeout = 900  # type: ignore[attr-defined]

    def peakmem_training_step(self, backend: str, network: str, batch: str) -> None:
        trainer = models.Trainer(models.build(network, backend), models.Adam(1e-3), batch_size=int(batch))
        trainer.step(np.zeros((int(batch), 28, 28, 1), np.float32), np.zeros(int(batch), np.int64))


class KernelMemory(Compiled):
    """Peak memory of a convolution's backward, the kernel whose scratch is the largest."""

    params = (BACKENDS,)
    param_names = ("backend",)
    version = "2"

    def setup_cache(self) -> None:  # asv tells setups by their place in the file: each class has its own
        self.compile()

    setup_cache.timeout = 900  # type: ignore[attr-defined]

    def peakmem_conv2d_backward(self, backend: str) -> None:
        x, w = np.ones((128, 12, 12, 16), np.float32), np.ones((5, 5, 16, 32), np.float32)
        kernels.get(backend).conv2d_backward(np.ones((128, 8, 8, 32), np.float32), x, w)
