"""A checkpoint is a folder of safetensors and JSON; nothing in it can run code.

=====================  =======================================================================
``config.json``        format version, network sizes, tasks with their token options, sampling
``model.safetensors``  weights
``prompts.safetensors``  a demonstration for each task that has one
``text.model``         the SentencePiece model of the text ids
``card.md``            description and scores
=====================  =======================================================================

* :func:`save_checkpoint`, :func:`load_checkpoint`, :class:`Checkpoint`.
* :func:`read_tasks`, :func:`read_sizes`, :func:`checkpoint_digest` -- a checkpoint's tasks, its
  network's sizes and what it is known by, without loading its weights.

:mod:`policies.gato.checkpoint_folder` has where one is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from gato_gym.files.atomic_io import appearing, check_replaceable
from gato_gym.files.bounded_io import as_type, read_bytes
from gato_gym.options import PlanOptions
from gato_gym.text import default_tokenizer
from policies.gato.checkpoint_folder import (
    CHECKPOINT_FILES,
    FILES,
    FORMAT,
    LARGEST_CONFIG,
    bad_config,
    check_links,
    family_of,
    locate_checkpoint,
    read_config,
)
from policies.gato.hub import LARGEST_FETCHED
from policies.gato.prompts import Prompt
from policies.gato.sampling import Sampler
from policies.gato.task_specs import TaskRecord
from policies.gato.tensor_files import (
    CheckpointError,
    check_shapes,
    check_weights,
    read_tensors,
    stored_shapes,
)
from policies.model.config import NetworkConfig
from policies.model.network import GatoNetwork
from policies.returns import ReturnScale


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        network: The weights, in float32 on the CPU.
        tasks: Records of the tasks that they were trained on, by task id.
        sampler: How action tokens are chosen.
        card: Text of ``card.md``; empty if there is none.
    """

    network: GatoNetwork
    tasks: dict[str, TaskRecord]
    sampler: Sampler
    card: str = ""


def save_checkpoint(
    folder: Path,
    network: GatoNetwork,
    tasks: Mapping[str, TaskRecord],
    sampler: Sampler,
    *,
    dtype: torch.dtype | None = None,
    card: str = "",
) -> None:
    """Write a checkpoint under a temporary name and rename it into place.

    Args:
        folder: The folder to write; an existing checkpoint is replaced.
        network: The weights.
        tasks: Records by task id.
        sampler: How action tokens are chosen.
        dtype: The dtype of the weights in the file; None takes bfloat16 if it holds their values
            exactly, as it does for weights that were read from bfloat16, and else float32.
        card: Text of ``card.md``.

    Raises:
        FileExistsError: ``folder`` exists and is not a checkpoint, or holds something else too.
    """
    check_own_folder(folder)
    with appearing(folder, own=CHECKPOINT_FILES) as temporary:
        card = card or f"# {folder.name}\n\nA Gato checkpoint.\n"
        _write(temporary, network, tasks, sampler, dtype, card)


def check_own_folder(folder: Path) -> None:
    """Refuse to replace a folder that is not a checkpoint's alone.

    Raises:
        FileExistsError: It holds something that is no checkpoint's.
    """
    check_replaceable(folder, CHECKPOINT_FILES)
    if not (folder / "config.json").exists():
        return
    try:
        is_checkpoint = {"network", "tasks"} <= read_config(folder).keys()
    except CheckpointError:
        is_checkpoint = False
    if not is_checkpoint:
        raise FileExistsError(
            f"{folder / 'config.json'} is not a checkpoint's of this version, expected one that "
            "may be replaced: choose another folder"
        )


def _write(
    folder: Path,
    network: GatoNetwork,
    tasks: Mapping[str, TaskRecord],
    sampler: Sampler,
    dtype: torch.dtype | None,
    card: str,
) -> None:
    stored = _exact_dtype(network) if dtype is None else dtype
    weights = {
        name: t.detach().to("cpu", stored).contiguous() for name, t in network.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors")
    prompts: dict[str, np.ndarray[Any, Any]] = {}
    for name, record in tasks.items():
        if record.prompt is not None:
            prompts |= {k: np.ascontiguousarray(v) for k, v in record.prompt.tensors(name).items()}
    save_arrays(prompts, folder / "prompts.safetensors")
    (folder / "text.model").write_bytes(default_tokenizer().model)
    config = {
        "format": FORMAT,
        "network": network.config.to_json(),
        "sampler": dataclasses.asdict(sampler),
        "text_model": _text_model(),
        "tasks": {name: record_to_json(record) for name, record in sorted(tasks.items())},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "card.md").write_text(card, "utf-8")


def record_to_json(record: TaskRecord) -> dict[str, Any]:
    """A task's entry in ``config.json``; its demonstration is in another file."""
    return {
        "options": record.options.to_json(),
        "signature": record.signature,
        "prompt": record.prompt is not None,
        "prompted": record.prompted,
        "spaces": record.spaces,
        **({} if record.returns is None else {"returns": record.returns.to_json()}),
    }


def _exact_dtype(network: GatoNetwork) -> torch.dtype:
    """The smallest dtype that holds the values of all weights."""
    exact = all(torch.equal(t.bfloat16().to(t.dtype), t) for t in network.state_dict().values())
    return torch.bfloat16 if exact else torch.float32


def load_checkpoint(name: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Args:
        name: As in :func:`~policies.gato.checkpoint_folder.locate_checkpoint`.

    Raises:
        CheckpointError: It does not exist, is damaged, or has a newer format.
    """
    folder = locate_checkpoint(name)
    check_links(folder)
    if (family := family_of(folder)) != "gato":
        raise CheckpointError(
            f"{folder} holds a network of the family {family!r}, expected Gato's: load it with "
            f"policies.{family.title()}Policy.load, or with policies.make_policy, which takes any"
        )
    config = read_config(folder)
    tasks = _records(folder, config)
    try:
        sizes = NetworkConfig.from_json(config["network"])
        sampler = as_type(Sampler, config["sampler"], "sampler")
    except (KeyError, TypeError, ValueError) as error:
        raise bad_config(folder, error) from error
    if config.get("text_model") != _text_model():
        raise CheckpointError(
            f"{folder} was trained with another text model "
            f"({str(config.get('text_model'))[:12]}… there, {_text_model()[:12]}… here): "
            "install the gato-gym version that made it"
        )
    network = _network_of(sizes, folder)
    card = folder / "card.md"
    text = read_bytes(card, largest=LARGEST_CONFIG, error=CheckpointError) if card.exists() else b""
    return Checkpoint(network, tasks, sampler, text.decode("utf-8", "replace"))


def read_tasks(folder: Path) -> dict[str, TaskRecord]:
    """A checkpoint's tasks by id, without reading its weights.

    Raises:
        CheckpointError: It is damaged or has a newer format.
    """
    return _records(folder, read_config(folder))


def read_sizes(folder: Path) -> NetworkConfig:
    """The sizes of a checkpoint's network, without reading its weights.

    Raises:
        CheckpointError: It is damaged or has a newer format.
    """
    try:
        return NetworkConfig.from_json(read_config(folder)["network"])
    except (KeyError, TypeError, ValueError) as error:
        raise bad_config(folder, error) from error


def checkpoint_digest(name: str | Path) -> str:
    """A hash of a checkpoint's configuration and weights; ``name`` as in :func:`load_checkpoint`.

    Raises:
        CheckpointError: It does not exist or cannot be read.
    """
    folder, digest = locate_checkpoint(name), hashlib.blake2b(digest_size=8)
    for part in ("config.json", "model.safetensors"):
        try:
            digest.update(read_bytes(folder / part, largest=LARGEST_FETCHED["model.safetensors"]))
        except OSError as error:
            raise CheckpointError(f"{folder / part} cannot be read ({error})") from error
    return digest.hexdigest()


def _records(folder: Path, config: Mapping[str, Any]) -> dict[str, TaskRecord]:
    prompts = {}
    if "prompts.safetensors" in FILES[family_of(folder)]:
        prompts = read_tensors(folder / "prompts.safetensors", load_arrays)
    try:
        tasks = as_type(dict[str, dict[str, Any]], config["tasks"], "tasks")
        return {task: _record(task, entry, prompts) for task, entry in tasks.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise bad_config(folder, error) from error


def _record(
    task: str, entry: Mapping[str, Any], prompts: Mapping[str, np.ndarray[Any, Any]]
) -> TaskRecord:
    where = f"tasks.{task}"
    return TaskRecord(
        options=PlanOptions.from_json(
            as_type(dict[str, Any], entry["options"], f"{where}.options")
        ),
        signature=as_type(str, entry["signature"], f"{where}.signature"),
        prompt=_prompt(task, entry, prompts),
        prompted=as_type(bool, entry["prompted"], f"{where}.prompted"),
        spaces=as_type(tuple[str, str] | None, entry.get("spaces"), f"{where}.spaces"),
        returns=as_type(ReturnScale | None, entry.get("returns"), f"{where}.returns"),
    )


def _prompt(
    task: str, entry: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]]
) -> Prompt | None:
    """A task's demonstration; older files do not say whether there is one."""
    is_there = any(name.startswith(f"{task}/") for name in tensors)
    if as_type(bool, entry.get("prompt", is_there), f"tasks.{task}.prompt") != is_there:
        raise ValueError(
            f"tasks.{task}.prompt is {entry['prompt']!r}, and prompts.safetensors "
            f"{'holds one' if is_there else 'holds none'}, expected the files of one checkpoint"
        )
    return Prompt.from_tensors(tensors, task) if is_there else None


def _network_of(sizes: NetworkConfig, folder: Path) -> GatoNetwork:
    """The network with the folder's weights, which is not built where they are too few for it."""
    path = folder / "model.safetensors"
    stored = read_tensors(path, stored_shapes)
    count, least = sum(math.prod(shape) for shape in stored.values()), sizes.least_weights
    if count < least:
        raise CheckpointError(
            f"{path} does not fit config.json (it holds {count} numbers, expected at least "
            f"{least}): they are of different checkpoints"
        )
    try:
        network = GatoNetwork(sizes)
    except (RuntimeError, ValueError) as error:  # sizes that do not divide one another
        raise bad_config(folder, error) from error
    expected = {name: list(t.shape) for name, t in network.state_dict().items()}
    check_shapes(expected, stored, path)
    weights = read_tensors(path, load_file)
    check_weights(weights, path)
    network.load_state_dict({name: t.float() for name, t in weights.items()}, strict=True)
    return network


def _text_model() -> str:
    """Digest of the packaged text model."""
    return hashlib.sha256(default_tokenizer().model).hexdigest()
