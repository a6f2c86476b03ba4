"""Models: layers, graphs, training. The backend is chosen when a model is built.

What one writes     `layers`, `init`, `losses`, `optimizers`, `schedules`; `zoo` has networks that are written
What it becomes     `nodes` in a `graph`, or in a line (`sequential`), by an `architecture`
How it runs         `lowering` writes it with a `builder` into a `plan`, whose order `flow` checks; `layout` places its
                    parameters, `rewrite` fuses steps, `execute` runs them in `locks`' turns, `epochs` over a data set
How it learns       `trainer` takes steps, of `parts` at rates of their own, `fit` loops over epochs; `callbacks`,
                    `logs`, `history`, `nonfinite`, `rates`, `gradcheck`
Where it runs       `sharding` cuts its batches, which a `communicator`'s processes share
How it lasts        `encoding`, `saving`, `loading`; `checkpoints` of a running fit

>>> from models import Sequential, Linear, ReLU
>>> Sequential([Linear(8), ReLU(), Linear(3)], input_shape=(4,), backend="numpy").output_shape
('N', 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .architecture import Architecture
from .builder import PlanBuilder
from .callbacks import Callback, EarlyStopping
from .checkpoints import Checkpoints
from .communicator import Communicator, RankError
from .encoding import ModelFormatError
from .gradcheck import GradientCheck, gradcheck
from .graph import DEFAULT_BACKEND, Evaluation, Graph, accuracy
from .history import Epoch, History
from .init import Constant, HeNormal, HeUniform, Initialiser, Normal, XavierNormal, XavierUniform, Zeros
from .layers import (
    CELU,
    ELU,
    GELU,
    SELU,
    Abs,
    Add,
    Affine,
    AvgPool2d,
    BatchNorm,
    Clip,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Divide,
    Dropout,
    Dropout2d,
    Erf,
    Exp,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    Log,
    LogSoftmax,
    MaxPool2d,
    Mean,
    MeanNorm,
    Mish,
    Multiply,
    Negative,
    Pad2d,
    Parameter,
    ParametricPower,
    Power,
    PReLU,
    RaiseToPower,
    Reciprocal,
    ReLU,
    ReLU6,
    Reshape,
    Sigmoid,
    SiLU,
    Slice,
    Softmax,
    Softplus,
    Softsign,
    Sqrt,
    Subtract,
    Tanh,
    ThresholdedReLU,
    Transpose,
    Upsample2d,
)
from .loading import load
from .logs import CSVLog, TensorBoardLog
from .losses import (
    BinaryCrossEntropy,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    SoftCrossEntropy,
    SoftmaxCrossEntropy,
)
from .nonfinite import NonFiniteError
from .optimizers import SGD, Adam, AdamW, Optimizer, RMSProp
from .plan import Plan, Step, Value
from .rates import LearningRates, find_learning_rate
from .schedules import Cosine, Exponential, LinearWarmup, MultiStep, OneCycle, Schedule, StepDecay
from .sequential import Sequential
from .trainer import Trainer
from .zoo import NETWORKS, build

Array, Lowering = Parameter, PlanBuilder  # their names of before

if TYPE_CHECKING:
    from .exchange.torch_reader import from_torch

__all__ = [
    "CELU",
    "DEFAULT_BACKEND",
    "ELU",
    "GELU",
    "NETWORKS",
    "SELU",
    "SGD",
    "Abs",
    "Adam",
    "AdamW",
    "Add",
    "Affine",
    "Architecture",
    "Array",
    "AvgPool2d",
    "BatchNorm",
    "BinaryCrossEntropy",
    "CSVLog",
    "Callback",
    "Checkpoints",
    "Clip",
    "Communicator",
    "Concat",
    "Constant",
    "Conv2d",
    "ConvTranspose2d",
    "Cosine",
    "Divide",
    "Dropout",
    "Dropout2d",
    "EarlyStopping",
    "Epoch",
    "Erf",
    "Evaluation",
    "Exp",
    "Exponential",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "GradientCheck",
    "Graph",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "HeNormal",
    "HeUniform",
    "History",
    "Huber",
    "Initialiser",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LearningRates",
    "Linear",
    "LinearWarmup",
    "LocalResponseNorm",
    "Log",
    "LogSoftmax",
    "Loss",
    "Lowering",
    "MaxPool2d",
    "Mean",
    "MeanAbsoluteError",
    "MeanNorm",
    "MeanSquaredError",
    "Mish",
    "ModelFormatError",
    "MultiStep",
    "Multiply",
    "Negative",
    "NonFiniteError",
    "Normal",
    "OneCycle",
    "Optimizer",
    "PReLU",
    "Pad2d",
    "Parameter",
    "ParametricPower",
    "Plan",
    "PlanBuilder",
    "Power",
    "RMSProp",
    "RaiseToPower",
    "RankError",
    "ReLU",
    "ReLU6",
    "Reciprocal",
    "Reshape",
    "Schedule",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Slice",
    "SoftCrossEntropy",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Step",
    "StepDecay",
    "Subtract",
    "Tanh",
    "TensorBoardLog",
    "ThresholdedReLU",
    "Trainer",
    "Transpose",
    "Upsample2d",
    "Value",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
    "accuracy",
    "build",
    "find_learning_rate",
    "from_torch",
    "gradcheck",
    "load",
]


def __getattr__(name: str) -> Any:
    if name == "from_torch":  # with all that reads other libraries' networks, which takes as long as the rest
        from .exchange.torch_reader import from_torch

        return from_torch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
