"""Checkpoints of networks that were trained on one task.

=====================  =========================================================================
``config.json``        format version, family, sizes, and the task as Gato's checkpoints have it
``model.safetensors``  weights
``card.md``            description
=====================  =========================================================================

* :class:`OneTaskCheckpoint` -- what is in one.
* :func:`load_checkpoint`, :func:`save_checkpoint`.

Nothing in them can run code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gato_gym.files.atomic_io import appearing
from gato_gym.files.bounded_io import as_type, read_bytes
from policies.gato.checkpoint import read_tasks, record_to_json
from policies.gato.checkpoint_folder import (
    FORMAT,
    LARGEST_CONFIG,
    ONE_TASK_FILES,
    bad_config,
    family_of,
    locate_checkpoint,
    read_config,
)
from policies.gato.task_specs import TaskRecord
from policies.gato.tensor_files import (
    CheckpointError,
    check_shapes,
    check_weights,
    read_tensors,
    stored_shapes,
)

NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True)
class OneTaskCheckpoint(Generic[NetworkT]):
    """What a checkpoint holds.

    Attributes:
        network: The weights, in float32 on the CPU.
        task: The task's id.
        record: What is known of it.
        card: Text of ``card.md``.
    """

    network: NetworkT
    task: str
    record: TaskRecord
    card: str = ""


def save_checkpoint(
    folder: Path, family: str, sizes: Mapping[str, Any], checkpoint: OneTaskCheckpoint[NetworkT]
) -> None:
    """Write a checkpoint under a temporary name and rename it into place.

    Args:
        folder: The folder to write; a checkpoint that is there is replaced.
        family: "dt" or "tt".
        sizes: The network's, as JSON values.
        checkpoint: What is written.

    Raises:
        FileExistsError: ``folder`` holds something else too.
    """
    with appearing(folder, own=ONE_TASK_FILES) as temporary:
        weights = {
            name: t.detach().to("cpu").contiguous()
            for name, t in checkpoint.network.state_dict().items()
        }
        save_file(weights, temporary / "model.safetensors")
        config = {
            "format": FORMAT,
            "model_type": family,
            "network": dict(sizes),
            "tasks": {checkpoint.task: record_to_json(checkpoint.record)},
        }
        (temporary / "config.json").write_text(json.dumps(config, indent=1))
        card = checkpoint.card or f"# {folder.name}\n\nA checkpoint of the family {family}.\n"
        (temporary / "card.md").write_text(card, "utf-8")


def load_checkpoint(
    name: str | Path, family: str, build: Callable[[dict[str, Any]], NetworkT]
) -> OneTaskCheckpoint[NetworkT]:
    """Read a checkpoint.

    Args:
        name: A folder of a checkpoint or of a run, or a hub id.
        family: "dt" or "tt".
        build: Makes the network of some sizes.

    Raises:
        CheckpointError: It does not exist, is damaged, or is of another family.
    """
    folder = locate_checkpoint(name)
    if family_of(folder) != family:
        raise CheckpointError(
            f"{folder / 'config.json'} is missing, or is not of the family {family}: expected the "
            f"folder that gato-gym train --family {family} wrote"
        )
    tasks = read_tasks(folder)
    if len(tasks) != 1:
        raise CheckpointError(f"{folder} names {len(tasks)} tasks: expected one; take a fresh copy")
    ((task, record),) = tasks.items()
    path = folder / "model.safetensors"
    stored = read_tensors(path, stored_shapes)
    try:
        sizes = as_type(dict[str, Any], read_config(folder).get("network"), "network")
        with torch.device("meta"):  # nothing is allocated before the file is known to fit
            expected = {key: list(t.shape) for key, t in build(sizes).state_dict().items()}
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise bad_config(folder, error) from error
    check_shapes(expected, stored, path)
    weights = read_tensors(path, load_file)
    check_weights(weights, path)
    network = build(sizes)
    network.load_state_dict({key: t.float() for key, t in weights.items()}, strict=True)
    card = folder / "card.md"
    text = read_bytes(card, largest=LARGEST_CONFIG, error=CheckpointError) if card.exists() else b""
    return OneTaskCheckpoint(network, task, record, text.decode("utf-8", "replace"))
