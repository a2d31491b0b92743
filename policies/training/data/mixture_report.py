"""What a run draws, before it does: tasks, episodes, tokens, shares and padding.

* :class:`TaskLine` -- one task's.
* :func:`measure_mixture` -- counts them in some batches.
* :func:`mixture_table` -- for a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from policies.training.data.packing import DocumentSampler

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


def measure_mixture(packer: DocumentSampler[Any, Any], *, batches: int = BATCHES) -> MixtureCounts:
    """Count the first batches of a run."""
    drawn = dict.fromkeys(packer.sources, 0)
    documents = prompted = 0
    for index in range(batches):
        batch = packer.batch(index)
        for task, tokens in batch.task_tokens.items():
            drawn[task] += tokens
        every, with_prompt = packer.count_documents(batch)
        documents, prompted = documents + every, prompted + with_prompt
    total, positions = sum(drawn.values()), batches * packer.rows * packer.length
    counts: dict[str, tuple[int, int | None]] = {
        task: (len(shard.ends), shard.num_steps) for task, shard in packer.shards.items()
    }
    counts |= {name: (len(texts), None) for name, texts in packer.texts.items()}
    lines = tuple(
        TaskLine(name, *counts[name], packer.num_tokens(name), drawn[name] / max(1, total))
        for name in packer.sources
    )
    return MixtureCounts(lines, 1 - total / positions, prompted / max(1, documents), batches)


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
