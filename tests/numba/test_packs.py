"""Packs: machine code that a package brings along for a level of processors, and what is done where it does not fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from kernels.numba_backend.compiler import ahead, cache, program
from twinkernels import cli, precompile, recipes

from ..support.processes import PRELUDE, run

LEVEL = cache.level()

COMPUTE = """
import numpy as np
import kernels
k = kernels.get("numba")
x = np.arange(-2, 3, dtype=np.float32)
for name in ("relu", "sigmoid", "softplus"):
    print(name, getattr(k, name)(x).tolist())
"""


def test_a_processor_has_the_best_level_whose_features_it_has() -> None:
    v4, v3 = cache.LEVELS["x86_64"].values()
    assert cache.level("x86_64", dict.fromkeys(v4, True)) == "x86-64-v4"
    assert cache.level("x86_64", dict.fromkeys(v4, True) | {"avx512bw": False}) == "x86-64-v3"
    assert cache.level("x86_64", dict.fromkeys(v3[1:], True)) is None
    assert cache.level("aarch64", {}) == "generic"
    assert cache.level("riscv64", {}) is None


def test_code_for_a_processor_that_numba_was_told_of_is_no_level_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.numba.config, "CPU_NAME", "znver1")
    assert cache.level() is None
    monkeypatch.setattr(cache.numba.config, "CPU_NAME", "x86-64-v3")
    monkeypatch.setattr(cache.numba.config, "CPU_FEATURES", "")
    assert cache.level("x86_64") == "x86-64-v3"


@pytest.mark.skipif(
    LEVEL is None, reason="packs are made for AVX2, AVX-512 and aarch64; this processor has none of them"
)
def test_what_a_pack_holds_whole_is_not_compiled_and_what_is_damaged_is(tmp_path: Path) -> None:
    assert LEVEL is not None
    expected = run(COMPUTE, NUMBA_CPU_NAME=LEVEL, NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=tmp_path / "made")
    pack = tmp_path / "packs" / LEVEL
    pack.mkdir(parents=True)
    for file in (tmp_path / "made").rglob("*.nbc"):
        shutil.copy(file, pack)
    (torn,) = pack.glob("*sigmoid*.nbc")
    torn.write_bytes(torn.read_bytes()[:-100])
    (other,) = pack.glob("*softplus*.nbc")
    shutil.copy(next(pack.glob("*relu*.nbc")), other)  # whole, but another's

    elsewhere = f"""
from pathlib import Path
from kernels.numba_backend.compiler import cache
cache.PACKS = Path({str(pack.parent)!r})
"""
    program = f"{PRELUDE}\n{elsewhere}\n{COMPUTE}\nprint(*sorted(compiled))"
    *lines, compiled = run(program, NUMBA_CACHE_DIR=tmp_path / "fresh")
    assert lines == expected
    assert "relu" not in compiled
    assert "sigmoid" in compiled
    assert "softplus" in compiled


def test_what_is_compiled_ahead_is_what_training_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(recipes.get("mlp-512"), epochs=1)
    noted: list[set[Any]] = []
    monkeypatch.setattr(ahead, "compile_ahead", lambda calls: noted.append(set(calls)))
    precompile.compile_recipes([recipe])
    monkeypatch.setattr(program, "compile_ahead", lambda calls: noted.append(set(calls)))
    model = models.build("mlp-512", "numba")
    trainer = models.Trainer(model, recipe.optimizer, batch_size=recipe.batch_size)
    images = np.random.default_rng(0).integers(0, 256, (300, *model.input_shape), np.uint8)
    trainer.fit(images, np.zeros(300, np.int64), epochs=1)
    model.predict(images[:1])
    promised, *called = noted
    assert called
    assert set().union(*called) <= promised


def test_compile_takes_recipes_runs_models_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["compile"], ["compile", "--all", "mlp-512"], ["compile", "--pack", "x86-64-v3"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2
        assert "compile takes" in (error := capsys.readouterr().err) or "belong together" in error
    with pytest.raises(SystemExit) as ended:
        cli.main(["compile", "nosuch"])
    assert ended.value.code == 2
    assert "nosuch" in capsys.readouterr().err
