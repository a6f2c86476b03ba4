"""The rule of every kernel: it is there, real calls fit it, and what differs from them in one place does not."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.suite.cases import CASES
from benchmarks.suite.common import record
from kernels import Input, Kernel, Output, kernel_names, rules, shapes
from kernels.accuracy import Call
from kernels.interface import Fused, Scalar, roles

KERNELS = [*kernel_names(), *kernel_names(Fused)]
FREE = {("smooth2d", "weights"), ("uniform", "u")}
"""Arrays with an axis that nothing else tells of."""

GEOMETRIES = (shapes.Conv2dDims, shapes.Pool2dDims, shapes.SliceDims, shapes.Pad2dDims)
"""Dims of which others may be for the same arrays."""

FIRST = {case.kernel: case for case in reversed(CASES) if "small" in case.tags}
"""A small case of each kernel of the contract."""


def arrays(kernel: str) -> set[str]:
    return {name for name, role in roles(kernel).items() if role not in ("scratch", "attribute")}


def given(call: Call) -> dict[str, Any]:
    """A call's arguments as a plan has them."""
    rule = rules.rule(call.kernel)
    assert rule is not None
    arguments = {name: value for name, value in call.arguments.items() if roles(call.kernel)[name] != "scratch"}
    for name, axes in rule.arrays:
        if isinstance(value := arguments[name], np.ndarray):
            batch = axes.sizes[:1] == ("N",)
            shape = ("N", *value.shape[1:]) if batch else value.shape
            arguments[name] = array(shape, None if value.dtype.kind == "f" else value.dtype)
    return arguments


def array(shape: tuple[Any, ...], dtype: Any) -> Any:
    return SimpleNamespace(shape=tuple(shape), dtype=dtype)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_has_a_rule_for_each_of_its_arrays(kernel: str) -> None:
    rule = rules.rule(kernel)
    assert rule is not None
    assert {name for name, _ in rule.arrays} == arrays(kernel)


def test_there_is_no_rule_of_another_name() -> None:
    assert list(rules.RULES) == KERNELS


@pytest.mark.parametrize("kernel", kernel_names())
def test_the_calls_of_the_table_fit(kernel: str) -> None:
    for case in CASES:
        if case.kernel == kernel and "bench" not in case.tags:
            rules.check(kernel, given(record(case)))


def slips(call: Call, arguments: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The call with one thing changed, and which."""
    rule = rules.rule(call.kernel)
    assert rule is not None
    for name, value in arguments.items():
        role = roles(call.kernel)[name]
        flat = any(axes.flat for own, axes in rule.arrays if own == name)
        if role != "attribute" and value is not None:
            if (call.kernel, name) not in FREE:
                for at, size in enumerate(value.shape):
                    for other in [7] if size == "N" else [size + 1, max(size - 1, 0) or size + 2]:
                        changed = (*value.shape[:at], other, *value.shape[at + 1 :])
                        yield f"{name} {changed}", arguments | {name: array(changed, value.dtype)}
                if not flat:
                    yield f"{name} with an axis more", arguments | {name: array((*value.shape, 1), value.dtype)}
            for dtype in (np.float64, np.int32, None if value.dtype is not None else np.float32):
                yield f"{name} {dtype}", arguments | {name: array(value.shape, dtype and np.dtype(dtype))}
        elif hasattr(value, "_fields"):
            yield f"{name} a tuple", arguments | {name: tuple(value)}
            for field, size in value._asdict().items():
                for wrong in (size + 1, size - 1, 0.5, "1"):
                    yield f"{name}.{field} {wrong}", arguments | {name: value._replace(**{field: wrong})}
        elif value is not None:
            yield f"{name} a word", arguments | {name: "word"}


@pytest.mark.parametrize("kernel", kernel_names())
def test_one_slip_is_refused_in_a_line_that_names_the_kernel(kernel: str) -> None:
    call = record(FIRST[kernel])
    arguments = given(call)
    for slip, changed in slips(call, arguments):
        if told := refusal(kernel, changed):
            assert told.startswith(f"kernel {kernel}: "), slip
            assert "\n" not in told, slip
        else:  # other dims may be another geometry of the same arrays
            assert isinstance(changed.get("d"), GEOMETRIES), f"{slip} passes"
            assert slip.startswith("d."), f"{slip} passes"


def refusal(kernel: str, arguments: dict[str, Any]) -> str:
    """The words in which a call is refused; "" for one that fits."""
    try:
        rules.check(kernel, arguments)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def test_a_scalar_of_a_run_has_the_kind_of_its_parameter() -> None:
    p = array((3,), None)
    arguments = dict.fromkeys(("p", "g", "m", "v"), p) | {"step": Scalar("step", int), "decoupled": False}
    numbers = dict.fromkeys(("learning_rate", "beta1", "beta2", "eps", "weight_decay"), 0.1)
    rules.check("adam", arguments | numbers)
    with pytest.raises(TypeError, match="kernel adam: step is Scalar, expected int"):
        rules.check("adam", arguments | numbers | {"step": Scalar("learning_rate", float)})
    with pytest.raises(TypeError, match="kernel adam: v is None, expected an array"):
        rules.check("adam", arguments | numbers | {"v": None})


def gain(x: Input, gain: Input, y: Output) -> None:
    np.multiply(x, gain, out=y)


def test_a_kernel_written_elsewhere_is_held_to_what_it_declares() -> None:
    declared = Kernel(gain, shapes="x y (N, ..., C), gain (C)")
    x, c = array(("N", 5, 3), None), array((3,), None)
    rules.check(declared, {"x": x, "gain": c, "y": x})
    with pytest.raises(ValueError, match=r"kernel gain: gain has shape \(5,\), expected \(3,\): gain\(x \(N, 5, 3\)"):
        rules.check(declared, {"x": x, "gain": array((5,), None), "y": x})
    rules.check(Kernel(gain), {"x": x, "gain": array((5,), None), "y": x})  # which has to look itself
    with pytest.raises(ValueError, match=r"a rule is 'x y N': 'x y N' is no"):
        rules.check(Kernel(gain, shapes="x y N"), {"x": x, "gain": c, "y": x})
    with pytest.raises(ValueError, match=r"kernel gain: shapes is 'x z \(N\)', expected gain, x, y; not so gain, y, z"):
        rules.check(Kernel(gain, shapes="x z (N)"), {"x": x, "gain": c, "y": x})
    with pytest.raises(ValueError, match="kernel gain: its shapes name 'k', which the call has not"):
        rules.check(Kernel(gain, shapes="x y (N, 5, k), gain (k)"), {"x": x, "gain": c, "y": x})


def test_a_twin_says_the_shapes_of_its_arrays() -> None:
    with pytest.raises(ValueError, match="Kernel: gain has a twin and no shapes, expected the axes of its arrays"):
        Kernel(gain, lambda x, gain, y: None)
    undeclared = Kernel(gain, lambda x, gain, y: None, shapes="x gain y (any)")
    x, c = array(("N", 5, 3), None), array((3,), None)
    rules.check(undeclared, {"x": x, "gain": c, "y": x})
    with pytest.raises(TypeError, match="kernel gain: y has dtype int64, expected the model's own"):
        rules.check(undeclared, {"x": x, "gain": c, "y": array(("N", 5, 3), np.dtype(np.int64))})
