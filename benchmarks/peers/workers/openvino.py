"""OpenVINO, inference alone: in the precision that it chooses for the processor, and in float32."""

from __future__ import annotations

import numpy as np
import openvino

from ..networks import Case, Peer
from .onnx import model

PRECISIONS = {"as it comes": {}, "float32": {"INFERENCE_PRECISION_HINT": "f32"}}


def prepare(case: Case) -> Peer:
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": case.threads, "PERFORMANCE_HINT": "LATENCY", **PRECISIONS[case.variant]}
    compiled = core.compile_model(core.read_model(model(case).SerializeToString()), "CPU", settings)
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    request = compiled.create_infer_request()

    def predict(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        logits: np.ndarray = request.infer([x.reshape(len(x), 1, *x.shape[1:3])], share_inputs=True)[0]
        return logits

    notes = (f"it computes in {precision}",)
    return Peer(predict, {"openvino": openvino.__version__}, notes, comparable=precision == "f32")
