"""One more decorator beside those of `jit`."""

from __future__ import annotations

from typing import Any

import numba
from numba.core.compiler import CompilerBase, DefaultPassBuilder

from .jit import FLAGS


class _Disjoint(CompilerBase):  # type: ignore[misc]
    def define_pipelines(self) -> list[Any]:
        self.state.flags.noalias = True
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


disjoint = numba.njit(pipeline_class=_Disjoint, **FLAGS)
"""Decorator for a helper whose array arguments share no memory, or are only read.

Vector code for a loop over few channels then need not check them first: such checks are as long as the loop, and beyond
two or three arrays LLVM takes the scalar loop instead (max-pool's gradient: 17 times slower).
"""
