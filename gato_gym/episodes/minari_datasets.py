"""Episodes, and Minari datasets of them.

* :class:`Episode` -- one recorded episode.
* :func:`write_minari`, :func:`read_minari` -- to a Minari dataset and back.
* :func:`find_minari`, :func:`episodes_of` -- a dataset from its id, folder or file; its episodes.
* :func:`new_minari` -- a dataset to be filled episode by episode.
* :func:`returns_of` -- the returns of a dataset's episodes.
* :func:`minari_metadata`, :func:`expert_return_of` -- what is kept beside the episodes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gato_gym.atomic_io import appearing
from gato_gym.bounded_io import parse_json
from gato_gym.episodes.episode import Episode
from gato_gym.episodes.metadata import check_dataset

EXECUTED, DISTRIBUTION = "executed_actions", "action_distribution"
"""Keys in a Minari episode's infos: the actions that were executed, where they differ from the
labels, and what the expert chose from, as :class:`gato_gym.episodes.Episode` has it."""


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
    episodes: Iterable[Episode],
    *,
    env: gym.Env[Any, Any],
    root: Path | None = None,
    expert_return: float | None = None,
    algorithm: str = "expert",
    description: str = "",
    replace: bool = False,
) -> None:
    """Write episodes as a new Minari dataset (HDF5, images not compressed).

    The dataset appears when it is complete.

    Args:
        dataset_id: Id of the new dataset, such as ``gato/babyai-go-to-local-v0``.
        episodes: At least one; taken one by one.
        env: Has the spaces and the spec that ``recover_environment`` uses.
        root: Folder of datasets; None is Minari's own.
        expert_return: Mean return of the expert, kept in the metadata.
        algorithm: Name of the policy that acted.
        description: One line.
        replace: Whether a dataset of this id gives way.

    Raises:
        ValueError: There are no episodes, or the dataset exists.
    """
    from gato_gym.episodes import hdf5

    with new_minari(
        dataset_id,
        env=env,
        root=root,
        metadata={
            "algorithm_name": algorithm,
            "description": description or f"Episodes of {dataset_id}",
            **({} if expert_return is None else {"expert_return": expert_return}),
        },
        replace=replace,
    ) as file:
        for index, episode in enumerate(episodes):
            hdf5.append_episode(file, index, episode)


@contextmanager
def new_minari(
    dataset_id: str,
    *,
    env: gym.Env[Any, Any],
    root: Path | None = None,
    metadata: dict[str, Any],
    replace: bool = False,
) -> Iterator[Any]:
    """A new Minari dataset, as an open HDF5 file to which :mod:`gato_gym.episodes.hdf5` adds
    episodes.

    The dataset appears when the block ends without an error.

    Args:
        dataset_id: Id of the new dataset, such as ``gato/babyai-go-to-local-v0``.
        env: Gives the spaces and the spec.
        root: Folder of datasets; None is Minari's own.
        metadata: JSON values kept with the dataset.
        replace: Whether a dataset of this id gives way.

    Raises:
        ValueError: No episode was added, or the dataset exists.
    """
    import minari
    from minari.dataset.minari_storage import MinariStorage

    from gato_gym.episodes import hdf5

    with minari_root(root):
        folder = Path(os.path.abspath(minari.storage.get_dataset_path(dataset_id)))
    if folder.exists() and not replace:
        raise ValueError(
            f"dataset {dataset_id!r} exists in {folder}: expected a new id; replace it with "
            "--overwrite (replace=True), or choose another version or root"
        )
    with appearing(folder) as partial:
        storage = MinariStorage.new(
            partial / "data",
            env.observation_space,
            env.action_space,
            env_spec=env.spec,
            jpeg_encoding=False,
        )
        (path,) = (partial / "data").glob("*.hdf5")
        with hdf5.open_file(path, "w") as file:
            yield file
            lengths = [hdf5.count_steps(file, index) for index in range(len(file.keys()))]
        if not lengths:
            raise ValueError(f"dataset {dataset_id!r} would hold no episode: pass at least one")
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "author": {"gato-gym"},
                "minari_version": minari.__version__,
                "total_episodes": len(lengths),
                "total_steps": sum(lengths),
                "dataset_size": storage.get_size(),
                **metadata,
            }
        )


def read_minari(dataset_id: str, *, root: Path | None = None) -> Iterator[Episode]:
    """The episodes of a Minari dataset, in order.

    Args:
        dataset_id: Its id.
        root: Folder of datasets; None is Minari's own.

    Raises:
        FileNotFoundError: There is no such dataset.
    """
    yield from episodes_of(_load(dataset_id, root))


def episodes_of(dataset: Any, *, first: int = 0) -> Iterator[Episode]:
    """The episodes of a loaded Minari dataset, in its order.

    Args:
        dataset: A ``minari.MinariDataset``, the whole or a part (filtered or split).
        first: Number of the first one, counted within the part.

    Raises:
        ValueError: An episode's arrays are of lengths that do not belong together.
    """
    name, indices = dataset.spec.dataset_id, _indices(dataset)[first:]
    for index, episode in zip(indices, _read(dataset, indices), strict=True):
        _check_lengths(episode, f"episode {index} of dataset {name!r}")
        yield episode


def _check_lengths(episode: Episode, what: str) -> None:
    """Refuse arrays whose lengths would shift all that is read after them."""
    steps, wrong = episode.length, {}
    for name in (
        "observations", "actions", "terminations", "truncations", "executed", "distribution",
    ):  # fmt: skip
        lengths = _lengths_of(getattr(episode, name))
        if lengths - {steps + (name == "observations")}:
            wrong[name] = sorted(lengths)
    if wrong or not steps:
        raise ValueError(
            f"{what} has {steps} rewards"
            + "".join(f", {name} of length {lengths}" for name, lengths in wrong.items())
            + ": expected 1 or more, as many of all else, and one observation more; record it "
            "again, or leave it out"
        )


def _lengths_of(part: Any) -> set[int]:
    """The lengths of the arrays that a part of an episode is made of."""
    if isinstance(part, dict):
        part = tuple(part.values())
    if isinstance(part, tuple):
        return set().union(*map(_lengths_of, part))
    return set() if part is None else {len(part) if np.ndim(part) else -1}


def _read(dataset: Any, indices: list[int]) -> Iterator[Episode]:
    from gato_gym.episodes import hdf5

    storage = dataset.storage
    task = dataset.spec.dataset_id.rpartition("/")[2].rpartition("-v")[0]
    if storage.FORMAT == "hdf5" and not storage.jpeg_encoding:
        (path,) = Path(storage.data_path).glob("*.hdf5")
        with hdf5.open_file(path, "r") as file:
            for index in indices:
                yield hdf5.read_episode(file, index, task=task)
        return
    _check_stored(storage, indices)
    metadata = storage.get_episode_metadata(indices)
    for raw, meta in zip(storage.get_episodes(indices), metadata, strict=True):
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
            info=parse_json(options.get("info", "{}"), "an episode's info"),
            executed=infos.get(EXECUTED),
            distribution=infos.get(DISTRIBUTION),
        )


def _check_stored(storage: Any, indices: list[int]) -> None:
    """Refuse episodes that Minari itself would read into more memory than they are stored in."""
    from gato_gym.episodes import hdf5

    if storage.FORMAT == "hdf5":
        (path,) = Path(storage.data_path).glob("*.hdf5")
        with hdf5.open_file(path, "r") as file:
            for index in indices:
                hdf5.check_episode(file, index)


def returns_of(dataset: Any) -> NDArray[np.float64]:
    """The return of every episode of a loaded Minari dataset, in its order: float64 ``[E]``.

    Args:
        dataset: A ``minari.MinariDataset``, the whole or a part (filtered or split).
    """
    from gato_gym.episodes import hdf5

    storage, indices = dataset.storage, _indices(dataset)
    if storage.FORMAT == "hdf5":
        (path,) = Path(storage.data_path).glob("*.hdf5")
        with hdf5.open_file(path, "r") as file:
            rewards = [hdf5.read_rewards(file, i) for i in indices]
    else:
        rewards = [e["rewards"] for e in storage.get_episodes(indices)]
    return np.array([np.sum(part, dtype=np.float64) for part in rewards], np.float64)


def _indices(dataset: Any) -> list[int]:
    """Where the storage has the dataset's episodes."""
    return [int(index) for index in dataset.episode_indices]


def find_minari(source: str | Path | Any) -> Any:
    """A Minari dataset by its id, folder or file.

    Args:
        source: A ``minari.MinariDataset``, the id of one in Minari's own folder, a dataset's
            folder, or the HDF5 file in it.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The folder or file holds no dataset that Minari can read.
    """
    import minari

    if isinstance(source, minari.MinariDataset):
        return source
    path = Path(source)
    if not path.exists():
        return _load(str(source), None)
    folder = path.parent if path.is_file() else path
    data = folder / "data" if (folder / "data").is_dir() else folder
    return _open(data, str(path))


def minari_metadata(dataset_id: str, *, root: Path | None = None) -> dict[str, Any]:
    """A dataset's metadata.

    Raises:
        FileNotFoundError: There is no such dataset.
    """
    metadata: dict[str, Any] = _load(dataset_id, root).storage.metadata
    return metadata


def _load(dataset_id: str, root: Path | None) -> Any:
    import minari

    with minari_root(root):
        data = Path(minari.storage.get_dataset_path(dataset_id)) / "data"
    if not data.exists():
        raise FileNotFoundError(
            f"no Minari dataset {dataset_id!r} under {root or 'the Minari folder'}: make it "
            "with gato-gym record or gato-gym collect, or name another root"
        )
    return _open(data, repr(dataset_id))


def _open(data: Path, name: str) -> Any:
    import minari

    try:
        check_dataset(data)
        dataset = minari.MinariDataset(data)
        _ = dataset.spec  # reads the id, too
    except (AssertionError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is no Minari dataset ({error}): expected its folder, which holds "
            "data/main_data.hdf5 and data/metadata.json, or that file"
        ) from error
    return dataset


def expert_return_of(dataset_id: str, *, root: Path | None = None) -> float | None:
    """The expert's mean return that the dataset's metadata holds, if any."""
    value = minari_metadata(dataset_id, root=root).get("expert_return")
    return None if value is None else float(value)
