"""The ONNX project's own backend suite: every case is answered as it says, or refused for the reason in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import onnx_table
from tests.support.onnx_suite import node_cases, outcome

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'twinkernels[onnx]'")


def test_the_table_in_the_docs_is_what_the_suite_gives() -> None:
    """No answer is wrong, whatever the version; the counts are those of the version that the table names."""
    made = onnx_table.table("numpy")
    said = onnx_table.written(onnx_table.PAGE.read_text(encoding="utf-8"))
    if f"onnx {onnx.__version__}:" in said:
        assert made == said, "python -m tests.support.onnx_table writes it"


@pytest.mark.parametrize("module", ["conv", "maxpool", "gemm", "softmax", "batch_normalization", "concat"])
def test_the_other_backend_gives_the_same_answers(tmp_path: Path, module: str) -> None:
    cases = node_cases([module])
    reached = {case.name: outcome(case, "numba", tmp_path / "case.onnx") for case in cases}
    assert reached == {case.name: outcome(case, "numpy", tmp_path / "case.onnx") for case in cases}
    assert list(reached.values()).count("") >= len(reached) / 2
