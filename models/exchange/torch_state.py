"""PyTorch's state dicts, in and out: the weights of a network whose layers are known on this side.

A state dict names arrays by module, `conv1.weight`, and knows no architecture. Its modules are matched with the layers
that have arrays: by name where all names are those of nodes, else in order, else by shape where that leaves no doubt.
Channels come first there: `layout` turns the weights, those of a linear layer behind a flattened image too.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.files import write_atomically

from ..encoding import ModelFormatError, printable
from ..nodes import INPUT, Node
from . import layout
from .formats import TORCH, kind_of
from .hdf5 import failing_as

if TYPE_CHECKING:
    from ..graph import Graph

State = Mapping[str, np.ndarray]
Image = tuple[int, int, int]
Turn = Callable[[np.ndarray], np.ndarray]

NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Under what trainings keep a state dict beside an optimizer's."""
UNREAD = "num_batches_tracked"
SAFETENSORS_HEADER = 1 << 27


# Which array is which ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slot:
    """One array of a layer: its name here, its name and shape in PyTorch, and how it is turned, in and out."""

    ours: str
    theirs: str
    shape: tuple[int, ...]
    read: Turn
    write: Turn


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _linear(image: Image | None) -> tuple[Turn, Turn]:
    if image is None:
        return np.transpose, np.transpose
    return lambda w: layout.flattened_in(w.T, image), lambda w: layout.flattened_out(w, image).T


def _vector(image: Image | None) -> tuple[Turn, Turn]:
    """For arrays with one number a channel, or one a number of a flattened image."""
    if image is None:
        return _same, _same
    return (
        lambda v: layout.flattened_in(v[:, np.newaxis], image)[:, 0],
        lambda v: layout.flattened_out(v[:, np.newaxis], image)[:, 0],
    )


def _block(array: np.ndarray) -> np.ndarray:
    """(C, H, W), of a normalisation over whole images, as (H, W, C)."""
    return array.transpose(1, 2, 0) if array.ndim == 3 else array


def _unblock(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 0, 1) if array.ndim == 3 else array


def slots(model: Graph, node: Node) -> tuple[Slot, ...]:
    """The arrays of a node as PyTorch has them. ModelFormatError for a layer with arrays that PyTorch has not."""
    names = arrays_of(model, node)
    if not names:
        return ()
    image = flattened_image(model, node)
    kind = type(node.layer).__name__
    turned: dict[str, tuple[str, tuple[Turn, Turn]]]
    if kind == "Linear":
        turned = {"w": ("weight", _linear(image)), "b": ("bias", (_same, _same))}
    elif kind == "Conv2d":
        turned = {"w": ("weight", (layout.convolution_in, layout.convolution_out)), "b": ("bias", (_same, _same))}
    elif kind == "ConvTranspose2d":
        turned = {"w": ("weight", (layout.transposed_in, layout.transposed_out)), "b": ("bias", (_same, _same))}
    elif kind in ("BatchNorm", "InstanceNorm", "GroupNorm"):
        pairs = {"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"}
        turned = {ours: (theirs, _vector(image)) for ours, theirs in pairs.items()}
    elif kind == "LayerNorm":
        turned = {"gamma": ("weight", (_block, _unblock)), "beta": ("bias", (_block, _unblock))}
    elif kind == "PReLU":
        turned = dict.fromkeys(names, ("weight", _vector(None if len(names[0]) == 0 else image)))
    else:
        raise ModelFormatError(f"node {node.name!r} ({node.layer}) has no counterpart in PyTorch")
    shapes = model.parameter_layout.shapes | model.statistic_layout.shapes
    found = []
    for name in names:
        theirs, (read, write) = turned[name]
        shape = write(np.broadcast_to(np.False_, shapes[f"{node.name}.{name}"])).shape
        found.append(Slot(name, theirs, shape, read, write))
    return tuple(found)


def arrays_of(model: Graph, node: Node) -> list[str]:
    """The names of a node's arrays: parameters, then statistics."""
    held = [*model.parameter_layout.shapes, *model.statistic_layout.shapes]
    return [key for before, _, key in (name.rpartition(".") for name in held) if before == node.name]


def flattened_image(model: Graph, node: Node) -> Image | None:
    """(H, W, C) of the image that a node reads flattened, through layers that keep its order; None for no image.

    PyTorch numbers what is flattened by (C, H, W). Where H W is 1, or C, both orders are one. Raises ModelFormatError
    where a flattened image has been joined, cut or turned on its way.
    """
    nodes = {other.name: other for other in model.nodes}
    source = node.inputs[0]
    while source != INPUT and len(model.node_shapes[source]) == 2:
        before = nodes[source]
        shape = model.node_shapes[before.inputs[0]]
        kind = type(before.layer).__name__
        if kind in ("Flatten", "Reshape") and len(shape) == 4:
            if _turned(nodes, before.inputs[0]):
                return None
            height, width, channels = (int(size) for size in shape[1:])
            return None if height * width == 1 or channels == 1 else (height, width, channels)
        if kind in NEW_ORDER:
            return None
        if kind in OTHER_ORDER and any(flattened_image(model, Node(kind, before.layer, (i,))) for i in before.inputs):
            raise ModelFormatError(
                f"node {before.name!r} ({kind}) changes the order of a flattened image before {node.name!r}"
            )
        source = before.inputs[0]
    return None


def _turned(nodes: Mapping[str, Node], source: str) -> bool:
    """Whether a map already lies channels first, in PyTorch's order."""
    while source != INPUT and len(nodes[source].inputs) == 1:
        layer = nodes[source].layer
        if type(layer).__name__ == "Transpose":
            if getattr(layer, "axes", ()) == (3, 1, 2):
                return True
            raise ModelFormatError(
                f"node {source!r} ({layer}) turns a map that is flattened, to an order that PyTorch has not"
            )
        if type(layer).__name__ not in KEPT:
            return False
        source = nodes[source].inputs[0]
    return False


KEPT = (
    "BatchNorm",
    "Dropout",
    "Dropout2d",
    "ReLU",
    "LeakyReLU",
    "ELU",
    "GELU",
    "SiLU",
    "Sigmoid",
    "Tanh",
    "Softplus",
    "Clip",
    "Affine",
)
"""Layers behind which a map lies as before."""
NEW_ORDER = ("Linear", "GlobalAvgPool2d", "GlobalMaxPool2d", "Mean")
OTHER_ORDER = ("Concat", "Reshape", "Transpose", "Slice", "Split")


# In ---------------------------------------------------------------------------------------------------------------


def set_state(model: Graph, state: State, in_order: bool = True) -> None:
    """Set a model's weights from a state dict, all or nothing.

    in_order: whether the order of the arrays is that of the modules. Raises ModelFormatError that names each array that
    does not fit.
    """
    model.set_parameters(matched(model, state, in_order))


def matched(model: Graph, state: State, in_order: bool = True) -> dict[str, np.ndarray]:
    """The arrays of a state dict by our names, in our layout. Raises what `set_state` does."""
    if state.keys() == (model.parameters() | model.statistics()).keys():
        return dict(state)
    altered = model.architecture.altered
    if altered:
        node = next(node for node in model.nodes if node.name == altered[0])
        more = f" (and {len(altered) - 1} more)" if altered[1:] else ""
        raise ModelFormatError(
            f"node {node.name!r} ({node.layer}){more} holds arrays that were computed, scaled or renumbered on their "
            "way through ONNX; those of a state dict do not take their place: load them in PyTorch and export again"
        )
    layers = wanted(model)
    arrays: dict[str, np.ndarray] = {}
    shapes = {key: array.shape for key, array in state.items()}
    # A network from ONNX has its layers in the order in which they run, not in that in which they were made.
    for name, prefix in paired(layers, shapes, in_order if altered is None else None).items():
        for slot in layers[name].slots:
            array = state.get(f"{prefix}.{slot.theirs}" if prefix else slot.theirs)
            if array is None:  # BatchNorm2d(affine=False) leaves the identity out
                array = np.full(slot.shape, float(slot.theirs == "weight"))
            arrays[f"{name}.{slot.ours}"] = slot.read(array.reshape(slot.shape))
    return arrays


Shapes = Mapping[str, tuple[int, ...]]


def paired(layers: Mapping[str, Wanted], state: Shapes, in_order: bool | None) -> dict[str, str]:
    """The module of each layer, by node. Raises ModelFormatError that names each array that does not fit.

    in_order: whether the arrays' order is the layers'; None if neither it nor the numbers in their names say anything.
    """
    modules = grouped(state)
    if len(layers) != len(modules):
        raise ModelFormatError(
            f"the file has {len(modules)} modules with arrays ({', '.join(modules)}), "
            f"the model {len(layers)} layers ({', '.join(layers)})"
        )
    pairings = [{name: name for name in layers}] if layers.keys() == modules.keys() else []
    pairings += [dict(zip(layers, modules, strict=True))] if in_order else []
    refused: list[str] = []
    for pairing in pairings:
        problems = [each for name, p in pairing.items() for each in layers[name].misfits(p, modules[p])]
        if not problems:
            return pairing
        refused = refused or problems
    return _by_shape(layers, modules, in_order, refused)


def _by_shape(
    layers: Mapping[str, Wanted], modules: Mapping[str, Shapes], in_order: bool | None, refused: list[str]
) -> dict[str, str]:
    """The pairing that shapes leave no doubt about; `refused` is what has been found wrong with the others."""
    fitting = {name: [p for p in modules if not wanted.misfits(p, modules[p])] for name, wanted in layers.items()}
    if not all(fitting.values()):
        fits = {prefix for found in fitting.values() for prefix in found}
        lonely, left = [name for name, found in fitting.items() if not found], [p for p in modules if p not in fits]
        pairs = zip(lonely, left, strict=False)
        refused = refused or [each for name, p in pairs for each in layers[name].misfits(p, modules[p])]
        more = f"; and {len(refused) - MAX_PROBLEMS} more" if len(refused) > MAX_PROBLEMS else ""
        raise ModelFormatError("; ".join(refused[:MAX_PROBLEMS]) + more)
    pairing: dict[str, str] = {}
    for name, found in fitting.items():
        alike = [other for other in layers if fitting[other] == found]
        numbered = in_order is False and len({_numbers(prefix)[1] for prefix in found}) == 1
        if len(alike) != len(found) or not (len(found) == 1 or numbered):
            raise ModelFormatError(
                f"{' and '.join(found)} have the same shapes, and it cannot be told which is which; "
                "give the nodes of a Graph the names of the modules"
            )
        pairing[name] = sorted(found, key=_numbers)[alike.index(name)]
    return pairing


def _numbers(prefix: str) -> tuple[list[int], str]:
    """The numbers in a module's name, and the rest: modules that are alike but for them are in their order."""
    return [int(digits) for digits in re.findall(r"\d+", prefix)], re.sub(r"\d+", "", prefix)


MAX_PROBLEMS = 8


def grouped(state: Shapes) -> dict[str, dict[str, tuple[int, ...]]]:
    """The arrays by module, in their order; counters of batches, which say nothing about the network, are left out."""
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in state.items():
        prefix, _, key = name.rpartition(".")
        if key != UNREAD:
            modules.setdefault(prefix, {})[key] = shape
    return modules


@dataclass(frozen=True)
class Wanted:
    """A layer with arrays: how it is told of, and the arrays as PyTorch has them."""

    told: str
    slots: tuple[Slot, ...]

    def misfits(self, prefix: str, module: Shapes) -> list[str]:
        """What of a module does not fit the layer."""
        held = {slot.theirs: slot.shape for slot in self.slots}
        # BatchNorm2d(affine=False) leaves weight and bias out.
        free = {"weight", "bias"} if "running_mean" in held and not {"weight", "bias"} & module.keys() else set()
        before = f"{prefix}." if prefix else ""
        found = [f"{before}{key} has no counterpart in {self.told}" for key in module if key not in held]
        for key, shape in held.items():
            if key not in module and key not in free:
                found.append(f"{before}{key} is not in the file, and {self.told} has it")
            elif key in module and not _alike(module[key], shape):
                found.append(f"{before}{key} has shape {module[key]}, expected {shape} for {self.told}")
        return found


def _alike(theirs: tuple[int, ...], ours: tuple[int, ...]) -> bool:
    """Whether an array is one of a layer's: a linear layer over rows of channels is a convolution of one pixel here."""
    return theirs == ours or (len(ours) == 4 and theirs == ours[:2] and ours[2:] == (1, 1))


def wanted(model: Graph) -> dict[str, Wanted]:
    """Each layer that has arrays, by node. ModelFormatError for one that PyTorch has not."""
    found: dict[str, Wanted] = {}
    for node in model.nodes:
        if held := slots(model, node):
            found[node.name] = Wanted(f"node {node.name!r} ({node.layer})", held)
    return found


# Out --------------------------------------------------------------------------------------------------------------


def state_of(model: Graph, like: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """A model's weights as a state dict of arrays, under the names of `like` where given, else of the nodes.

    like: a state dict, of which names and shapes are read. Raises ModelFormatError where it does not fit the model.
    """
    held, layers = model.parameters() | model.statistics(), wanted(model)
    named = {
        (name, slot.theirs): np.ascontiguousarray(slot.write(held[f"{name}.{slot.ours}"]))
        for name, layer in layers.items()
        for slot in layer.slots
    }
    if like is None:
        return {f"{name}.{theirs}": array for (name, theirs), array in named.items()}
    shapes = {name: tuple(array.shape) for name, array in like.items()}
    nodes = {prefix: name for name, prefix in paired(layers, shapes, True).items()}
    parts = {name: name.rpartition(".")[::2] for name in shapes}
    return {
        name: np.zeros(shapes[name], np.int64) if key == UNREAD else named[nodes[prefix], key].reshape(shapes[name])
        for name, (prefix, key) in parts.items()
    }


def to_torch(model: Graph, module: Any = None) -> dict[str, Any]:
    """A model's weights as a state dict of tensors, which `load_state_dict` of a network with the same layers takes.

    module: the network, or its state dict, whose names are taken; without it, arrays are named by the nodes here. A
    network is run once with the weights, without being changed; of a state dict only names and shapes can be compared.
    Raises ModelFormatError that names the arrays which do not fit, where the network then answers otherwise than the
    model, or cannot be run; and for want of torch.
    """
    torch = imported()
    live = isinstance(module, torch.nn.Module)
    state = state_of(model, module.state_dict() if live else module)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
    if live:
        _check_answers(model, module, tensors)
    return tensors


def _check_answers(model: Graph, module: Any, tensors: Mapping[str, Any]) -> None:
    """Raise ModelFormatError unless a module with these tensors computes what the model does."""
    torch, name = imported(), type(module).__name__
    x = np.random.default_rng(0).standard_normal((2, *model.input_shape)).astype(model.dtype)
    images = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
    try:
        with evaluating(module), torch.no_grad():
            theirs = torch.func.functional_call(module, dict(tensors), (torch.from_numpy(images.copy()),))
    except Exception as error:  # whatever the module's own code raises
        reason = printable(ValueError(str(error).strip().partition("\n")[0]))
        raise ModelFormatError(
            f"{name} cannot be run on {images.shape} to see whether it answers as the model "
            f"({type(error).__name__}: {reason}); to_torch(model, module.state_dict()) compares names and shapes alone"
        ) from error
    got = array_of(first_of(theirs))
    ends = [model]
    last = next(node for node in model.nodes if node.name == model.output)
    if type(last.layer).__name__ in ("Softmax", "LogSoftmax") and last.inputs != (INPUT,):
        ends.append(model.until(last.inputs[0]))  # which PyTorch's losses have of their own
    for end in ends:
        ours = end.predict(x)
        ours = ours.transpose(0, 3, 1, 2) if ours.ndim == 4 and got.ndim == 4 else ours
        if ours.size == got.size and np.abs(ours.ravel() - got.ravel()).max() <= TOLERANCE * np.abs(ours).max():
            return
    raise ModelFormatError(
        f"{name} with these weights answers otherwise than the model: its layers are others, or number otherwise what "
        "they flatten; a model made of it by from_torch goes back to it"
    )


TOLERANCE = 1e-3
"""Of the largest output: far above rounding, far below what weights in another order do."""


def first_of(value: Any) -> Any:
    """The first output, in however many lists and dicts."""
    while isinstance(value, tuple | list | dict):
        if not value:
            return None
        value = next(iter(value.values() if isinstance(value, dict) else value))
    return value


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """A module in the mode for inference, each of its parts in its own again afterwards."""
    modes = {each: each.training for each in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode


def save_state(model: Graph, path: Path) -> None:
    """Write a state dict under the names of the nodes, whole or not at all; see `to_torch`."""
    buffer = io.BytesIO()
    imported().save(to_torch(model), buffer)
    write_atomically(path, buffer.getvalue())


# Files ------------------------------------------------------------------------------------------------------------


def imported() -> Any:
    """torch. ModelFormatError that says how to get it where it is not there."""
    try:
        import torch
    except ImportError:
        raise ModelFormatError(
            "PyTorch's files need the package torch: pip install 'twinkernels[torch]'; a safetensors file does not"
        ) from None
    return torch


def load_state(model: Graph, path: Path, max_bytes: int) -> None:
    """Set a model's weights from a file. Raises what `read_state` and `set_state` do, naming the file."""
    state = read_state(path, max_bytes)
    with failing_as(path, "not these weights"):
        set_state(model, state, in_order=kind_of(path) == TORCH)  # safetensors sorts by name


def check_no_program(path: Path) -> None:
    """Raise ModelFormatError for a TorchScript archive, which holds a program."""
    if zipfile.is_zipfile(path):
        with failing_as(path, "a damaged archive"), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
            raise ModelFormatError(
                f"{path}: a TorchScript archive, which holds a program, not a state dict; in PyTorch, "
                "torch.save(torch.jit.load(file).state_dict(), 'weights.pth') writes one"
            )


def read_state(path: Path, max_bytes: int) -> dict[str, np.ndarray]:
    """The arrays of a state dict in a file of torch.save, or of safetensors.

    torch.save's files hold pickled code, which is not run: torch reads them by its `weights_only` loader. Raises
    ModelFormatError that names the file for one that is none.
    """
    check_no_program(path)
    with failing_as(path, "no state dict that can be read"):
        if (size := path.stat().st_size) > max_bytes:
            raise ModelFormatError(f"{size} bytes, expected at most {max_bytes}; load(..., max_bytes={size}) takes it")
        state = _torch_state(path) if kind_of(path) == TORCH else _safetensors_state(path)
        for name, array in state.items():
            if not np.isfinite(array).all():
                raise ModelFormatError(f"{name} is not finite")
        return state


def _safetensors_state(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > SAFETENSORS_HEADER:
        raise ModelFormatError("neither a file of torch.save nor one of safetensors")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelFormatError(f"neither a file of torch.save nor one of safetensors: {error}") from None


def _torch_state(path: Path) -> dict[str, np.ndarray]:
    torch = imported()
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":  # of a module that nothing here imports
            raise
        raise ModelFormatError(
            "it holds more than arrays, whose code is not run; in PyTorch, "
            f"torch.save(module.state_dict(), 'weights.pth') writes them alone: {str(error).splitlines()[0]}"
        ) from None
    for key in NESTED:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ModelFormatError(f"it holds a {type(found).__name__}, expected a dict of tensors")
    return {str(name): array_of(tensor) for name, tensor in found.items()}


def array_of(tensor: Any) -> np.ndarray:
    """A tensor as an array; types that NumPy has not become float32."""
    tensor = tensor.detach().cpu()
    tensor = tensor.to_dense() if tensor.is_sparse else tensor
    array: np.ndarray = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return array
