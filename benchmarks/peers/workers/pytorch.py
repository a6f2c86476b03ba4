"""PyTorch: eager by the book, tuned, and compiled."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import nn

from ..networks import EPS, KERNEL, RHO, Case, Network, Peer, Unavailable, Weights


def network(network: Network, weights: Weights) -> nn.Module:
    """The network in NCHW, with our weights."""
    layers: list[nn.Module] = []
    channels = 1
    for filters in network.filters:
        layers += [nn.Conv2d(channels, filters, KERNEL), nn.BatchNorm2d(filters), nn.ReLU(), nn.MaxPool2d(2)]
        channels = filters
    layers.append(nn.Flatten())
    for inputs, outputs in network.linear_shapes:
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(OrderedDict((str(i), layer) for i, layer in enumerate(layers[:-1])))

    height, width, channels = network.map_shape
    first, *others = weights.linear
    first = first.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(first.shape)
    converted = [w.transpose(3, 2, 0, 1) for w in weights.convolutions] + [w.T for w in (first, *others)]
    with torch.no_grad():
        for layer, w in zip(
            (layer for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)), converted, strict=True
        ):
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(w)))
            layer.bias.zero_()
    return model


def optimizer(network: Network, parameters: Any, fused: bool) -> torch.optim.Optimizer:
    """The network's optimizer; fused where PyTorch has it for the CPU."""
    rate = network.learning_rate
    if network.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate, alpha=RHO, eps=EPS)
    if network.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, eps=EPS, fused=fused)
    return torch.optim.SGD(parameters, lr=rate, fused=fused)


def prepare(case: Case) -> Peer:
    """Variants: eager; tuned (channels_last, fused optimizer); compile and compile channels_last (fused as well)."""
    torch.set_num_threads(case.threads)
    compiled = case.variant.startswith("compile")
    if compiled and not (shutil.which("g++") or shutil.which("clang++") or shutil.which("cl")):
        raise Unavailable("torch.compile needs a C++ compiler, and there is none on PATH")
    channels_last = case.variant in ("tuned", "compile channels_last") and bool(case.network.filters)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model: Any = network(case.network, case.weights)
    if case.network.filters:
        model = model.to(memory_format=layout)

    def images(x: np.ndarray) -> torch.Tensor:
        # One channel: NHWC and NCHW are the same bytes, and no copy is made.
        return torch.from_numpy(x.reshape(len(x), 1, *x.shape[1:3])).contiguous(memory_format=layout)

    versions = {"torch": torch.__version__}
    if case.task == "infer":
        model.eval()
        if compiled:
            from torch._inductor import config

            config.freezing = True  # weights become constants, and batch-norm is folded
            model = torch.compile(model, dynamic=False)

        def predict(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                logits: np.ndarray = model(images(x)).numpy()
            return logits

        def predict_frozen(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            with torch.no_grad():  # freezing does not work with tensors of inference mode
                logits: np.ndarray = model(images(x)).numpy()
            return logits

        return Peer(predict_frozen if compiled else predict, versions)

    update = optimizer(case.network, model.parameters(), fused=case.variant != "eager")
    loss_function = nn.CrossEntropyLoss()
    notes = []

    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss_function(model(x), y)

    apply = update.step
    if compiled:
        forward = torch.compile(forward, dynamic=False)
        if case.network.optimizer == "rmsprop":  # has no fused form for the CPU
            apply = torch.compile(update.step)
            notes.append("the optimizer step is compiled, too")

    def step(x: np.ndarray, y: np.ndarray) -> float:
        update.zero_grad(set_to_none=True)
        loss = forward(images(x), torch.from_numpy(y))
        loss.backward()
        apply()
        return float(loss.item())

    return Peer(step, versions, tuple(notes))
