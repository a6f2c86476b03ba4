#!/usr/bin/env bash
# Guess: Keras 3 loads the `.h5` models that Keras 2 wrote, as it says where it reads them.
# Seen: a Sequential model whose first layer carries `batch_input_shape`, as Keras before 2.4 wrote them, is given one
# axis too many: the batch axis is taken for one of the sample. A convolution then raises an error that speaks of
# kernels and shapes. The same file with an InputLayer, as later versions wrote, loads.
# Why it matters: published networks of that age look damaged, and are not; whoever converts by hand must know which
# field to change.
set -euo pipefail
unset PYTHONPATH
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv && venv/bin/python -m pip install --quiet keras==3.15.1 jax==0.10.2 h5py==3.16.0 || exit 2

cat >main.py <<'PYTHON'
import json
import os
import sys

os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
import h5py
import jax
import keras
import numpy as np

print("keras", keras.__version__, "jax", jax.__version__, "h5py", h5py.__version__)
kernel, bias = np.ones((3, 3, 1, 2), np.float32), np.zeros(2, np.float32)


def written(name, conv, before):
    """A model as Keras 2.3 wrote it: one convolution over images (28, 28, 1)."""
    settings = {"name": "conv", "filters": 2, "kernel_size": [3, 3], "padding": "valid", "activation": "linear"}
    layers = [*before, {"class_name": "Conv2D", "config": settings | conv}]
    with h5py.File(name, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.3.1", "tensorflow"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"name": "m", "layers": layers}})
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"conv"]
        held = group.create_group("conv")
        held.attrs["weight_names"] = [b"conv/kernel:0", b"conv/bias:0"]
        held["conv/kernel:0"], held["conv/bias:0"] = kernel, bias
    return name


shape = {"batch_input_shape": [None, 28, 28, 1]}
later = written("later.h5", {}, [{"class_name": "InputLayer", "config": shape | {"name": "image"}}])
early = written("early.h5", shape, [])
image = np.ones((1, 28, 28, 1), np.float32)
answer = keras.models.load_model(later, compile=False).predict(image, verbose=0)
print("with an InputLayer:", answer.shape, "all nines" if (answer == 9).all() else "wrong")
if answer.shape != (1, 26, 26, 2) or not (answer == 9).all():
    sys.exit("changed: the file with an InputLayer is no longer read")
try:
    keras.models.load_model(early, compile=False)
except ValueError as error:
    print("without:", str(error).splitlines()[0][:150])
    if "(None, None, 28, 28, 1)" not in str(error):
        sys.exit("changed: the error is another one")
else:
    sys.exit("changed: the file without an InputLayer is read")
PYTHON
venv/bin/python main.py
