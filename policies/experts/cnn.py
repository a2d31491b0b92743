"""Trained experts with image observations: a small convolutional network in NumPy.

* :class:`ImageNetwork` -- the weights of one expert and what they compute.
* :class:`ImageExpert` -- the policy.

Shapes: C channels (frames of a stack), O outputs of a layer, K kernel size, H hidden units, A
actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from gato_gym.images import halved
from policies.chance import RowGenerator
from policies.distributions import Categorical, Decision
from policies.experts.mlp import (
    Array,
    ExpertError,
    Layer,
    NetworkExpert,
    StoredNetwork,
    affine,
    as_float32,
    layer_named,
    layers_named,
)

PIXEL_LIMIT = np.float32(5)
"""Largest deviation of a pixel from its mean, in standard deviations."""


@dataclass(frozen=True)
class ImageNetwork(StoredNetwork):
    """Convolutions, dense layers, and a logit for each action.

    ``x = clip((halved(observation) / 255 - mean) * scale, -5, 5)``, pixel by pixel, then
    ``x = relu(convolution(x))`` without padding, then ``h = relu(W h + b)`` over the flattened
    maps, then ``W h + b``. Observations of a batch are computed one by one and without BLAS, so
    that an expert plays the same game in any batch and with any number of threads.

    Attributes:
        mean, scale: float32 ``[height, width]``, for the pixels of halved frames.
        convolutions: Weight float32 ``[O, C, K, K]`` and bias ``[O]`` of each.
        strides: Stride of each convolution.
        dense: Weight ``[H, N]`` and bias ``[H]`` of each.
        action: Weight ``[A, H]`` and bias ``[A]`` of the logits.
        value: Weight ``[1, H]`` and bias ``[1]`` of the expected return, for a training that begins
            with this expert; None if it was not kept.
        samples: Whether sampled actions score more than the most likely ones. In deterministic
            games, a most likely action without effect would stay the most likely one for ever.
    """

    mean: Array
    scale: Array
    convolutions: tuple[Layer, ...]
    strides: tuple[int, ...]
    dense: tuple[Layer, ...]
    action: Layer
    value: Layer | None = None
    samples: bool = False

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.convolutions) or min(self.strides, default=0) < 1:
            raise ExpertError(
                f"strides are {self.strides} for {len(self.convolutions)} convolutions: expected "
                "one each, of 1 or more"
            )
        for name, (weight, bias) in self._layers():
            dimensions = 4 if name.startswith("convolution") else 2
            if weight.ndim != dimensions or bias.shape != weight.shape[:1]:
                raise ExpertError(
                    f"{name} has weight {weight.shape} and bias {bias.shape}: expected a weight "
                    f"of {dimensions} dimensions and a number of the bias for each output"
                )
        if self.mean.ndim != 2 or self.mean.shape != self.scale.shape:
            raise ExpertError(
                f"pixels have means {self.mean.shape} and scales {self.scale.shape}: expected "
                "(height, width) of both"
            )
        self._check_finite()

    def _statistics(self) -> dict[str, NDArray[Any]]:
        return {"pixels.mean": self.mean, "pixels.scale": self.scale}

    def _layers(self) -> list[tuple[str, Layer]]:
        convolutions = [(f"convolution.{n}", layer) for n, layer in enumerate(self.convolutions)]
        dense = [(f"dense.{n}", layer) for n, layer in enumerate(self.dense)]
        value = [] if self.value is None else [("value", self.value)]
        return [*convolutions, *dense, ("action", self.action), *value]

    def forward(self, observation: NDArray[np.uint8]) -> Array:
        """Logits, float32 ``[A]``, for one observation, uint8 ``[C, height, width]``."""
        x = halved(observation).astype(np.float32) / np.float32(255)
        x = np.clip((x - self.mean) * self.scale, -PIXEL_LIMIT, PIXEL_LIMIT)
        for (weight, bias), stride in zip(self.convolutions, self.strides, strict=True):
            x = np.maximum(_convolved(x, weight, stride) + bias[:, None, None], np.float32(0))
        hidden = x.reshape(-1)
        for layer in self.dense:
            hidden = np.maximum(affine(layer, hidden), np.float32(0))
        return affine(self.action, hidden)

    def config(self) -> dict[str, Any]:
        """The content of ``config.json`` besides the tensors."""
        return {"strides": list(self.strides), "samples": self.samples}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[Any]], *, strides: Sequence[int], samples: bool = False
    ) -> ImageNetwork:
        """The inverse of :meth:`tensors`.

        Raises:
            KeyError: A tensor is missing.
            ExpertError: Shapes do not fit, or numbers are not finite.
        """
        full = as_float32(tensors)
        return cls(
            full["pixels.mean"],
            full["pixels.scale"],
            layers_named(full, "convolution"),
            tuple(strides),
            layers_named(full, "dense"),
            layer_named(full, "action"),
            layer_named(full, "value") if "value.weight" in full else None,
            samples,
        )


def _convolved(x: Array, weight: Array, stride: int) -> Array:
    """A convolution without padding: float32 ``[C, height, width]`` to ``[O, ...]``."""
    outputs, channels, size, _ = weight.shape
    if x.shape[0] != channels or min(x.shape[1:]) < size:
        raise ExpertError(
            f"a convolution of {channels} channels and side {size} met maps of shape {x.shape}: "
            "the network is of other observations"
        )
    windows = sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    _, height, width = windows.shape[:3]
    patches = windows.transpose(1, 2, 0, 3, 4).reshape(height * width, -1)
    maps: Array = np.einsum("ok,pk->op", weight.reshape(outputs, -1), patches)
    return maps.reshape(outputs, height, width)


class ImageExpert(NetworkExpert[ImageNetwork]):
    """A trained network over images, Box of uint8 ``(C, height, width)``, and Discrete actions."""

    def _fits(self) -> bool:
        seen, choices = self.observation_space, self.action_space
        if not (
            isinstance(choices, spaces.Discrete)
            and choices.n == len(self.network.action[1])
            and isinstance(seen, spaces.Box)
            and seen.dtype == np.uint8
        ):
            return False
        try:
            self.network.forward(np.zeros(seen.shape, np.uint8))
        except ValueError:
            return False
        return True

    def _expected(self) -> str:
        channels, actions = self.network.convolutions[0][0].shape[1], len(self.network.action[1])
        return f"images of {channels} channels and Discrete({actions})"

    @property
    def samples(self) -> bool:  # type: ignore[override]
        """Whether the expert is scored and recorded by sampled actions."""
        return self.network.samples

    def _decide_batch(
        self,
        observation: Any,
        state: list[RowGenerator] | None,
        starts: NDArray[np.bool_],
        deterministic: bool,
    ) -> Decision:
        logits = np.stack([self.network.forward(row) for row in observation])
        start = int(getattr(self.action_space, "start", 0))
        distribution = Categorical.of_logits(logits)
        if deterministic:
            return Decision(start + logits.argmax(1), state, distribution)
        rows, _ = self._begin(observation, state, starts)
        # the largest of logits with Gumbel noise is a sample of their softmax
        noise = np.stack([row.under_way.gumbel(size=logits.shape[1]) for row in rows])
        return Decision(start + (logits + noise).argmax(1), rows, distribution)
