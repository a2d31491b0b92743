"""Prompts of retrieved steps: what a network is shown while it acts, from other episodes.

* :class:`RetrievedPrompts` -- draws and lays them out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gato_gym.spaces import TokenizedBatch
from policies.model.inputs.sequence import Layout, TimestepArrays, lay_out_prompt, prompt_steps
from policies.retrieval.keys import Keys
from policies.retrieval.retriever import SHOWN
from policies.training.data.shards import TaskShard

Ints = NDArray[np.int64]

DEMONSTRATIONS = (1, 5, 25)
"""Other episodes that are retrieved from; each number is as likely."""

CANDIDATES = 1000
"""Steps of them that are compared, at most, evenly spaced."""

MEASURED = 2000
"""Steps of a shard that its keys have their statistics from, at most, evenly spaced."""


class RetrievedPrompts:
    """Prompts of the steps nearest to one of another episode.

    A prompt is drawn as :class:`policies.retrieval.retriever.Retriever` would choose it from a few
    demonstrations: by the same keys, of the same text first, nearest first.

    Args:
        capacity: Tokens of the prompt region.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._keys: dict[str, Keys] = {}

    def draw(
        self, shard: TaskShard, query: int, generator: np.random.Generator
    ) -> tuple[Layout, TimestepArrays, Ints]:
        """A prompt for timestep ``query`` of a shard of two episodes or more."""
        episode = int(np.searchsorted(shard.ends, query, side="right"))
        others = len(shard.ends) - 1
        count = min(others, int(generator.choice(DEMONSTRATIONS)))
        drawn = generator.choice(others, count, replace=False)
        drawn += drawn >= episode
        steps = np.concatenate([np.arange(shard.starts[e], shard.ends[e]) for e in np.sort(drawn)])
        if shard.plan.has_text:
            texts = np.asarray(shard.arrays["text_index"])
            same = steps[texts[steps] == texts[query]]
            steps = same if len(same) else steps
        steps = _spaced(steps, CANDIDATES)
        keys = self._keys_of(shard)
        points, point = keys(_encoded(shard, steps)), keys(_encoded(shard, np.array([query])))
        near = np.argsort(((points - point) ** 2).sum(axis=1), kind="stable")[:SHOWN]
        return self.lay_out(shard, steps[near])

    def lay_out(self, shard: TaskShard, steps: Ints) -> tuple[Layout, TimestepArrays, Ints]:
        """As many of some timesteps as fit, with their actions, after the text of the first."""
        plan, first = shard.plan, int(steps[0])
        text = shard.text(int(shard.arrays["text_index"][first])) if plan.has_text else None
        chosen = steps[: prompt_steps(plan, len(steps), text, self._capacity, acted=True)]
        arrays = shard.timesteps(chosen)
        layout = lay_out_prompt(plan, text, arrays, acted=True)
        return layout, arrays, np.full(len(chosen), first)

    def _keys_of(self, shard: TaskShard) -> Keys:
        if shard.task not in self._keys:
            steps = _spaced(np.arange(shard.num_steps), MEASURED)
            self._keys[shard.task] = Keys(_encoded(shard, steps), shard.plan.vocabulary)
        return self._keys[shard.task]


def _spaced(steps: Ints, most: int) -> Ints:
    """At most so many of some timesteps, evenly spaced."""
    chosen = np.linspace(0, len(steps) - 1, min(len(steps), most)).astype(np.int64)
    return steps[chosen]


def _encoded(shard: TaskShard, steps: Ints) -> TokenizedBatch:
    """Timesteps without their texts, which keys do not compare."""
    parts = shard.timesteps(steps)
    no_text = (np.zeros(0, np.int32),) * len(steps)
    return TokenizedBatch(no_text, parts.ids, parts.vectors, parts.images, parts.grids)  # type: ignore[arg-type]
