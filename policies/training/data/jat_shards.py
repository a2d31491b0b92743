"""Episodes as JAT reads them, written once and memory-mapped for training.

* :class:`JatShard` -- one task's timesteps.
* :func:`shard_jat_tasks` -- encodes tasks; :func:`write_jat_shard` -- one of them.

A shard is a folder of ``.npy`` files and ``meta.json``, with the task's id, spaces and group:

=============  =============  ================================================================
file           shape          holds
=============  =============  ================================================================
ends           [E]            one past the last timestep of each episode, int64
observations   [N, n]         numbers, float32; direction and grid, int32; or of images the
                              first of the four frames that a timestep sees, int64 [N, 1]
frames         [M, 84, 84]    all frames, each once where an episode's stacks overlap, uint8
rewards        [N]            the reward of the step before, 0 at an episode's start, float32
actions        [N, A]         numbers, float32; or choices counted from 0, int32 [N, 1]
executed       [N, A]         what was executed; A is 0 where it always was the action
labels         [N, K]         the expert's probabilities, float16; K is 0 where nobody said
text_index     [N]            which text each timestep shows, int32; [0] without texts
text_bytes     [L]            all texts in UTF-8, one after another, uint8
text_ends      [X]            one past the last byte of each text, int64
=============  =============  ================================================================

Texts are kept as such: which tokens they are is up to a run's tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.episodes.frames import frames_of
from gato_gym.files.atomic_io import file_name
from gato_gym.files.bounded_io import as_type, read_json
from gato_gym.files.folder_lock import make_folder
from gato_gym.space_json import write_space
from policies.gato.prompts import first_steps
from policies.jat.encoders import FRAMES, SIDE
from policies.jat.modalities import Modalities, grid_symbols
from policies.processes import JobPool, caller, results_of
from policies.training.data.datasets import DatasetTask
from policies.training.data.encoding import augmented, made_of
from policies.training.data.shards import (
    EpisodeArrays,
    check_ends,
    is_made_of,
    load_arrays,
    save_arrays,
)

FORMAT = "jat-1"
STEPS = ("observations", "rewards", "actions", "executed", "labels", "text_index")
"""Arrays with an entry for each timestep, if they have any."""
NUMBERS = "float32 int32"
PARTS = {
    "observations": (f"{NUMBERS} int64", 2), "rewards": ("float32", 1), "actions": (NUMBERS, 2),
    "executed": (NUMBERS, 2), "labels": ("float16", 2), "text_index": ("int32", 1),
    "ends": ("int64", 1), "frames": ("uint8", 3), "text_bytes": ("uint8", 1),
    "text_ends": ("int64", 1),
}  # fmt: skip
"""Types and number of axes of each array."""


@dataclass(frozen=True)
class JatShard(EpisodeArrays):
    """One task's timesteps.

    Attributes:
        task: The task's id.
        modalities: What is observed and chosen.
        arrays: Memory-mapped arrays by the names of the module's table.
        group: What the mixture knows the task by.
    """

    task: str
    modalities: Modalities
    arrays: dict[str, NDArray[Any]]
    group: str

    @classmethod
    def open(cls, folder: Path, modalities: Modalities) -> JatShard:
        """Open a shard's folder.

        Raises:
            FileNotFoundError: It holds no shard.
            ValueError: It holds a damaged one.
        """
        path = folder / "meta.json"
        if not path.exists():
            raise FileNotFoundError(
                f"{folder} holds no shard of a task: gato-gym train encodes datasets"
            )
        meta = as_type(dict[str, Any], read_json(path), str(path))
        task, group = (
            as_type(str, meta.get(name), f"{path}: {name}") for name in ("task", "group")
        )
        mapped = load_arrays(folder, PARTS, PARTS)
        check_ends(folder, mapped, {"ends": "actions", "text_ends": "text_bytes"})
        counts = {len(mapped[name]) for name in STEPS if len(mapped[name])}
        if len(counts) > 1:
            raise ValueError(f"{folder} holds arrays of other lengths: delete the shard")
        arrays = {name: np.asarray(array) for name, array in mapped.items()}  # quicker to index
        return cls(task, modalities, arrays, group)

    @property
    def kind(self) -> str:
        """What its observations and actions are; those of one kind can be in one batch."""
        return f"{self.modalities.observation}-{self.modalities.action}"

    @cached_property
    def texts(self) -> list[str]:
        """Its texts, each once."""
        content = self.arrays["text_bytes"].tobytes()
        ends = self.arrays["text_ends"].tolist()
        return [content[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]

    @cached_property
    def _text_ids(self) -> NDArray[np.int64]:
        return self.modalities.text_ids(self.texts)

    def part(self, first: int, stop: int) -> JatShard:
        """The shard of the episodes ``[first, stop)`` alone; nothing is copied."""
        return replace(self, arrays=self.between(first, stop, STEPS))

    def observations(self, steps: slice) -> NDArray[Any]:
        """Of some timesteps: float32 ``[T, n]``, int64 ``[T, n]``, or uint8 ``[T, 4, 84, 84]``."""
        stored = self.arrays["observations"][steps]
        if self.modalities.observation == "image":
            return self.arrays["frames"][stored + np.arange(FRAMES)]
        if self.modalities.observation == "discrete":
            texts = self._text_ids[self.arrays["text_index"][steps]]
            return np.concatenate([stored, texts], 1)
        return stored


def shard_jat_tasks(
    tasks: Sequence[DatasetTask],
    modalities: dict[str, Modalities],
    folder: Path,
    *,
    augment: int = 0,
    seed: int = 0,
    workers: int = 1,
) -> None:
    """Encode tasks into shards; those that are there, made of the same datasets, are kept.

    Args:
        tasks: The tasks.
        modalities: Of each, by id.
        folder: The shards' folder; each is in the folder of its task's file name.
        augment, seed, workers: As in :func:`policies.training.data.encoding.shard_tasks`.

    Raises:
        OSError: There is no place for the folder.
        ValueError: An observation is not what its space says.
        WorkerError: A process failed, or was killed.
    """
    make_folder(folder)
    jobs: list[Callable[[], Any]] = []
    for task in tasks:
        place = folder / file_name(task.id)
        meta = {
            "format": FORMAT,
            "task": task.id,
            "group": task.group,
            "made_of": made_of(task, augment, seed),
        }
        if not is_made_of(place, meta):
            jobs.append(
                partial(_encode, place, task, modalities[task.id], meta, augment=augment, seed=seed)
            )
    with JobPool(caller, count=0 if workers == 1 else workers) as pool:
        results_of(pool, jobs)


def _encode(
    place: Path,
    task: DatasetTask,
    modalities: Modalities,
    meta: dict[str, Any],
    *,
    augment: int,
    seed: int,
) -> None:
    written = [write_space(space) for space in (task.observation_space, task.action_space)]
    episodes = augmented(task, task.episodes(), augment, seed)
    write_jat_shard(place, modalities, episodes, {**meta, "spaces": written})


def write_jat_shard(
    folder: Path, modalities: Modalities, episodes: Iterable[Episode], meta: dict[str, Any]
) -> None:
    """Write episodes as a shard, which appears when it is complete.

    Args:
        folder: Where; a shard that is there is replaced.
        modalities: What they observe and choose.
        episodes: At least one.
        meta: JSON values that ``meta.json`` holds beside the counts.
    """
    chunks: dict[str, list[NDArray[Any]]] = {name: [] for name in (*STEPS, "frames")}
    texts: dict[str, int] = {}
    frames, lengths = 0, list[int]()
    for episode in episodes:
        lengths.append(episode.length)
        seen = first_steps(episode.observations, episode.length)
        parts = _observed(modalities, seen, frames, texts)
        frames += len(parts.get("frames", ()))
        parts["rewards"] = np.r_[0, episode.rewards[:-1]].astype(np.float32)
        parts["actions"] = _chosen(modalities, episode.actions)
        executed = episode.actions if episode.executed is None else episode.executed
        parts["executed"] = _chosen(modalities, executed)
        parts["labels"] = _probabilities(modalities, episode)
        for name, part in parts.items():
            chunks[name].append(part)
    arrays = {name: np.concatenate(parts) for name, parts in chunks.items() if parts}
    arrays.setdefault("frames", np.zeros((0, SIDE, SIDE), np.uint8))
    arrays.setdefault("text_index", np.zeros(0, np.int32))
    if np.array_equal(arrays["executed"], arrays["actions"]):
        arrays["executed"] = arrays["executed"][:, :0]
    if not arrays["labels"].any():
        arrays["labels"] = arrays["labels"][:, :0]
    pieces = [np.frombuffer(text.encode(), np.uint8) for text in texts]
    arrays["ends"] = np.cumsum(lengths).astype(np.int64)
    arrays["text_bytes"] = np.concatenate([np.zeros(0, np.uint8), *pieces])
    arrays["text_ends"] = np.cumsum([len(piece) for piece in pieces]).astype(np.int64)
    save_arrays(folder, arrays, {**meta, "episodes": len(lengths), "timesteps": sum(lengths)})


def _observed(
    modalities: Modalities, seen: Any, frames: int, texts: dict[str, int]
) -> dict[str, NDArray[Any]]:
    """The arrays of an episode's observations; ``frames`` are there already, as are ``texts``."""
    if modalities.observation == "continuous":
        return {"observations": modalities.read(seen).numpy()}
    if modalities.observation == "discrete":
        index = [texts.setdefault(str(text), len(texts)) for text in seen["mission"]]
        symbols = grid_symbols(seen).astype(np.int32)
        return {"observations": symbols, "text_index": np.array(index, np.int32)}
    stacks = np.asarray(seen)
    if stacks.shape[-1] == FRAMES:
        stacks = stacks.transpose(0, 3, 1, 2)
    stride, kept = 1, frames_of(stacks)
    if kept is None:
        stride, kept = FRAMES, stacks.reshape(-1, SIDE, SIDE)
    first = frames + stride * np.arange(len(stacks))
    return {"observations": first[:, None], "frames": np.ascontiguousarray(kept)}


def _chosen(modalities: Modalities, actions: Any) -> NDArray[Any]:
    """Actions as they are stored."""
    space = modalities.action_space
    if isinstance(space, spaces.Discrete):
        return (np.asarray(actions, np.int64) - int(space.start)).astype(np.int32)[:, None]
    return np.asarray(actions, np.float32).reshape(len(actions), -1)


def _probabilities(modalities: Modalities, episode: Episode) -> NDArray[np.float16]:
    """The expert's, float16 ``[T, K]``; zeros where it did not say, K is 0 for numbers."""
    count = modalities.choices if modalities.action == "discrete" else 0
    given = episode.distribution
    if given is None or given.shape != (episode.length, count):
        return np.zeros((episode.length, count), np.float16)
    return np.asarray(given, np.float16)
