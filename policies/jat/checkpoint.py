"""JAT's checkpoints: the published files, which are also what is written here.

=====================  ========================================================
``config.json``        sizes, with ``"model_type": "jat"``; of networks that were trained here
                       also ``tasks``, the spaces of each
``model.safetensors``  weights, with the published names
``tokenizer.json``     or ``vocab.json`` and ``merges.txt``: GPT-2's text tokens
``card.md``            description
=====================  ========================================================

* :class:`JatCheckpoint`, :func:`load_checkpoint`, :func:`save_checkpoint`.
* :func:`read_configuration`, :func:`read_spaces` -- what is beside the weights.

Nothing in them can run code, and nothing of the code that a hub keeps beside them is fetched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gato_gym.files.atomic_io import appearing
from gato_gym.files.bounded_io import as_type, read_bytes, read_json
from gato_gym.space_json import read_space, write_space
from policies.gato.checkpoint_folder import JAT_FILES, LARGEST_CONFIG, family_of, locate_checkpoint
from policies.gato.tensor_files import (
    CheckpointError,
    check_shapes,
    check_weights,
    read_tensors,
    stored_shapes,
)
from policies.jat.config import JatConfig
from policies.jat.gpt2_text import Gpt2Tokenizer
from policies.jat.network import JatNetwork

TEXT_TABLE = "transformer.wte.weight"
BothSpaces = tuple[gym.Space[Any], gym.Space[Any]]
ALIASES = (TEXT_TABLE, "single_discrete_encoder.weight", "multi_discrete_encoder.0.weight")
"""Names of the text table: a file holds it under one of them, or under several."""


@dataclass(frozen=True)
class JatCheckpoint:
    """A loaded checkpoint.

    Attributes:
        network: The weights, in float32 on the CPU.
        tokenizer: Of texts; None where the folder has none.
        card: Text of ``card.md``; empty if there is none.
        spaces: Of the tasks that it was trained on, by id; the published checkpoint tells none.
    """

    network: JatNetwork
    tokenizer: Gpt2Tokenizer | None
    card: str = ""
    spaces: Mapping[str, BothSpaces] = field(default_factory=dict)


def load_checkpoint(name: str | Path) -> JatCheckpoint:
    """Read a checkpoint.

    Args:
        name: A folder, or a hub id such as ``jat-project/jat``.

    Raises:
        CheckpointError: It does not exist, is damaged, or is no JAT network's.
    """
    folder = locate_checkpoint(name)
    config, tokenizer = read_configuration(folder)
    card = folder / "card.md"
    text = read_bytes(card, largest=LARGEST_CONFIG, error=CheckpointError) if card.exists() else b""
    network = _network_of(config, folder / "model.safetensors")
    card_text = text.decode("utf-8", "replace")
    return JatCheckpoint(network, tokenizer, card_text, read_spaces(folder))


def read_spaces(folder: Path) -> dict[str, BothSpaces]:
    """Spaces of the observations and of the actions of a checkpoint's tasks, by id.

    Raises:
        CheckpointError: They are damaged.
    """
    path = folder / "config.json"
    values = read_json(path, largest=LARGEST_CONFIG, error=CheckpointError)
    try:
        tasks = as_type(dict[str, Any], values, str(path)).get("tasks", {})
        written = as_type(dict[str, tuple[str, str]], tasks, f"{path}: tasks")
        return {
            task: (read_space(first, task), read_space(second, task))
            for task, (first, second) in written.items()
        }
    except ValueError as error:
        raise CheckpointError(f"{error}: take a fresh copy of the checkpoint") from error


def read_configuration(folder: Path) -> tuple[JatConfig, Gpt2Tokenizer | None]:
    """A checkpoint's sizes and tokenizer, without its weights.

    Raises:
        CheckpointError: It is damaged, or no JAT network's.
    """
    path = folder / "config.json"
    if family_of(folder) != "jat":
        raise CheckpointError(
            f"{path} is missing, or has no model_type 'jat': expected the folder of a JAT "
            "checkpoint; GatoPolicy.load reads those of Gato"
        )
    try:
        values = read_json(path, largest=LARGEST_CONFIG, error=CheckpointError)
        config = JatConfig.from_json(as_type(dict[str, Any], values, str(path)), str(path))
        tokenizer = Gpt2Tokenizer.read(folder)
        _check_ids(tokenizer, config)
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:
        raise CheckpointError(str(error)) from error
    return config, tokenizer


def save_checkpoint(
    folder: Path,
    network: JatNetwork,
    tokenizer: Gpt2Tokenizer | None,
    *,
    card: str = "",
    spaces: Mapping[str, BothSpaces] = MappingProxyType({}),
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a checkpoint under a temporary name and rename it into place.

    Args:
        folder: The folder to write; a checkpoint that is there is replaced.
        network: The weights.
        tokenizer: Written as ``vocab.json`` and ``merges.txt``.
        card: Text of ``card.md``.
        spaces: Of the tasks that it was trained on, by id.
        dtype: The dtype of the weights in the file.

    Raises:
        FileExistsError: ``folder`` exists and is not a checkpoint, or holds something else too.
    """
    with appearing(folder, own=JAT_FILES) as temporary:
        weights = {
            name: t.detach().to("cpu", dtype).contiguous()
            for name, t in network.state_dict().items()
        }
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
        config = network.config.to_json()
        if spaces:
            config["tasks"] = {task: [*map(write_space, both)] for task, both in spaces.items()}
        (temporary / "config.json").write_text(json.dumps(config, indent=1))
        if tokenizer is not None:
            (temporary / "vocab.json").write_text(json.dumps(tokenizer.vocabulary), "utf-8")
            merges = "".join(f"{first} {second}\n" for first, second in tokenizer.merges)
            (temporary / "merges.txt").write_text(f"#version: 0.2\n{merges}", "utf-8")
        (temporary / "card.md").write_text(
            card or f"# {folder.name}\n\nA JAT checkpoint.\n", "utf-8"
        )


def _check_ids(tokenizer: Gpt2Tokenizer | None, config: JatConfig) -> None:
    if tokenizer is None:
        return
    ids = tokenizer.vocabulary.values()
    if min(ids) < 0 or max(ids) >= config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has ids of {min(ids)} to {max(ids)}: expected 0 to "
            f"{config.vocab_size - 1}, as the network has; they are of different checkpoints"
        )


def _network_of(config: JatConfig, path: Path) -> JatNetwork:
    """The network with a file's weights, which is not built where these do not fit."""
    stored = read_tensors(path, stored_shapes)
    if config.num_layers > len(stored):  # before as many are built
        raise CheckpointError(
            f"{path} does not fit config.json (it holds {len(stored)} tensors for "
            f"{config.num_layers} layers): they are of different checkpoints"
        )
    try:
        with torch.device("meta"):
            network = JatNetwork(config)
    except RuntimeError as error:  # more numbers than any tensor has
        raise CheckpointError(
            f"{path.with_name('config.json')} has sizes of no network ({error}): take a fresh copy"
        ) from error
    expected = {name: list(t.shape) for name, t in network.state_dict().items()}
    present = [name for name in ALIASES if name in stored]
    table = present[0] if present else TEXT_TABLE
    named = {TEXT_TABLE if name == table else name: shape for name, shape in stored.items()}
    for name in present[1:]:
        named.pop(name)
    check_shapes(expected, named, path)
    weights: dict[str, Tensor] = read_tensors(path, load_file)
    check_weights(weights, path)
    for name in present[1:]:
        if weights[name].shape != weights[table].shape or not weights[name].equal(weights[table]):
            raise CheckpointError(
                f"{path} has {name} and {table} with different values: expected one table under "
                "several names; take a fresh copy"
            )
    weights[TEXT_TABLE] = weights[table]
    state = {name: weights[name].float() for name in expected}
    assert sum(t.numel() for t in state.values()) == sum(map(math.prod, expected.values()))
    network.load_state_dict(state, strict=True, assign=True)
    return network
