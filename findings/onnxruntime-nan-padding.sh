#!/usr/bin/env bash
# Guess: ONNX Runtime's graph optimisations change a convolution's speed and its last bits, not which outputs are NaN.
# Seen: with a NaN in a filter's corner, and padding, the same session computes NaN at the border without optimisations,
# where the NaN is multiplied with the zeros of the padding, and an ordinary number with them: the blocked layout that
# they choose skips the padding. PyTorch 2.13 does the one for a single image and the other for the same in a batch.
# Why it matters: whether a damaged weight shows, and where, depends on a setting that says nothing of it; a comparison
# of two runtimes, or of two settings of one, ends in NaN against numbers.
set -euo pipefail
unset PYTHONPATH
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv &&
    venv/bin/python -m pip install --quiet onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 || exit 2

cat >main.py <<'PYTHON'
import platform
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

if platform.machine() != "x86_64":
    print(f"not tried: {platform.machine()} may have other layouts")
    sys.exit(2)
filters = np.ones((8, 3, 3, 3), np.float32)
filters[:, :, 0, 0] = np.nan  # meets the padding alone in the first row and the first column
x = np.ones((1, 3, 5, 5), np.float32)
graph = helper.make_graph(
    [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
    "one node",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
    [numpy_helper.from_array(filters, "w")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
onnx.checker.check_model(model, full_check=True)
print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "numpy", np.__version__)
corners = {"reference": ReferenceEvaluator(model).run(None, {"x": x})[0][0, 0, 0, 0]}
for level in onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    corners[level.name] = session.run(None, {"x": x})[0][0, 0, 0, 0]
for name, value in corners.items():
    print(f"{name}: the corner is {value}")
if [bool(np.isnan(value)) for value in corners.values()] != [True, True, False]:
    sys.exit("changed")
PYTHON
venv/bin/python main.py
