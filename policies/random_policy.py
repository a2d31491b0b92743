"""Chance as a policy.

* :class:`RandomPolicy` -- actions drawn from the action space, the same in any batch.
* :func:`seed_episode` -- lets an episode's own seed decide what is drawn in it.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array
from numpy.typing import NDArray

from policies.base import Policy, batch_rows, episode_generators
from policies.experts.cnn import ImageExpert


class RandomPolicy(Policy):
    """Draws actions as ``action_space.sample()`` does, for any Gymnasium space.

    What an episode is dealt depends on ``seed`` and its first observation alone, not on the batch
    it is played in. The state holds one seeded copy of the action space a row, and
    :meth:`predict` advances it in place. ``deterministic`` changes nothing.

    Args:
        observation_space: The space of one environment's observations.
        action_space: The space of one environment's actions.
        seed: Another seed, other actions.

    Example:
        >>> from gymnasium.spaces import Box, Discrete
        >>> policy = RandomPolicy(Box(-1, 1, (3,)), Discrete(4))
        >>> actions, state = policy.predict(np.zeros((2, 3), np.float32))
        >>> actions.shape, bool(actions[0] == actions[1])
        ((2,), True)
    """

    def __init__(
        self, observation_space: gym.Space[Any], action_space: gym.Space[Any], *, seed: int = 0
    ) -> None:
        super().__init__(observation_space, action_space)
        self.seed = seed

    def _predict_batch(
        self,
        observation: Any,
        state: list[gym.Space[Any]] | None,
        starts: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[Any, list[gym.Space[Any]]]:
        rows = batch_rows(self.observation_space, observation)
        drawn = [self.action_space] * rows if state is None else state
        if len(drawn) != rows:
            raise ValueError(
                f"state has {len(drawn)} rows for {rows} observations: pass None to start afresh"
            )
        started = episode_generators(self.observation_space, observation, starts, seed=self.seed)
        for row, generator in started.items():
            space = copy.deepcopy(self.action_space)
            space.seed(int(generator.integers(2**31)))
            drawn[row] = space
        empty = create_empty_array(self.action_space, n=rows)
        assert empty is not None
        samples = [space.sample() for space in drawn]
        return concatenate(self.action_space, samples, empty), drawn


def seed_episode(policy: object, seed: int) -> None:
    """Let random actions, and what a game's expert samples, follow from an episode's seed.

    They follow from its first observation too, but many games begin alike. Other policies are left
    as they are.
    """
    if isinstance(policy, RandomPolicy | ImageExpert):
        policy.seed = seed
