"""From a run's folder to a checkpoint folder.

* :func:`averaged_weights` -- the averaged weights of a run, at its end or at a step that was kept.
* :func:`export` -- those weights, each task's token options and a demonstration of each task.
* :func:`write_checkpoint` -- the same for tasks that are not registered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from gato_gym import Episode, get_task, read_minari
from gato_gym.atomic_io import surviving
from policies.gato.checkpoint import save_checkpoint
from policies.gato.prompts import prompt_from_episode
from policies.gato.sampling import Sampler
from policies.gato.task_specs import TaskRecord
from policies.model.config import NetworkConfig
from policies.model.network import GatoNetwork
from policies.training.data.shards import TaskShard
from policies.training.trainer import open_shards

SAMPLER = Sampler(temperature=1.0, continuous_temperature=0.0, continuous="peak")
"""Discrete actions are sampled, which leaves loops; a robot's are the expected ones of a peak."""

PROMPTED_SUITES = ("metaworld",)
"""Suites whose policy acts after its demonstration unless told otherwise: their observations do
not say which task it is. BabyAI's instructions do."""


def averaged_weights(run: Path, *, step: int | None = None) -> dict[str, Tensor]:
    """Averaged weights of a run, by parameter name.

    Args:
        run: The run's folder.
        step: One of the steps kept in ``kept/``; None takes the run's last checkpoint.

    Raises:
        FileNotFoundError: The run has no such checkpoint.
    """
    if step is not None:
        kept = load_file(run / "kept" / f"step-{step:06d}.safetensors")
        return {name: tensor.float() for name, tensor in kept.items()}
    state = load_file(surviving(run / "last") / "optimiser.safetensors")
    prefix = "average."
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


def demonstration(task: str, root: Path) -> Episode:
    """The task's first clean, successful episode.

    Raises:
        ValueError: Its dataset holds none.
    """
    for episode in read_minari(f"gato/{task}-v0", root=root):
        if not episode.info.get("noise") and episode.info.get("success", True):
            return episode
    raise ValueError(
        f"dataset gato/{task}-v0 holds no clean successful episode to show: "
        "collect some without --noise"
    )


def export(
    run: Path,
    *,
    shards: Path,
    root: Path,
    output: Path,
    step: int | None = None,
    sampler: Sampler | None = None,
    card: str = "",
) -> None:
    """Write a run's averaged weights as a checkpoint.

    Args:
        run: The run's folder.
        shards: Its shards, which hold each task's token options.
        root: Folder of the datasets, for the demonstrations.
        output: The checkpoint's folder.
        step: A kept step; None takes the last.
        sampler: How the checkpoint chooses actions.
        card: Text of its card.
    """
    shown = {}
    suites = set(json.loads((run / "config.json").read_text())["mixture"]["weights"])
    opened = open_shards(shards, suites)
    for task in opened:
        shown[task] = (demonstration(task, root), get_task(task).suite in PROMPTED_SUITES)
    write_checkpoint(run, opened, shown, output, step=step, sampler=sampler, card=card)


def write_checkpoint(
    run: Path,
    shards: Mapping[str, TaskShard],
    shown: Mapping[str, tuple[Episode, bool]],
    output: Path,
    *,
    step: int | None = None,
    sampler: Sampler | None = None,
    card: str = "",
) -> None:
    """Write a run's averaged weights as a checkpoint of some tasks.

    Args:
        run: The run's folder.
        shards: Of the tasks, by id.
        shown: Each task's demonstration, and whether the policy acts after it unless told
            otherwise.
        output, step, sampler, card: As in :func:`export`.
    """
    settings = json.loads((run / "config.json").read_text())
    config = NetworkConfig.from_json(settings["network"])
    network = GatoNetwork(config)
    network.load_state_dict({**network.state_dict(), **averaged_weights(run, step=step)})
    records = {}
    for task, shard in shards.items():
        episode, prompted = shown[task]
        prompt = prompt_from_episode(shard.plan, episode, capacity=config.prompt_tokens, cut="end")
        records[task] = TaskRecord.of(shard.plan, prompt, prompted=prompted)
    save_checkpoint(output, network, records, sampler or SAMPLER, dtype=torch.bfloat16, card=card)
