"""How a network acts: its returns and successes in several environments at a time.

* :class:`Scores` -- of episodes.
* :func:`play_scores` -- plays them, as one batch.
* :func:`interval` -- how sure one may be of their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gato_gym.files.bounded_io import as_type
from policies.rollout.env_batch import PolicyLike
from policies.rollout.outcomes import EpisodeKey, EpisodeResult
from policies.rollout.vector_rollout import play

REPETITIONS = 2000


@dataclass(frozen=True)
class Scores:
    """What became of some episodes.

    Attributes:
        returns: Return of each episode.
        successes: Whether each succeeded; None where the environment does not report it.
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
        """The scores that :meth:`to_json` wrote.

        Raises:
            ValueError: A field is missing or of another type.
        """
        kept = {name: values[name] for name in ("returns", "successes") if name in values}
        scores: Scores = as_type(cls, kept, "scores")  # the file may hold what was played, too
        return scores


def play_scores(
    envs: Sequence[gym.Env[Any, Any]],
    policy: PolicyLike,
    episodes: int,
    *,
    deterministic: bool | None = False,
    first_seed: int = 0,
) -> Scores:
    """Play episodes 0 to ``episodes - 1``; episode i starts from ``reset(seed=first_seed + i)``.

    What a policy draws in it follows from the same seed. Recorded episodes have other seeds.

    Args:
        envs: Environments with the same spaces, of which at most ``episodes`` are used. They stay
            open.
        policy: Acts in all of them as one batch; in a single one, on single observations.
        episodes: How many.
        deterministic: Passed to ``predict``; False leaves it to the checkpoint's sampler, None to
            the expert's own way (:attr:`policies.base.Policy.samples`).
        first_seed: Seed of episode 0.

    Returns:
        The scores in the order of the seeds.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}: expected 1 or more")
    keys = [EpisodeKey("", index, first_seed + index) for index in range(episodes)]
    rows = envs[: max(1, min(len(envs), episodes))]
    results: list[EpisodeResult] = []
    for outcome in play(rows, policy, keys, deterministic=deterministic, guard=False):
        assert isinstance(outcome, EpisodeResult)
        results.append(outcome)
    results.sort(key=lambda result: result.key.index)
    successes = [result.success for result in results if result.success is not None]
    return Scores(
        tuple(result.total_return for result in results),
        tuple(successes) if len(successes) == episodes else None,
    )


def interval(
    groups: Sequence[ArrayLike], *, redraw_groups: bool, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of the groups' means.

    Args:
        groups: Values in groups: the episodes of each training seed, or of each task.
        redraw_groups: Whether groups are a sample themselves, as seeds are and tasks are not: then
            they are redrawn before the values in them.
        confidence: Probability mass inside.
        seed: Seed of the resampling.

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
