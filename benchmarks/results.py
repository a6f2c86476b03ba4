"""What is committed of the comparison with other libraries: figures, charts, RESULTS.md, the README's opening block.

Run: python -m benchmarks.results FILE.json [...]

Each FILE was written by `python -m benchmarks.peers --json FILE`. Where two hold the same case, the later one counts;
all must come from one machine. They are kept, trimmed, as results/peers.json, and charts, RESULTS.md and the README's
block made of it; `python -m benchmarks.pages` makes these again, with all other pages. results/recipes.json (from
`python -m benchmarks.recipes`), results/ranks.json (from `python -m benchmarks.peers.ranks`), results/shares.txt,
rewrites.txt and growth.txt (what `python -m benchmarks.shares` and the like printed) and results/calibration.txt (what
`python -m benchmarks.paired --calibrate 100` printed) become sections of RESULTS.md where they exist.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from . import recipes
from .kept import Run, told, write
from .peers import __main__ as command
from .peers import ranks
from .peers.measure import Result, summarise
from .peers.networks import NETWORKS
from .peers.variants import DISTRIBUTIONS, OURS, REFERENCE
from .text import bullet, digits, number, prose, replace, short, span, table, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent
MARKER = "results"
"""Of the README's block, which stands between <!-- results --> and <!-- /results -->."""
SECTIONS = {
    "recipes.json": (
        "Recipes",
        "Each recipe in full, as `python -m benchmarks.recipes` measured it and held it to its floor.",
    ),
    "ranks.json": (
        "Several processes",
        "A training that two processes share, as `python -m benchmarks.peers.ranks` measured it: processes of their "
        "own, one after the other in turns. A ratio is that of a round; medians, with least and greatest.",
    ),
    "shares.txt": (
        "Share of the limit",
        "How close each kernel comes to what the machine can do, as `python -m benchmarks.shares` prints it.",
    ),
    "rewrites.txt": (
        "What each rewrite brings",
        "Time without a rewrite, and how many times that with all of them, as `python -m benchmarks.rewrites` prints "
        "it. The networks run dense kernels; nothing makes use of zeros in images.",
    ),
    "growth.txt": (
        "Growth",
        "Time and memory of training as one size grows, as `python -m benchmarks.growth` prints it; the law is the "
        "slope of the last half of a curve in logarithms.\n\n![Curves of time and memory](results/growth.png)",
    ),
    "calibration.txt": (
        "False alarms of the paired gate",
        "NumPy against itself, as `python -m benchmarks.paired --calibrate 100` prints it: every failure is false.",
    ),
}
TWIN = "NumPy twin"
ROUNDED = f"{OURS} in bfloat16"
NAMES = {
    "torch": "PyTorch",
    "jax": "JAX",
    "keras": "Keras",
    "sklearn": "scikit-learn",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}
SETTINGS = {
    ("torch", "eager"): "as documented",
    ("torch", "tuned"): "channels_last for convolutions, fused optimizer, malloc keeps its memory",
    ("torch", "compile"): "torch.compile, fused or compiled optimizer, malloc keeps its memory; frozen for inference",
    ("torch", "compile channels_last"): "the same with channels_last",
    ("jax", "jit"): "the whole step in one jit, NHWC, buffers donated, pooling by reshaping",
    ("jax", "jit reduce_window"): "the same, pooling by reduce_window",
    ("keras", "graph"): "TensorFlow backend, train_on_batch and predict_on_batch, jit_compile off",
    ("keras", "jit_compile"): "the same, jit_compile on",
    ("sklearn", "MLPClassifier"): "partial_fit and predict_proba",
    ("onnxruntime", "session"): "all graph optimizations, inference alone",
    ("openvino", "as it comes"): "inference alone, in bfloat16 where the processor multiplies it",
    ("openvino", "float32"): "the same in float32",
}
OPTIMIZERS = {"adam": "Adam", "rmsprop": "RMSProp", "sgd": "SGD"}
TITLES = {"train": "Training", "infer": "Inference"}
ANCHORS = {"train": 128, "infer": 64}
"""The batch sizes that the opening picture and table show, or the nearest measured."""
SUSPICIOUS = 1e-3
"""A deviation from the NumPy backend beyond this is named among the notes."""

RESULT = ("peer", "variant", "status", "reason", "first_step_seconds", "peak_bytes", "deviation", "notes", "versions")
LEFT_OUT = ("python", "json", "install", "limit_seconds")
"""What `trimmed` keeps of a result, and what it leaves out of the options."""

Panel = Callable[["Axes"], None]


class Case(NamedTuple):
    """One network, task and batch size, with everyone's figures and ratios."""

    network: str
    task: str
    batch_size: int
    results: list[Result]

    @property
    def title(self) -> str:
        """As notes name it."""
        return f"{TITLES[self.task].lower()} {self.network}, batch {self.batch_size}"


# ---------------------------------------------------------------------------------------------------------- The figures


def read(path: Path) -> list[Run]:
    """The runs in a file of `benchmarks.peers`, or in one that `write` has made."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [trimmed(run) for run in found.get("runs", [found])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a file of benchmarks.peers: {error!r}") from None


def trimmed(run: Run) -> Run:
    """What tables and charts need, and nothing that tells where on whose machine it was measured."""
    options = {key: value for key, value in run["options"].items() if key not in LEFT_OUT}
    cases = [
        {key: case[key] for key in ("network", "task", "batch_size")}
        | {"results": [trimmed_result(result) for result in case["results"]]}
        for case in run["cases"]
    ]
    return {
        "machine": told(run["machine"]),
        "options": options,
        "installed_bytes": run["installed_bytes"],
        "cases": cases,
    }


def trimmed_result(result: dict[str, Any]) -> dict[str, Any]:
    """What cannot be computed again from the rest."""
    entry = {key: result[key] for key in RESULT if result.get(key)}
    entry["rounds"] = [{key: digits(turn[key]) for key in ("median", "min")} for turn in result["rounds"]]
    for key in {"first_step_seconds", "deviation"} & entry.keys():
        entry[key] = digits(entry[key])
    if "reason" in entry:
        # The last part of a path says what is missing; what is before it only where.
        folders = r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\":;,]+[/\\])+"
        reason = re.sub(folders, "", " ".join(entry["reason"].split()))
        entry["reason"] = reason if len(reason) <= 200 else reason[:199] + "…"
    return entry


def merge(runs: Sequence[Run]) -> list[Run]:
    """The runs with every case once, of the last run that has it. Figures of two machines do not mix."""
    for key in ("cpu", "machine", "cores", "threads"):
        values = list(dict.fromkeys(run["machine"][key] for run in runs))
        if len(values) > 1:
            raise ValueError(f"runs differ in {key}: {', '.join(map(repr, values))}; expected one machine")

    def keys(run: Run) -> list[tuple[str, str, int]]:
        return [(case["network"], case["task"], case["batch_size"]) for case in run["cases"]]

    last = {key: i for i, run in enumerate(runs) for key in keys(run)}
    kept = [
        run | {"cases": [case for case, key in zip(run["cases"], keys(run), strict=True) if last[key] == i]}
        for i, run in enumerate(runs)
    ]
    return [run for run in kept if run["cases"]]


def cases(runs: Sequence[Run]) -> list[Case]:
    """All cases, by task, network and batch size, with ratios computed from the rounds."""
    found = []
    for run in runs:
        for case in run["cases"]:
            results = [Result(**result) for result in case["results"]]
            summarise(results, case["batch_size"])
            if not any(library(result.peer, result.variant) == OURS and result.ratios for result in results):
                for result in results:  # ratios to the NumPy twin alone would pass for ours
                    result.ours_over_peer, result.ratios = None, []
            found.append(Case(case["network"], case["task"], case["batch_size"], results))
    order = list(NETWORKS)
    return sorted(found, key=lambda case: (list(TITLES).index(case.task), order.index(case.network), case.batch_size))


def measured(case: Case) -> list[Result]:
    """Everyone who finished, fastest first."""
    done = [result for result in case.results if result.status == "measured" and result.rounds]
    return sorted(done, key=lambda result: result.step_seconds)


def library(peer: str, variant: str) -> str:
    """The name by which a reader knows it; each of our backends counts as one, and so does each precision."""
    if peer != OURS:
        return NAMES.get(peer, peer)
    return {REFERENCE: TWIN, "numba bfloat16": ROUNDED}.get(variant, OURS)


def setting(result: Result) -> str:
    """A library's name, with its setting if it has several."""
    name = library(result.peer, result.variant)
    alone = result.peer == OURS or sum(peer == result.peer for peer, _ in SETTINGS) == 1
    return name if alone else f"{name} {result.variant}"


def owner(name: str) -> str:
    """The library of a `setting`."""
    return next((library for library in (ROUNDED, OURS, TWIN, *NAMES.values()) if name.startswith(library)), name)


def libraries(case: Case) -> dict[str, Result]:
    """Each library at its fastest setting, fastest first."""
    chosen: dict[str, Result] = {}
    for result in measured(case):
        chosen.setdefault(library(result.peer, result.variant), result)
    return chosen


def of(found: Sequence[Case], task: str) -> dict[str, list[Case]]:
    """A task's cases by network."""
    networks = dict.fromkeys(case.network for case in found if case.task == task)
    return {name: [case for case in found if (case.task, case.network) == (task, name)] for name in networks}


def batched(found: Sequence[Case], task: str) -> dict[str, list[Case]]:
    """As `of`, without inference of single images, whose figure is latency."""
    groups = {
        network: [case for case in group if task == "train" or case.batch_size > 1]
        for network, group in of(found, task).items()
    }
    return {network: group for network, group in groups.items() if group}


def anchor(found: Sequence[Case], batch_size: int) -> Case:
    """The case whose batch size is nearest, by ratio."""
    return min(found, key=lambda case: abs(math.log(case.batch_size / batch_size)))


def by_setting(found: Iterable[Case], of_result: Callable[[Result], float]) -> dict[str, list[float]]:
    """A figure of every setting, one for each case."""
    figures: dict[str, list[float]] = {}
    for case in found:
        for result in measured(case):
            figures.setdefault(setting(result), []).append(of_result(result))
    return figures


def seconds_to_first(result: Result) -> float:
    """Seconds from the start of the process to the end of the first step."""
    return result.first_step_seconds


def peak_megabytes(result: Result) -> float:
    """The most memory that the process held, in MB."""
    return result.peak_bytes / 1e6


def least(figures: dict[str, list[float]]) -> dict[str, float]:
    """By library, the least of its settings' medians."""
    found: dict[str, float] = {}
    for name, values in figures.items():
        found[owner(name)] = min(median(values), found.get(owner(name), math.inf))
    return found


def side_costs(found: Sequence[Case]) -> tuple[str, list[tuple[str, float, float]]]:
    """Where it was measured, and by setting: seconds to the first step, peak MB.

    All from one network's training; a library that cannot train it is shown with what it can do, and that is said.
    """
    rows: list[tuple[str, float, float]] = []
    where, seen = "", set[str]()
    for task, title in TITLES.items():
        for network, group in of(found, task).items():
            case = anchor(group, ANCHORS[task])
            where = where or f"{title.lower()} {network}, batch {case.batch_size}"
            seconds = by_setting(group, seconds_to_first)
            memory = by_setting([case], peak_megabytes)
            new = [name for name in memory if owner(name) not in seen]
            alike = where.startswith(title.lower())
            remark = "" if not seen else f" ({network})" if alike else " (inference)"
            rows += [(name + remark, median(seconds[name]), memory[name][0]) for name in new]
            seen |= {owner(name) for name in new}
    return where, rows


def installed(runs: Sequence[Run]) -> dict[str, float]:
    """MB of each library with all that it requires, smallest first."""
    sizes = {
        library(peer, ""): sum(parts.values()) / 1e6
        for run in runs
        for peer, parts in run["installed_bytes"].items()
        if parts
    }
    return dict(sorted(sizes.items(), key=lambda item: item[1]))


# --------------------------------------------------------------------------------------------------------------- Charts

PAPER, INK, FAINT = "#f6f8fa", "#1f2328", "#59636e"
OUR_BAR, TWIN_BAR, PEER_BAR = "#0969da", "#80b8f0", "#a9b2bc"
DPI = 144
COLOURS = 64
RATIO = "(2×): twinkernels is twice as fast"


class Bar(NamedTuple):
    """A name, its figure, what is written behind the bar."""

    name: str
    value: float | None
    text: str = ""


def draw(axes: Axes, bars: Sequence[Bar], title: str, names: bool = True) -> None:
    """Horizontal bars from zero, each with its figure; None leaves a gap."""
    longest = max((bar.value for bar in bars if bar.value is not None), default=1.0)
    for row, bar in enumerate(bars):
        ours = bar.name.split(" (")[0] == OURS
        if bar.value is None:
            axes.text(0.015 * longest, row, bar.text, va="center", fontsize=8, color=FAINT)
            continue
        colour = OUR_BAR if ours else TWIN_BAR if bar.name.startswith((TWIN, ROUNDED)) else PEER_BAR
        axes.barh(row, bar.value, height=0.74, color=colour)
        weight = "bold" if ours else "normal"
        axes.text(bar.value + 0.02 * longest, row, bar.text, va="center", fontsize=8, color=INK, weight=weight)
    axes.set_xlim(0, 1.45 * longest)
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars] if names else [""] * len(bars), fontsize=8.5)
    axes.set_xticks([])
    axes.tick_params(length=0, pad=4, colors=INK)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text().split(" (")[0] == OURS else "normal")
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(PEER_BAR)
    axes.spines["left"].set_bounds(-0.6, len(bars) - 0.4)
    axes.set_facecolor(PAPER)
    axes.set_title(title, fontsize=9.5, loc="left", color=INK)


def chart(path: Path, grid: Sequence[Sequence[Panel]], title: str, foot: str) -> None:
    """A picture of panels, each drawn by its function, on paper of its own: it reads on light pages and on dark."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from PIL import Image  # comes with Matplotlib

    columns = max(map(len, grid))
    # Rows are as high as their bars are many, so the panels are drawn first, and the heights set after.
    layout = ConstrainedLayoutEngine(wspace=0.04, hspace=0.04, w_pad=0.08, h_pad=0.06)
    figure = Figure(facecolor=PAPER, layout=layout)
    panels = figure.subplots(len(grid), columns, squeeze=False)
    for row, line in zip(panels, grid, strict=True):
        for axes, panel in zip(row, [*line, *[None] * (columns - len(line))], strict=True):
            if panel is None:
                axes.set_axis_off()
                axes.set_yticks([])
            else:
                panel(axes)
    bars = [max(len(axes.get_yticks()) for axes in row) for row in panels]
    for row, count in zip(panels, bars, strict=True):
        for axes in row:
            axes.set_ylim(count - 0.4, -0.6)
    panels[0, 0].get_gridspec().set_height_ratios([count + 1.6 for count in bars])
    figure.set_size_inches(10, 0.85 + sum(0.215 * (count + 1.6) for count in bars))
    figure.suptitle(title, fontsize=12, weight="bold", color=INK, x=0.012, ha="left")
    figure.supxlabel(foot, fontsize=8, color=FAINT, x=0.012, ha="left")
    pixels = io.BytesIO()
    figure.savefig(pixels, dpi=DPI, facecolor=PAPER)
    # A few dozen colours are all there are, and a third of the bytes.
    with Image.open(pixels) as picture:
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def throughput(case: Case, names: Sequence[str] | None = None) -> list[Bar]:
    """A case's libraries at their fastest settings, in the order of names, or fastest first."""
    chosen = libraries(case)
    bars = []
    for name in names or chosen:
        result = chosen.get(name)
        if result is None:
            bars.append(Bar(name, None, "–"))
            continue
        ratio = "" if name == OURS or result.ours_over_peer is None else f"  ({times(result.ours_over_peer)})"
        bars.append(Bar(name, result.images_per_second, short(result.images_per_second) + ratio))
    return bars


def latency(case: Case) -> list[Bar]:
    """As `throughput`, in microseconds for a whole batch."""
    bars = []
    for name, result in libraries(case).items():
        ratio = "" if name == OURS or result.ours_over_peer is None else f"  ({times(result.ours_over_peer)})"
        bars.append(Bar(name, result.step_seconds * 1e6, f"{number(result.step_seconds * 1e6).rstrip('.')} µs{ratio}"))
    return bars


def panel(bars: Sequence[Bar], title: str, names: bool = True) -> Panel:
    """A panel of `chart`."""
    return lambda axes: draw(axes, bars, title, names)


class Chart(NamedTuple):
    """A picture's panels, row by row, with what stands above and below them."""

    grid: Sequence[Sequence[Panel]]
    title: str
    foot: str


def precision(found: Sequence[Case]) -> str:
    """What was computed in."""
    taken = {name for case in found for name in libraries(case)}
    mixed = taken & {ROUNDED, NAMES["openvino"]}
    return "float32" + " but for bfloat16 and OpenVINO's choice" * bool(mixed)


def charts(runs: Sequence[Run], found: Sequence[Case]) -> dict[str, Chart]:
    """All that the runs have figures for, by the name of the file, without .png."""
    planned: dict[str, Chart] = {}
    threads = runs[0]["machine"]["threads"]
    where = f"CPU, {threads} thread{'s' * (threads > 1)}, {precision(found)}"

    def picture(name: str, grid: Sequence[Sequence[Panel]], title: str, foot: str) -> None:
        if any(grid):  # a row at least holds a panel
            planned[name] = Chart(grid, title, f"{foot} {where}.")

    best_settings = f"{RATIO}. Each library at its fastest setting."
    opening = []
    for task, title in TITLES.items():
        grid = []
        for network, group in batched(found, task).items():
            middle = anchor(group, ANCHORS[task])
            names = list(dict.fromkeys(name for case in (middle, *group) for name in libraries(case)))
            grid.append(
                [
                    panel(throughput(case, names), f"{network}, batch {case.batch_size}", column == 0)
                    for column, case in enumerate(group)
                ]
            )
            if len(grid) == 1:
                opening.append(panel(throughput(middle), f"{title} {network}, batch {middle.batch_size}"))
        picture(title.lower(), grid, f"{title}, images/s", f"Longer is better. {best_settings}")
    picture("overview", [opening], "Images per second", best_settings)

    single = [case for group in of(found, "infer").values() for case in group if case.batch_size == 1]
    latencies = [panel(latency(case), case.network) for case in single]
    picture("latency", [latencies], "Latency of one image", f"Shorter is better. {best_settings}")

    where_measured, rows = side_costs(found)
    first = sorted((seconds, name) for name, seconds, _ in rows)
    memory = sorted((peak, name) for name, _, peak in rows)
    megabytes = "{:,.0f} MB".format
    row = [
        panel([Bar(name, value, f"{number(value)} s") for value, name in first], "Start to first result"),
        panel([Bar(name, value, megabytes(value)) for value, name in memory], "Peak memory"),
        panel([Bar(name, size, megabytes(size)) for name, size in installed(runs).items()], "Installed size"),
    ]
    foot = f"Shorter is better. {where_measured[0].upper()}{where_measured[1:]}, unless said otherwise."
    picture("costs", [row], "Start, memory and size", foot)
    return planned


def draw_all(folder: Path, planned: dict[str, Chart]) -> None:
    """Write the pictures."""
    for name, each in planned.items():
        chart(folder / f"{name}.png", each.grid, each.title, each.foot)


# ----------------------------------------------------------------------------------------------------------------- Text


def summary(group: Sequence[Case]) -> str:
    """A network's libraries at their fastest, by batch size."""
    chosen = {case.batch_size: libraries(case) for case in group}
    middle = group[len(group) // 2].batch_size
    names = list(dict.fromkeys([*chosen[middle], *(name for each in chosen.values() for name in each)]))
    rows = []
    for name in names:
        row = [f"**{name}**" if name == OURS else name]
        for each in chosen.values():
            result = each.get(name)
            ratio = "" if result is None or name == OURS else f" ({times(result.ours_over_peer)})"
            row.append("–" if result is None else number(result.images_per_second) + ratio.replace(" ()", ""))
        rows.append(row)
    return table([f"{group[0].network}, images/s", *(f"batch {size}" for size in chosen)], rows)


def details(group: Sequence[Case]) -> str:
    """Every setting in every case of a network, fastest first."""
    rows = []
    for case in group:
        for result in measured(case):
            ours = f"{times(result.ours_over_peer)} ({span(result.ratios, times)})" if result.ratios else ""
            ours = "" if setting(result) == OURS else ours.replace("× –", " –").replace("×)", ")")
            step = number(result.step_seconds * 1e3)
            deviation = "" if result.deviation is None else f"{result.deviation:.0e}"
            name = setting(result)
            name = f"**{name}**" if name == OURS else name
            rows.append([str(case.batch_size), name, number(result.images_per_second), step, ours, deviation])
    unit = "ms a step" if group[0].task == "train" else "ms a call"
    headings = ["batch", "setting", "images/s", unit, "twinkernels is (range)", "deviation"]
    return table(headings, rows, left=2)


def costs(groups: dict[str, list[Case]]) -> str:
    """Time to the first step, and memory, of every setting in every network."""
    seconds = {network: by_setting(group, seconds_to_first) for network, group in groups.items()}
    memory = {network: by_setting(group, peak_megabytes) for network, group in groups.items()}
    names = sorted(
        dict.fromkeys(name for each in seconds.values() for name in each),
        key=lambda name: median(value for each in seconds.values() for value in each.get(name, [])),
    )
    rows = []
    for name in names:
        row = [f"**{name}**" if name == OURS else name]
        for network in groups:
            row.append(span(seconds[network][name], number) if name in seconds[network] else "–")
            row.append(span(memory[network][name], "{:,.0f}".format) if name in memory[network] else "–")
        rows.append(row)
    task = next(iter(groups.values()))[0].task
    heading = "training" if task == "train" else "inference"
    return table([heading, *(f"{network}, {unit}" for network in groups for unit in ("s", "MB"))], rows)


def notes(found: Sequence[Case]) -> list[str]:
    """What a reader of the figures should know: remarks, results that differ, and who is missing."""
    said: dict[tuple[str, str], list[str]] = {}
    differ: dict[str, list[tuple[float, str]]] = {}
    agreeing = []
    for case in found:
        where = f"{TITLES[case.task].lower()} {case.network}"
        for result in case.results:
            for note in result.notes:
                said.setdefault((library(result.peer, result.variant), note), []).append(where)
            if result.status != "measured":
                said.setdefault((setting(result), f"{result.status}: {result.reason}"), []).append(case.title)
            elif result.deviation is not None and result.deviation > SUSPICIOUS:
                differ.setdefault(setting(result), []).append((result.deviation, where))
            elif result.deviation is not None:
                agreeing.append(result.deviation)
    lines = [f"{name} ({'; '.join(dict.fromkeys(where))}): {note.rstrip('.')}." for (name, note), where in said.items()]
    if agreeing:
        others = " but for those below" if differ else ""
        lines.append(
            f"The first losses and logits agree with the NumPy twin's within {max(agreeing):.0e} of the largest value"
            f"{others}."
        )
    for name, each in differ.items():
        where = "; ".join(dict.fromkeys(where for _, where in each))
        lines.append(f"{name} deviates from the NumPy twin by up to {max(each)[0]:.0e} ({where}).")
    return lines


def reproduce(runs: Sequence[Run]) -> list[str]:
    """The commands that make these figures again."""
    usual = vars(command.parse([]))
    lines, files = ["python -m venv .venv && .venv/bin/pip install '.[bench]'"], []
    for number_, run in enumerate(runs, 1):
        words = [".venv/bin/python", "-m", "benchmarks.peers", "--install"]
        for key, value in run["options"].items():
            if value is True:
                words.append(f"--{key}")
            elif value not in (None, False) and (key == "threads" or value != usual.get(key)):
                text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
                words += [f"--{key.replace('_', '-')}", text]
        files.append(f"run{number_}.json")
        lines.append(shlex.join([*words, "--json", files[-1]]))
    return [*lines, shlex.join([".venv/bin/python", "-m", "benchmarks.results", *files])]


def machine(runs: Sequence[Run]) -> str:
    """The machine and the runs on it."""
    facts = runs[0]["machine"]

    def each(key: str, form: Callable[[Any], str] = str) -> str:
        return ", ".join(
            dict.fromkeys(form(run["machine"][key]) for run in runs if run["machine"].get(key) is not None)
        )

    def commit(text: str) -> str:
        return text.removesuffix("+") + (" with changes" if text.endswith("+") else "")

    rows = [
        ["CPU", f"{facts['cpu']} ({facts['machine']})"],
        ["cores, threads of each library", f"{facts['cores']}, {facts['threads']}"],
        ["system", each("system")],
        ["Python", each("python")],
        ["load before the run", each("load_before", lambda load: f"{load:.2f}")],
        ["date", each("date", lambda date: date[:10])],
        ["commit", each("commit", commit)],
    ]
    return table(["", ""], [row for row in rows if row[1]], left=2)


def competitors(runs: Sequence[Run], found: Sequence[Case]) -> str:
    """Who took part: versions, settings, size."""
    versions: dict[str, dict[str, str]] = {}
    for case in found:
        for result in measured(case):
            versions.setdefault(result.peer, {}).update(result.versions)
    sizes = installed(runs)
    rows = []
    for peer in (OURS, *DISTRIBUTIONS):
        if peer in versions:
            told = [f"{variant}: {text}" for (owner, variant), text in SETTINGS.items() if owner == peer]
            name = library(peer, "")
            size = f"{sizes[name]:,.0f} MB" if name in sizes else ""
            rows.append(
                [
                    f"**{name}**" if peer == OURS else name,
                    ", ".join(f"{library_} {version}" for library_, version in versions[peer].items()),
                    "<br>".join(told) or "the Numba backend, and its NumPy twin",
                    size,
                ]
            )
    return table(["library", "versions", "settings", "installed"], rows, left=3)


def page(folder: Path, runs: Sequence[Run], found: Sequence[Case], drawn: Collection[str]) -> str:
    """RESULTS.md. folder: where the pictures and the figures of further sections lie."""
    link = folder.name
    rounds = " or ".join(dict.fromkeys(str(run["options"]["rounds"]) for run in runs))
    turn = " or ".join(
        dict.fromkeys(
            f"{run['options']['steps']} steps"
            if run["options"].get("steps")
            else f"{run['options']['turn_seconds']:g} s"
            for run in runs
        )
    )

    def picture(name: str, alt: str) -> list[str]:
        return [f"![{alt}]({link}/{name}.png)"] if name in drawn else []

    parts = [
        "# Results",
        prose(
            "Made by `python -m benchmarks.pages`; not edited by hand. The figures lie in "
            f"[`{link}/peers.json`]({link}/peers.json)."
        ),
        "## What was measured",
        prose(
            "Training steps and inference of the same networks by several libraries on one CPU, float32, images of "
            "28 × 28. Every library starts from the same weights, gets the same batches, already in memory, and takes "
            "the same optimizer; exceptions stand under Notes."
        ),
        table(
            ["network", "layers", "optimizer"],
            [
                [f"`{name}`", layers(name), OPTIMIZERS[NETWORKS[name].optimizer]]
                for name in dict.fromkeys(case.network for case in found)
            ],
            left=3,
        ),
        machine(runs),
        competitors(runs, found),
        "## How",
        "\n".join(
            bullet(line)
            for line in (
                "Each setting of each library runs in a process of its own, with all threads.",
                f"All processes of a case are alive at once. In each of {rounds} rounds every one gets a turn "
                f"of {turn}, in random order, with the others frozen. A turn opens with untimed steps.",
                "A training step counts everything from arrays of images and labels to the loss as a Python number: "
                "forward, backward, optimizer. An inference call counts from an array of images to an array of logits.",
                "images/s is batch size over the median of the turns' medians. *twinkernels is* 2.00× means twice as "
                "fast: the median over rounds of the ratio between two turns of one round, with its least and "
                "greatest.",
                "A library has several settings; summaries and charts show its fastest in that very case.",
                "Start is the time from starting the process to the end of the first step, import and compilation "
                "included. Libraries that keep compiled code on disk, as Numba does, compile once: the greatest figure "
                "may hold that first use. Peak memory is the most that the process ever held.",
                "Installed size counts a library and all that it requires.",
                "*deviation* compares the first losses, or logits, with those of the NumPy twin, as a share of the "
                "largest value.",
            )
        ),
    ]
    for task, title in TITLES.items():
        groups = of(found, task)
        if not groups:
            continue
        parts += [f"## {title}", *picture(title.lower(), f"{title}: images per second by library and batch size")]
        if task == "infer":
            parts += picture("latency", "Latency of one image by library")
        parts.append("In brackets: how many times as fast twinkernels is, as the median over rounds.")
        parts += [summary(group) for group in groups.values()]
        for network, group in groups.items():
            parts += [f"<details><summary>{network}: every setting</summary>", details(group), "</details>"]
    parts += ["## Start, memory and size", *picture("costs", "Time to the first step, peak memory, installed size")]
    parts.append("Seconds from process start to the first result, and peak MB: least to greatest over batch sizes.")
    parts += [costs(groups) for groups in (of(found, task) for task in TITLES) if groups]
    if remarks := notes(found):
        parts += ["## Notes", "\n".join(map(bullet, remarks))]
    for file, (title, opening) in SECTIONS.items():
        if (folder / file).exists():
            parts += [f"## {title}", opening, section(folder / file)]
    parts += ["## Again", "```sh\n" + "\n".join(reproduce(runs)) + "\n```"]
    return "\n\n".join(parts) + "\n"


def section(path: Path) -> str:
    """What a further section shows of its file."""
    if path.name == "ranks.json":
        return ranks.report(ranks.read(path))
    if path.suffix == ".json":
        return recipes.report(recipes.read(path), recipes.rows())
    text = path.read_text(encoding="utf-8").strip("\n")
    return f"```text\n{text}\n```"


def layers(name: str) -> str:
    """A network in words."""
    network = NETWORKS[name]
    blocks = [f"5×5 convolution to {filters}, batch-norm, ReLU, 2×2 max-pool" for filters in network.filters]
    return "; ".join([*blocks, "linear " + ", ".join(f"{k} to {m}" for k, m in network.linear_shapes)])


def bought(runs: Sequence[Run], found: Sequence[Case]) -> str:
    """The README's table: a line a figure, a column a library, the best of each line in bold."""
    rows: list[tuple[str, dict[str, float], Callable[[Iterable[float]], float], Callable[[float], str]]] = []
    for task, title in TITLES.items():
        for network, group in list(batched(found, task).items())[:2]:
            case = anchor(group, ANCHORS[task])
            speeds = {name: result.images_per_second for name, result in libraries(case).items()}
            rows.append((f"{title} `{network}`, batch {case.batch_size}, images/s", speeds, max, number))
    for network, group in list(of(found, "infer").items())[:1]:
        for case in group:
            if case.batch_size == 1:
                micros = {name: result.step_seconds * 1e6 for name, result in libraries(case).items()}
                rows.append((f"One image through `{network}`, µs", micros, min, number))
    for network, group in list(of(found, "train").items())[:1]:
        case = anchor(group, ANCHORS["train"])
        first = least(by_setting(group, seconds_to_first))
        rows.append((f"Process start to first step of `{network}`, s", first, min, number))
        memory = least(by_setting([case], peak_megabytes))
        rows.append((f"Peak memory, training `{network}`, batch {case.batch_size}, MB", memory, min, "{:,.0f}".format))
    sizes = installed(runs)
    if sizes:
        shown = {name for _, values, _, _ in rows for name in values}
        sizes |= {name: sizes[OURS] for name in (ROUNDED, TWIN) if OURS in sizes and name in shown}
        rows.append(("Installed with all it requires, MB", sizes, min, "{:,.0f}".format))
    rows = [row for row in rows if row[1]]
    order = [OURS, ROUNDED, TWIN, *NAMES.values()]
    names = [name for name in order if any(name in values for _, values, _, _ in rows)]
    lines = []
    for label, values, better, form in rows:
        top = better(values.values())
        cells = [
            "–" if name not in values else f"**{form(values[name])}**" if values[name] == top else form(values[name])
            for name in names
        ]
        lines.append([label, *cells])
    return table(["", *names], lines)


def block(runs: Sequence[Run], found: Sequence[Case], picture: str | None, results: str) -> str:
    """What stands between the README's markers. picture, results: links to the opening picture and to RESULTS.md."""
    facts = runs[0]["machine"]
    parts = [f"![Images per second by library, trained and served]({picture})"] if picture else []
    parts.append(bought(runs, found))
    threads = f"{facts['threads']} thread{'s' * (facts['threads'] > 1)}"
    parts.append(
        prose(
            f"{facts['cpu']}, {threads}, {precision(found)}, {facts['date'][:10]}. Medians of interleaved rounds, each "
            "library in a process of its own. A cell holds the best of the library's settings; the best of a line is "
            f"bold. *{TWIN}* is this package on its other backend. [How, all settings, and ranges]({results})."
        )
    )
    return "\n\n".join(parts)


# -------------------------------------------------------------------------------------------------------------- Command


def texts(runs: Sequence[Run], out: Path, readme: Path | None) -> tuple[dict[Path, str], dict[str, Chart]]:
    """RESULTS.md and the README by their paths, and the charts that they show.

    Raises ValueError if nothing was measured, or if the README has no place for its block.
    """
    folder, found = out / "results", cases(runs)
    if not any(measured(case) for case in found):
        raise ValueError("nothing was measured in these runs")
    planned = charts(runs, found)
    made = {out / "RESULTS.md": page(folder, runs, found, planned)}
    if readme:

        def link(path: Path) -> str:
            return Path(os.path.relpath(path, readme.parent)).as_posix()

        picture = link(folder / "overview.png") if "overview" in planned else None
        inside = block(runs, found, picture, link(out / "RESULTS.md"))
        made[readme] = replace(readme.read_text(encoding="utf-8"), MARKER, inside)
    return made, planned


def kept(out: Path) -> list[Run]:
    """The runs that `make` has kept."""
    return read(out / "results" / "peers.json")


def make(files: Sequence[Path], out: Path, readme: Path | None) -> None:
    """Keep the runs, those that are kept if there are no files, and write all that comes of them."""
    runs = merge([run for file in files for run in read(file)] or kept(out))
    made, planned = texts(runs, out, readme)
    folder = out / "results"
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "peers.json", runs)
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    draw_all(folder, planned)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser("python -m benchmarks.results", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default what is kept, results/peers.json")
    parser.add_argument("--out", type=Path, metavar="DIR", help="instead of benchmarks/; leaves the README alone")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="whose block to write; default README.md")
    options = parser.parse_args(arguments)
    readme = options.readme or (None if options.out else HERE.parent / "README.md")
    try:
        make(options.files, options.out or HERE, readme)
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
