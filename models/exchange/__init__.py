"""Exchange: networks of other programs, in and out. Importing this loads none of them.

`onnx_reader` and `onnx_writer` know the files of ONNX; `inspection` tells what is in a file; `layout` turns weights
between channels first and channels last. `keras_reader` and `keras_weights` know the files of Keras, `torch_reader`
PyTorch's modules, `torch_state` its state dicts.
"""

from __future__ import annotations

import importlib
from typing import Any

_PLACES = {
    "read_onnx": "onnx_reader",
    "write_onnx": "onnx_writer",
    "inspect": "inspection",
    "read_keras": "keras_reader",
    "save_keras_weights": "keras_weights",
    "from_torch": "torch_reader",
    "to_torch": "torch_state",
    "UnsupportedOperatorError": "onnx_file",
}

__all__ = [
    "UnsupportedOperatorError",
    "from_torch",
    "inspect",
    "read_keras",
    "read_onnx",
    "save_keras_weights",
    "to_torch",
    "write_onnx",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
