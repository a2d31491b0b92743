"""Prompts: a demonstration as a plan encodes it, and its keys and values in the cache.

* :class:`Prompt` -- the timesteps of a demonstration, ready to lay out.
* :func:`demonstration` -- the episode of a dataset, its id or its file.
* :func:`prompt_from_episode` -- from an :class:`~gato_gym.episodes.episode.Episode`.
* :func:`check_prompt` -- whether a plan can have encoded it.
* :func:`encode_prompt` -- one forward that fills the pinned region of a cache row.
* :func:`write_prompts` -- the same for rows of a larger cache.
* :func:`retrieved_prompt` -- from the nearest steps of demonstrations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.episodes.minari_datasets import episodes_of, find_minari
from gato_gym.spaces import Plan, TokenizedBatch
from policies.model.inputs.sequence import (
    TimestepArrays,
    TokenCollector,
    check_parts,
    cut_text,
    lay_out_prompt,
    prompt_steps,
)
from policies.model.kv_cache import RingCache
from policies.model.network import GatoNetwork
from policies.observations import rows_of
from policies.retrieval.keys import Keys, covering
from policies.retrieval.retriever import Retriever

FIELDS = ("ids", "vectors", "grids", "images", "actions")


@dataclass(frozen=True)
class Prompt:
    """A demonstration's timesteps.

    Attributes:
        steps: Their parts.
        text: int32 ``[L]``, ids of the text shown; empty without one.
    """

    steps: TimestepArrays
    text: NDArray[np.int32]

    def tensors(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """Named arrays, for safetensors."""
        named = {f"{prefix}/{name}": getattr(self.steps, name) for name in FIELDS}
        return {**named, f"{prefix}/text": self.text}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]], prefix: str) -> Prompt:
        """The prompt that :meth:`tensors` named.

        Raises:
            KeyError: A part is missing.
            ValueError: A part is of another type, or of another number of timesteps.
        """
        parts = {name: np.asarray(tensors[f"{prefix}/{name}"]) for name in FIELDS}
        text = np.asarray(tensors[f"{prefix}/text"])
        check_parts({**parts, "text_ids": text}, f"the prompt of {prefix}")
        lengths = {name: len(part) for name, part in parts.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the prompt of {prefix} has timesteps {lengths}, expected one number")
        return cls(TimestepArrays(**parts), text)


def first_steps(observations: object, length: int) -> object:
    """The first ``length`` of nested per-timestep observations."""
    if isinstance(observations, dict):
        return {key: first_steps(part, length) for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(first_steps(part, length) for part in observations)
    return observations[:length]  # type: ignore[index]


def demonstration(source: Any) -> Episode:
    """A demonstration by name.

    Args:
        source: An Episode; or a Minari dataset, whole or in part (filtered or split), its id, its
            folder or its HDF5 file. A string can end in ``#3`` to select episode 3; the default is
            the first.

    Raises:
        FileNotFoundError: There is no such dataset.
        ValueError: It is not a dataset, or has no episode of that number.
    """
    if isinstance(source, Episode):
        return source
    number = 0
    if isinstance(source, (str, Path)):
        name, mark, given = str(source).rpartition("#")
        if mark and given.isdigit():
            source, number = name, int(given)
    elif not hasattr(source, "storage"):
        raise ValueError(
            f"prompt is a {type(source).__name__}: expected 'shipped', None, an Episode, or a "
            "Minari dataset, its id or its path"
        )
    dataset = find_minari(source)
    total = dataset.total_episodes
    if not total:
        raise ValueError(
            f"{dataset.id} is a part of a dataset, and has no episode: pass a part "
            "with at least one"
        )
    if number >= total:
        raise ValueError(
            f"{dataset.id} has episodes 0 to {total - 1}, and the prompt is to be "
            f"{number}: name another"
        )
    return next(episodes_of(dataset, first=number))


def prompt_from_episode(
    plan: Plan, episode: Episode, *, capacity: int, cut: str | None = None
) -> Prompt:
    """A prompt of at most ``capacity`` tokens from a demonstration.

    Args:
        plan: The plan that encodes it.
        episode: The demonstration.
        capacity: Size of the pinned region, in tokens.
        cut: Which part of a longer demonstration is kept: "end"; "start"; or "select", the steps
            that cover it best (:func:`policies.retrieval.keys.covering`), in their order; None
            rejects it.

    Raises:
        ValueError: The demonstration is longer than ``capacity`` and ``cut`` is None, or is of
            other spaces than the plan's.
    """
    if cut not in (None, "end", "start", "select"):
        raise ValueError(f"cut is {cut!r}: expected 'end', 'start', 'select', or None to refuse")
    length = episode.length
    encoded, actions = _encode(plan, episode)
    text = cut_text(np.asarray(encoded.text[length - 1], np.int32))
    count = prompt_steps(plan, length, text if plan.has_text else None, capacity)
    if cut is None and count < length:
        fed = plan.num_actions if plan.options.memory == "all" else 0
        tokens = length * (plan.num_tokens + fed) + (len(text) if plan.has_text else 0)
        raise ValueError(
            f"the demonstration has {length} timesteps, {tokens} tokens, and the network's prompt "
            f"region has room for {count} timesteps, {capacity} tokens: pass a shorter one, or "
            "cut='end', cut='start' or cut='select' to keep a part"
        )
    chosen: slice | NDArray[np.intp] = slice(length - count, length)
    if cut == "start":
        chosen = slice(0, count)
    elif cut == "select" and count < length:
        chosen = covering(Keys(encoded, plan.vocabulary)(encoded), count)
    steps = TimestepArrays(
        ids=encoded.ids[chosen],
        vectors=encoded.vectors[chosen],
        grids=encoded.grids[chosen],
        images=encoded.images[chosen],
        actions=actions[chosen],
    )
    return Prompt(steps, text)


def check_prompt(plan: Plan, prompt: Prompt) -> None:
    """Refuse a prompt that the plan cannot have encoded.

    Raises:
        ValueError: A part has another shape, or ids that have no meaning where they are.
    """
    steps, ids = prompt.steps, plan.vocabulary
    low, high = plan.action_ranges[:, 0], plan.action_ranges[:, 1]
    for name, part, shape in (
        ("ids", steps.ids, (len(plan.id_slots),)),
        ("vectors", steps.vectors, (len(plan.vector_slots), plan.options.vector_size)),
        ("grids", steps.grids, (len(plan.grid_slots), *plan.grid_size)),
        ("images", steps.images, (len(plan.image_slots), *plan.image_shape)),
        ("actions", steps.actions, (plan.num_actions,)),
    ):
        if part.shape[1:2] != shape[:1] or (part.size and part.shape[1:] != shape):
            raise ValueError(
                f"the prompt's {name} are {list(part.shape[1:])} a timestep and the task's "
                f"{list(shape)}: take a fresh copy of the checkpoint"
            )
    for name, part, least, most in (
        ("ids", steps.ids, 0, ids.size),
        ("actions", steps.actions, low, high),
        ("text", prompt.text, ids.text.start, ids.text.stop),
    ):
        if ((part < least) | (part >= most)).any():
            raise ValueError(
                f"the prompt's {name} are {part.min()} to {part.max()}: expected ids of the task's "
                "vocabulary; take a fresh copy of the checkpoint"
            )


def _encode(plan: Plan, episode: Episode) -> tuple[TokenizedBatch, NDArray[np.int32]]:
    """The observations and actions of an episode that fits the plan's spaces."""
    observations = first_steps(episode.observations, episode.length)
    try:
        for name, space, values in (
            ("observation", plan.observation_space, observations),
            ("action", plan.action_space, episode.actions),
        ):
            if (rows := rows_of(space, values, name)) != episode.length:
                raise ValueError(f"{name} has {rows} rows: expected {episode.length}")
        return plan.encode_batch(observations), plan.encode_actions(episode.actions)
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"the prompt is an episode of {episode.task!r} that does not fit the policy ({error}): "
            f"expected one of the policy's environment, with observations of "
            f"{plan.observation_space} and actions of {plan.action_space}"
        ) from error


@torch.no_grad()
def encode_prompt(network: GatoNetwork, plan: Plan, prompt: Prompt) -> RingCache:
    """Keys and values of a prompt: a cache of one row whose pinned region holds it.

    Raises:
        ValueError: The prompt has more tokens than the pinned region, or another plan's.
    """
    check_prompt(plan, prompt)
    config = network.config
    text = prompt.text if plan.has_text else None
    size = len(lay_out_prompt(plan, text, prompt.steps).ids)
    if size > config.prompt_tokens:
        raise ValueError(
            f"the prompt has {size} tokens and the network's prompt region "
            f"{config.prompt_tokens}: cut the demonstration (prompt_from_episode does)"
        )
    cache = RingCache.empty(config, rows=1, ring=1, pinned=size, like=network.head.weight)
    write_prompts(network, plan, [prompt], np.zeros(1, np.int64), cache)
    return cache


def write_prompts(
    network: GatoNetwork,
    plan: Plan,
    prompts: Sequence[Prompt],
    rows: NDArray[np.int64],
    cache: RingCache,
    *,
    acted: bool = False,
) -> None:
    """Put prompts, which fit it, into the pinned region of a cache's rows.

    Args:
        network: Encodes them.
        plan: Encoded their timesteps.
        prompts: One for each row.
        rows: int64 ``[n]``, ascending.
        cache: Written.
        acted: Whether their actions are shown, see
            :func:`policies.model.inputs.sequence.lay_out_prompt`.
    """
    device = network.head.weight.device
    embedded, owners, positions = [], [], []
    for row, prompt in zip(
        rows, prompts, strict=True
    ):  # one by one, so that a row's numbers do not depend on the others
        text = prompt.text if plan.has_text else None
        layout = lay_out_prompt(plan, text, prompt.steps, acted=acted)
        if not len(layout.ids):
            continue
        collector = TokenCollector(1, len(layout.ids))
        collector.add(plan, layout, prompt.steps, 0)
        conditions = torch.zeros(1, network.config.condition_size, device=device)
        if text is not None and len(text):
            collector.conditions[:] = 0
            texts = torch.from_numpy(text[None].astype(np.int64)).to(device)
            conditions = network.embedding.encode_texts(texts)
        embedded.append(network.embedding(collector.finish().to(device), conditions)[0])
        owners.append(np.full(len(layout.ids), row))
        positions.append(layout.positions)
    cache.positions[torch.from_numpy(rows).to(device), : cache.pinned] = -1
    if embedded:
        tokens = np.concatenate(owners), np.concatenate(positions)
        network.step(torch.cat(embedded), *tokens, cache, wanted=False)


def retrieved_prompt(
    plan: Plan, retriever: Retriever, places: NDArray[np.intp], capacity: int
) -> Prompt:
    """Demonstrated steps as a prompt, in this order: as many as fit ``capacity`` tokens."""
    text = cut_text(np.asarray(retriever.steps.text[places[0]], np.int32))
    shown = text if plan.has_text else None
    chosen = places[: prompt_steps(plan, len(places), shown, capacity, acted=True)]
    steps = retriever.steps
    return Prompt(
        TimestepArrays(
            ids=steps.ids[chosen],
            vectors=steps.vectors[chosen],
            grids=steps.grids[chosen],
            images=steps.images[chosen],
            actions=retriever.actions[chosen],
        ),
        text,
    )
