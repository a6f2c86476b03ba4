"""What kind of file a model is in: its first bytes say so, and its suffix where they do not."""

from __future__ import annotations

from pathlib import Path

SAFETENSORS, ONNX, KERAS, HDF5, TORCH = "safetensors", "onnx", "keras", "hdf5", "torch"

_SUFFIXES = {
    ".safetensors": SAFETENSORS,
    ".onnx": ONNX,
    ".keras": KERAS,
    ".h5": HDF5,
    ".hdf5": HDF5,
    ".pth": TORCH,
    ".pt": TORCH,
}


def kind_of(path: Path) -> str:
    """One of the kinds above, for a file that is there; safetensors where nothing speaks for another."""
    with open(path, "rb") as file:
        start = file.read(16)
    if start[8:9] == b"{":
        return SAFETENSORS
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return HDF5
    if start.startswith(b"PK\x03\x04"):
        return KERAS if _holds(path, "config.json") else TORCH
    suffix = _SUFFIXES.get(path.suffix.lower(), SAFETENSORS)
    if start[:1] == b"\x80" and suffix != ONNX:  # a pickle, as older versions of PyTorch wrote
        return TORCH
    if start[:1] == b"\x08" and start[1:2] < b"\x20":  # a version of ONNX's format, in field 1 of its message
        return ONNX
    return suffix


def _holds(path: Path, name: str) -> bool:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return name in archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return path.suffix.lower() == ".keras"
