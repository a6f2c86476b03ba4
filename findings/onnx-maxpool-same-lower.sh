#!/usr/bin/env bash
# Guess: the reference evaluator of ONNX pools as the specification says, and as ONNX's own shape inference expects.
# Seen: with auto_pad=SAME_LOWER, where the size is no multiple of the stride, its MaxPool gives a smaller array than
# the specification, than shape inference on the same model, and than its own AveragePool; and the windows are not
# those that the specification pads for. SAME_UPPER is right.
# Why it matters: it is what other implementations are held to, and the wrong one looks like a plausible picture.
set -euo pipefail
unset PYTHONPATH
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv && venv/bin/python -m pip install --quiet onnx==1.23.2 numpy==2.4.6 || exit 2

cat >main.py <<'PYTHON'
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

x = np.arange(1, 26, dtype=np.float32).reshape(1, 1, 5, 5)
right = {  # windows of 2 with stride 2; one row and one column of padding, below or above
    ("MaxPool", "SAME_UPPER"): [[7, 9, 10], [17, 19, 20], [22, 24, 25]],
    ("MaxPool", "SAME_LOWER"): [[1, 3, 5], [11, 13, 15], [21, 23, 25]],
    ("AveragePool", "SAME_LOWER"): [[1, 2.5, 4.5], [8.5, 10, 12], [18.5, 20, 22]],
}
print("onnx", onnx.__version__, "numpy", np.__version__)
seen = []
for (name, pad), expected in right.items():
    graph = helper.make_graph(
        [helper.make_node(name, ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], auto_pad=pad)],
        "one node",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0].type.tensor_type.shape.dim
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    seen.append(y.shape == (1, 1, 3, 3) and bool(np.array_equal(y[0, 0], expected)))
    print(f"{name} {pad}: inferred {[d.dim_value for d in inferred]}, computed {list(y.shape)} {y[0, 0].tolist()}, "
          f"{'right' if seen[-1] else f'wrong: {expected}'}")
if seen != [True, False, True]:
    sys.exit(f"changed: right are {seen}")
PYTHON
venv/bin/python main.py
