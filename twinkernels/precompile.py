"""Kernels compiled before anybody waits for them: into this machine's cache, or as a pack that a wheel brings along.

What a recipe or a model calls is found by going through all of it with the calls noted instead of carried out, so that
it takes no time but the compiler's, and works for processors that this machine is not.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import kernels
from models.graph import Graph
from models.trainer import Trainer
from models.zoo import build

from .recipes import RECIPES, Recipe

BATCHES = (1, 64, 512)
"""Batches of images that a model is asked about: one, some, and as many as `evaluate` takes at once."""


def compile_recipes(recipes: Iterable[Recipe], dtypes: Iterable[str] = ("float32",)) -> None:
    """Have everything compiled that training by these recipes calls, and reading with what comes of it.

    `kernels.compiling.on_compile` tells what is compiled, and how much is left.
    """
    from kernels.numba_backend.compiler.ahead import compile_for

    chosen = list(recipes)

    def train() -> None:
        for recipe in chosen:
            for dtype in dtypes:
                train_briefly(recipe, dtype)

    compile_for(train)


def compile_models(models: Iterable[Graph]) -> None:
    """Have everything compiled that reading with these models calls; see `compile_recipes`."""
    from kernels.numba_backend.compiler.ahead import compile_for

    def read() -> None:
        for model in models:
            _read(model)

    compile_for(read)


def train_briefly(recipe: Recipe, dtype: str) -> None:
    """Two whole batches and a smaller one, on images without content; then the model reads."""
    model = build(recipe.network, "numba", dtype=dtype)
    n = 2 * recipe.batch_size + recipe.batch_size // 2
    x, y = np.zeros((n, *model.input_shape), np.uint8), np.zeros(n, np.int64)
    x[::2] = 255  # a deviation that images can be divided by
    with np.errstate(all="ignore"):
        trainer = Trainer(model, recipe.optimizer, recipe.loss, recipe.batch_size, on_nonfinite="ignore")
        trainer.fit(x, y, epochs=1, validation=(x, y), augment=recipe.augment)
    _read(model)


def _read(model: Graph) -> None:
    dtype = model.dtype if model.normalisation is None else np.uint8
    for n in BATCHES:
        model.predict(np.zeros((n, *model.input_shape), dtype))


# Packs -----------------------------------------------------------------------------------------------------------


def write_pack(level: str, folder: Path) -> int:
    """Compile all recipes, in both dtypes, for processors of this level; returns the number of files in `folder/level`.

    To be called before this process has loaded Numba, which is told once what to compile for.

    level: a name of `kernels.numba_backend.compiler.cache.LEVELS`. Raises ValueError for another one, and for a folder
    that has such a pack already.
    """
    target = folder / level
    if target.exists():
        raise ValueError(f"{target} exists already")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        os.environ |= {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": made}
        kernels.get("numba")
        from kernels.numba_backend.compiler import cache

        if level not in (known := [name for levels in cache.LEVELS.values() for name in levels]):
            raise ValueError(f"level is {level!r}, expected one of {', '.join(known)}")
        compile_recipes(RECIPES.values(), ("float32", "float64"))
        files = sorted(Path(cache.DIRECTORY).glob("*.nbc"))
        staged = Path(made) / level
        staged.mkdir()
        for file in files:
            shutil.move(file, staged / file.name)
        staged.rename(target)
    return len(files)
