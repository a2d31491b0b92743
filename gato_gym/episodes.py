"""Episodes, and Minari datasets of them.

* :class:`Episode` -- one recorded episode.
* :func:`write_minari`, :func:`read_minari` -- to a Minari dataset and back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

EXECUTED = "executed_actions"
"""Key of the executed actions in a Minari episode's infos, where they differ from the labels."""


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T steps.

    Attributes:
        task: Id of the task, or of the environment.
        observations: Arrays ``[T + 1, ...]``, nested in dict and tuple as the space is; text is a
            list of T + 1 strings. The last observation follows the last action.
        actions: ``[T, ...]``, nested as the space is: what the expert chose. Where noise was
            executed instead, these remain the expert's own choices.
        rewards: float32 ``[T]``.
        terminations: bool ``[T]``.
        truncations: bool ``[T]``.
        seed: What the environment was reset with.
        info: JSON values, such as ``noise`` and ``success``.
        executed: ``[T, ...]``, the actions executed, or None where they are ``actions``.
    """

    task: str
    observations: Any
    actions: Any
    rewards: NDArray[np.float32]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    seed: int | None = None
    info: dict[str, Any] = field(default_factory=dict)
    executed: Any = None

    @property
    def length(self) -> int:
        """T, the number of steps."""
        return len(self.rewards)

    @property
    def total_return(self) -> float:
        """Sum of the rewards, undiscounted."""
        return float(np.sum(self.rewards, dtype=np.float64))


@contextmanager
def minari_root(root: Path | None) -> Iterator[None]:
    """Point Minari at a folder of datasets; None leaves its own setting."""
    previous = os.environ.get("MINARI_DATASETS_PATH")
    if root is not None:
        os.environ["MINARI_DATASETS_PATH"] = str(Path(root).resolve())
    try:
        yield
    finally:
        if root is not None and previous is None:
            del os.environ["MINARI_DATASETS_PATH"]
        elif root is not None and previous is not None:
            os.environ["MINARI_DATASETS_PATH"] = previous


def write_minari(
    dataset_id: str,
    episodes: Sequence[Episode],
    *,
    env: gym.Env[Any, Any],
    root: Path | None = None,
    expert_return: float | None = None,
    algorithm: str = "expert",
    description: str = "",
) -> None:
    """Write episodes as a new Minari dataset (HDF5, images not compressed).

    Args:
        dataset_id: Such as ``gato/babyai-go-to-local-v0``.
        episodes: At least one.
        env: Gives the spaces and the spec that ``recover_environment`` uses.
        root: Folder of datasets; None is Minari's own.
        expert_return: Mean return of the expert, kept in the metadata.
        algorithm: Name of who acted.
        description: One line.

    Raises:
        ValueError: There are no episodes, or the dataset exists.
    """
    import minari
    from minari.data_collector import EpisodeBuffer

    if not episodes:
        raise ValueError(f"dataset {dataset_id!r} would hold no episode: pass at least one")
    buffers = [
        EpisodeBuffer(
            id=index,
            seed=episode.seed,
            options={"info": json.dumps(episode.info)},
            observations=_to_minari(episode.observations),
            actions=_to_minari(episode.actions),
            rewards=episode.rewards,  # type: ignore[arg-type]
            terminations=episode.terminations,  # type: ignore[arg-type]
            truncations=episode.truncations,  # type: ignore[arg-type]
            infos=None if episode.executed is None else {EXECUTED: episode.executed},
        )
        for index, episode in enumerate(episodes)
    ]
    with minari_root(root):
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            env=env.spec,
            action_space=env.action_space,
            observation_space=env.observation_space,
            algorithm_name=algorithm,
            description=description or f"Episodes of {dataset_id}",
            author="gato-gym",
            author_email="gato-gym",
            code_permalink="gato-gym",
            jpeg_encoding=False,
        )
        if expert_return is not None:
            dataset.storage.update_metadata({"expert_return": expert_return})


def read_minari(dataset_id: str, *, root: Path | None = None) -> Iterator[Episode]:
    """The episodes of a Minari dataset, in order.

    Args:
        dataset_id: Its id.
        root: Folder of datasets; None is Minari's own.

    Raises:
        FileNotFoundError: There is no such dataset.
    """
    import minari

    with minari_root(root):
        try:
            dataset = minari.load_dataset(dataset_id)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"no Minari dataset {dataset_id!r} under {root or 'the Minari folder'}: make it with "
                "python -m policies.training.collect, or name another --root"
            ) from error
    indices = range(dataset.storage.total_episodes)
    metadata = dataset.storage.get_episode_metadata(indices)
    task = dataset_id.rpartition("/")[2].rpartition("-v")[0]
    for raw, meta in zip(dataset.storage.get_episodes(indices), metadata, strict=True):
        infos = raw.get("infos") or {}
        options = meta.get("options") or {}
        yield Episode(
            task=task,
            observations=raw["observations"],
            actions=raw["actions"],
            rewards=np.asarray(raw["rewards"], np.float32),
            terminations=np.asarray(raw["terminations"], np.bool_),
            truncations=np.asarray(raw["truncations"], np.bool_),
            seed=meta.get("seed"),
            info=json.loads(options.get("info", "{}")),
            executed=infos.get(EXECUTED),
        )


def expert_return_of(dataset_id: str, *, root: Path | None = None) -> float | None:
    """The expert's mean return that the dataset's metadata holds, if any."""
    import minari

    with minari_root(root):
        metadata: Any = minari.load_dataset(dataset_id).storage.metadata
    value = metadata.get("expert_return")
    return None if value is None else float(value)


def _to_minari(part: Any) -> Any:
    """Lists of text stay lists; everything else is an array."""
    if isinstance(part, dict):
        return {key: _to_minari(value) for key, value in part.items()}
    if isinstance(part, tuple):
        return tuple(_to_minari(value) for value in part)
    if isinstance(part, Iterable) and not isinstance(part, np.ndarray):
        items = list(part)
        return items if items and isinstance(items[0], str) else np.asarray(items)
    return part
