"""Who takes part: one line for each library and way of using it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OURS = "twinkernels"
REFERENCE = "numpy"
"""The variant of ours whose losses the others' are compared with."""

# glibc gives freed memory back to the system at once, and PyTorch then pays for page faults in every step.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}
# One compiler process: a pool of them would stay around and share the cores with what is measured.
COMPILE = KEEP_MEMORY | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}

BOTH = ("train", "infer")


@dataclass(frozen=True)
class Variant:
    """A library used in one way. module: where its `prepare(case) -> Peer` lives. networks: all if empty."""

    peer: str
    name: str
    module: str
    tasks: tuple[str, ...] = BOTH
    networks: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """ "peer variant", as tables show it."""
        return f"{self.peer} {self.name}"

    def takes(self, network: str, task: str) -> bool:
        """Whether this variant has something of its own to show there."""
        return task in self.tasks and (not self.networks or network in self.networks)


WORKERS = f"{__package__}.workers"
MLPS = ("mlp-512", "mlp-256-128")

VARIANTS = (
    Variant(OURS, "numba", f"{WORKERS}.ours"),
    Variant(OURS, "numpy", f"{WORKERS}.ours"),
    Variant(OURS, "numba bfloat16", f"{WORKERS}.ours"),
    Variant("torch", "eager", f"{WORKERS}.pytorch"),
    Variant("torch", "tuned", f"{WORKERS}.pytorch", environment=KEEP_MEMORY),
    Variant("torch", "compile", f"{WORKERS}.pytorch", environment=COMPILE),
    Variant("torch", "compile channels_last", f"{WORKERS}.pytorch", networks=("cnn-bn",), environment=COMPILE),
    Variant("jax", "jit", f"{WORKERS}.xla"),
    Variant("jax", "jit reduce_window", f"{WORKERS}.xla", networks=("cnn-bn",)),
    Variant("keras", "graph", f"{WORKERS}.tensorflow_keras", environment=QUIET),
    Variant("keras", "jit_compile", f"{WORKERS}.tensorflow_keras", environment=QUIET),
    Variant("sklearn", "MLPClassifier", f"{WORKERS}.scikit", networks=MLPS),
    Variant("onnxruntime", "session", f"{WORKERS}.onnx", tasks=("infer",)),
    Variant("openvino", "as it comes", f"{WORKERS}.openvino", tasks=("infer",)),
    Variant("openvino", "float32", f"{WORKERS}.openvino", tasks=("infer",)),
)

DISTRIBUTIONS = {
    "torch": ("torch",),
    "jax": ("jax",),
    "keras": ("tensorflow", "keras"),
    "sklearn": ("scikit-learn",),
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
}
"""What to install for each peer; versions are in requirements.txt. PyTorch comes first, alone: it is the largest."""
