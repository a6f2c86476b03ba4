#!/usr/bin/env bash
# Guess: safetensors.numpy saves the values of an array, however it lies in memory, as numpy.save does; or it refuses
# an array that is not contiguous, as safetensors.torch does with a tensor.
# Seen: it writes memory as it lies and gives it the array's shape. A transpose or a column-ordered array comes back
# with its values at other places, a slice with a step comes back with its neighbours' values: same shape, same dtype,
# no word. Up to 0.7 the values came back right.
# Why it matters: x.T, np.asfortranarray and the weights that many linear-algebra routines return lie so. A model is
# saved, loads without complaint and answers nonsense.
set -euo pipefail
unset PYTHONPATH
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv && venv/bin/python -m pip install --quiet safetensors==0.8.0 numpy==2.4.6 || exit 2

cat >main.py <<'PYTHON'
import importlib.metadata
import io
import sys

import numpy as np
from safetensors.numpy import load, save

x = np.arange(6, dtype=np.float32).reshape(2, 3)
arrays = {
    "transposed": x.T,
    "column order": np.asfortranarray(x),
    "every other column": np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2],
    "contiguous": x,
    "big-endian": x.astype(">f4"),
}
print("safetensors", importlib.metadata.version("safetensors"), "numpy", np.__version__)
same = {}
for name, array in arrays.items():
    again = load(save({"x": array}))["x"]
    same[name] = bool(np.array_equal(again, array))
    print(f"{name}: saved {array.tolist()}, loaded {again.tolist()}")
    file = io.BytesIO()
    np.save(file, array)
    file.seek(0)
    assert np.array_equal(np.load(file), array)
if list(same.values()) != [False, False, False, True, True]:
    sys.exit(f"changed: the same are {same}")
PYTHON
venv/bin/python main.py
