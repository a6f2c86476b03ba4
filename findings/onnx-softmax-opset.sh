#!/usr/bin/env bash
# Guess: ONNX's own tools know that Softmax, LogSoftmax and Hardmax meant something else before opset 13: the input
# was flattened to a matrix at `axis` (1 if left out), and each row normalised as a whole. Since 13 they work along one
# axis (-1 if left out).
# Seen: the reference evaluator computes an opset-11 Softmax along one axis, so that the four numbers of one sample
# below sum to 2, not to 1. The version converter knows better, and puts the flattening around Softmax and LogSoftmax:
# the converted model gives other numbers than the one it was made from. Hardmax it leaves as it is, which is wrong.
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
from onnx.version_converter import convert_version

x = np.arange(4, dtype=np.float32).reshape(1, 2, 2)  # one sample
flat = np.exp(x) / np.exp(x).sum()
right = {"Softmax": flat, "LogSoftmax": np.log(flat), "Hardmax": (x == x.max()).astype(np.float32)}
print("onnx", onnx.__version__, "numpy", np.__version__, "x", x.tolist())
seen = []
for name, expected in right.items():
    graph = helper.make_graph(
        [helper.make_node(name, ["x"], ["y"], axis=1)],
        "one node",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
    )
    old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    new = convert_version(old, 13)
    for model in (old, new):
        onnx.checker.check_model(model, full_check=True)
        (y,) = ReferenceEvaluator(model).run(None, {"x": x})
        seen.append(bool(np.allclose(y, expected, rtol=1e-5)))
        nodes = " ".join(node.op_type for node in model.graph.node)
        opset = model.opset_import[0].version
        print(f"opset {opset}, {nodes}: {y.round(3).tolist()}, {'right' if seen[-1] else 'wrong'}")
if seen != [False, True, False, True, False, False]:
    sys.exit(f"changed: right are {seen}")
PYTHON
venv/bin/python main.py
