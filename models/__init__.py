"""Models: layers, graphs, training. The backend is chosen when a model is built.

What one writes     `layers`, `init`, `losses`, `optimizers`, `schedules`; `zoo` has networks that are written
What it becomes     `nodes` in a `graph`, or in a line (`sequential`), by an `architecture`
How it runs         `lowering` writes it with a `builder` into a `plan`, whose order `flow` checks; `layout` places its
                    parameters, `rewrite` fuses steps, `execute` runs them in `locks`' turns, `epochs` over a data set
How it learns       `trainer` takes steps, `fit` loops over epochs; `callbacks`, `history`, `nonfinite`, `gradcheck`
How it lasts        `encoding`, `saving`, `loading`; `checkpoints` of a running fit

>>> from models import Sequential, Linear, ReLU
>>> Sequential([Linear(8), ReLU(), Linear(3)], input_shape=(4,), backend="numpy").output_shape
('N', 3)
"""

from __future__ import annotations

from .architecture import Architecture
from .builder import PlanBuilder
from .callbacks import Callback, EarlyStopping
from .checkpoints import Checkpoints
from .encoding import ModelFormatError
from .gradcheck import GradientCheck, gradcheck
from .graph import DEFAULT_BACKEND, Evaluation, Graph, accuracy
from .history import Epoch, History
from .init import Constant, HeNormal, HeUniform, Initialiser, Normal, XavierNormal, XavierUniform, Zeros
from .layers import (
    ELU,
    GELU,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Layer,
    LeakyReLU,
    Linear,
    LogSoftmax,
    MaxPool2d,
    MeanNorm,
    Parameter,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from .loading import load
from .losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from .nonfinite import NonFiniteError
from .optimizers import SGD, Adam, AdamW, Optimizer, RMSProp
from .plan import Plan, Step, Value
from .schedules import Cosine, Exponential, LinearWarmup, MultiStep, OneCycle, Schedule, StepDecay
from .sequential import Sequential
from .trainer import Trainer
from .zoo import NETWORKS, build

Array, Lowering = Parameter, PlanBuilder  # their names of before

__all__ = [
    "DEFAULT_BACKEND",
    "ELU",
    "GELU",
    "NETWORKS",
    "SGD",
    "Adam",
    "AdamW",
    "Add",
    "Architecture",
    "Array",
    "AvgPool2d",
    "BatchNorm",
    "Callback",
    "Checkpoints",
    "Concat",
    "Constant",
    "Conv2d",
    "Cosine",
    "Dropout",
    "EarlyStopping",
    "Epoch",
    "Evaluation",
    "Exponential",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "GradientCheck",
    "Graph",
    "HeNormal",
    "HeUniform",
    "History",
    "Initialiser",
    "Layer",
    "LeakyReLU",
    "Linear",
    "LinearWarmup",
    "LogSoftmax",
    "Loss",
    "Lowering",
    "MaxPool2d",
    "MeanNorm",
    "MeanSquaredError",
    "ModelFormatError",
    "MultiStep",
    "NonFiniteError",
    "Normal",
    "OneCycle",
    "Optimizer",
    "Parameter",
    "Plan",
    "PlanBuilder",
    "RMSProp",
    "ReLU",
    "Schedule",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "Step",
    "StepDecay",
    "Tanh",
    "Trainer",
    "Value",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
    "accuracy",
    "build",
    "gradcheck",
    "load",
]
