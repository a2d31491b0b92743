"""Trained experts with vector observations: small networks in NumPy behind ``predict``.

* :class:`ExpertNetwork` -- the weights of one expert and what they compute.
* :class:`TrainedExpert` -- the policy.
* :class:`StoredNetwork`, :class:`NetworkExpert` -- what those with images have in common with it.
* :class:`ExpertError` -- an expert that cannot be used, with why and what to do.

Shapes: N numbers of an observation, A of an action, H hidden units.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policies.base import DistributionPolicy
from policies.chance import RowGenerator, SampledPolicy
from policies.distributions import Decision, Gaussian

Array = NDArray[np.float32]
Layer = tuple[Array, Array]
"""Weight and bias."""


class ExpertError(ValueError):
    """A trained expert that cannot be used."""


class StoredNetwork(ABC):
    """The storage of trained networks: named layers, and statistics of the observations."""

    @abstractmethod
    def _layers(self) -> list[tuple[str, Layer]]: ...

    @abstractmethod
    def _statistics(self) -> dict[str, NDArray[Any]]: ...

    def _check_finite(self) -> None:
        if not all(np.isfinite(part).all() for part in self.tensors().values()):
            raise ExpertError(
                "weights are not finite: the training diverged or the file is damaged"
            )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The tensors of ``model.safetensors``: weights in float16, all else in float32.

        float16 rather than bfloat16: as small, closer to float32, and NumPy reads it.
        """
        tensors = self._statistics()
        for name, (weight, bias) in self._layers():
            tensors[f"{name}.weight"] = weight.astype(np.float16)
            tensors[f"{name}.bias"] = bias
        return {name: np.ascontiguousarray(part) for name, part in tensors.items()}


def as_float32(tensors: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
    """Stored tensors as they are computed with.

    Raises:
        ExpertError: One is of no type that weights are stored in.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in (np.float16, np.float32):
            raise ExpertError(f"{name} is of type {tensor.dtype}, expected float16 or float32")
    return {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}


def affine(layer: Layer, x: Array) -> Array:
    """``W x + b`` without BLAS, whose sums depend on the number of threads: float32 ``[O]``."""
    output: Array = np.einsum("ij,j->i", layer[0], x) + layer[1]
    return output


def layer_named(tensors: Mapping[str, Array], name: str) -> Layer:
    """A layer of stored tensors."""
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def layers_named(tensors: Mapping[str, Array], kind: str) -> tuple[Layer, ...]:
    """The layers ``KIND.0``, ``KIND.1``, ... of stored tensors."""
    depth = sum(re.fullmatch(kind + r"\.\d+\.weight", name) is not None for name in tensors)
    return tuple(layer_named(tensors, f"{kind}.{number}") for number in range(depth))


N = TypeVar("N", bound=StoredNetwork)


class NetworkExpert(SampledPolicy, DistributionPolicy, Generic[N]):
    """A trained network that plays.

    If deterministic, it plays the most likely action, or the mean. Otherwise it samples, with a
    generator for each row in the state: see :meth:`policies.base.Policy.seed_episodes`.

    Args:
        network: The weights.
        observation_space: The space of one environment's observations.
        action_space: The space of one environment's actions.
        seed: Seed of the sampled actions.

    Raises:
        ValueError: The spaces are not those that the network was trained for.
    """

    def __init__(
        self,
        network: N,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(observation_space, action_space, seed=seed)
        self.network = network
        if not self._fits():
            raise ValueError(
                f"spaces are {observation_space} and {action_space}, expected {self._expected()}: "
                "make the expert for the environment of the task itself, without GatoTokenize"
            )

    @abstractmethod
    def _fits(self) -> bool: ...

    @abstractmethod
    def _expected(self) -> str: ...


_LIMITS_OF_LOG_STD = (-20.0, 2.0)


def _relu(x: Array) -> Array:
    return np.maximum(x, np.float32(0.0))


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": np.tanh, "relu": _relu}


@dataclass(frozen=True)
class ExpertNetwork(StoredNetwork):
    """A multilayer perceptron with normalised observations and a Gaussian over actions.

    ``h = clip((x - mean) * scale, -clip, clip)``, then each layer ``h = f(W h + b)``, then the
    mean action ``W h + b``. Rows of a batch are computed one by one and without BLAS, so that an
    expert plays the same episode in any batch and with any number of threads.

    Attributes:
        mean: Mean of the observations, float32 ``[N]``.
        scale: One over their standard deviation, float32 ``[N]``.
        hidden: Weight float32 ``[H, N or H]`` and bias float32 ``[H]`` of each hidden layer.
        action: Weight float32 ``[A, H]`` and bias float32 ``[A]`` of the mean action.
        log_std: Weight ``[A, H]`` and bias ``[A]`` of the logarithm of the standard deviation; the
            weight is zero if it does not depend on the observation.
        activation: "tanh" or "relu".
        squash: Whether actions pass through ``tanh`` and are scaled to the Box, or are clipped to
            it.
        clip: Largest magnitude of a normalised number.
    """

    mean: Array
    scale: Array
    hidden: tuple[Layer, ...]
    action: Layer
    log_std: Layer
    activation: str
    squash: bool
    clip: float = 10.0

    def __post_init__(self) -> None:
        if self.activation not in _ACTIVATIONS:
            raise ExpertError(
                f"activation is {self.activation!r}: expected one of {', '.join(_ACTIVATIONS)}"
            )
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise ExpertError(f"clip is {self.clip}: expected a number above zero")
        width = self.mean.shape
        if len(width) != 1 or self.scale.shape != width:
            raise ExpertError(
                f"mean has shape {width} and scale {self.scale.shape}: expected one vector each"
            )
        for name, (weight, bias) in self._layers():
            outputs = bias.shape[0] if bias.ndim == 1 else -1
            if weight.shape != (outputs, *width):
                raise ExpertError(
                    f"{name} has weight {weight.shape} and bias {bias.shape}: expected a weight of "
                    f"(outputs, {width[0]}) and a bias of (outputs,)"
                )
            width = width if name in ("action", "log_std") else bias.shape
        if self.action[1].shape != self.log_std[1].shape:
            raise ExpertError("action and log_std are of different lengths: expected one each")
        self._check_finite()

    def _statistics(self) -> dict[str, NDArray[Any]]:
        return {"mean": self.mean, "scale": self.scale}

    def _layers(self) -> list[tuple[str, Layer]]:
        hidden = [(f"hidden.{index}", layer) for index, layer in enumerate(self.hidden)]
        return [*hidden, ("action", self.action), ("log_std", self.log_std)]

    def forward(self, observation: NDArray[Any]) -> tuple[Array, Array]:
        """Mean and log standard deviation, each float32 ``[A]``, for one observation ``[N]``."""
        hidden = np.asarray((observation - self.mean) * self.scale, np.float32)
        hidden = np.clip(hidden, -self.clip, self.clip)
        activation = _ACTIVATIONS[self.activation]
        for layer in self.hidden:
            hidden = activation(affine(layer, hidden))
        return affine(self.action, hidden), np.clip(
            affine(self.log_std, hidden), *_LIMITS_OF_LOG_STD
        )

    def config(self) -> dict[str, Any]:
        """The content of ``config.json`` besides the tensors."""
        return {"activation": self.activation, "squash": self.squash, "clip": self.clip}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[Any]], *, activation: str, squash: bool, clip: float
    ) -> ExpertNetwork:
        """The inverse of :meth:`tensors`.

        Raises:
            KeyError: A tensor is missing.
            ExpertError: Shapes do not fit, or numbers are not finite.
        """
        full = as_float32(tensors)
        return cls(
            full["mean"],
            full["scale"],
            layers_named(full, "hidden"),
            layer_named(full, "action"),
            layer_named(full, "log_std"),
            activation,
            squash,
            clip,
        )


class TrainedExpert(NetworkExpert[ExpertNetwork]):
    """A trained network over observations of Box ``(N,)`` and actions of Box ``(A,)``."""

    def _fits(self) -> bool:
        shapes = self.observation_space.shape, self.action_space.shape
        sizes = self.network.mean.shape, self.network.action[1].shape
        return isinstance(self.action_space, spaces.Box) and sizes == shapes

    def _expected(self) -> str:
        return f"Boxes of shapes {self.network.mean.shape} and {self.network.action[1].shape}"

    def _choose(
        self, observation: NDArray[Any], generator: np.random.Generator | None = None
    ) -> tuple[NDArray[Any], Array, Array]:
        """For one observation ``[N]``: the mean or a sample, then mean and deviation, ``[A]`` each.

        The deviation of an action that is squashed is that of its first-order expansion around the
        mean: half the range times ``1 - tanh(u)^2``.
        """
        location, log_std = self.network.forward(observation)
        scale = np.exp(log_std) * np.ones_like(location)
        mean = self._within(location)
        action: NDArray[Any] = mean
        if generator is not None:
            noise = generator.standard_normal(location.shape, np.float32)
            action = self._within(location + np.exp(log_std) * noise)
        if self.network.squash:
            box: Any = self.action_space
            half_range = 0.5 * (box.high - box.low)
            scale = (half_range * (1.0 - np.tanh(location) ** 2) * scale).astype(np.float32)
        return action, mean.astype(np.float32), scale

    def _within(self, action: NDArray[Any]) -> NDArray[Any]:
        """A network's output as a member of the action space."""
        box: Any = self.action_space
        if self.network.squash:
            action = box.low + 0.5 * (np.tanh(action) + 1.0) * (box.high - box.low)
        return np.clip(action, box.low, box.high).astype(box.dtype)

    def _decide_batch(
        self,
        observation: Any,
        state: list[RowGenerator] | None,
        starts: NDArray[np.bool_],
        deterministic: bool,
    ) -> Decision:
        seen = np.asarray(observation, self.observation_space.dtype)
        generators: list[np.random.Generator | None] = [None] * len(seen)
        if not deterministic:
            state, _ = self._begin(seen, state, starts)
            generators = [row.under_way for row in state]
        chosen = [self._choose(one, dice) for one, dice in zip(seen, generators, strict=True)]
        actions, means, deviations = (np.stack(part) for part in zip(*chosen, strict=True))
        return Decision(actions, state, Gaussian(means, deviations))
