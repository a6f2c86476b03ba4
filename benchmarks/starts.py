"""What a fresh process waits for: from its start to the end of a network's first training step, beside other checkouts.

`python -m benchmarks.starts [CHECKOUT...]` starts processes of this checkout and of others in turn, each with a home of
its own: with an empty cache (cold), again with a full one (warm), and for the imports alone. `--by-function` says
instead what the cold start of this checkout consists of: seconds of the processor by function and by pass.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from models.plan import table

ROOT = Path(__file__).parents[1]

IMPORTS = "import kernels, data, models"

_STEP = """
import numpy as np
import models
model = models.build("{network}", "numba")
trainer = models.Trainer(model, models.Adam(1e-3), batch_size=128)
with np.errstate(all="ignore"):
    trainer.step(np.zeros((128, 28, 28, 1), np.float32), np.zeros(128, np.int64))
"""
_LAST_WORDS = "\nimport time; print(time.time(), flush=True); import os; os._exit(0)"


def seconds(checkout: Path, program: str, home: Path) -> tuple[float, float]:
    """From the start of a process to the end of a program: on the clock, and of processors, those of helpers too."""
    places = {"PYTHONPATH": str(checkout), "HOME": str(home), "NUMBA_CACHE_DIR": str(home / "cache")}
    environment = os.environ | places | {"TWINKERNELS_VERBOSE": "0"}
    command = [sys.executable, "-c", program + _LAST_WORDS]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(done.stdout.split()[-1]) - began, spent


def side_by_side(checkouts: Sequence[Path], networks: Sequence[str], rounds: int) -> str:
    """A table by checkout: medians and ranges on the clock, and medians of processors' time, which other programs on
    the machine hardly change. Each start is told on stderr as well."""
    found: dict[tuple[str, Path], list[tuple[float, float]]] = {}

    def measure(title: str, checkout: Path, program: str, home: str) -> None:
        taken = seconds(checkout, program, Path(home))
        print(f"{title}, {checkout}: {taken[0]:.2f} s, {taken[1]:.2f} of processors", file=sys.stderr, flush=True)
        found.setdefault((title, checkout), []).append(taken)

    for _ in range(rounds):
        for network in networks:
            for checkout in checkouts:
                with tempfile.TemporaryDirectory() as home:
                    for title in (f"{network}, cold", f"{network}, warm"):
                        measure(title, checkout, _STEP.format(network=network), home)
        for checkout in checkouts:
            with tempfile.TemporaryDirectory() as home:
                measure(IMPORTS, checkout, IMPORTS, home)
    rows = [("seconds, of processors", *map(str, checkouts))]
    for title in dict.fromkeys(title for title, _ in found):
        row = [title]
        for checkout in checkouts:
            walls, spent = zip(*found[title, checkout], strict=True)
            row.append(f"{median(walls):.2f} ({min(walls):.2f} to {max(walls):.2f}), {median(spent):.2f}")
        rows.append(tuple(row))
    return table(rows, right=tuple(range(1, 1 + len(checkouts))))


# By function and pass ---------------------------------------------------------------------------------------------


class _Clock:
    """Seconds of this process by function and phase; a phase's are less those of phases within it."""

    def __init__(self) -> None:
        self.function = ""
        self.spent: dict[str, Any] = {}  # Counters: of floats, which their type does not know
        self._within = [0.0]

    def phase(self, name: str, call: Callable[[], Any]) -> Any:
        began = time.process_time()
        self._within.append(0.0)
        try:
            return call()
        finally:
            whole = time.process_time() - began
            self.spent.setdefault(self.function, Counter())[name] += whole - self._within.pop()
            self._within[-1] += whole

    def watch(self, owner: Any, method: str, name: str | Callable[..., str]) -> None:
        """Count calls of a method as a phase."""
        original = getattr(owner, method)

        def watched(*args: Any, **keywords: Any) -> Any:
            title = name if isinstance(name, str) else name(*args)
            return self.phase(title, lambda: original(*args, **keywords))

        setattr(owner, method, watched)


def by_function(network: str) -> str:
    """What compiling a network's first step takes, in this process alone, and without a cache."""
    import numpy as np
    from llvmlite.binding import newpassmanagers
    from numba.core import codegen, compiler_machinery

    import kernels
    import models

    kernels.get("numba")
    from kernels.numba_backend.compiler import ahead, cache, jit, passes

    clock = _Clock()
    manager = newpassmanagers.NewPassManager

    def optimisation(self: Any, *_: Any) -> str:
        return "LLVM: module" if isinstance(self, newpassmanagers.ModulePassManager) else "LLVM: functions"

    for machinery in (compiler_machinery.PassManager, passes._Passes):
        clock.watch(machinery, "_runPass", lambda _manager, _index, each, _state: type(each).__name__.lstrip("_"))
    clock.watch(manager, "run", optimisation)
    clock.watch(codegen.JITCodeLibrary, "_finalize_specific", "LLVM: machine code")
    clock.watch(codegen.CPUCodeLibrary, "add_ir_module", "IR as text, and read")
    clock.watch(cache.Cache, "save_overload", "kept on disk")

    def from_no_file(*_: Any) -> None:
        """As with an empty cache."""

    cache.Cache.load_overload = from_no_file  # type: ignore[assignment, method-assign]

    model = models.build(network, "numba")
    jobs: dict[Any, Any] = {}
    with jit.recording() as calls, np.errstate(all="ignore"):
        trainer = models.Trainer(model, models.Adam(1e-3), batch_size=128)
        trainer.step(np.zeros((128, *model.input_shape), np.float32), np.zeros(128, np.int64))
    for kernel, _, arguments in calls:
        ahead._note(ahead._Job(kernel.__module__, kernel.__qualname__, kernel.types(arguments)), jobs)
    for job in jobs:
        clock.function = str(job)
        clock.phase("the rest", job.do)
    totals: Counter[str] = Counter()
    for phases in clock.spent.values():
        totals.update(phases)
    lines = [(name, f"{taken:.2f}") for name, taken in totals.most_common()]
    ranked = sorted(clock.spent.items(), key=lambda item: -item[1].total())
    most = [phase for phase, _ in totals.most_common(6)]
    longest = [
        (name, *(f"{seconds_:.2f}" for seconds_ in (of.total(), *(of[phase] for phase in most)))) for name, of in ranked
    ]
    head = ("function", "s", *most)
    whole = f"{network}: {len(jobs)} functions, {totals.total():.1f} s of one processor"
    return "\n\n".join(
        [whole, table([("phase", "s"), *lines], right=(1,)), table([head, *longest], right=tuple(range(1, 8)))]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", type=Path, nargs="*", help="other checkouts, or worktrees of other commits")
    parser.add_argument("--network", action="append", help="cnn-bn and mlp-512 if left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--by-function", action="store_true")
    options = parser.parse_args(arguments)
    networks = options.network or ["cnn-bn", "mlp-512"]
    if options.by_function:
        print(by_function(networks[0]))
    else:
        print(side_by_side([ROOT, *(path.resolve() for path in options.checkouts)], networks, options.rounds))


if __name__ == "__main__":
    main()
