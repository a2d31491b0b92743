"""What an expert chose from, as labels of action tokens.

* :func:`soft_labels` -- of an episode: probabilities, or standard deviations.

Cross-entropy against the expert's own distribution says more of a timestep than its one action:
which other actions would have done, and how sure it was.
"""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.spaces import Plan

__all__ = ["label_columns", "soft_labels"]


def label_columns(plan: Plan) -> int:
    """K, numbers that describe what an action of the plan was chosen from.

    A Discrete space that is one action token has a probability for each choice, a Box with bounds a
    standard deviation for each number; other spaces have none.
    """
    space = plan.action_space
    if isinstance(space, spaces.Discrete) and plan.num_actions == 1:
        return int(space.n)
    if isinstance(space, spaces.Box) and space.dtype.kind == "f" and space.is_bounded():
        return plan.num_actions
    return 0


def soft_labels(plan: Plan, episode: Episode) -> NDArray[np.float16]:
    """The labels of an episode's T timesteps.

    Returns:
        float16 ``[T, K]``, K as :func:`label_columns` has it: probabilities, or standard deviations
        in units of half the action's range. Zeros where the expert did not say.
    """
    columns, given = label_columns(plan), episode.distribution
    if given is None or given.shape != (episode.length, columns):
        return np.zeros((episode.length, columns), np.float16)
    if isinstance(plan.action_space, spaces.Box):
        half = (plan.action_space.high - plan.action_space.low).reshape(-1) / 2
        return (given / np.maximum(half, 1e-6)).astype(np.float16)
    return np.asarray(given, np.float16)
