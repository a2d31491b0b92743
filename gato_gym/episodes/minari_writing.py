"""Minari datasets, written so that they appear whole.

* :func:`write_minari` -- episodes as a dataset.
* :func:`new_minari` -- a dataset to be filled episode by episode.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from gato_gym.episodes.episode import Episode
from gato_gym.episodes.metadata import DATASET_FILES, check_dataset_id
from gato_gym.episodes.minari_datasets import folder_of
from gato_gym.files.atomic_io import appearing
from gato_gym.files.bounded_io import as_type, read_json
from gato_gym.space_json import write_space

ROOM = 2**20
"""Bytes set aside while a dataset is recorded, to complete it on a full disk."""


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
    keep: bool = False,
) -> Iterator[Any]:
    """A new Minari dataset, as an open HDF5 file to which :mod:`gato_gym.episodes.hdf5` adds
    episodes.

    The dataset appears when the block ends, and nobody else may write it until then.

    Args:
        dataset_id: Id of the new dataset, such as ``gato/babyai-go-to-local-v0``.
        env: Gives the spaces, as they are when the block ends, and the spec.
        root: Folder of datasets; None is Minari's own.
        metadata: JSON values kept with the dataset.
        replace: Whether a dataset of this id gives way.
        keep: Whether the episodes are kept that were added before an error or Ctrl-C ended the
            block: as this dataset, or as its next free version where it exists. A note on the
            error says which.

    Raises:
        FileExistsError: A folder of this name is there that is no dataset.
        FolderInUseError: Another process writes it.
        ValueError: No episode was added, the dataset exists, the id is not in form, or a space is
            of a kind that datasets do not hold.
    """
    import minari
    from minari.dataset.minari_storage import MinariStorage

    from gato_gym.episodes import hdf5

    check_dataset_id(dataset_id)
    for space in (env.observation_space, env.action_space):
        write_space(space)  # before anything is played
    folder = folder_of(dataset_id, root)
    failure: BaseException | None = None
    with appearing(folder, own=DATASET_FILES, wait=0.0) as partial:
        if (exists := folder.exists()) and not replace:
            raise ValueError(
                f"dataset {dataset_id!r} exists in {folder}: expected a new id; replace it with "
                "--overwrite (replace=True), or choose another version or root"
            )
        room = partial / "room"
        room.write_bytes(bytes(ROOM))
        storage = MinariStorage.new(
            partial / "data",
            env.observation_space,
            env.action_space,
            env_spec=_writable(env.spec),
            jpeg_encoding=False,
        )
        with hdf5.open_file(partial / DATASET_FILES[1], "w") as file:
            try:
                yield file
            except BaseException as error:
                if not keep:
                    raise
                room.unlink()  # a full disk has room again for what closing the file writes
                hdf5.drop_unfinished(file)
                if not len(file):
                    raise
                failure = error
            lengths = [hdf5.count_steps(file, index) for index in range(len(file.keys()))]
        room.unlink(missing_ok=True)
        _write_spaces(partial / DATASET_FILES[0], env)
        if not lengths:
            raise ValueError(f"dataset {dataset_id!r} would hold no episode: pass at least one")
        name = _free_version(dataset_id, root) if failure is not None and exists else dataset_id
        storage.update_metadata(
            {
                "dataset_id": name,
                "author": {"gato-gym"},
                "minari_version": minari.__version__,
                "total_episodes": len(lengths),
                "total_steps": sum(lengths),
                "dataset_size": storage.get_size(),
                **metadata,
            }
        )
        if failure is not None:
            failure.add_note(f"{len(lengths)} episodes are kept as dataset {name!r}")
            if name != dataset_id:
                with appearing(folder_of(name, root), own=DATASET_FILES, wait=0.0) as place:
                    os.replace(partial / "data", place / "data")
                raise failure
    if failure is not None:
        raise failure


def _free_version(dataset_id: str, root: Path | None) -> str:
    stem, _, version = dataset_id.rpartition("-v")
    names = (f"{stem}-v{number}" for number in itertools.count(int(version) + 1))
    return next(name for name in names if not folder_of(name, root).exists())


def _write_spaces(path: Path, env: Any) -> None:
    """Into a dataset's metadata: rows without an environment tell theirs one by one."""
    from minari.serialization import serialize_space

    metadata = as_type(dict[str, Any], read_json(path), str(path))
    for name in ("observation_space", "action_space"):
        metadata[name] = serialize_space(getattr(env, name))
    path.write_text(json.dumps(metadata))


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
