"""What JAT reads and chooses in a pair of spaces.

* :class:`Modalities` -- the kinds of a pair of spaces; turns observations and actions to tensors.
* :class:`JatSpaceError` -- spaces that JAT has no modality for.
* :func:`grid_symbols` -- direction and grid, in the order in which the network reads them.
* :func:`normalized_captions` -- a caption's images as the network takes them.

Shapes: B rows, n numbers or symbols, A numbers of an action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.text import is_text_space
from policies.jat.config import JatConfig
from policies.jat.encoders import FRAMES, SIDE
from policies.jat.gpt2_text import Gpt2Tokenizer

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
GRID_KEYS = ("direction", "image", "mission")
TEXT_TOKENS = 64
"""Tokens of a discrete observation's text, padded or cut."""


class JatSpaceError(ValueError):
    """Spaces that JAT has no modality for."""


@dataclass(frozen=True)
class Modalities:
    """The kinds of a pair of spaces.

    Attributes:
        observation_space: Of one environment.
        action_space: Of one environment.
        observation: "continuous", a Box of numbers; "discrete", BabyAI's direction, grid and
            mission; or "image", four frames of 84 x 84.
        action: "continuous", a Box; or "discrete", a Discrete.
        tokenizer: Of a mission; None where there is none.
        padding: The id that pads a mission.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    observation: Literal["continuous", "discrete", "image"]
    action: Literal["continuous", "discrete"]
    tokenizer: Gpt2Tokenizer | None = None
    padding: int = 0

    @classmethod
    def of(
        cls,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        config: JatConfig,
        tokenizer: Gpt2Tokenizer | None,
    ) -> Modalities:
        """The kinds of a pair of spaces.

        Raises:
            JatSpaceError: JAT has none for them, or the network is too small.
        """
        observation = _observation_kind(observation_space, config)
        if observation == "discrete" and tokenizer is None:
            raise JatSpaceError(
                "observations have a text and the checkpoint has no tokenizer: expected "
                "tokenizer.json, or vocab.json and merges.txt, beside its config.json"
            )
        action = _action_kind(action_space, config)
        return cls(
            observation_space, action_space, observation, action, tokenizer, config.eos_token_id
        )

    def read(self, observation: Any) -> Tensor:
        """A batch of observations.

        Returns:
            float32 ``[B, n]``; int64 ``[B, n]`` symbols; or float32 ``[B, 4, 84, 84]`` in [-1, 1].

        Raises:
            ValueError: A number is NaN or infinite, or a symbol is no id.
        """
        if self.observation == "image":
            frames = np.asarray(observation)
            if frames.shape[-1] == FRAMES:
                frames = frames.transpose(0, 3, 1, 2)
            return torch.from_numpy(np.ascontiguousarray(frames, np.float32)) / 127.5 - 1
        if self.observation == "discrete":
            texts = self.text_ids(observation["mission"])
            return torch.from_numpy(np.concatenate([grid_symbols(observation), texts], 1))
        values = np.asarray(observation)
        with np.errstate(over="ignore"):
            values = values.reshape(len(values), -1).astype(np.float32)
        if not np.isfinite(values).all():
            row, place = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(
                f"observation has {values[row, place]} in row {row}, number {place}: expected "
                "finite numbers of float32"
            )
        return torch.from_numpy(values)

    def text_ids(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of texts, padded or cut: int64 ``[B, 64]``."""
        assert self.tokenizer is not None
        padded = np.full((len(texts), TEXT_TOKENS), self.padding, np.int64)
        for row, text in enumerate(texts):
            ids = self.tokenizer.encode(str(text))[:TEXT_TOKENS]
            padded[row, : len(ids)] = ids
        return padded

    @property
    def choices(self) -> int:
        """Number of discrete actions."""
        assert isinstance(self.action_space, spaces.Discrete)
        return int(self.action_space.n)

    @property
    def action_size(self) -> int:
        """Numbers of a continuous action."""
        return math.prod(self.action_space.shape or ())

    def actions_of(self, chosen: NDArray[Any]) -> NDArray[Any]:
        """Members of the action space: of numbers float32 ``[B, A]``, clipped, or of int64 ``[B]``
        choices, counted from 0."""
        if isinstance(self.action_space, spaces.Discrete):
            return (chosen + self.action_space.start).astype(self.action_space.dtype)
        assert isinstance(self.action_space, spaces.Box)
        box = self.action_space
        numbers = chosen.reshape(len(chosen), *box.shape).astype(np.float64)
        if box.dtype.kind in "iu":
            numbers = np.rint(numbers)
        return np.clip(numbers, box.low, box.high).astype(box.dtype)


def grid_symbols(observation: Any) -> NDArray[np.int64]:
    """Direction and grid of a batch of BabyAI's observations: int64 ``[B, n]``."""
    directions = np.asarray(observation["direction"], np.int64).reshape(-1, 1)
    grids = np.asarray(observation["image"], np.int64).reshape(len(directions), -1)
    return np.concatenate([directions, grids], 1)


def _observation_kind(
    space: gym.Space[Any], config: JatConfig
) -> Literal["continuous", "discrete", "image"]:
    if isinstance(space, spaces.Dict) and set(space.spaces) == set(GRID_KEYS):
        grid, mission = space["image"], space["mission"]
        symbols = 1 + math.prod(grid.shape or ()) + TEXT_TOKENS
        if isinstance(space["direction"], spaces.Discrete) and is_text_space(mission):
            if symbols != config.max_discrete_value:
                raise JatSpaceError(
                    f"observations have {symbols} symbols with their text: expected "
                    f"{config.max_discrete_value}, as the network reads"
                )
            return "discrete"
    if isinstance(space, spaces.Box):
        if space.dtype == np.uint8 and len(space.shape) == 3:
            if space.shape in ((FRAMES, SIDE, SIDE), (SIDE, SIDE, FRAMES)):
                return "image"
        elif math.prod(space.shape) < config.max_continuous_size:
            return "continuous"
    raise JatSpaceError(
        f"observations are of {space}: expected a Box of at most "
        f"{config.max_continuous_size - 1} numbers, a Dict of {', '.join(GRID_KEYS)}, or four "
        f"frames of {SIDE} x {SIDE} in uint8; transform them with a wrapper"
    )


def _action_kind(space: gym.Space[Any], config: JatConfig) -> Literal["continuous", "discrete"]:
    if isinstance(space, spaces.Discrete) and space.n <= config.vocab_size:
        return "discrete"
    if isinstance(space, spaces.Box) and 0 < math.prod(space.shape) <= config.max_continuous_size:
        return "continuous"
    raise JatSpaceError(
        f"actions are of {space}: expected Discrete, or a Box of at most "
        f"{config.max_continuous_size} numbers; transform them with a wrapper"
    )


def normalized_captions(images: NDArray[np.uint8]) -> Tensor:
    """Images uint8 ``[B, H, W, 3]`` of the network's size, normalised as CLIP's.

    Returns:
        float32 ``[B, 3, H, W]``.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(part)[:, None, None] for part in (CLIP_MEAN, CLIP_DEVIATION))
    return (pixels - mean) / deviation
