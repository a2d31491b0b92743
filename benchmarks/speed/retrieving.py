"""Speed of acting by retrieval.

* :func:`from_many_steps` -- a step of :class:`policies.RetrievalPolicy` against a time limit.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Iterator

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from benchmarks.speed.comparison import Comparison, compare
from gato_gym.episodes.episode import Episode
from policies.retrieval.policy import RetrievalPolicy

LIMIT = 0.0005
"""Seconds of one core that a step may take."""

NUMBERS, HIDDEN = 39, 8
"""Numbers of an observation, as Meta-World has them, and the dimensions that they move in."""


def from_many_steps(*, seconds: float, steps: int = 100_000) -> Iterator[Comparison]:
    """Steps a second of one row, against as much of a core's time as a step may take.

    The observations wander smoothly in a few hidden dimensions; those that are played are of other
    episodes than the demonstrated ones.

    Args:
        seconds: As in :func:`benchmarks.speed.comparison.compare`.
        steps: Demonstrated steps.
    """
    length = min(500, steps)
    walks = _walks(steps // length + 1, length)
    never = np.zeros(length, np.bool_)
    actions = np.zeros((length, 4), np.float32)
    shown = [
        Episode("walk", walk, actions, np.zeros(length, np.float32), never, never)
        for walk in walks[1:]
    ]
    policy = RetrievalPolicy(
        spaces.Box(-np.inf, np.inf, (NUMBERS,)), spaces.Box(-1, 1, (4,)), shown
    )
    with warnings.catch_warnings():  # the name of the measure says what is missing
        warnings.simplefilter("ignore")
        kind = policy.index().kind
    following = itertools.cycle(walks[0])

    def work() -> None:
        end = time.process_time() + LIMIT
        while time.process_time() < end:
            pass

    yield compare(
        f"retrieve from {policy.steps:,} steps of {NUMBERS} numbers, one row, "
        + ("without faiss" if kind == "exact" else "with faiss"),
        (f"{LIMIT * 1e3:g} ms of one core", work),
        ("predict", lambda: policy.predict(next(following))),
        items=1,
        seconds=seconds,
        limit="at least 1",
    )


def _walks(count: int, length: int) -> NDArray[np.float32]:
    """Observations ``[count, length + 1, NUMBERS]`` of episodes."""
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(HIDDEN, NUMBERS)) / HIDDEN**0.5
    hidden = generator.normal(size=(count, HIDDEN))
    walks = np.empty((count, length + 1, NUMBERS), np.float32)
    for step in range(length + 1):
        hidden = 0.98 * hidden + 0.2 * generator.normal(size=hidden.shape)
        noise = 0.05 * generator.normal(size=(count, NUMBERS))
        walks[:, step] = np.tanh(hidden @ mixing) + noise
    return walks
