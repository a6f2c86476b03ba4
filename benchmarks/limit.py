"""Print the machine's limit: multiply-adds out of registers, and copies through memory.

Run: python -m benchmarks.limit
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import kernels
from kernels.limits import SIZES, bandwidth, peak


def main(arguments: Sequence[str] | None = None) -> None:
    """One line a figure, for one thread up to all."""
    assert __doc__ is not None
    argparse.ArgumentParser("python -m benchmarks.limit", description=__doc__.splitlines()[0]).parse_args(arguments)
    for threads in range(1, kernels.get_threads() + 1):
        for dtype in ("float32", "float64"):
            print(f"{threads} threads  {dtype}  {peak(dtype, threads) / 1e9:7.1f} GFLOP/s")
        for size in SIZES:
            print(f"{threads} threads  copy of {size >> 10:6d} KiB  {bandwidth(size, threads) / 1e9:7.1f} GB/s")


if __name__ == "__main__":
    main()
