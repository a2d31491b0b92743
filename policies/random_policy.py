"""Chance as a policy.

* :class:`RandomPolicy` -- actions drawn from the action space, the same in any batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array
from numpy.typing import NDArray

from policies.base import Policy
from policies.chance import RowGenerator, begin_episodes, with_seeds


@dataclass(frozen=True)
class DrawnRow(RowGenerator):
    """A row of a :class:`RandomPolicy`.

    Attributes:
        space: The action space with the seed of the episode under way; None before the first.
    """

    space: gym.Space[Any] | None = None

    def sample(self) -> Any:
        """The next action."""
        assert self.space is not None
        return self.space.sample()


class RandomPolicy(Policy):
    """Draws actions as ``action_space.sample()`` does, for any Gymnasium space.

    What an episode is dealt depends on ``seed`` and on its own seed alone, not on the batch it is
    played in: see :meth:`policies.base.Policy.seed_episodes`. The state holds one seeded copy of
    the action space a row, and :meth:`predict` advances it in place. ``deterministic`` changes
    nothing.

    Args:
        observation_space: The space of one environment's observations.
        action_space: The space of one environment's actions.
        seed: Another seed, other actions.

    Example:
        >>> from gymnasium.spaces import Box, Discrete
        >>> policy = RandomPolicy(Box(-1, 1, (3,)), Discrete(4))
        >>> state = policy.seed_episodes([5, 5])
        >>> actions, state = policy.predict(np.zeros((2, 3), np.float32), state)
        >>> actions.shape, bool(actions[0] == actions[1])
        ((2,), True)
    """

    def __init__(
        self, observation_space: gym.Space[Any], action_space: gym.Space[Any], *, seed: int = 0
    ) -> None:
        super().__init__(observation_space, action_space)
        self.seed = seed

    def seed_episodes(
        self, seeds: Sequence[int | None], state: list[DrawnRow] | None = None
    ) -> list[DrawnRow]:
        """As :meth:`policies.base.Policy.seed_episodes`."""
        return with_seeds([DrawnRow()] * len(seeds) if state is None else state, seeds)

    def _predict_batch(
        self,
        observation: Any,
        state: list[DrawnRow] | None,
        starts: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[Any, list[DrawnRow]]:
        rows = [DrawnRow()] * len(starts) if state is None else state
        begun = begin_episodes(
            rows, starts, seed=self.seed, space=self.observation_space, observation=observation
        )
        for place in np.flatnonzero(begun).tolist():
            space = copy.deepcopy(self.action_space)
            space.seed(int(rows[place].under_way.integers(2**31)))
            rows[place] = replace(rows[place], space=space)
        empty = create_empty_array(self.action_space, n=len(rows))
        assert empty is not None
        return concatenate(self.action_space, [row.sample() for row in rows], empty), rows
