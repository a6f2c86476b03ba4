"""Have results changed, be it by a bit? Digests of what every kernel and every network computes, kept and compared.

`python -m benchmarks.bits FILE` runs every case of the table and 20 training steps of every network of the zoo, in
batches and in one compiled stretch, on each backend, and writes a digest of each result. With `--against OTHER` it
names the results that differ from those in OTHER and exits with status 1 if any does: run it before and after a change
that should change nothing. Bits are those of one machine and of one set of versions; a file says which.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

import kernels
import models

from .suite import cases, common

STEPS = 20
BATCH = 64


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """One number for the names, types, shapes and bits of arrays."""
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(f"{name} {array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:16]


def of_cases(backend: str, only: str = "") -> Iterator[tuple[str, str]]:
    """(name, digest) of every case whose id begins with `only`, in both dtypes; the large ones in float32 alone."""
    k = kernels.get(backend)
    for case in cases.CASES:
        if not case.id.startswith(only):
            continue
        for dtype in ("float32",) if "bench" in case.tags else ("float32", "float64"):
            with np.errstate(all="ignore"):
                yield f"{case.id} {dtype} {backend}", digest(common.record(case, dtype).results(k))


def of_networks(backend: str) -> Iterator[tuple[str, str]]:
    """(name, digest) of every network after training, step by step and by `fit`, and of its logits."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH * STEPS, 28, 28, 1)).astype(np.float32)
    labels = rng.integers(0, 10, len(x))
    for network in models.NETWORKS:
        for how in ("steps", "fit"):
            model = models.build(network, backend, seed=1)
            trainer = models.Trainer(model, models.Adam(1e-3), batch_size=BATCH)
            if how == "fit":
                trainer.fit(x, labels, epochs=1)
            else:
                for i in range(0, len(x), BATCH):
                    trainer.step(x[i : i + BATCH], labels[i : i + BATCH])
            arrays = {**model.parameters(), **model.statistics(), "logits": model.predict(x[:100])}
            yield f"{network} {how} {backend}", digest(arrays)


def environment() -> dict[str, str]:
    """What bits depend on."""
    names = ("numpy", "numba", "llvmlite")
    return {
        "machine": platform.machine(),
        "threads": str(kernels.get_threads()),
        **{name: version(name) for name in names},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="where the digests go, as JSON")
    parser.add_argument("--against", type=Path, help="digests to compare with")
    parser.add_argument("--threads", type=int, help="threads that compute; all cores if left out")
    parser.add_argument("--backend", choices=kernels.names(), action="append", help="of these alone")
    parser.add_argument("--cases", default="", metavar="PREFIX", help="cases whose id begins so, and no network")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        kernels.set_threads(options.threads)
    found: dict[str, str] = {}
    for backend in options.backend or kernels.names():
        found |= of_cases(backend, options.cases)
        if not options.cases:
            found |= of_networks(backend)
    options.file.write_text(json.dumps({"environment": environment(), "digests": found}, indent=1), encoding="utf-8")
    print(f"{len(found):,} results in {options.file}")
    if options.against is None:
        return 0
    before = json.loads(options.against.read_text(encoding="utf-8"))["digests"]
    shared = [name for name in found if name in before]
    changed = [name for name in shared if before[name] != found[name]]
    print(f"{len(changed)} of {len(shared):,} differ from {options.against}", *changed, sep="\n  ")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
