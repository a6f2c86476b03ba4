"""The ONNX project's own backend suite, from the package onnx: its cases as networks that `models.load` reads.

A network here has one input, images. Where a case has several, the first is the network's; another of the same shape is
joined with it and split off again inside; the rest are written into the file as the constants that they are.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import models
from models.exchange.onnx_file import read_file
from models.exchange.onnx_reader import Walk

MODULES = """
abs add averagepool batch_normalization celu clip concat conv convtranspose depthtospace div dropout elu erf exp
expand flatten gather gelu gemm globalaveragepool globalmaxpool groupnormalization hardsigmoid hardswish identity
instance_normalization layernormalization leakyrelu log logsoftmax lrn matmul max maxpool mean min mish mul neg pad
pow prelu reciprocal reduce_log_sum reducel1 reducel2 reducemax reducemean reducemin reducesum reducesumsquare relu
reshape selu sigmoid slice softmax softplus softsign spacetodepth split sqrt squeeze sub sum swish tanh
thresholdedrelu tile transpose unsqueeze
"""
"""The modules of the suite's node cases whose operators are known here."""

BEFORE = {"batch_normalization": "batchnorm", "instance_normalization": "instancenorm"}
"""What some were called before onnx 1.23. Others it has had for as long as their operators."""


@dataclass(frozen=True)
class Case:
    """A case: its name, the network, the inputs and what comes out, and how close it has to come."""

    name: str
    model: Any
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]
    rtol: float
    atol: float

    @property
    def operator(self) -> str:
        """The operator of a node case."""
        return str(self.model.graph.node[0].op_type)


def node_cases(modules: Iterable[str] = tuple(MODULES.split())) -> list[Case]:
    """Those of one node over floats, but for those that spell the node out, and for tensors with three axes of space.

    There is no kernel for the latter, and the suite takes many seconds to make them.
    """
    from onnx.backend.test.case import base, node

    wanted = list(modules)
    exported = base._Exporter.__init__

    def flat_ones(cls: type, name: str, bases: Any, made: dict[str, Any]) -> None:
        exported(cls, name, bases, {key: value for key, value in made.items() if "_3d" not in key})

    with (
        patch.object(base._Exporter, "__init__", flat_ones),
        warnings.catch_warnings(action="ignore"),
        np.errstate(all="ignore"),
    ):
        there = {module.name for module in pkgutil.iter_modules(node.__path__)}
        for module in wanted:
            if (name := module if module in there else BEFORE.get(module)) in there:
                importlib.import_module(f"{node.__name__}.{name}")
    cases = {}
    for each in node._NodeTestCases:
        inputs, outputs = ([_array(value) for value in values] for values in each.data_sets[0])
        if "_expanded" in each.name or inputs[0].dtype.kind != "f" or any(x.dtype == object for x in inputs):
            continue
        cases[each.name] = Case(each.name, each.model, list(inputs), list(outputs), each.rtol, each.atol)
    operators = {name.replace("_", "") for name in wanted}
    return sorted(
        (case for case in cases.values() if case.operator.lower() in operators),
        key=lambda case: case.name,
    )


def _array(value: Any) -> np.ndarray:
    """A value of a case; an array of objects where it is no tensor."""
    return np.asarray(value, None if isinstance(value, np.ndarray | np.generic) else object)


def file_cases(kind: str) -> Iterator[Case]:
    """Those that lie as files in the package: pytorch-converted, pytorch-operator, simple."""
    import onnx
    from onnx import numpy_helper
    from onnx.backend.test.loader import load_model_tests

    for each in load_model_tests(kind=kind):
        folder = Path(each.model_dir)
        model = onnx.load(folder / "model.onnx")
        held: dict[str, list[np.ndarray]] = {}
        for side in ("input", "output"):
            files = sorted(
                (folder / "test_data_set_0").glob(f"{side}_*.pb"), key=lambda path: int(path.stem[len(side) + 1 :])
            )
            held[side] = [numpy_helper.to_array(onnx.load_tensor(file)) for file in files]
        yield Case(each.name, model, held["input"], held["output"], each.rtol, each.atol)


def with_one_input(case: Case) -> tuple[Any, np.ndarray]:
    """The case's network with one input, and what to feed it."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    held = {each.name for each in graph.initializer}
    names = [each.name for each in graph.input if each.name not in held]
    joins = case.operator in ("Add", "Sub", "Mul", "Div", "Pow", "Sum", "Mean", "Max", "Min", "Concat")
    live = next((at for at, array in enumerate(case.inputs) if array.dtype.kind == "f" and array.ndim), 0)
    x = case.inputs[live]
    twin = next(
        (
            at
            for at, array in enumerate(case.inputs)
            if joins and at != live and array.shape == x.shape and array.dtype == x.dtype and x.ndim
        ),
        None,
    )
    kept = [each for each in graph.input if each.name == names[live]]
    for at, array in enumerate(case.inputs):
        if at not in (live, twin):
            graph.initializer.append(numpy_helper.from_array(array, names[at]))
    if twin is not None:
        x = np.concatenate([x, case.inputs[twin]], axis=-1)
        both = helper.make_tensor_value_info("both", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        size = x.shape[-1] // 2
        parts = []
        for at, (first, name) in enumerate(((0, names[live]), (size, names[twin]))):
            for key, value in (("starts", first), ("ends", first + size), ("axes", x.ndim - 1)):
                graph.initializer.append(numpy_helper.from_array(np.array([value]), f"{key}{at}"))
            parts.append(helper.make_node("Slice", ["both", f"starts{at}", f"ends{at}", f"axes{at}"], [name]))
        nodes = [*parts, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        kept = [both]
    del graph.input[:]
    graph.input.extend(kept)
    return model, x


def answered(case: Case, backend: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What the network answers, and what it should, both with the axes in the order that they have here."""
    import onnx

    model, x = with_one_input(case)
    onnx.save(model, path)
    network = models.load(path, backend)
    if network.input_shape == x.shape:  # the first axis is no batch
        return network.predict(x[np.newaxis])[0], case.outputs[0]
    walk = Walk(read_file(path))
    walk.graph("numpy")
    got = network.predict(x.transpose(walk.input_order).reshape(len(x), *network.input_shape))
    return got, case.outputs[0].transpose(walk.output_order)


def outcome(case: Case, backend: str, path: Path) -> str:
    """ "" where the network answers as the case says; else the reason for which it is refused.

    Raises AssertionError for a wrong answer.
    """
    try:
        got, want = answered(case, backend, path)
    except models.ModelFormatError as error:
        text = str(error).removeprefix(f"{path}: ").partition("; `twinkernels")[0]
        return text.partition(f"operator {case.operator}, ")[2] or text
    assert got.shape == want.shape, case.name
    tolerance = {"rtol": max(case.rtol, 1e-4), "atol": max(case.atol, 1e-6)}
    np.testing.assert_allclose(got, want, **tolerance, err_msg=case.name)
    return ""
