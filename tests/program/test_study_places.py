"""Studies on a server and in a journal: each trial once, whoever is killed."""

# ruff: noqa: E402  # what may be missing is looked for first
from __future__ import annotations

import gc
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", reason="a study needs the extra study")
pytest.importorskip("matplotlib", reason="pictures need the extra plots")

from twinkernels.study import places, trials
from twinkernels.study.factors import FACTORS
from twinkernels.study.storage import NAME, Storage

from ..support import mariadb, postgres
from ..support.processes import BRIEF
from .test_study import PROGRAM, ROOT, SMALL

SERVERS = [
    pytest.param(module, id=name, marks=pytest.mark.skipif(bool(module.missing()), reason=module.missing()))
    for name, module in (("postgresql", postgres), ("mysql", mariadb))
]


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    with request.param.serving() as started:
        yield started


def driven(url: str) -> str:
    """A server's URL with the driver that it is spoken to by."""
    kind, rest = url.split("://")
    return f"{kind}+{places.DRIVERS[kind]}://{rest}"


def begin(storage: str, work: str = "pass", seeds: int = 2, before: str = "") -> Any:
    program = before + PROGRAM.format(work=work, storage=storage, options=SMALL | {"seeds": seeds})
    return subprocess.Popen([sys.executable, "-c", BRIEF + program], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def states(storage: Any) -> Counter[tuple[str, str]]:
    """How many trials Optuna itself reads there, by key and state."""
    kept = optuna.load_study(study_name=NAME, storage=storage).trials
    return Counter((trial.user_attrs["key"], trial.state.name) for trial in kept)


def wanted(seeds: int) -> dict[str, Any]:
    return {trial.key(1): trial for trial in trials.trials((FACTORS["smoothing"],), seeds)}


@pytest.mark.parametrize("seeds", [3, pytest.param(14, marks=pytest.mark.slow)])
def test_four_workers_of_whom_two_are_killed_do_each_trial_once(server: Any, seeds: int) -> None:
    """45 trials; the slow one has 210."""
    rng = random.Random(0)
    workers = [begin(server.url, "time.sleep(0.02)", seeds) for _ in range(4)]
    for worker in workers[:2]:
        for _ in range(rng.randint(2, 3 * seeds)):
            worker.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        worker.kill()
        worker.communicate(timeout=60)
    for worker in workers[2:]:
        out, _ = worker.communicate(timeout=300)
        assert out.splitlines()[-1] == f"{len(wanted(seeds))} done"
    storage = optuna.storages.RDBStorage(driven(server.url))
    found = states(storage)
    storage.engine.dispose()
    assert {key: n for (key, state), n in found.items() if state == "COMPLETE"} == dict.fromkeys(wanted(seeds), 1)
    assert sum(n for (_, state), n in found.items() if state == "FAIL") <= 2
    assert {state for _, state in found} <= {"COMPLETE", "FAIL"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_was_away_and_one_that_is_gone(kind: Any) -> None:
    """A worker's connections, and its lock, end with the server; its trial is another's, or goes on.

    PyMySQL leaves a socket open where nobody listens.
    """
    with kind.serving() as started:
        kept = Storage(places.place(started.url), {"backend": "numpy"}, lambda options: None)
        taken = kept.take(wanted(2))
        started.stop()
        named = re.escape(driven(started.url).partition("?")[0])
        with pytest.raises(OSError, match=f"{named}.*: the study cannot be kept"):
            kept.outcomes(wanted(2))
        started.start()
        other = Storage(places.place(started.url), {"backend": "numpy"}, lambda options: None)
        again = other.take(wanted(2))
        assert taken is not None
        assert again is not None
        assert again[1] == taken[1]
        kept.tell(taken[0], trials.Outcome(0.1))  # too late
        other.tell(again[0], trials.Outcome(0.9))
        third = kept.take(wanted(2))
        assert third is not None
        assert third[1] != taken[1]
        assert other.take(wanted(2)) not in (None, third)  # the first is known to be alive again
        assert list(kept.outcomes(wanted(2)).values()) == [trials.Outcome(0.9)]
        kept.close()
        other.close()
    gc.collect()


@pytest.mark.skipif(bool(mariadb.missing()), reason=mariadb.missing())
def test_whose_machine_is_gone_counts_as_dead_on_mysql(monkeypatch: pytest.MonkeyPatch) -> None:
    """MySQL does not ask whether a machine is there: who says nothing for a while has no lock any more."""
    monkeypatch.setattr(places, "GRACE", 2.0)
    with mariadb.serving() as started:
        monkeypatch.setattr(places, "BEAT", 0.2)
        speaking = Storage(places.place(started.url), {"backend": "numpy"}, lambda options: None)
        place = places.place(started.url)
        silent = Storage(place, {"backend": "numpy"}, lambda options: None)
        place._ended.set()  # type: ignore[attr-defined]
        first, second = speaking.take(wanted(2)), silent.take(wanted(2))
        assert first is not None
        assert second is not None
        time.sleep(4)
        other = Storage(places.place(started.url), {"backend": "numpy"}, lambda options: None)
        third = other.take(wanted(2))
        assert third is not None
        assert third[1] == second[1]
        silent.tell(second[0], trials.Outcome(0.1))
        speaking.tell(first[0], trials.Outcome(0.5))
        assert list(other.outcomes(wanted(2))) == [first[1]]
        for each in (speaking, silent, other):
            each.close()


def test_a_journal_is_shared(tmp_path: Path) -> None:
    url = f"journal://{tmp_path}/study.journal"
    workers = [begin(url) for _ in range(2)]
    done = [worker.communicate(timeout=120)[0].splitlines() for worker in workers]
    assert [lines.pop() for lines in done] == ["30 done"] * 2
    assert sorted(done[0] + done[1]) == sorted(map(str, wanted(2).values()))
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]


def test_who_no_longer_touches_its_file_counts_as_dead(tmp_path: Path) -> None:
    """And finds, where it comes back, that another has done its trial."""
    url = f"journal://{tmp_path}/study.journal"
    quick = "from twinkernels.study import places; places.BEAT, places.GRACE = 0.05, 1.0\n"
    stopped = begin(url, "time.sleep(3)", before=quick)
    lost = stopped.stdout.readline().strip()
    stopped.send_signal(signal.SIGSTOP)
    other = begin(url, before=quick)
    out, _ = other.communicate(timeout=120)
    assert lost in out.splitlines()
    stopped.send_signal(signal.SIGCONT)
    assert stopped.communicate(timeout=120)[0].splitlines() == ["30 done"]
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    found = states(optuna.storages.JournalStorage(backend))
    assert {key: n for (key, state), n in found.items() if state == "COMPLETE"} == dict.fromkeys(wanted(2), 1)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "oracle://x",
            "--storage oracle://... is not known; expected a file, or one of postgresql://, mysql://, journal://",
        ),
        ("postgresql+nothing://x/y", "--storage is no URL of a database (Can't load plugin"),
        ("postgresql://x:port/y", "--storage is no URL of a database ("),
    ],
)
def test_what_leads_nowhere_is_refused(url: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the words follow
        places.place(url)
    assert words in str(caught.value)


def test_no_password_is_shown() -> None:
    pytest.importorskip("psycopg", reason="a driver of PostgreSQL's is not here")
    found = places.place("postgresql://me:secret@127.0.0.1:1/studies")
    assert found.name == "postgresql+psycopg://me:***@127.0.0.1:1/studies"
    with pytest.raises(OSError, match=r"me:\*\*\*@127.0.0.1:1/studies: the study cannot be kept") as caught:
        Storage(found, {}, lambda options: None)
    assert "secret" not in str(caught.value)
