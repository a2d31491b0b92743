"""Minari datasets, found and read.

* :func:`read_minari` -- the episodes of a dataset by its id.
* :func:`find_minari`, :func:`episodes_of` -- a dataset from its id, folder, file or a hub; its
  episodes.
* :func:`with_steps` -- a dataset without its episodes of no step.
* :func:`environment_of` -- the environment that a dataset is of.
* :func:`returns_of` -- the returns of a dataset's episodes.
* :func:`minari_metadata` -- what is kept beside the episodes.
* :func:`minari_root`, :func:`folder_of` -- where datasets are.

:mod:`gato_gym.episodes.minari_writing` writes them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.episodes.hub import SCHEME, fetch_dataset
from gato_gym.episodes.metadata import check_dataset
from gato_gym.files.atomic_io import surviving
from gato_gym.files.bounded_io import parse_json

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


def folder_of(dataset_id: str, root: Path | None) -> Path:
    """The folder of the dataset of an id; ``root`` as in :func:`minari_root`."""
    import minari

    with minari_root(root):
        return Path(os.path.abspath(minari.storage.get_dataset_path(dataset_id)))


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
    name, indices = dataset.id, _indices(dataset)[first:]
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
    return set() if part is None else {len(part) if isinstance(part, list) or np.ndim(part) else -1}


def _read(dataset: Any, indices: list[int]) -> Iterator[Episode]:
    from gato_gym.episodes import hdf5

    storage = dataset.storage
    name = dataset.id.rpartition("/")[2]
    task = name.rpartition("-v")[0] or name
    if storage.FORMAT == "hdf5" and not storage.jpeg_encoding:
        with _hdf5_of(storage) as file:
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


@contextmanager
def _hdf5_of(storage: Any) -> Iterator[Any]:
    """The open HDF5 file of a storage of that format."""
    from gato_gym.episodes import hdf5

    (path,) = Path(storage.data_path).glob("*.hdf5")
    with hdf5.open_file(path, "r") as file:
        yield file


def _check_stored(storage: Any, indices: list[int]) -> None:
    """Refuse episodes of which Minari would read what they link to, or more than is stored."""
    from gato_gym.episodes import hdf5

    if storage.FORMAT == "hdf5":
        with _hdf5_of(storage) as file:
            for index in indices:
                hdf5.check_episode(file, index)


def returns_of(dataset: Any, *, most_steps: int | None = None) -> NDArray[np.float64]:
    """The return of every episode of a loaded Minari dataset, in its order: float64 ``[E]``.

    Args:
        dataset: A ``minari.MinariDataset``, the whole or a part (filtered or split).
        most_steps: Count the rewards of so many first steps; None counts all.
    """
    from gato_gym.episodes import hdf5

    storage, indices = dataset.storage, _indices(dataset)
    if storage.FORMAT == "hdf5":
        with _hdf5_of(storage) as file:
            rewards = [hdf5.read_rewards(file, i) for i in indices]
    else:
        rewards = [e["rewards"] for e in storage.get_episodes(indices)]
    returns = [np.sum(part[:most_steps], dtype=np.float64) for part in rewards]
    return np.array(returns, np.float64)


def with_steps(dataset: Any) -> Any:
    """A loaded Minari dataset without its episodes of no step, of which it warns.

    Args:
        dataset: A ``minari.MinariDataset``, the whole or a part (filtered or split).
    """
    import minari

    from gato_gym.episodes import hdf5

    storage, indices = dataset.storage, _indices(dataset)
    if storage.FORMAT == "hdf5":
        with _hdf5_of(storage) as file:
            counts = [hdf5.count_steps(file, index) for index in indices]
    else:
        counts = [meta["total_steps"] for meta in storage.get_episode_metadata(indices)]
    kept = [index for index, count in zip(indices, counts, strict=True) if count]
    if len(kept) == len(indices):
        return dataset
    warnings.warn(
        f"{len(indices) - len(kept)} of {len(indices)} episodes of dataset {dataset.id!r} have no "
        "step and are left out",
        stacklevel=2,
    )
    return minari.MinariDataset(storage, np.array(kept, np.int64))


def _indices(dataset: Any) -> list[int]:
    """Where the storage has the dataset's episodes."""
    return [int(index) for index in dataset.episode_indices]


def find_minari(source: str | Path | Any) -> Any:
    """A Minari dataset by its id, folder or file.

    Args:
        source: A ``minari.MinariDataset``, the id of one in Minari's own folder, a dataset's
            folder, or the HDF5 file in it; or its address on a hub, ``hf://me/my/cartpole-v0``,
            which is fetched once.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The folder, file or address holds no dataset that Minari can read.
    """
    import minari

    if isinstance(source, minari.MinariDataset):
        return source
    if str(source).startswith(SCHEME):
        folder, cache = fetch_dataset(str(source))
        return _open(folder, str(source), within=cache)
    path = surviving(Path(source))
    if not path.exists():
        return _load(str(source), None)
    return _open(path.parent if path.is_file() else path, str(path))


def minari_metadata(dataset_id: str, *, root: Path | None = None) -> dict[str, Any]:
    """A dataset's metadata.

    Raises:
        FileNotFoundError: There is no such dataset.
    """
    metadata: dict[str, Any] = _load(dataset_id, root).storage.metadata
    return metadata


def _load(dataset_id: str, root: Path | None) -> Any:
    folder = surviving(folder_of(dataset_id, root))
    if not (folder / "data").is_dir():
        raise FileNotFoundError(
            f"no Minari dataset {dataset_id!r} under {root or 'the Minari folder'}: make it with "
            "gato-gym record or gato-gym collect, or name another root"
        )
    return _open(folder, repr(dataset_id))


def _open(folder: Path, name: str, *, within: Path | None = None) -> Any:
    """The dataset in a folder, which errors call ``name``: the one place where Minari reads one.

    Links may lead ``within`` a folder, as in :func:`gato_gym.episodes.metadata.check_dataset`.

    Raises:
        ValueError: It is none, see :func:`gato_gym.episodes.metadata.check_dataset`.
    """
    import minari

    data = folder / "data" if (folder / "data").is_dir() else folder
    try:
        check_dataset(data, within=within)
        dataset = minari.MinariDataset(data)
    except (
        AssertionError, AttributeError, LookupError, OSError, TypeError, ValueError, gym.error.Error
    ) as error:  # fmt: skip
        raise ValueError(
            f"{name} is no Minari dataset ({error}): expected its folder, which holds "
            "data/main_data.hdf5 and data/metadata.json, or that file"
        ) from error
    return dataset


def environment_of(dataset: Any) -> str | None:
    """The id of a dataset's environment, if it is registered here; None where it is not.

    Nothing else of what the file says of it is used: an entry point, or a module before a colon,
    would run whatever code it names.

    Args:
        dataset: A ``minari.MinariDataset``.
    """
    spec = dataset.env_spec
    return None if spec is None or ":" in spec.id or spec.id not in gym.registry else str(spec.id)
