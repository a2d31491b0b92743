"""Checkpoints from a hub: the configuration first, then the files that it is about, and no more.

* :func:`fetch_checkpoint` -- the folder of a hub id, fetched or found in the hub's cache.
* :class:`HubError` -- there is none, or it is no checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

LARGEST_FETCHED = {
    "model.safetensors": 8 * 2**30,
    "prompts.safetensors": 2**30,
    "text.model": 16 * 2**20,
    "tokenizer.json": 16 * 2**20,
    "vocab.json": 16 * 2**20,
    "merges.txt": 16 * 2**20,
    "card.md": 4 * 2**20,
}
"""The files that may be fetched beside ``config.json``, and the bytes that each may have."""


class HubError(ValueError):
    """A hub id that gives no checkpoint."""


def fetch_checkpoint(name: str, *, check: Callable[[Path], Sequence[str]]) -> Path:
    """The folder of a hub's checkpoint.

    Args:
        name: A hub id ``owner/name``.
        check: Called with the folder while it holds ``config.json`` alone; returns the files to
            fetch, of :data:`LARGEST_FETCHED`, and raises where that is no checkpoint's, so that no
            weights of something else are fetched.

    Raises:
        HubError: It cannot be fetched, holds no ``config.json``, or too large a file.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise HubError(
            f"{name!r} is a hub id and huggingface_hub is not installed: "
            'run pip install "gato-gym[hub]", or pass a folder'
        ) from error
    try:
        folder = Path(snapshot_download(name, allow_patterns=["config.json"]))
    except Exception as error:  # of the network, the hub, the disk: from several libraries
        raise _not_fetched(name, error) from error
    if not (folder / "config.json").is_file():
        raise HubError(
            f"hub checkpoint {name!r} holds no config.json: expected a checkpoint that "
            "GatoPolicy.save or JatPolicy.save wrote; check the name"
        )
    files = check(folder)
    in_reach = _check_sizes(name, folder.name)
    try:
        whole = snapshot_download(
            name,
            revision=folder.name,
            allow_patterns=[*files],
            local_files_only=not in_reach,
        )
    except Exception as error:
        raise _not_fetched(name, error) from error
    return Path(whole)


def _check_sizes(name: str, revision: str) -> bool:
    """Whether the hub is in reach; if it is, it has weights, and no file that is too large.

    Raises:
        HubError: It has none that are safetensors, or a file is larger than a checkpoint's.
    """
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(name, revision=revision, files_metadata=True).siblings or []
    except Exception:  # offline: what is in the cache is taken
        return False
    names = [file.rfilename for file in files]
    if "model.safetensors" not in names:
        raise HubError(
            f"hub checkpoint {name!r} holds no model.safetensors but {', '.join(names)[:200]}: "
            "expected safetensors, as a pickle is never read; ask its author for them"
        )
    for file in files:
        most = LARGEST_FETCHED.get(file.rfilename)
        if most is not None and (file.size is None or file.size > most):
            raise HubError(
                f"{file.rfilename} of hub checkpoint {name!r} has {file.size} bytes, expected at "
                f"most {most}: check the name, or fetch it yourself and pass its folder"
            )
    return True


def _not_fetched(name: str, error: Exception) -> HubError:
    why = " ".join(str(error).split()) or type(error).__name__
    return HubError(
        f"hub checkpoint {name!r} could not be fetched ({why[:300]}): "
        "check the name and the network, or pass a folder"
    )
