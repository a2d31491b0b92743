"""Minari datasets on a hub, where Minari itself puts them and finds them.

* :func:`fetch_dataset` -- the folder of ``hf://me/my/cartpole-v0``, fetched or found in the cache.
* :func:`dataset_files` -- what the repository of a dataset holds, to be pushed.
* :data:`SCHEME` -- how such an address begins.

In Minari's format, the dataset ``my/cartpole-v0`` of the account ``me`` is the folder
``cartpole-v0`` of the repository ``me/my``, whose ``namespace_metadata.json`` lists its datasets; a
dataset without a namespace is a repository by itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gato_gym.episodes.metadata import (
    DATASET_FILES,
    LARGEST_METADATA,
    check_dataset,
    check_dataset_id,
)
from gato_gym.files.bounded_io import as_type, read_json

SCHEME = "hf://"
LARGEST_EPISODES = 64 * 2**30
"""Bytes of the largest ``main_data.hdf5`` that is fetched."""

NAMESPACE = "namespace_metadata.json"


def fetch_dataset(address: str) -> tuple[Path, Path]:
    """The dataset of an address: its metadata and its episodes, and no other file of the hub's.

    Args:
        address: Such as ``hf://me/my/cartpole-v0``.

    Returns:
        Its folder, and the folder of the cache that its files are links into.

    Raises:
        ValueError: The address is none, or the dataset cannot be fetched or is too large.
    """
    account, _, dataset_id = address.removeprefix(SCHEME).partition("/")
    repository, folder = _place(account, dataset_id)
    metadata, episodes = (f"{folder}{name}" for name in DATASET_FILES)
    hub = _client()
    try:
        cached = Path(
            hub.snapshot_download(repository, repo_type="dataset", allow_patterns=[metadata])
        )
    except Exception as error:  # of the network, the hub, the disk: from several libraries
        raise _not_fetched(address, error) from error
    try:
        sizes = {
            file.path: file.size
            for file in hub.HfApi().get_paths_info(
                repository, [metadata, episodes], repo_type="dataset", revision=cached.name
            )
        }
    except Exception:  # offline: what is in the cache is taken
        sizes = {}
    for name, most in ((metadata, LARGEST_METADATA), (episodes, LARGEST_EPISODES)):
        if sizes and (name not in sizes or sizes[name] > most):
            raise ValueError(
                f"dataset {address!r} has {sizes.get(name, 'no')} bytes of {name}, expected at "
                f"most {most}: check the address, or fetch it yourself and pass its folder"
            )
    try:
        hub.snapshot_download(
            repository,
            repo_type="dataset",
            revision=cached.name,
            allow_patterns=[metadata, episodes],
            local_files_only=not sizes,
        )
    except Exception as error:
        raise _not_fetched(address, error) from error
    return cached / folder, cached.parents[1]


def dataset_files(dataset: Any, account: str) -> tuple[str, dict[str, Path | bytes]]:
    """The repository of a dataset, and what is pushed to it.

    Args:
        dataset: A ``minari.MinariDataset``.
        account: The owner, such as ``me``.

    Returns:
        Its name, and its files by theirs: where each is, or its content. The list of the
        repository's datasets and its card are the present ones, with this dataset added.

    Raises:
        ValueError: The account or the dataset's id is no name, or its episodes are not in the HDF5
            file that a dataset has here.
    """
    name = str(dataset.id)
    repository, folder = _place(account, name)
    data = Path(dataset.storage.data_path)
    check_dataset(data)
    files: dict[str, Path | bytes] = {}
    for file in DATASET_FILES:
        path = data / Path(file).name
        if not path.is_file():
            raise ValueError(
                f"dataset {name!r} has no {path.name}, expected it in {data}: write it anew with "
                "gato_gym.write_minari"
            )
        files[f"{folder}{file}"] = path
    listed = [name]
    if folder:
        namespaces = name.split("/")[:-1]
        for depth in range(1, len(namespaces)):
            files["/".join([*namespaces[1 : depth + 1], NAMESPACE])] = b"{}"
        present = _present(repository)
        deeper = {"/".join(namespaces[: end + 1]) for end in range(1, len(namespaces))}
        for key, more in (("datasets", {name}), ("namespaces", deeper)):
            known = as_type(list[str], present.get(key, []), f"{NAMESPACE} of {repository}: {key}")
            present[key] = sorted({*known} | more)
        listed = present["datasets"]
        files[NAMESPACE] = json.dumps(present).encode()
    files["README.md"] = _card(account, listed).encode()
    return repository, files


def _place(account: str, dataset_id: str) -> tuple[str, str]:
    """A dataset's repository, and the beginning of its files' names there."""
    if not account or "/" in account:
        raise ValueError(f"account is {account!r}, expected one name, as in {SCHEME}me")
    check_dataset_id(dataset_id)
    first, _, rest = dataset_id.partition("/")
    return f"{account}/{first}", f"{rest}/" if rest else ""


def _present(repository: str) -> dict[str, Any]:
    """What the hub's list of a repository's datasets says; empty where there is none."""
    hub = _client()
    try:
        path = hub.hf_hub_download(repository, NAMESPACE, repo_type="dataset")
    except (hub.errors.EntryNotFoundError, hub.errors.RepositoryNotFoundError):
        return {}
    except Exception as error:  # of the network, the hub, the disk: from several libraries
        raise _not_fetched(f"{SCHEME}{repository}", error) from error
    present = read_json(Path(path), largest=LARGEST_METADATA)
    return as_type(dict[str, Any], present, f"{NAMESPACE} of {repository}")


def _card(account: str, datasets: list[str]) -> str:
    addresses = "\n".join(f"- `{SCHEME}{account}/{name}`" for name in datasets)
    return (
        "---\ntags: [minari, gymnasium, reinforcement-learning]\n---\n\n"
        f"Minari datasets of recorded episodes, pushed with gato-gym:\n\n{addresses}\n\n"
        "`gato-gym train --dataset ADDRESS` trains on one, and `minari.download_dataset(ADDRESS)` "
        "downloads it.\n"
    )


def _not_fetched(address: str, error: Exception) -> ValueError:
    why = " ".join(str(error).split()) or type(error).__name__
    return ValueError(
        f"dataset {address!r} could not be fetched ({why[:300]}): check the address and the "
        "network, or pass a folder"
    )


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            'datasets on a hub need huggingface_hub: run pip install "gato-gym[hub]"'
        ) from error
    return huggingface_hub
