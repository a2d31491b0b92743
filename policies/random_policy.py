"""Random actions as a policy.

* :class:`RandomPolicy` -- actions drawn from the action space, the same in any batch.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array
from numpy.typing import NDArray

from policies.chance import RowGenerator, SampledPolicy


@dataclass(frozen=True)
class DrawnRow(RowGenerator):
    """A row of a :class:`RandomPolicy`.

    Attributes:
        space: A copy of the action space, seeded for the current episode; None before the first.
    """

    space: gym.Space[Any] | None = None

    def sample(self) -> Any:
        """The next action."""
        assert self.space is not None
        return self.space.sample()


class RandomPolicy(SampledPolicy):
    """Draws actions as ``action_space.sample()`` does, for any Gymnasium space.

    The actions of an episode depend only on ``seed`` and the episode's seed, not on its batch: see
    :meth:`policies.base.Policy.seed_episodes`. The state holds one seeded copy of the action space
    for each row, which :meth:`predict` advances in place. ``deterministic`` has no effect.

    Args:
        observation_space: The space of one environment's observations.
        action_space: The space of one environment's actions.
        seed: Seed of the actions.

    Example:
        >>> from gymnasium.spaces import Box, Discrete
        >>> policy = RandomPolicy(Box(-1, 1, (3,)), Discrete(4))
        >>> state = policy.seed_episodes([5, 5])
        >>> actions, state = policy.predict(np.zeros((2, 3), np.float32), state)
        >>> actions.shape, bool(actions[0] == actions[1])
        ((2,), True)
    """

    row = DrawnRow()

    def _predict_batch(
        self,
        observation: Any,
        state: list[DrawnRow] | None,
        starts: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[Any, list[DrawnRow]]:
        rows, begun = self._begin(observation, state, starts)
        for place in np.flatnonzero(begun).tolist():
            space = copy.deepcopy(self.action_space)
            space.seed(int(rows[place].under_way.integers(2**31)))
            rows[place] = replace(rows[place], space=space)
        empty = create_empty_array(self.action_space, n=len(rows))
        assert empty is not None
        return concatenate(self.action_space, [row.sample() for row in rows], empty), rows
