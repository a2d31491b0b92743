"""How a network acts: its returns and successes in several environments at a time.

* :class:`Scores` -- of episodes.
* :func:`play_scores` -- plays them, as one batch.
* :func:`interval` -- how sure one may be of their mean.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from numpy.typing import ArrayLike, NDArray

from policies.chance import seed_episodes
from policies.rollout.env_batch import PolicyLike

REPETITIONS = 2000


@dataclass(frozen=True)
class Scores:
    """What became of some episodes.

    Attributes:
        returns: Of each.
        successes: Whether each succeeded; None where the environment does not tell.
    """

    returns: tuple[float, ...]
    successes: tuple[bool, ...] | None

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def success(self) -> float | None:
        """Share of successes."""
        return None if self.successes is None else float(np.mean(self.successes))

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        successes = None if self.successes is None else list(self.successes)
        return {"returns": list(self.returns), "successes": successes}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Scores:
        """The scores that :meth:`to_json` wrote."""
        successes = values["successes"]
        return cls(tuple(values["returns"]), None if successes is None else tuple(successes))


def play_scores(
    envs: Sequence[gym.Env[Any, Any]],
    policy: PolicyLike,
    episodes: int,
    *,
    deterministic: bool = False,
) -> Scores:
    """Play episodes 0 to ``episodes - 1``; episode i starts from ``reset(seed=i)``.

    What a policy draws in it follows from the same seed. Recorded episodes have other seeds. An
    environment whose episode ended takes up the next; one that has none left shows its last
    observation, and what the policy does there is ignored.

    Args:
        envs: Of the same spaces; at most as many as ``episodes`` are used.
        policy: Acts in all of them as one batch.
        episodes: How many.
        deterministic: Passed to ``predict``; False leaves it to the checkpoint's sampler.

    Returns:
        The scores in the order of the seeds.
    """
    envs = envs[: max(1, min(len(envs), episodes))]
    rows, space = len(envs), envs[0].observation_space
    action_space = batch_space(envs[0].action_space, rows)
    returns, told = np.zeros(episodes), np.full(episodes, np.nan)
    owner, following = list(range(rows)), rows
    seen = [copy.deepcopy(env.reset(seed=seed)[0]) for seed, env in enumerate(envs)]
    starts, state = np.ones(rows, np.bool_), None
    while any(episode >= 0 for episode in owner):
        empty: Any = create_empty_array(space, n=rows)
        begun = [owner[row] if starts[row] else None for row in range(rows)]
        state = seed_episodes(policy, begun, state)
        actions, state = policy.predict(
            concatenate(space, seen, empty), state, starts.copy(), deterministic=deterministic
        )
        starts[:] = False
        for row, action in enumerate(iterate(action_space, actions)):
            episode, env = owner[row], envs[row]
            if episode < 0:
                continue
            observation, reward, terminated, truncated, info = env.step(action)
            returns[episode] += float(reward)
            success = info.get("success", info.get("is_success"))
            if success is not None:
                told[episode] = max(float(bool(success)), np.nan_to_num(told[episode]))
            if terminated or truncated:
                owner[row] = following if following < episodes else -1
                if owner[row] >= 0:
                    following += 1
                    observation, _ = env.reset(seed=owner[row])
                    starts[row] = True
            seen[row] = copy.deepcopy(observation)
    successes = None if np.isnan(told).any() else tuple(bool(value) for value in told)
    return Scores(tuple(map(float, returns)), successes)


def interval(
    groups: Sequence[ArrayLike], *, redraw_groups: bool, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of the groups' means.

    Args:
        groups: Of values: the episodes of each training seed, or of each task.
        redraw_groups: Whether groups are a sample themselves, as seeds are and tasks are not: then
            they are redrawn before the values in them.
        confidence: Probability mass inside.
        seed: Of the redrawing.

    Example:
        >>> interval([[1.0, 1.0], [1.0]], redraw_groups=True)
        (1.0, 1.0)
    """
    generator = np.random.default_rng(seed)
    arrays = [np.asarray(group, np.float64) for group in groups]
    count = len(arrays)
    means: NDArray[np.float64] = np.stack(
        [a[generator.integers(len(a), size=(REPETITIONS, count, len(a)))].mean(-1) for a in arrays],
        axis=-1,
    )  # [R, place, group]: independent redraws of a group for each place that it may be drawn to
    chosen = np.broadcast_to(np.arange(count), (REPETITIONS, count))
    if redraw_groups:
        chosen = generator.integers(count, size=(REPETITIONS, count))
    replicates = np.take_along_axis(means, chosen[..., None], axis=-1)[..., 0].mean(-1)
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
