"""What `twinkernels bench` does."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import kernels
from data.files import write_atomically

from .. import plots, terminal
from . import gate, measure, report
from .declare import Case, FileError


def show(
    file: Path,
    cases: Sequence[Case],
    rounds: int,
    seconds: float,
    seed: int,
    json_file: Path | None,
    picture: Path | None,
    against: str | None,
) -> bool:
    """Time, print, keep and draw; whether nothing is wrong, or slower than what it is held against."""
    before = report.kept(Path(against)) if against and Path(against).is_file() else None
    found = measure.Bench(measure.machine())
    with contextlib.ExitStack() as stack:
        older = None
        if against and before is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            older = stack.enter_context(measure.elsewhere(measure.at_revision(file, against, folder), folder))
        shown = stack.enter_context(terminal.bar())
        task = shown.add_task("timing", total=len(cases))

        def tell(text: str, done: int, total: int) -> None:
            shown.update(task, description=f"timing {text}", completed=done, total=total, refresh=True)

        lines = measure.bench(cases, rounds=rounds, seconds=seconds, seed=seed, older=older, tell=tell)
        found.lines += lines
    headings, rows = report.rows(found.lines)
    terminal.say(f"{found.machine['kind']}; speed-ups are over the definition, of pairs, with their intervals")
    terminal.print_table(headings, rows, right=[heading for heading in headings if heading not in headings[:2]])
    if json_file is not None:
        write_atomically(json_file, (json.dumps(found.json(), indent=1) + "\n").encode())
        terminal.say(f"figures in {json_file}")
    if picture is not None:
        content = io.BytesIO()
        figure = plots.contestants(found.lines, measure.machine_limits("float32"))
        figure.savefig(content, dpi=150, format=picture.suffix[1:] or None)
        write_atomically(picture, content.getvalue())
        terminal.say(f"picture in {picture}")
    complaints = report.complaints(found.lines, before)
    for line in complaints:
        terminal.say(f"FAILED {line}")
    return not complaints


def race(file: Path, cases: Sequence[Case], rounds: int, record: bool, calibrate: int | None) -> bool:
    """Race every twin against its floor, or itself; whether all holds."""
    path, kind = measure.floors_of(file), measure.machine()["kind"]
    floors = gate.read_floors(path) if path.exists() else {}
    known = {} if record or calibrate else floors.get(kind, floors.get("any", {}))
    unknown = 0.0 if record else gate.CONSERVATIVE
    ids, one = measure.races(cases, known, rounds, unknown, against_itself=calibrate is not None)
    if not ids:
        raise FileError(f"{file} has no twin that can be run here")
    terminal.say(f"{kind}; {len(ids)} twins, {rounds} pairs each, on {kernels.get_threads()} threads")
    if calibrate is not None:
        return gate.calibrate(ids, one, calibrate, terminal.say) <= gate.FALSE_ALARMS
    if not record and not known:
        terminal.say(
            f"no floors for this kind of CPU in {path.name}: {gate.CONSERVATIVE:g} for all; --record keeps some"
        )
    verdict = gate.gate(ids, one, lambda line: terminal.say_lines(str(line)))
    if record:
        wrong = [outcome for outcome in verdict.outcomes if not outcome.share <= 1.0]
        gate.record_floors([outcome for outcome in verdict.outcomes if outcome not in wrong], kind, path, digits=3)
        terminal.say(f"floors in {path}")
        return not wrong
    return verdict.passed
