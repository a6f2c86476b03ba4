"""A wheel's compiled kernels: packs that `twinkernels compile --pack LEVEL --out FOLDER` made, where
TWINKERNELS_PACKS names that folder. Without it the wheel is pure Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PackHook(BuildHookInterface[Any]):
    """Takes every pack of the folder into the wheel, and names the platform and the Python that they are for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        named = os.environ.get("TWINKERNELS_PACKS")
        if not named or version == "editable":
            return
        packs = [pack for pack in sorted(Path(named).glob("*")) if any(pack.glob("*.nbc"))]
        if not packs:
            raise FileNotFoundError(f"TWINKERNELS_PACKS: no pack in {Path(named).absolute()}")
        for pack in packs:
            build_data["force_include"][str(pack.absolute())] = f"kernels/numba_backend/packs/{pack.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
