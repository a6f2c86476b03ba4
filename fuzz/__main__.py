"""The command `python -m fuzz`: every target for some seconds each, in processes of their own.

Exit status 1 if a reader raised anything but its typed error, took longer than TIMEOUT seconds for one input, or held
more than MEMORY. The input that did it lies in the folder that is named then.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
TIMEOUT = 10  # seconds for one input
MEMORY = 512  # MiB, of the whole process
LONGEST = 1 << 14  # bytes of an input

_COUNT = re.compile(r"^stat::number_of_executed_units: +(\d+)$", re.MULTILINE)
_PEAK = re.compile(r"^stat::peak_rss_mb: +(\d+)$", re.MULTILINE)


def main() -> int:
    from .targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz the readers of files.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(TARGETS)}; all if left out")
    parser.add_argument("--seconds", type=int, default=60, help="in all, shared by the targets (60)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0 draws one (0)")
    parser.add_argument("--engine", choices=("atheris", "plain"), help="atheris where it is installed")
    parser.add_argument("--keep", type=Path, help="folder for new inputs that reach new code, one folder a target")
    given = parser.parse_args()
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"unknown target {', '.join(sorted(unknown))}; expected some of {', '.join(TARGETS)}")
    targets = given.targets or list(TARGETS)
    engine = given.engine or ("atheris" if _installed("atheris") else "plain")
    seconds = max(given.seconds // len(targets), 1)
    found = Path(tempfile.mkdtemp(prefix="fuzz-"))
    left, failed, total = set(targets), [], 0
    options = [engine, str(seconds), str(given.seed), str(given.keep or found / "new"), str(found)]
    command = [sys.executable, "-m", "fuzz.engines", *options, *targets]
    begun = found / "engines.txt"
    with (
        begun.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as engines,
    ):
        assert engines.stdout is not None
        for line in engines.stdout:
            target, status = line.split()
            said = (found / f"{target}.txt").read_text(encoding="utf-8", errors="replace")
            count, peak = (int(match[1]) if (match := pattern.search(said)) else 0 for pattern in (_COUNT, _PEAK))
            total += count
            left.discard(target)
            print(f"{target:14} {count:12,} inputs  {peak:4} MiB at most", flush=True)
            if status != "0" or not count or peak > MEMORY:
                failed.append(target)
                print(said[-4000:], file=sys.stderr)
    if left:
        failed += sorted(left)
        print(begun.read_text(encoding="utf-8", errors="replace")[-4000:], file=sys.stderr)
    print(f"{'together':14} {total:12,} inputs with {engine}, {len(failed)} targets failed")
    if failed:
        print(f"failed: {', '.join(failed)}; inputs in {found}", file=sys.stderr)
    return 1 if failed else 0


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


if __name__ == "__main__":
    sys.exit(main())
