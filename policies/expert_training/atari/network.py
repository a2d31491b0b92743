"""The network that learns a game: two convolutions, a dense layer, logits and a value.

* :class:`AtariNetwork` -- in PyTorch, to and from an expert's weights.

Shapes: B observations, C frames of a stack, A actions.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policies.experts.cnn import PIXEL_LIMIT, ImageNetwork

Layer = nn.Conv2d | nn.Linear


class AtariNetwork(nn.Module):
    """Two convolutions and a dense layer: 120,000 weights, as an expert has to be small.

    Weights lie in memory with their channels last: a gradient step takes a CPU 0.55 to 0.65 of the
    time.

    Args:
        actions: Logits, A.
        width: Units of the dense layer.

    Attributes:
        mean, scale: float ``[42, 42]``, of pixels within [0, 1]. What moves is seldom in one place,
            so it stands out however faint it is, and what stays is nothing.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, actions: int, *, width: int = 128) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(42, 42))
        self.register_buffer("scale", torch.ones(42, 42))
        self.layers = nn.Sequential(
            nn.Conv2d(4, 16, 6, 3), nn.ReLU(),
            nn.Conv2d(16, 32, 4, 2), nn.ReLU(),
            nn.Flatten(), nn.Linear(800, width), nn.ReLU(),
        )  # fmt: skip
        self.action, self.value = nn.Linear(width, actions), nn.Linear(width, 1)
        layers: list[Layer] = [*self._convolutions(), *self._dense(), self.action, self.value]
        for layer in layers:
            nn.init.orthogonal_(layer.weight, 2**0.5)
            nn.init.zeros_(_bias(layer))
        nn.init.orthogonal_(self.action.weight, 0.01)
        nn.init.orthogonal_(self.value.weight, 1.0)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 ``[B, C, 42, 42]`` to logits float32 ``[B, A]`` and values float32 ``[B]``."""
        limit = float(PIXEL_LIMIT)
        # in two passes over memory: bytes, mean and scale one by one would take six
        shift = -self.mean * self.scale
        pixels = torch.addcmul(shift, frames, self.scale / 255).clamp_(-limit, limit)
        hidden = self.layers(pixels.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.action(hidden)
        return logits.float(), self.value(hidden).squeeze(1).float()

    def to_expert(self) -> ImageNetwork:
        """The weights as an expert holds them, which plays by samples; float16 rounds them."""
        return ImageNetwork(
            self.mean.cpu().numpy().copy(),
            self.scale.cpu().numpy().copy(),
            tuple(_rounded(layer) for layer in self._convolutions()),
            tuple(layer.stride[0] for layer in self._convolutions()),
            tuple(_rounded(layer) for layer in self._dense()),
            _rounded(self.action),
            value=_rounded(self.value),
            samples=True,
        )

    @torch.no_grad()
    def load_expert(self, expert: ImageNetwork) -> None:
        """Take over an expert's weights; without a value of its own, this one's stays.

        Raises:
            ValueError: The expert's layers have other shapes.
        """
        layers: list[Layer] = [*self._convolutions(), *self._dense(), self.action]
        weights = [*expert.convolutions, *expert.dense, expert.action]
        if expert.value is not None:
            layers, weights = [*layers, self.value], [*weights, expert.value]
        self.mean.copy_(torch.from_numpy(expert.mean))
        self.scale.copy_(torch.from_numpy(expert.scale))
        for layer, (weight, bias) in zip(layers, weights, strict=True):
            if tuple(layer.weight.shape) != weight.shape:
                raise ValueError(
                    f"it has weights {weight.shape}, expected {tuple(layer.weight.shape)}"
                )
            layer.weight.copy_(torch.from_numpy(weight))
            _bias(layer).copy_(torch.from_numpy(bias))

    def _convolutions(self) -> list[nn.Conv2d]:
        return [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]

    def _dense(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]


def _bias(layer: Layer) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _rounded(layer: Layer) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight and bias as the file will hold them, so that what is evaluated is what is saved."""
    weight = layer.weight.detach().cpu().numpy().astype(np.float16).astype(np.float32)
    bias = _bias(layer).detach().cpu().numpy().astype(np.float32)
    return np.ascontiguousarray(weight), bias
