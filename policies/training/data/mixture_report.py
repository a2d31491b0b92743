"""What a run draws, before it does: tasks, episodes, tokens, shares and padding.

* :class:`TaskLine` -- one task's.
* :func:`measure_mixture` -- counts them in some batches.
* :func:`mixture_table` -- for a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from policies.model.inputs.sequence import fed_actions
from policies.training.data.packing import Packer
from policies.training.data.shards import TaskShard

BATCHES = 16


@dataclass(frozen=True)
class TaskLine:
    """One task, or texts, of a mixture.

    Attributes:
        task: Its id, or the name of texts.
        episodes: In its shard, or texts.
        steps: Timesteps in its shard; None of texts.
        tokens: Tokens of its shard laid out once, without prompts.
        share: Share of the drawn tokens that are no padding, in [0, 1].
    """

    task: str
    episodes: int
    steps: int | None
    tokens: int
    share: float


@dataclass(frozen=True)
class MixtureCounts:
    """A mixture as it is drawn.

    Attributes:
        lines: A line for each task.
        padding: Share of positions that hold no token.
        prompted: Share of documents that carry a prompt.
        batches: How many batches were counted.
    """

    lines: tuple[TaskLine, ...]
    padding: float
    prompted: float
    batches: int


def measure_mixture(packer: Packer, *, batches: int = BATCHES) -> MixtureCounts:
    """Count the first batches of a run."""
    drawn = dict.fromkeys(packer.sources, 0)
    positions = documents = prompted = 0
    for index in range(batches):
        batch = packer.batch(index)
        positions += batch.roles.documents.numel()
        for task, tokens in batch.task_tokens.items():
            drawn[task] += tokens
        owners = batch.roles.documents.numpy() + 1
        keys = owners + (np.arange(len(owners)) * (owners.max() + 1))[:, None]
        documents += len(np.unique(keys[owners > 0]))
        prompted += len(np.unique(keys[batch.roles.prompts.numpy() == 1]))
    total = sum(drawn.values())
    lines = tuple(
        TaskLine(
            task, len(shard.ends), shard.num_steps, tokens_of(shard), drawn[task] / max(1, total)
        )
        for task, shard in packer.shards.items()
    ) + tuple(
        TaskLine(name, len(texts), None, int(texts.sizes.sum()), drawn[name] / max(1, total))
        for name, texts in packer.texts.items()
    )
    return MixtureCounts(lines, 1 - total / positions, prompted / max(1, documents), batches)


def tokens_of(shard: TaskShard) -> int:
    """Tokens of a shard's episodes, each laid out once without a prompt."""
    plan = shard.plan
    body = shard.num_steps * (plan.num_tokens + fed_actions(plan))
    if not plan.has_text:
        return body
    shown = np.asarray(shard.arrays["text_index"])[shard.emits]
    lengths = np.array([len(shard.text(i)) for i in range(len(shard.arrays["text_ends"]))])
    return body + int(lengths[shown].sum())


def mixture_table(
    counts: MixtureCounts, *, tokens: int, all_episodes: Mapping[str, int] | None = None
) -> Table:
    """The mixture as a table.

    Args:
        counts: What :func:`measure_mixture` found.
        tokens: Tokens of the whole run.
        all_episodes: By task id, before the poor ones were left out.
    """
    table = Table(
        title=f"the mixture, as {counts.batches} batches draw it", title_justify="left",
        caption=f"{counts.padding:.1%} of positions are padding, {counts.prompted:.0%} of "
        "documents carry a prompt", caption_justify="left",
    )  # fmt: skip
    table.add_column("task")
    for name in ("episodes", "left out", "timesteps", "tokens", "share", "passes"):
        table.add_column(name, justify="right")
    filled = tokens * (1 - counts.padding)
    for line in counts.lines:
        before = (all_episodes or {}).get(line.task, line.episodes)
        table.add_row(
            line.task,
            f"{line.episodes:,}",
            f"{before - line.episodes:,}",
            "" if line.steps is None else f"{line.steps:,}",
            f"{line.tokens:,}",
            f"{line.share:.1%}",
            f"{filled * line.share / line.tokens:.1f}",
        )
    return table
