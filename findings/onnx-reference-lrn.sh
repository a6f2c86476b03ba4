#!/usr/bin/env bash
# Guess: ONNX's reference evaluator normalises every channel of an LRN, as the definition says.
# Seen: as many channels as the batch has samples: of one sample the first alone, the others come out as they went in.
# ONNX's own test cases of LRN have five samples of five channels, and do not notice. ConvTranspose in two groups ends
# with an error about a reshape. The checker finds both models valid.
# Why it matters: whoever checks an importer or an exporter against the reference gets wrong numbers for right ones.
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
seen: list[object] = []
for samples in (1, 2, 4):
    x = np.ones((samples, 4, 1, 1), np.float32)
    square = np.array([2, 3, 3, 2], np.float32)  # over a channel and its neighbours
    expected = 1 / (1 + 0.3 / 3 * square) ** 0.75
    y = run(helper.make_node("LRN", ["x"], ["y"], size=3, alpha=0.3, beta=0.75, bias=1.0), {"x": x})[0, :, 0, 0]
    seen.append(int(np.isclose(y, expected, rtol=1e-5).sum()))
    print(f"LRN, {samples} samples of four ones: {y.round(3).tolist()}, {seen[-1]} of 4 right")
x, w = np.ones((1, 4, 3, 2), np.float32), np.ones((4, 3, 3, 2), np.float32)
node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], group=2)
try:
    print("ConvTranspose in two groups:", run(node, {"x": x, "w": w}).shape)
    seen.append("an answer")
except ValueError as error:
    print("ConvTranspose in two groups:", error)
    seen.append("an error")
if seen != [1, 2, 4, "an error"]:
    sys.exit(f"changed: {seen}")
PYTHON
venv/bin/python main.py
