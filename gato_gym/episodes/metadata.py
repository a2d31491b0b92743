"""Whether a folder holds what its Minari metadata says, before Minari reads it.

* :func:`check_dataset` -- its metadata, its spaces and its number of episodes.
* :func:`check_dataset_id` -- its id, in form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gato_gym.files.atomic_io import inside
from gato_gym.files.bounded_io import as_type, check_file, read_json
from gato_gym.space_json import read_space

DATASET_FILES = ("data/metadata.json", "data/main_data.hdf5")
"""What a dataset's folder holds that is written here."""

LARGEST_METADATA = 16 * 2**20
"""Bytes of the largest ``metadata.json`` that is read."""

_KINDS: dict[str, Any] = {
    "total_episodes": int,
    "total_steps": int,
    "data_format": str,
    "dataset_id": str,
    "observation_space": str | None,
    "action_space": str | None,
    "env_spec": str | None,
    "environment": str | None,
    "jpeg_encoding": bool | None,
    "minari_version": str,
    "algorithm_name": str | None,
    "description": str | None,
    "author": list[str] | str | None,
    "author_email": list[str] | str | None,
    "expert_return": float | None,
}


def check_dataset(data: Path, *, within: Path | None = None) -> None:
    """Refuse a dataset whose metadata are not of their types, or claim more than is there.

    Args:
        data: The folder with ``metadata.json`` and the episodes.
        within: Where links may lead to; None is that folder.

    Raises:
        FileNotFoundError: It holds none.
        ValueError: Something in it is not as a dataset has it; or it lacks its spaces, for which
            Minari would make the environment that the file names, whatever that runs; or its files
            lie elsewhere.
    """
    path = data / "metadata.json"
    if not path.exists():
        raise FileNotFoundError(f"{data} holds no metadata.json: expected the folder of a dataset")
    for each in data.iterdir():
        root = data if within is None else within
        if each.is_symlink() and inside(root, str(each.relative_to(root))) is None:
            raise ValueError(f"{each} is a link to another folder: expected the file itself")
    metadata = as_type(dict[str, Any], read_json(path, largest=LARGEST_METADATA), str(path))
    for name, kind in _KINDS.items():
        as_type(kind, metadata.get(name), f"{path}: {name}")
    for name in ("observation_space", "action_space"):
        if metadata.get(name) is None:
            raise ValueError(
                f"{path} holds no {name}, expected it: an environment is not made because a file "
                "names it; record the dataset with its spaces"
            )
        read_space(metadata[name], f"{path}: {name}")
    claimed, stored = metadata["total_episodes"], _count_episodes(data, metadata["data_format"])
    if not 0 <= claimed <= stored:
        raise ValueError(
            f"{path}: total_episodes is {claimed} and {stored} are stored: take a fresh copy"
        )
    if metadata["total_steps"] < 0:
        raise ValueError(f"{path}: total_steps is {metadata['total_steps']}: take a fresh copy")


def check_dataset_id(dataset_id: str) -> None:
    """Refuse an id that is none, before anything is done for it.

    Raises:
        ValueError: It is not of Minari's form, or has no version.

    Example:
        >>> check_dataset_id("my/cartpole-v0")
    """
    from minari.dataset.minari_dataset import DATASET_ID_RE

    in_form = DATASET_ID_RE.fullmatch(dataset_id)
    if in_form is None or in_form["version"] is None or "//" in dataset_id:
        raise ValueError(
            f"dataset id {dataset_id!r}: expected names of letters, digits, - and _, a folder of "
            "two letters or more first, and a version, such as my/cartpole-v0"
        )


def _count_episodes(data: Path, data_format: str) -> int:
    if data_format == "arrow":
        return sum(each.is_dir() for each in data.iterdir())
    if data_format != "hdf5":
        raise ValueError(f"{data} has data_format {data_format!r}, expected hdf5 or arrow")
    from gato_gym.episodes import hdf5

    files = sorted(data.glob("*.hdf5"))
    if len(files) != 1:
        raise ValueError(f"{data} holds {len(files)} .hdf5 files, expected one: take a fresh copy")
    check_file(files[0])
    try:
        with hdf5.open_file(files[0], "r") as file:
            return len(file.keys())
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{files[0]} is no HDF5 file, or a damaged one ({error}): take a fresh copy"
        ) from error
