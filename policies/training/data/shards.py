"""Token shards: a task's episodes, encoded once and memory-mapped for training.

* :class:`TaskShard` -- one task's timesteps as arrays, with the plan that made them.
* :func:`write_shard` -- from episodes to a shard.

Which episodes they are is up to :mod:`policies.training.data.datasets`. A shard is a folder of
``.npy`` files and ``meta.json``; ``README`` of the format:

=================  ==========  ==========================================================
file               shape       holds
=================  ==========  ==========================================================
ends               [E]         one past the last timestep of each episode, int64
ids                [N, I]      id contributions of each timestep, int32
vectors            [N, V, K]   vector patches, float32
grids              [N, G, …]   symbolic grids, uint8
images             [N, M, …]   image patches, uint8 or float32
actions            [N, A]      the expert's action as ids, int32
labels             [N, K]      what it was chosen from, float16; K is 0 where nobody said
text_index         [N]         which text each timestep shows, int32
text_ids           [L]         all texts, one after another, int32
text_ends          [X]         one past the last token of each text, int64
rewards            [N]         of each timestep, float32; only where returns to go are asked for
=================  ==========  ==========================================================

``meta.json`` has the task's id, its spaces as Minari writes them, its token options, its group in
the mixture, and what it was made of. Shards of texts and of images with texts are in
:mod:`policies.training.data.text_shards`.
"""

from __future__ import annotations

import json
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.files.atomic_io import appearing
from gato_gym.files.bounded_io import as_type, check_file, plain_json, read_json, reason_of
from gato_gym.options import PlanOptions
from gato_gym.space_json import read_space
from gato_gym.spaces import Plan, compile_plan
from policies.collection.filtering import windowed_return
from policies.gato.prompts import first_steps
from policies.model.inputs.sequence import (
    PARTS,
    TimestepArrays,
    check_parts,
    cut_text,
    emits_text,
)
from policies.returns import ReturnScale, returns_to_go
from policies.training.data.soft_labels import soft_labels

ARRAYS = ("ids", "vectors", "grids", "images", "actions", "labels", "text_index")
FILES = (*ARRAYS, "ends", "text_ids", "text_ends")
"""All arrays of a shard; the first have an entry for each timestep."""
REWARDS = {"rewards": ("float32", 1)}
"""The array that a shard has only where returns to go are asked for."""
FORMAT = 2
HEADER_ERRORS = (
    EOFError, OSError, OverflowError, SyntaxError, TypeError, ValueError, tokenize.TokenError,
)  # fmt: skip
"""What NumPy raises at a damaged array, whose header it parses as Python."""


class EpisodeArrays:
    """Base of shards: arrays with an entry for each timestep, and ``ends`` of episodes."""

    task: str
    group: str
    arrays: dict[str, NDArray[Any]]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First timestep of each episode: int64 ``[E]``."""
        return np.r_[0, self.arrays["ends"][:-1]].astype(np.int64)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """One past the last timestep of each episode: int64 ``[E]``."""
        return np.asarray(self.arrays["ends"], np.int64)

    @property
    def num_steps(self) -> int:
        """N, timesteps of all episodes."""
        return len(self.arrays["actions"])

    def between(self, first: int, stop: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """The arrays of the episodes ``[first, stop)``, of which ``names`` are of timesteps."""
        begin, end = int(self.starts[first]), int(self.ends[stop - 1])
        arrays = {n: a[begin:end] if n in names else a for n, a in self.arrays.items()}
        return {**arrays, "ends": self.ends[first:stop] - begin}


@dataclass(frozen=True)
class TaskShard(EpisodeArrays):
    """One task's timesteps.

    Attributes:
        task: The task's id.
        plan: The plan that encoded them.
        arrays: Memory-mapped arrays by the names of the module's table.
        group: What the mixture knows the task by.
    """

    task: str
    plan: Plan
    arrays: dict[str, NDArray[Any]]
    group: str

    @classmethod
    def open(cls, folder: Path) -> TaskShard:
        """Open a shard's folder.

        Raises:
            FileNotFoundError: It holds no shard.
            ValueError: It holds a damaged one.
        """
        if not (folder / "meta.json").exists():
            raise FileNotFoundError(
                f"{folder} holds no shard of a task: gato-gym train encodes datasets"
            )
        path = folder / "meta.json"
        try:
            meta = as_type(dict[str, Any], read_json(path), "it")
            task, group = (as_type(str, meta[name], name) for name in ("task", "group"))
            options = PlanOptions.from_json(as_type(dict[str, Any], meta["options"], "options"))
            written = as_type(tuple[str, str], meta["spaces"], "spaces")
            observation, action = (read_space(text, "spaces") for text in written)
            plan = compile_plan(observation, action, options)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{path} describes no shard ({reason_of(error)}): delete the shard"
            ) from error
        some = REWARDS if (folder / "rewards.npy").exists() else {}
        mapped = load_arrays(folder, (*FILES, *some), {**PARTS, **some})
        check_ends(folder, mapped, {"ends": "actions", "text_ends": "text_ids"})
        if len({len(mapped[name]) for name in (*ARRAYS, *some)}) > 1:
            raise ValueError(f"{folder} holds arrays of other lengths: delete the shard")
        arrays = {name: np.asarray(array) for name, array in mapped.items()}  # quicker to index
        return cls(task, plan, arrays, group)

    @cached_property
    def emits(self) -> NDArray[np.bool_]:
        """bool ``[N]``: whether each timestep emits its text."""
        if not self.plan.has_text:
            return np.zeros(self.num_steps, np.bool_)
        index = np.asarray(self.arrays["text_index"])
        parts = [
            emits_text(self.plan.options, index[a:b])
            for a, b in zip(self.starts, self.ends, strict=True)
        ]
        return np.concatenate(parts)

    def part(self, first: int, stop: int) -> TaskShard:
        """The shard of the episodes ``[first, stop)`` alone; nothing is copied."""
        return replace(self, arrays=self.between(first, stop, (*ARRAYS, *REWARDS)))

    def without_labels(self) -> TaskShard:
        """The shard without what its actions were chosen from; nothing is copied."""
        return replace(self, arrays={**self.arrays, "labels": self.arrays["labels"][:, :0]})

    @cached_property
    def returns_to_go(self) -> NDArray[np.float64]:
        """float64 ``[N]``.

        Raises:
            ValueError: The shard was made without rewards.
        """
        if "rewards" not in self.arrays:
            raise ValueError(f"the shard of {self.task!r} has no rewards: encode it with them")
        return returns_to_go(self.arrays["rewards"], self.ends)

    @cached_property
    def returns(self) -> ReturnScale:
        """What a checkpoint keeps of the returns; raises as :attr:`returns_to_go`."""
        totals = self.returns_to_go[self.starts]
        best, expert = float(totals.max()), windowed_return(totals)
        return ReturnScale.of(self.returns_to_go, best, expert)

    def text(self, index: int) -> NDArray[np.int32]:
        """Token ids of text ``index``."""
        ends = self.arrays["text_ends"]
        begin = ends[index - 1] if index else 0
        return cut_text(np.asarray(self.arrays["text_ids"][begin : ends[index]]))

    @cached_property
    def shortest_text(self) -> int:
        """Tokens of the shortest text that a timestep emits; 0 without texts."""
        if not self.plan.has_text:
            return 0
        emitted = np.unique(np.asarray(self.arrays["text_index"])[self.emits])
        return min(len(self.text(int(index))) for index in emitted)

    def timesteps(self, steps: NDArray[np.int64]) -> TimestepArrays:
        """The parts of these timesteps."""
        a = self.arrays
        return TimestepArrays(
            ids=a["ids"][steps],
            vectors=a["vectors"][steps],
            grids=a["grids"][steps],
            images=a["images"][steps],
            actions=a["actions"][steps],
        )


def is_made_of(folder: Path, meta: dict[str, Any]) -> bool:
    """Whether the folder holds a shard whose ``meta.json`` has these values."""
    if not (folder / "meta.json").exists():
        return False
    recorded = as_type(dict[str, Any], read_json(folder / "meta.json"), str(folder / "meta.json"))
    return {key: recorded.get(key) for key in meta} == plain_json(meta)


def write_shard(
    folder: Path,
    plan: Plan,
    episodes: Iterable[Episode],
    meta: dict[str, Any],
    *,
    rewards: bool = False,
) -> None:
    """Encode episodes as a shard, which appears when it is complete.

    Args:
        folder: Where; a shard that is there is replaced.
        plan: Encodes them.
        episodes: At least one.
        meta: JSON values that ``meta.json`` holds beside the counts.
        rewards: Whether it has rewards.
    """
    names = (*ARRAYS, *(REWARDS if rewards else ()))
    chunks: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    lengths: list[int] = []
    texts: dict[bytes, int] = {}
    for episode in episodes:
        encoded = plan.encode_batch(first_steps(episode.observations, episode.length))
        lengths.append(episode.length)
        for name in ("ids", "vectors", "grids", "images"):
            chunks[name].append(getattr(encoded, name))
        chunks["actions"].append(plan.encode_actions(episode.actions))
        chunks["labels"].append(soft_labels(plan, episode))
        if rewards:
            chunks["rewards"].append(np.asarray(episode.rewards, np.float32))
        index = np.zeros(episode.length, np.int32)
        if plan.has_text:
            keys = [np.asarray(text, np.int32).tobytes() for text in encoded.text]
            index[:] = [texts.setdefault(key, len(texts)) for key in keys]
        chunks["text_index"].append(index)
    pieces = [np.frombuffer(key, np.int32) for key in texts] or [np.zeros(0, np.int32)]
    arrays = {name: np.concatenate(parts) for name, parts in chunks.items()}
    arrays = {n: a.astype(np.int32) if a.dtype == np.int64 else a for n, a in arrays.items()}
    if not arrays["labels"].any():
        arrays["labels"] = arrays["labels"][:, :0]
    arrays["ends"] = np.cumsum(lengths).astype(np.int64)
    arrays["text_ids"] = np.concatenate(pieces)
    arrays["text_ends"] = np.cumsum([len(piece) for piece in pieces]).astype(np.int64)
    meta = {**meta, "episodes": len(lengths), "timesteps": sum(lengths)}
    save_arrays(folder, arrays, meta)


def load_arrays(
    folder: Path, names: Iterable[str], parts: Mapping[str, tuple[str, int]] = PARTS
) -> dict[str, NDArray[Any]]:
    """The arrays of a shard's folder, memory-mapped; ``parts`` as in `check_parts`.

    Raises:
        FileNotFoundError, ValueError: One is missing or damaged.
    """
    arrays = {}
    for name in names:
        path = folder / f"{name}.npy"
        check_file(path)
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except HEADER_ERRORS as error:
            raise ValueError(f"{path} is damaged ({error}): delete the shard") from error
    check_parts(arrays, str(folder), parts)
    return arrays


def check_ends(folder: Path, arrays: Mapping[str, NDArray[Any]], ends: Mapping[str, str]) -> None:
    """Refuse arrays whose parts do not end where the array does.

    Args:
        folder: Folder of the shard.
        arrays: The shard's arrays, by name.
        ends: Names of arrays of ends, with the array that each divides.

    Raises:
        ValueError: They do not rise, or do not end where the array does.
    """
    for name, divided in ends.items():
        stops, count = arrays[name], len(arrays[divided])
        last = int(stops[-1]) if len(stops) else 0
        if last != count or (np.diff(stops, prepend=0) < 0).any():
            raise ValueError(
                f"{folder} holds {name} that do not divide {divided}: delete the shard"
            )


def save_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]], meta: dict[str, Any]) -> None:
    """Write a shard's folder, which appears when it is complete."""
    with appearing(folder, own=("meta.json", "*.npy")) as partial:
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array)
        (partial / "meta.json").write_text(json.dumps(meta, indent=1))
