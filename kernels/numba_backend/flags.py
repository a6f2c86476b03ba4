"""Two decorators beside those of `jit`, for helpers that need other flags."""

from __future__ import annotations

from typing import Any

import numba
from numba.core.compiler import CompilerBase, DefaultPassBuilder

from .jit import FLAGS

exact = numba.njit(forceinline=True, **{**FLAGS, "fastmath": {"contract", "nsz"}})
"""Decorator for an inlined helper whose operations keep their order: error terms and range reductions rest on it."""


class _Disjoint(CompilerBase):  # type: ignore[misc]
    def define_pipelines(self) -> list[Any]:
        self.state.flags.noalias = True
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


disjoint = numba.njit(pipeline_class=_Disjoint, **FLAGS)
"""Decorator for a helper whose array arguments share no memory: its short loops need no checks that they do not."""
