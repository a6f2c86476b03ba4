"""Two ways to make inputs: atheris, led by the code that they reach, and mutations by chance where it is missing.

Both print their statistics as libFuzzer does, on standard error. Each target has a process of its own, forked from one
that has loaded our code: to put atheris's counters into it takes seconds.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import logging
import os
import random
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from .__main__ import CORPUS, LONGEST, MEMORY, TIMEOUT


def load(engine: str) -> None:
    """Import our code, with counters in it where the engine is led by them."""
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["data", "models", "kernels", "twinkernels"]):
            from . import targets as targets
    else:
        from . import targets as targets


def atheris(target: str, seconds: int, seed: int, keep: Path, prefix: str) -> None:
    """libFuzzer, which ends the process."""
    import atheris

    from . import targets

    start = Path(f"{prefix}start")
    start.mkdir(exist_ok=True)
    for at, content in enumerate(targets.seeds(target)):
        (start / str(at)).write_bytes(content)
    options = {
        "max_total_time": seconds,
        "seed": seed,
        "timeout": TIMEOUT,
        "rss_limit_mb": MEMORY,
        "max_len": LONGEST,
        "artifact_prefix": prefix,
        "print_final_stats": 1,
    }
    if target in targets.WORDS:
        lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in targets.WORDS[target])
        words = Path(f"{prefix}words")
        words.write_text("".join(lines), encoding="utf-8")
        options["dict"] = words

    def mutate(content: bytes, longest: int, seed: int) -> bytes:
        def anyhow(part: bytes) -> bytes:
            return bytes(atheris.Mutate(part, longest))

        return targets.mutated_inside(target, content, anyhow, random.Random(seed))[:longest]

    folders = [folder for folder in (keep, start, CORPUS / target) if folder.is_dir()]
    atheris.Setup(
        [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), *map(str, folders)],
        lambda content: targets.answer(target, content) and None,
        custom_mutator=mutate,
    )
    atheris.Fuzz()


def plain(target: str, seconds: int, seed: int, keep: Path, prefix: str) -> None:
    """Mutations of what is known, which grows by each input that is refused in words not seen before."""
    from . import targets

    chance = random.Random(seed or None)
    known = [*targets.seeds(target), *(path.read_bytes() for path in sorted((CORPUS / target).glob("*")))]
    words = targets.WORDS.get(target, [])
    seen: set[str] = set()

    def mutate(content: bytes) -> bytes:
        return mutated(content, known, words, chance)

    count, watched, end = 0, 0.0, time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        if now > watched + 1:  # not at every input: that would take longer than the fastest of them
            faulthandler.dump_traceback_later(TIMEOUT + 1, exit=True)
            watched = now
        content = targets.mutated_inside(target, chance.choice(known), mutate, chance)
        try:
            answer = targets.answer(target, content)
        except BaseException:
            Path(f"{prefix}crash").write_bytes(content)
            raise
        count += 1
        answer = re.sub(r"\d+", "0", answer)[:80]
        if answer not in seen and len(seen) < 1000:
            seen.add(answer)
            known.append(content)
            (keep / f"{len(seen):04}").write_bytes(content)
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    print(f"stat::number_of_executed_units: {count}", file=sys.stderr)
    print(f"stat::peak_rss_mb: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // scale}", file=sys.stderr)


def mutated(content: bytes, others: list[bytes], words: list[bytes], chance: random.Random) -> bytes:
    """The content after one to eight changes."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(changed) + 1)
        to = min(len(changed), at + chance.choice((1, 2, 4, 8, 64)))
        match chance.randrange(7):
            case 0 if at < to:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at:to] = chance.randbytes(to - at)
            case 2:
                changed[at:to] = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"9")) * (to - at)
            case 3:
                del changed[at : chance.choice((to, len(changed)))]
            case 4:
                changed[at:at] = changed[at:to] * chance.choice((1, 2, 50))
            case 5:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                changed[at:] = other[start:]
            case _:
                changed[at:to] = chance.choice(words or [b"\0\0\0\0"])
    return bytes(changed[:LONGEST])


ENGINES = {"atheris": atheris, "plain": plain}
GRACE = 120  # seconds to begin and to end, on a machine that does more than this


def apart(function: Callable[[], object], said: Path, seconds: float) -> int:
    """Call it in a process forked from this one, which prints into this file; its exit status, or minus the signal that
    ended it. What has not ended after so many seconds is killed."""

    def child() -> NoReturn:
        status = 1
        try:
            file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(file, stream)
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    if (forked := os.fork()) == 0:
        child()
    end, ended = time.monotonic() + seconds, (0, 0)
    while ended[0] == 0:
        if time.monotonic() > end:
            os.kill(forked, signal.SIGKILL)
        time.sleep(0.02)
        ended = os.waitpid(forked, os.WNOHANG)
    return os.waitstatus_to_exitcode(ended[1])


def main() -> None:
    """One engine on some targets, as `python -m fuzz` starts it: prints each with its exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m fuzz.engines", description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("seconds", type=int, help="for each target")
    parser.add_argument("seed", type=int, help="of the mutations; 0 draws one")
    parser.add_argument("keep", type=Path, help="folder for new inputs that reach new code, one folder a target")
    parser.add_argument("found", type=Path, help="folder for what it writes, in TARGET.txt what a target says")
    parser.add_argument("targets", nargs="+", metavar="target")
    given = parser.parse_args()
    logging.disable()  # a checkpoint of other versions is worth a line, but not a million
    load(given.engine)
    for target in given.targets:
        keep, prefix = given.keep / target, str(given.found / f"{target}-")
        keep.mkdir(parents=True, exist_ok=True)
        fuzz = functools.partial(ENGINES[given.engine], target, given.seconds, given.seed, keep, prefix)
        print(target, apart(fuzz, given.found / f"{target}.txt", given.seconds + GRACE), flush=True)


if __name__ == "__main__":
    main()
