"""From a run's folder to a checkpoint folder.

* :func:`averaged_network` -- a network with the averaged weights of a run, at its end or at a step
  that was kept.
* :func:`write_checkpoint` -- a network, each task's token options and a demonstration of each task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from gato_gym import Episode
from gato_gym.files.atomic_io import surviving
from gato_gym.files.bounded_io import read_json
from gato_gym.spaces import Plan
from policies.gato.checkpoint import save_checkpoint
from policies.gato.prompts import prompt_from_episode
from policies.gato.sampling import Sampler
from policies.gato.task_specs import TaskRecord
from policies.gato.tensor_files import check_weights
from policies.model.config import NetworkConfig
from policies.model.network import GatoNetwork
from policies.training.trainer import kept_weights

SAMPLER = Sampler(temperature=1.0, continuous_temperature=0.0, continuous="peak")
"""Discrete actions are sampled, which leaves loops; a robot's are the expected ones of a peak."""


def averaged_network(
    run: Path, *, step: int | None = None, prepare: Callable[[GatoNetwork], None] | None = None
) -> GatoNetwork:
    """A network with a run's averaged weights.

    Args:
        run: The run's folder.
        step: One of the steps kept in ``kept/``; None takes the run's last checkpoint.
        prepare: Called with the fresh network, as in training.

    Raises:
        FileNotFoundError: The run has no such checkpoint.
        CheckpointError: Its weights are no finite numbers.
    """
    settings = read_json(run / "config.json")
    network = GatoNetwork(NetworkConfig.from_json(settings["network"]))
    if prepare is not None:
        prepare(network)
    weights = _averaged_weights(run, step)
    network.load_state_dict({**network.state_dict(), **weights}, strict=True)
    return network


def _averaged_weights(run: Path, step: int | None) -> dict[str, Tensor]:
    if step is None:
        prefix, path = "average.", surviving(run / "last") / "optimiser.safetensors"
    else:
        prefix, path = "", kept_weights(run, step)
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in load_file(path).items()
        if name.startswith(prefix)
    }
    check_weights(weights, path)
    return {name: tensor.float() for name, tensor in weights.items()}


def saved_step(run: Path) -> int:
    """Steps that the run's last checkpoint has seen."""
    return int(read_json(surviving(run / "last") / "progress.json")["step"])


def write_checkpoint(
    output: Path,
    network: GatoNetwork,
    plans: Mapping[str, Plan],
    shown: Mapping[str, tuple[Episode | None, bool]],
    *,
    sampler: Sampler | None = None,
    card: str = "",
) -> None:
    """Write a network as a checkpoint of some tasks.

    Args:
        output: The checkpoint's folder.
        network: The weights.
        plans: The tasks' plans, by id.
        shown: Each task's demonstration, None for none, and whether the policy acts after it unless
            asked otherwise.
        sampler: How the checkpoint chooses actions; None is :data:`SAMPLER`.
        card: Text of its card.
    """
    records, room = {}, network.config.prompt_tokens
    for task, plan in plans.items():
        episode, prompted = shown[task]
        prompt = None
        if episode is not None:
            prompt = prompt_from_episode(plan, episode, capacity=room, cut="end")
        records[task] = TaskRecord.of(plan, prompt, prompted=prompted)
    save_checkpoint(output, network, records, sampler or SAMPLER, dtype=torch.bfloat16, card=card)
