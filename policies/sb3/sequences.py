"""Batches of histories as packed sequences.

* :func:`pack_histories` -- what the network reads, and which token predicts what.

Shapes: B observations, K timesteps of a history, n timesteps of all together, A action tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.spaces import Plan
from gato_gym.wrappers import NO_TOKEN
from policies.gato.prompts import Prompt
from policies.model.attention import MEMORIES, TokenRoles
from policies.model.inputs.embedding import TokenInputs
from policies.model.inputs.sequence import (
    TimestepArrays,
    TokenCollector,
    cut_text,
    emits_text,
    fed_actions,
    lay_out,
    lay_out_prompt,
)

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class HistoryBatch:
    """A row for each history.

    Attributes:
        tokens, texts, roles: As :class:`policies.model.network.PackedBatch` has them.
        predictors: int64 ``[B, A]``, the flattened token whose output predicts each action token of
            the newest timestep.
        bodies: int64 ``[B]``, the last flattened token of the newest timestep's observation.
    """

    tokens: TokenInputs
    texts: Tensor
    roles: TokenRoles
    predictors: Tensor
    bodies: Tensor


class _Texts:
    """Texts by number, each once."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self.ids: list[NDArray[np.int32]] = []

    def number(self, padded: NDArray[np.int32]) -> int:
        """The number of a text that is padded with NO_TOKEN."""
        key = padded.tobytes()
        if key not in self._numbers:
            self._numbers[key] = len(self.ids)
            self.ids.append(cut_text(padded[padded != NO_TOKEN]))
        return self._numbers[key]

    def conditions(self, numbers: Ints) -> Ints:
        """The numbers, with -1 for empty texts, under which nothing is conditioned."""
        filled = np.array([len(ids) > 0 for ids in self.ids], np.bool_)
        return np.where(filled[numbers], numbers, -1) if len(filled) else numbers

    def padded(self) -> Tensor:
        """int64 ``[texts, L]``, padded with -1."""
        width = max([1, *(len(ids) for ids in self.ids)])
        rows = [np.pad(ids, (0, width - len(ids)), constant_values=-1) for ids in self.ids]
        return torch.from_numpy(np.stack(rows or [np.full(1, -1)]).astype(np.int64))


def pack_histories(
    plan: Plan,
    histories: Mapping[str, NDArray[Any]],
    actions: NDArray[np.integer],
    *,
    first_position: int,
    task_row: int = -1,
    prompt: Prompt | None = None,
) -> HistoryBatch:
    """Lay a batch of histories out, each in a row of its own, as training and acting do.

    Args:
        plan: How observations and actions become tokens.
        histories: Members of :class:`policies.sb3.history.HistorySpace`, with a first axis B.
        actions: int ``[B, A]``, ids of the newest timesteps' actions, which predict those after
            them; what is not chosen yet is any legal id.
        first_position: Position of a history's first token: the size of the prompt's region.
        task_row: Row of the task's learned embedding, or -1.
        prompt: The demonstration that each history comes after, instead of the embedding.
    """
    counts = histories["length"].reshape(-1).astype(np.int64)
    rows, longest = len(counts), int(counts.max())
    newest = np.cumsum(counts) - 1
    owners = np.repeat(np.arange(rows), counts)
    there = np.arange(-longest, 0) >= -counts[:, None]
    arrays = _timesteps(plan, histories, there, actions, newest)
    texts, numbers = _Texts(), np.full(len(owners), -1, np.int64)
    emitted: list[NDArray[np.integer] | None] = [None] * len(owners)
    if plan.has_text:
        shown = histories["text"][:, -longest:][there].astype(np.int32)
        numbers = np.array([texts.number(text) for text in shown], np.int64)
        for span in np.split(np.arange(len(owners)), newest[:-1] + 1):
            for step in span[emits_text(plan.options, numbers[span])].tolist():
                emitted[step] = texts.ids[numbers[step]]
    layout = lay_out(
        plan, emitted, arrays.actions, first_position=first_position, fed=fed_actions(plan)
    )
    row = owners[layout.steps]
    starts = np.searchsorted(row, np.arange(rows))
    before = None
    if prompt is not None:
        before = lay_out_prompt(plan, prompt.text if plan.has_text else None, prompt.steps)
    lead = 0 if before is None else len(before.ids)
    width = lead + int(np.diff(np.r_[starts, len(row)]).max())
    slots = row * width + lead + np.arange(len(row)) - starts[row]
    collector = TokenCollector(rows, width)
    roles = {name: np.zeros((rows, width), np.int64) for name in TokenRoles.__dataclass_fields__}
    roles["documents"][:] = -1
    roles["memories"][:] = MEMORIES.index(plan.options.memory)

    def place(where: Ints, **values: Any) -> None:
        for name, value in values.items():
            roles[name].reshape(-1)[where] = value

    if before is not None and prompt is not None:
        number = texts.number(prompt.text) if plan.has_text else -1
        for first in (np.arange(rows) * width).tolist():
            collector.add(plan, before, prompt.steps, first)
            place(
                first + np.arange(lead), documents=0, positions=before.positions,
                timesteps=before.steps, actions=before.actions, prompts=1,
            )  # fmt: skip
        if plan.has_text:
            collector.conditions[:, :lead] = texts.conditions(np.array([number]))[0]
    collector.add(plan, layout, arrays, slots)
    if plan.has_text:
        collector.conditions.reshape(-1)[slots] = texts.conditions(numbers)[layout.steps]
    if before is None and task_row >= 0:
        collector.tasks.reshape(-1)[slots] = np.where(layout.ids < 0, task_row, -1)
    positions = layout.positions - layout.positions[starts][row] + first_position
    place(
        slots, documents=0, positions=positions, timesteps=layout.steps + (1 << 20),
        actions=layout.actions,
    )  # fmt: skip
    return HistoryBatch(
        collector.finish(),
        texts.padded(),
        TokenRoles(**{name: torch.from_numpy(values) for name, values in roles.items()}),
        torch.from_numpy(slots[layout.predictors[newest]]),
        torch.from_numpy(slots[layout.body_starts[newest] + plan.num_tokens - 1]),
    )


def _timesteps(
    plan: Plan,
    histories: Mapping[str, NDArray[Any]],
    there: NDArray[np.bool_],
    actions: NDArray[np.integer],
    newest: Ints,
) -> TimestepArrays:
    """The parts of all timesteps that are there ``[B, longest]``, a history after another."""
    total, longest = int(there.sum()), there.shape[1]
    shapes = {
        "ids": (len(plan.id_slots),),
        "vectors": (len(plan.vector_slots), plan.options.vector_size),
        "grids": (len(plan.grid_slots), *plan.grid_size),
        "images": (len(plan.image_slots), *plan.image_shape),
    }
    parts = {
        name: histories[name][:, -longest:][there]
        if name in histories
        else np.zeros((total, *shape), np.int64 if name == "ids" else np.float32)
        for name, shape in shapes.items()
    }
    ids = np.tile(plan.action_ranges[:, 0].astype(np.int64), (total, 1))
    if "actions" in histories:
        ids = ids + histories["actions"][:, -longest:][there]
    ids[newest] = actions
    return TimestepArrays(**parts, actions=ids)
