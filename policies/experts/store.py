"""Trained experts as folders of safetensors and JSON; nothing in them can run code.

* :func:`save_expert`, :func:`load_expert` -- ``config.json`` and ``model.safetensors``.
* :func:`play_with` -- the policy of a network.
* :func:`read_config` -- the description of an expert.
* :func:`shipped_folder` -- where the package's experts are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from gato_gym.files.atomic_io import appearing, write_json
from gato_gym.files.bounded_io import as_type, check_file, read_versioned, reason_of
from gato_gym.tasks import get_suite, list_suites
from policies.base import Policy
from policies.experts.cnn import ImageExpert, ImageNetwork
from policies.experts.mlp import ExpertError, ExpertNetwork, TrainedExpert

FORMAT = 1
CURVE_FILE = "curve.csv"
"""How an expert's returns grew in training; a shipped expert has it."""
SHIPPED = Path(__file__).parent / "trained"
EXPERT_FILES = ("config.json", "model.safetensors", CURVE_FILE)
LARGEST_FILE = 16 * 2**20
"""Bytes of the largest file of an expert that is read."""

Network = ExpertNetwork | ImageNetwork


def play_with(
    network: Network,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    *,
    seed: int = 0,
) -> Policy:
    """The policy of a network.

    Raises:
        ValueError: The spaces are not those that the network was trained for.
    """
    kind = ImageExpert if isinstance(network, ImageNetwork) else TrainedExpert
    return kind(network, observation_space, action_space, seed=seed)  # type: ignore[arg-type]


def shipped_folder(task_id: str) -> Path:
    """The folder of a task's shipped expert, its suite's or this package's; it need not exist."""
    suite = task_id.partition("-")[0]
    trained = get_suite(suite).trained if suite in list_suites() else None
    return (SHIPPED if trained is None else trained) / task_id


def save_expert(folder: Path, network: Network, record: Mapping[str, Any]) -> None:
    """Write an expert under a temporary name and rename it into place.

    Args:
        folder: The folder to write; an existing expert is replaced.
        network: The weights.
        record: Further content of ``config.json``: how it was trained and what it scores.

    Raises:
        FileExistsError: ``folder`` exists and is not an expert, or holds something else too.
    """
    if (folder / "config.json").exists():
        try:
            is_expert = bool({"activation", "strides"} & read_config(folder).keys())
        except ExpertError:
            is_expert = False
        if not is_expert:
            raise FileExistsError(
                f"{folder / 'config.json'} is not an expert's of this version, expected one that "
                "may be replaced: choose another folder"
            )
    config = {"format": FORMAT, **network.config(), **record}
    with appearing(folder, own=EXPERT_FILES) as partial:
        save_file(network.tensors(), partial / "model.safetensors")
        write_json(partial / "config.json", config)


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of an expert.

    Raises:
        ExpertError: There is none, it is damaged, or a newer version wrote it.
    """
    return read_versioned(
        folder / "config.json",
        "trained expert",
        newest=FORMAT,
        largest=LARGEST_FILE,
        error=ExpertError,
    )


def load_expert(folder: Path) -> Network:
    """Read an expert's network.

    Raises:
        ExpertError: The folder holds none, or a damaged one.
    """
    config = read_config(folder)
    path = folder / "model.safetensors"
    try:
        check_file(path, largest=LARGEST_FILE)
        return network_from(load_file(path), config)
    except (SafetensorError, OSError, ValueError, TypeError, LookupError) as error:
        raise ExpertError(
            f"{folder} does not hold an expert ({reason_of(error)}): take a fresh copy or train "
            "it again"
        ) from error


def network_from(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> Network:
    """The network that ``tensors()`` and ``config()`` describe.

    Raises:
        KeyError, TypeError, ValueError: An entry is missing or of another kind.
    """
    if "strides" in config:
        return ImageNetwork.from_tensors(
            tensors,
            strides=as_type(list[int], config["strides"], "strides"),
            samples=as_type(bool, config.get("samples", False), "samples"),
        )
    return ExpertNetwork.from_tensors(
        tensors,
        activation=as_type(str, config["activation"], "activation"),
        squash=as_type(bool, config["squash"], "squash"),
        clip=as_type(float, config["clip"], "clip"),
    )
