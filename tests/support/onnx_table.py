"""The table of ONNX's operators in the documentation: `python -m tests.support.onnx_table` writes it.

Every line of it is the backend suite's cases, run; a test holds the table to that.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from pathlib import Path

from .onnx_suite import Case, file_cases, node_cases, outcome

PAGE = Path(__file__).parents[2] / "docs" / "exchange.md"
BEGIN, END = "<!-- operators: begin -->", "<!-- operators: end -->"
KINDS = ("pytorch-converted", "pytorch-operator")


def outcomes(cases: list[Case], backend: str) -> dict[str, str]:
    """By case: "" or the reason for which it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        return {case.name: outcome(case, backend, Path(folder) / "case.onnx") for case in cases}


def table(backend: str) -> str:
    """The lines between the marks."""
    import onnx

    cases = node_cases()
    reached = outcomes(cases, backend)
    lines = [
        f"The suite of onnx {onnx.__version__}:",
        "",
        "| operator | cases | taken | the others |",
        "|---|---:|---:|---|",
    ]
    for name in sorted({case.operator for case in cases}):
        own = [case.name for case in cases if case.operator == name]
        lines.append(_line(f"`{name}`", [reached[each] for each in own]))
    lines.append(_line("all of these", list(reached.values()), reasons=False))
    for kind in KINDS:
        lines.append(_line(f"*{kind}*", list(outcomes(list(file_cases(kind)), backend).values())))
    return "\n".join(lines)


def _line(name: str, reached: list[str], reasons: bool = True) -> str:
    why = Counter(_general(reason) for reason in reached if reason) if reasons else Counter()
    others = "; ".join(f"{count} {reason}" for reason, count in sorted(why.items()))
    return f"| {name} | {len(reached)} | {reached.count('')} | {others} |"


def _general(reason: str) -> str:
    """A reason without the names and sizes of one case."""
    reason = re.sub(r"^(the node that makes|node) [^,]*, ", "", reason)
    reason = re.sub(r"^(input|its output) '[^']*' ", r"\1 ", reason).replace("|", "/")
    reason = re.sub(r"'[^']*', which", "what", reason)
    reason = re.sub(r"'[^']*' of shape", "a tensor of shape", reason)
    return re.sub(r"[\[(][-0-9N, ]*[\])]", "(…)", re.sub(r"\b\d+:\d+:\d+\b", "…", reason))


def written(page: str) -> str:
    """What stands between the marks of a page."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def main() -> None:
    """Write the table, or print it for another backend."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m tests.support.onnx_table", description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--print", action="store_true", help="print it, write nothing")
    given = parser.parse_args()
    made = table(given.backend)
    if given.print:
        print(made)
        return
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
