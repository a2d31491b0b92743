"""What is shown of a timestep: the frame, the score so far, and the tokens of the last actions.

* :class:`Scene` -- all of it.
* :class:`TokenRow`, :class:`Chip` -- the tokens of one action, and one of them.
* :func:`token_row` -- the tokens of an executed action.
* :func:`action_names` -- what an environment calls its discrete actions.
* :func:`instruction_of` -- the text in an observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.spaces import Plan

__all__ = ["Chip", "Scene", "TokenRow", "action_names", "instruction_of", "token_row"]

Kind = Literal["continuous", "discrete"]


@dataclass(frozen=True)
class Chip:
    """One action token: its id, what that is a member of, and what it decodes to."""

    token: int
    kind: Kind
    label: str


@dataclass(frozen=True)
class TokenRow:
    """The tokens of the action of a timestep, counted from 1."""

    step: int
    chips: tuple[Chip, ...]


@dataclass(frozen=True)
class Scene:
    """What is shown of one timestep.

    Attributes:
        frame: uint8 ``[H, W, 3]``, what the environment renders.
        task: Task id.
        policy: Name of who plays.
        episode: Which episode, from 1, of ``episodes``.
        episodes: How many are played.
        seed: What the environment was reset with.
        instruction: The text of the observation; empty without.
        step: Timesteps played.
        total_return: Sum of the rewards so far.
        success: By the benchmark's rule so far; None where the environment does not say.
        ended: Whether the episode is over.
        rows: Tokens of the last actions, the newest first.
    """

    frame: NDArray[np.uint8]
    task: str
    policy: str
    episode: int
    episodes: int
    seed: int
    instruction: str = ""
    step: int = 0
    total_return: float = 0.0
    success: bool | None = None
    ended: bool = False
    rows: tuple[TokenRow, ...] = ()


def token_row(
    plan: Plan, action: Any, *, step: int = 1, names: tuple[str, ...] | None = None
) -> TokenRow:
    """The tokens of an action, with what each decodes to.

    Args:
        plan: Plan of the environment that executed it.
        action: A member of the action space.
        step: The timestep.
        names: What the values of a Discrete are called, lowest first.

    Returns:
        ``plan.num_actions`` chips. A token that is not a number of its own (a digit of a large
        one, a part of a Text, Sequence or OneOf) is labelled with its distance from the lowest
        legal id.

    Example:
        >>> from gato_gym import compile_plan
        >>> plan = compile_plan(spaces.Discrete(2), spaces.Box(-1, 1, (2,)))
        >>> [(chip.token, chip.label) for chip in token_row(plan, np.array([1.0, -0.5])).chips]
        [(33023, '+1.00'), (32256, '-0.50')]
    """
    ids = plan.encode_action(action)
    labels = _labels(plan.action_space, plan.decode(ids), names)
    if len(labels) != len(ids):
        labels = [str(offset) for offset in (ids - plan.action_ranges[:, 0]).tolist()]
    chips = tuple(
        Chip(token, "continuous" if continuous else "discrete", label)
        for token, continuous, label in zip(
            ids.tolist(), plan.action_is_continuous.tolist(), labels, strict=True
        )
    )
    return TokenRow(step, chips)


def _labels(space: gym.Space[Any], action: Any, names: tuple[str, ...] | None) -> list[str]:
    """A label for each number of an action, in the order in which a plan encodes them."""
    if isinstance(space, spaces.Dict):
        keys = sorted(space.spaces)
        return [text for key in keys for text in _labels(space.spaces[key], action[key], None)]
    if isinstance(space, spaces.Tuple):
        parts = zip(space.spaces, action, strict=True)
        return [text for sub, part in parts for text in _labels(sub, part, None)]
    if isinstance(space, spaces.Discrete) and names:
        return [names[int(action) - int(space.start)]]
    if isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return [_number(value) for value in np.asarray(action).ravel().tolist()]
    return []


def _number(value: float | int | bool) -> str:
    if not isinstance(value, float):
        return str(int(value))
    text = f"{value:+.2f}" if abs(value) < 100 else f"{value:+.3g}"
    return text.replace("-0.00", "+0.00")


def action_names(env: gym.Env[Any, Any]) -> tuple[str, ...] | None:
    """What an environment calls its discrete actions, lowest first; None where it does not say.

    Read from MiniGrid's ``actions`` and from Atari's ``get_action_meanings``.
    """
    if not isinstance(env.action_space, spaces.Discrete):
        return None
    inner: Any = env.unwrapped
    if hasattr(inner, "get_action_meanings"):
        names = inner.get_action_meanings()
    else:
        names = getattr(getattr(inner, "actions", None), "__members__", ())
    lower_names = tuple(str(name).lower().replace("_", " ") for name in names)
    return lower_names if len(lower_names) == env.action_space.n else None


def instruction_of(observation: Any) -> str:
    """The text in an observation, its parts on a line each; empty without.

    Example:
        >>> instruction_of({"image": np.zeros(3), "mission": "go to the red ball"})
        'go to the red ball'
    """
    if isinstance(observation, str):
        return str(observation)
    if isinstance(observation, Mapping):
        parts = [instruction_of(observation[key]) for key in sorted(observation)]
    elif isinstance(observation, tuple):
        parts = [instruction_of(part) for part in observation]
    else:
        return ""
    return "\n".join(part for part in parts if part)
