"""Random small networks of PyTorch's, exported by both of its exporters, against PyTorch's own answers."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed: pip install 'twinkernels[onnx]'")
nn, functional = torch.nn, torch.nn.functional


class Squeeze(nn.Module):  # type: ignore[misc]
    """Squeeze and excitation: a factor for each channel, of the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Any) -> Any:
        return x * torch.sigmoid(self.up(functional.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Shuffle(nn.Module):  # type: ignore[misc]
    """Channels dealt out anew between two groups."""

    def forward(self, x: Any) -> Any:
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Halves(nn.Module):  # type: ignore[misc]
    """One half of the channels through a convolution, then side by side with the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels // 2, channels // 2, 3, padding=1, groups=channels // 2)

    def forward(self, x: Any) -> Any:
        left, right = x.chunk(2, dim=1)
        return torch.cat([left, functional.hardswish(self.inner(right))], dim=1)


class Residual(nn.Module):  # type: ignore[misc]
    """x and a convolution of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Any) -> Any:
        return functional.gelu(x + self.inner(x))


class LayerNorm(nn.Module):  # type: ignore[misc]
    """Normalised over the channels, which come last for it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Any) -> Any:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Places(nn.Module):  # type: ignore[misc]
    """A factor for each place, of the channels' mean and largest."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Any) -> Any:
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(both))


class Maxout(nn.Module):  # type: ignore[misc]
    """The larger of two convolutions, divided by its size at each place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Any) -> Any:
        return functional.normalize(torch.maximum(self.one(x), self.other(x)), dim=1)


class Rows(nn.Module):  # type: ignore[misc]
    """x.view(x.size(0), -1), as older programs flatten."""

    def forward(self, x: Any) -> Any:
        return x.contiguous().view(x.size(0), -1)


def network(seed: int) -> Any:
    """A network of six random parts on images (3, 12, 10)."""
    chance = random.Random(seed)
    torch.manual_seed(seed)
    channels = 8
    menu = [
        lambda: nn.Conv2d(
            channels, channels, 3, stride=chance.choice((1, 2)), padding=1, groups=chance.choice((1, 2, 8))
        ),
        lambda: nn.Conv2d(channels, channels, (3, 1), padding="same", dilation=(1, 1)),
        lambda: nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU6()),
        lambda: nn.MaxPool2d(3, 2, padding=1, ceil_mode=chance.random() < 0.5),
        lambda: nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        lambda: nn.ZeroPad2d((0, 1, 1, 0)),
        lambda: nn.PReLU(channels),
        lambda: chance.choice((nn.SiLU, nn.Mish, nn.SELU, nn.CELU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.Softsign))(),
        lambda: Squeeze(channels),
        lambda: Shuffle(),
        lambda: Halves(channels),
        lambda: Residual(channels),
        lambda: LayerNorm(channels),
        lambda: nn.GroupNorm(4, channels),
        lambda: nn.LocalResponseNorm(3, 0.3),
        lambda: Places(),
        lambda: Maxout(channels),
        lambda: nn.InstanceNorm2d(channels, affine=True),
        lambda: nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1),
        lambda: nn.Dropout(0.3),
    ]
    parts = [nn.Conv2d(3, channels, 3, padding=1), *(chance.choice(menu)() for _ in range(6))]
    body = nn.Sequential(*parts)
    flatten = chance.choice((nn.Flatten(), Rows()))
    with torch.no_grad():
        count = flatten(body(torch.zeros(2, 3, 12, 10))).shape[1]
    whole = nn.Sequential(body, flatten, nn.Linear(count, 16), nn.Tanh(), nn.Linear(16, 5), nn.LogSoftmax(dim=1))
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return whole.eval()


@pytest.mark.parametrize(
    ("seed", "settings"),
    [
        *((seed, {"dynamo": False, "opset_version": 17, "dynamic_axes": {"x": {0: "n"}}}) for seed in range(4)),
        *((seed, {"dynamo": False, "opset_version": 11}) for seed in range(8, 10)),
        *((seed, {"dynamo": True, "dynamic_shapes": {"input": {0: torch.export.Dim("n")}}}) for seed in range(13, 14)),
    ],
)
def test_a_random_network_of_pytorchs_answers_as_there(tmp_path: Path, seed: int, settings: dict[str, Any]) -> None:
    module = network(seed)
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings(action="ignore"):
        if settings["dynamo"]:
            pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs onnxscript")
        torch.onnx.export(module, (torch.randn(2, 3, 12, 10),), path, input_names=["x"], verbose=False, **settings)
    x = torch.randn(5, 3, 12, 10)
    with torch.no_grad():
        want = module(x).numpy()
    got = models.load(path, "numpy").predict(np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


# Weights from elsewhere ---------------------------------------------------------------------------------------------


class Scaled(nn.Module):  # type: ignore[misc]
    """A convolution whose output is halved."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Any) -> Any:
        return self.head((0.5 * self.conv(x)).mean((2, 3)))


class Standardised(Scaled):
    """A convolution whose weights are centred before they are used."""

    def forward(self, x: Any) -> Any:
        w = self.conv.weight
        return self.head(functional.conv2d(x, w - w.mean((1, 2, 3), keepdim=True), self.conv.bias).mean((2, 3)))


class Backwards(nn.Module):  # type: ignore[misc]
    """Layers of one shape that are not used in the order in which they are made."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.Linear(6, 6), nn.Linear(6, 6)
        self.stem = nn.Conv2d(3, 6, 3)

    def forward(self, x: Any) -> Any:
        rows = self.stem(x).flatten(2).transpose(1, 2)
        return self.second(torch.tanh(self.first(rows))).mean(1)


def flattened(*between: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), *between, nn.Flatten(), nn.Linear(240, 5)
    )


WEIGHED = {
    "flattened": flattened,
    "rows": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), Rows(), nn.Linear(240, 5)),
    "batch norm before": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten()),
    "batch norm behind": lambda: flattened(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)),
    "batch norm of rows": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Tanh(), nn.BatchNorm1d(320), nn.ReLU(), nn.Linear(320, 5)
    ),
    "shuffled": lambda: flattened(Shuffle()),
    "shuffled and normalised": lambda: flattened(Shuffle(), nn.BatchNorm2d(8), nn.ReLU()),
    "shuffled and averaged": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), Shuffle(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    ),
    "scaled": Scaled,
    "standardised": Standardised,
    "backwards": Backwards,
    "layer norm": lambda: flattened(nn.LayerNorm([8, 6, 5]), nn.Sigmoid()),
    "slopes": lambda: flattened(nn.PReLU(8)),
    "residual": lambda: flattened(Residual(8)),
}
TAKEN = ("flattened", "rows", "batch norm before", "batch norm of rows", "layer norm")


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("kind", WEIGHED)
def test_other_weights_into_a_network_from_onnx_are_taken_as_pytorch_takes_them_or_refused(
    tmp_path: Path, kind: str, dynamo: bool
) -> None:
    def made(seed: int) -> Any:
        torch.manual_seed(seed)
        module = WEIGHED[kind]()
        for each in module.parameters():
            nn.init.normal_(each, 0.0, 0.3)
        for each in module.modules():
            if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(each.running_mean)
                nn.init.uniform_(each.running_var, 0.5, 2.0)
        return module.eval()

    x, other = torch.randn(3, 3, 12, 10), made(1)
    with warnings.catch_warnings(action="ignore"):
        if dynamo:
            pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs onnxscript")
        torch.onnx.export(made(0), (x,), tmp_path / "net.onnx", input_names=["x"], verbose=False, dynamo=dynamo)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    model = models.load(tmp_path / "net.onnx", "numpy")
    model.save(tmp_path / "kept.safetensors")
    with torch.no_grad():
        want = other(x).numpy()
    for network in (model, models.load(tmp_path / "kept.safetensors", "numpy")):
        try:
            models.load(tmp_path / "other.pth", into=network)
        except models.ModelFormatError as error:
            refused = str(error)
        else:
            refused = ""
        if refused:
            assert kind not in TAKEN, refused
            assert "\n" not in refused
            continue
        got = network.predict(np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
