"""ONNX Runtime, inference alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ..networks import KERNEL, Case, Peer

OPSET = 17


def model(case: Case) -> onnx.ModelProto:
    """The network as a graph for images (N, 1, 28, 28)."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    value = "images"

    def constant(name: str, array: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def add(operator: str, *constants: str, **attributes: Any) -> None:
        nonlocal value
        output = f"{operator}{len(nodes)}"
        nodes.append(helper.make_node(operator, [value, *constants], [output], **attributes))
        value = output

    for i, w in enumerate(case.weights.convolutions):
        f = w.shape[-1]
        bias = constant(f"conv{i}.b", np.zeros(f))
        add("Conv", constant(f"conv{i}.w", w.transpose(3, 2, 0, 1)), bias, kernel_shape=[KERNEL, KERNEL])
        statistics = {"gamma": np.ones(f), "beta": np.zeros(f), "mean": np.zeros(f), "var": np.ones(f)}
        add("BatchNormalization", *(constant(f"norm{i}.{k}", v) for k, v in statistics.items()), epsilon=1e-5)
        add("Relu")
        add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    add("Flatten")
    height, width, channels = case.network.map_shape
    first, *others = case.weights.linear
    first = first.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(first.shape)
    for i, w in enumerate((first, *others)):
        add("Gemm", constant(f"linear{i}.w", w), constant(f"linear{i}.b", np.zeros(w.shape[1])))
        if i < len(others):
            add("Relu")
    shape = [case.batch_size, 1, *case.x.shape[2:4]]
    graph = helper.make_graph(
        nodes,
        case.network.name,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, [case.batch_size, 10])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def prepare(case: Case) -> Peer:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model(case).SerializeToString(), options, providers=["CPUExecutionProvider"])

    def predict(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run(None, {"images": x.reshape(len(x), 1, *x.shape[1:3])})[0]
        return logits

    return Peer(predict, {"onnxruntime": onnxruntime.__version__})
