#!/usr/bin/env bash
# Guess: ONNX's reference evaluator computes LRN and ConvTranspose as their definitions say, whatever the sizes.
# Seen: LRN adds up its squares over the first three channels of four, and leaves the last one as it was (but for the
# bias): with four channels and size 3, y[3] is x[3]. ConvTranspose with two groups is answered with an error about a
# reshape, where strides make the output larger than twice the input; the checker finds both models valid.
# Why it matters: whoever checks an importer or an exporter against the reference gets wrong numbers for right ones, and
# where the input has five channels, as in the backend suite's own LRN cases, does not notice.
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


def run(node, inputs):
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in inputs.items()]
    graph = helper.make_graph([node], "one node", named, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return ReferenceEvaluator(model).run(None, inputs)[0]


print("onnx", onnx.__version__, "numpy", np.__version__)
seen = []
for channels in (3, 4, 5, 6):
    x = np.ones((1, channels, 1, 1), np.float32)
    square = np.array([x[0, max(0, c - 1) : c + 2].sum() for c in range(channels)])
    expected = 1 / (1 + 0.3 / 3 * square) ** 0.75
    y = run(helper.make_node("LRN", ["x"], ["y"], size=3, alpha=0.3, beta=0.75, bias=1.0), {"x": x}).reshape(-1)
    right = np.isclose(y, expected, rtol=1e-5).tolist()
    seen.append(right)
    print(f"LRN of {channels} ones: {y.round(3).tolist()}, right {right}")
x, w = np.ones((1, 4, 3, 2), np.float32), np.ones((4, 3, 3, 2), np.float32)
node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], group=2)
try:
    print("ConvTranspose in two groups:", run(node, {"x": x, "w": w}).shape)
    seen.append("an answer")
except ValueError as error:
    print("ConvTranspose in two groups:", error)
    seen.append("an error")
print(seen)
PYTHON
venv/bin/python main.py
