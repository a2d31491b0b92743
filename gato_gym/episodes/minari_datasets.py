"""Episodes, and Minari datasets of them.

* :class:`Episode` -- one recorded episode.
* :func:`write_minari`, :func:`read_minari` -- to a Minari dataset and back.
* :func:`find_minari`, :func:`episodes_of` -- a dataset from its id, folder or file; its episodes.
* :func:`new_minari` -- a dataset to be filled episode by episode.
* :func:`with_steps` -- a dataset without its episodes of no step.
* :func:`check_dataset_id` -- refuses ids that nothing loads afterwards.
* :func:`returns_of` -- the returns of a dataset's episodes.
* :func:`minari_metadata`, :func:`expert_return_of` -- what is kept beside the episodes.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from gato_gym.atomic_io import appearing
from gato_gym.episodes.episode import Episode

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
        ValueError: The id is none that Minari loads, a space is of a kind that datasets do not
            hold, the dataset exists, or no episode was added.
    """
    import minari
    from minari.dataset.minari_storage import MinariStorage

    from gato_gym.episodes import hdf5
    from gato_gym.episodes.space_json import serialize_space

    check_dataset_id(dataset_id)
    for space in (env.observation_space, env.action_space):
        serialize_space(space)  # before anything is played
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
            env_spec=_writable(env.spec),
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


def check_dataset_id(dataset_id: str) -> None:
    """Refuse an id of a dataset that Minari would not load afterwards.

    Raises:
        ValueError: It is such.
    """
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(dataset_id)
    except (TypeError, ValueError) as error:  # TypeError: it has no version
        raise ValueError(
            f"dataset id {dataset_id!r} is none that Minari loads: expected NAME-vN, or "
            "FOLDER/NAME-vN with a folder of two characters or more, of letters, digits, - and _, "
            "such as my/cartpole-v0"
        ) from error


def _writable(spec: EnvSpec | None) -> EnvSpec | None:
    """A spec as JSON can hold it: a class or function by the name under which it is imported.

    Where it has no such name, or an argument is no JSON value, the id alone is kept, so that the
    environment can be made where something registers it.
    """
    if spec is None:
        return None
    written = copy.copy(spec)
    written.entry_point = _import_name(spec.entry_point)
    written.vector_entry_point = _import_name(spec.vector_entry_point)
    try:
        written.to_json()
    except (TypeError, ValueError):
        written = EnvSpec(spec.id, max_episode_steps=spec.max_episode_steps)
    return written


def _import_name(entry: Any) -> str | None:
    if entry is None or isinstance(entry, str):
        return entry
    module, name = getattr(entry, "__module__", ""), getattr(entry, "__qualname__", "")
    importable = module != "__main__" and getattr(sys.modules.get(module), name, None) is entry
    return f"{module}:{name}" if importable else None


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
    """
    from gato_gym.episodes import hdf5

    storage = dataset.storage
    name = dataset.id.rpartition("/")[2]
    task = name.rpartition("-v")[0] or name
    indices = _indices(dataset)[first:]
    if storage.FORMAT == "hdf5" and not storage.jpeg_encoding:
        (path,) = Path(storage.data_path).glob("*.hdf5")
        with hdf5.open_file(path, "r") as file:
            for index in indices:
                yield hdf5.read_episode(file, index, task=task)
        return
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
            info=json.loads(options.get("info", "{}")),
            executed=infos.get(EXECUTED),
            distribution=infos.get(DISTRIBUTION),
        )


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


def with_steps(dataset: Any) -> Any:
    """A loaded Minari dataset without its episodes of no step, of which it warns.

    Args:
        dataset: A ``minari.MinariDataset``, the whole or a part (filtered or split).
    """
    import minari

    from gato_gym.episodes import hdf5

    storage, indices = dataset.storage, _indices(dataset)
    if storage.FORMAT == "hdf5":
        (path,) = Path(storage.data_path).glob("*.hdf5")
        with hdf5.open_file(path, "r") as file:
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
    return _open(folder / "data" if (folder / "data").is_dir() else folder, path)


def _open(data: Path, name: str | Path) -> Any:
    """The dataset of a folder of files."""
    import minari

    from gato_gym.episodes import space_json  # noqa: F401  its spaces are read here

    try:
        return minari.MinariDataset(data)
    except (AssertionError, KeyError, OSError, TypeError, ValueError, gym.error.Error) as error:
        raise ValueError(
            f"{name} is no Minari dataset, or lacks metadata ({type(error).__name__}: {error}): "
            "expected a folder with data/main_data.hdf5 and data/metadata.json, which tells "
            "dataset_id, minari_version, total_episodes, total_steps and both spaces"
        ) from error


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
    if not data.is_dir():
        raise FileNotFoundError(
            f"no Minari dataset {dataset_id!r} under {root or 'the Minari folder'}: make it with "
            "gato-gym record or gato-gym collect, or name another root"
        )
    return _open(data, f"dataset {dataset_id!r}")


def expert_return_of(dataset_id: str, *, root: Path | None = None) -> float | None:
    """The expert's mean return that the dataset's metadata holds, if any."""
    value = minari_metadata(dataset_id, root=root).get("expert_return")
    return None if value is None else float(value)
