"""What an expert returns on held-out episodes.

* :func:`evaluate` -- returns of whole episodes.
* :class:`Evaluation` -- their mean and spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from policies.base import Policy
from policies.chance import seed_episodes

EVALUATION_SEEDS_START = 2**31
"""Benchmarks play seeds below 1,000,000, trainings and recordings those between."""

SCORE_SEEDS_START = EVALUATION_SEEDS_START + 1_000_000
"""Experts that evaluations have chosen are scored on these."""


@dataclass(frozen=True)
class Evaluation:
    """Returns of episodes: mean, standard deviation (of the sample), number."""

    mean: float
    std: float
    episodes: int

    @classmethod
    def of(cls, returns: Sequence[float]) -> Evaluation:
        """Of a list of returns."""
        spread = float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0
        return cls(float(np.mean(returns)), spread, len(returns))


def evaluate(
    policy: Policy, env: gym.Env[Any, Any], episodes: int, *, first_seed: int
) -> list[float]:
    """Play whole episodes as an expert is scored: see :attr:`policies.base.Policy.samples`.

    Args:
        policy: Plays.
        env: One environment.
        episodes: How many.
        first_seed: Seed of the first; the others follow it.

    Returns:
        The undiscounted return of each.

    Raises:
        ValueError: A reward is not finite.
    """
    returns = []
    for seed in range(first_seed, first_seed + episodes):
        observation, _ = env.reset(seed=seed)
        state, rewards, done = seed_episodes(policy, [seed]), [], False
        while not done:
            action, state = policy.predict(observation, state, deterministic=not policy.samples)
            observation, reward, terminated, truncated, _ = env.step(action)
            rewards.append(float(reward))
            done = terminated or truncated
        total = math.fsum(rewards)
        if not math.isfinite(total):
            raise ValueError(f"seed {seed}: return {total}, expected a finite number")
        returns.append(total)
    return returns
