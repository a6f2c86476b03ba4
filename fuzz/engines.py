"""Two ways to make inputs: atheris, led by the code that they reach, and mutations by chance where it is missing.

Both print their statistics as libFuzzer does, on standard error.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import random
import re
import resource
import sys
import time
from pathlib import Path

from .__main__ import CORPUS, LONGEST, MEMORY, TIMEOUT


def atheris(target: str, seconds: int, seed: int, keep: Path, prefix: str) -> None:
    """libFuzzer, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["data", "models", "kernels", "twinkernels"]):
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


def main() -> None:
    """One engine on one target, as `python -m fuzz` starts it."""
    assert __doc__ is not None
    engines = {"atheris": atheris, "plain": plain}
    parser = argparse.ArgumentParser("python -m fuzz.engines", description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=engines)
    parser.add_argument("target")
    parser.add_argument("seconds", type=int)
    parser.add_argument("seed", type=int, help="of the mutations; 0 draws one")
    parser.add_argument("keep", type=Path, help="folder for new inputs that reach new code")
    parser.add_argument("prefix", help="of the files that it writes on the way")
    given = parser.parse_args()
    logging.disable()  # a checkpoint of other versions is worth a line, but not a million
    engines[given.engine](given.target, given.seconds, given.seed, given.keep, given.prefix)


if __name__ == "__main__":
    main()
