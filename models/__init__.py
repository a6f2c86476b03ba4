"""Models: layers, graphs, training. The backend is chosen when a model is built.

>>> from models import Sequential, Linear, ReLU
>>> Sequential([Linear(8), ReLU(), Linear(3)], input_shape=(4,), backend="numpy").output_shape
('N', 3)
"""

from __future__ import annotations

from .callbacks import Callback, EarlyStopping
from .checkpoint import ModelFormatError, load
from .gradcheck import GradientCheck, gradcheck
from .graph import DEFAULT_BACKEND, Evaluation, Graph, accuracy
from .history import Epoch, History
from .init import Constant, HeNormal, HeUniform, Initialiser, Normal, XavierNormal, XavierUniform, Zeros
from .layers import (
    ELU,
    GELU,
    Add,
    Array,
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
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from .losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from .nonfinite import NonFiniteError
from .optimizers import SGD, Adam, AdamW, Optimizer, RMSProp
from .plan import Lowering, Plan, Step, Value
from .schedules import Cosine, Exponential, LinearWarmup, MultiStep, OneCycle, Schedule, StepDecay
from .sequential import Sequential
from .snapshots import Checkpoints
from .trainer import Trainer
from .zoo import NETWORKS, build

__all__ = [
    "DEFAULT_BACKEND",
    "ELU",
    "GELU",
    "NETWORKS",
    "SGD",
    "Adam",
    "AdamW",
    "Add",
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
    "Plan",
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
