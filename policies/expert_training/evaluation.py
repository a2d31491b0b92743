"""What an expert returns on held-out episodes.

* :func:`evaluate` -- returns of whole episodes.
* :class:`Evaluation` -- their mean and spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from policies.base import Policy
from policies.collection.scores import play_scores

EVALUATION_ROWS = 4
"""Environments that an expert plays side by side."""


@dataclass(frozen=True)
class Evaluation:
    """Returns of episodes: mean, standard deviation (of the sample), number."""

    mean: float
    std: float
    episodes: int

    @classmethod
    def of(cls, returns: Sequence[float]) -> Evaluation:
        """The evaluation of a list of returns."""
        spread = float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0
        return cls(float(np.mean(returns)), spread, len(returns))


def evaluate(
    policy: Policy, envs: Sequence[gym.Env[Any, Any]], episodes: int, *, first_seed: int
) -> list[float]:
    """Play whole episodes as an expert is scored: see :attr:`policies.base.Policy.samples`.

    Args:
        policy: Plays.
        envs: Environments of its task, which are played side by side and stay open.
        episodes: How many.
        first_seed: Seed of the first; the others follow it.

    Returns:
        The undiscounted return of each, in the order of the seeds.

    Raises:
        ValueError: A reward is not finite, or ``episodes`` is below 1.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}: expected 1 or more")
    scores = play_scores(envs, policy, episodes, deterministic=None, first_seed=first_seed)
    return list(scores.returns)
