"""Where checkpoints are, and which files they are.

* :func:`locate_checkpoint` -- the folder of a checkpoint's name.
* :func:`shipped_names` -- the checkpoints that come with the package.
* :func:`family_of` -- of which family of networks a folder's checkpoint is.
* :func:`read_config`, :func:`bad_config` -- a checkpoint's ``config.json``, and the error of it.
* :func:`check_links` -- refuses files that are elsewhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gato_gym.files.atomic_io import inside, surviving
from gato_gym.files.bounded_io import read_json, read_versioned, reason_of
from policies.gato.hub import HubError, fetch_checkpoint
from policies.gato.tensor_files import CheckpointError

FORMAT = 1
SHIPPED = Path(__file__).parents[1] / "checkpoints"
RUN_CHECKPOINT, RUN_STATE = "checkpoint", "training"
"""What a run's folder holds: the checkpoint that it has written, and the state to resume from."""
CHECKPOINT_FILES = (
    "config.json", "model.safetensors", "prompts.safetensors", "text.model", "card.md",
)  # fmt: skip
JAT_FILES = (
    "config.json", "model.safetensors", "tokenizer.json", "vocab.json", "merges.txt", "card.md",
)  # fmt: skip
ONE_TASK_FILES = ("config.json", "model.safetensors", "card.md")
FILES = {
    "gato": CHECKPOINT_FILES, "jat": JAT_FILES, "dt": ONE_TASK_FILES, "tt": ONE_TASK_FILES,
}  # fmt: skip
"""Files of a checkpoint, by family."""
LARGEST_CONFIG = 4 * 2**20
"""Largest ``config.json`` that is read, in bytes."""


def shipped_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))


def locate_checkpoint(name: str | Path) -> Path:
    """The folder of a checkpoint; a hub id is fetched, or found in the hub's cache.

    Args:
        name: The folder of a checkpoint or of a training run, the name of a shipped checkpoint, or
            a hub id ``owner/name``.

    Raises:
        CheckpointError: It does not exist or cannot be fetched.
    """
    folder = surviving(Path(name))
    if folder.is_dir():
        return _of_run(folder)
    text = str(name)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*", text):
        if (SHIPPED / text / "config.json").exists():
            return SHIPPED / text
        raise CheckpointError(
            f"no checkpoint {text!r}: it is no folder and not one of the shipped ones "
            f"({', '.join(shipped_names()) or 'none'})"
        )
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) and not folder.parent.is_dir():
        try:
            return fetch_checkpoint(text, check=_files_to_fetch)
        except HubError as error:
            raise CheckpointError(str(error)) from error
    raise CheckpointError(f"no checkpoint at {text!r}: expected a folder with config.json")


def _of_run(folder: Path) -> Path:
    """The checkpoint in a run's folder; any other folder is taken for a checkpoint itself."""
    if not (folder / RUN_STATE).is_dir() or (folder / "config.json").exists():
        return folder
    checkpoint = surviving(folder / RUN_CHECKPOINT)
    if not checkpoint.is_dir():
        raise CheckpointError(
            f"{folder} holds a run that has written no checkpoint yet: wait for its first, or "
            "resume it with the command that began it"
        )
    return checkpoint


def family_of(folder: Path) -> str:
    """The family of :data:`FILES` whose network a folder's ``config.json`` is of.

    The field ``model_type`` says so; whatever names no family is taken for Gato's.

    Raises:
        CheckpointError: There is one that cannot be read.
    """
    path = folder / "config.json"
    if not path.exists():
        return "gato"
    config = read_json(path, largest=LARGEST_CONFIG, error=CheckpointError)
    family = config.get("model_type") if isinstance(config, dict) else None
    return family if isinstance(family, str) and family in FILES else "gato"


def _files_to_fetch(folder: Path) -> tuple[str, ...]:
    """What belongs to a hub's ``config.json``, which is one of any family."""
    family = family_of(folder)
    if family != "jat":
        read_config(folder)
    return FILES[family][1:]


def read_config(folder: Path) -> dict[str, Any]:
    """What a checkpoint's ``config.json`` says.

    Raises:
        CheckpointError: It is damaged or has a newer format.
    """
    return read_versioned(
        folder / "config.json",
        "checkpoint",
        newest=FORMAT,
        largest=LARGEST_CONFIG,
        error=CheckpointError,
    )


def bad_config(folder: Path, error: Exception) -> CheckpointError:
    """The error that says of a ``config.json`` that it describes no checkpoint, and why."""
    return CheckpointError(
        f"{folder / 'config.json'} does not describe a checkpoint "
        f"({reason_of(error)}): "
        "save it again with this version, or take a fresh copy"
    )


def check_links(folder: Path) -> None:
    """Refuse links to other folders, but for those of the hub's cache: a card would be shared."""
    root = folder.parents[1] if folder.parent.name == "snapshots" else folder
    for name in CHECKPOINT_FILES:
        path = folder / name
        if path.is_symlink() and inside(root, str(path.relative_to(root))) is None:
            raise CheckpointError(
                f"{path} is a link to another folder, expected the file itself: take a fresh copy"
            )
