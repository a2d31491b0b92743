"""Where a training begins, when its recipe starts from another.

* :func:`start_from` -- another task's training, or else its expert that comes with the package.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.experts.networks import ExpertNetwork
from policies.experts.stored import load_expert, read_config, shipped_folder
from policies.experts.training.jax_parts import is_jax, put_actor
from policies.experts.training.state import STATE_FILE, TrainingStateError, load_state, restore

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

CRITIC_ALONE = 50_000
"""Steps in which a critic learns before an actor of another training does: by an untrained one it
would unlearn what it can."""


def start_from(algorithm: BaseAlgorithm, task: str, trainings: Path) -> str:
    """Take the first weights and the normalisation from another task of the same domain.

    Args:
        algorithm: As it is made.
        task: The other task.
        trainings: Folder of trainings, by task.

    Returns:
        What it starts from, in words.

    Raises:
        TrainingStateError: The other task's training or expert does not fit.
    """
    path = trainings / task / STATE_FILE
    if path.exists():
        _, tensors, _ = load_state(path)
        restore(algorithm, tensors, optimisers=False)
        return f"starts from {path}"
    folder = shipped_folder(task)
    if not (folder.is_dir() and is_jax(algorithm)):
        return (
            f"{path} is not there, so this starts from nothing; "
            f"gato-gym expert train {task} first would be quicker"
        )
    try:
        _put_expert(algorithm, load_expert(folder), seen=int(read_config(folder)["best_steps"]))
    except (TypeError, ValueError) as error:
        raise TrainingStateError(
            f"the expert of {task} does not fit this recipe ({error}): expected one of its "
            f"inputs and width; gato-gym expert train {task} makes one"
        ) from error
    return f"starts from the expert of {task}; the critic learns alone for {CRITIC_ALONE:,} steps"


def _put_expert(algorithm: Any, expert: Any, seen: int) -> None:
    """An expert's network as the actor of SBX's SAC, which has seen so many observations."""
    if not (isinstance(expert, ExpertNetwork) and expert.squash):
        raise TypeError("it is none of SAC's")
    statistics = algorithm.get_vec_normalize_env().obs_rms
    size = len(statistics.mean)
    (first, bias), *rest = expert.hidden
    layers = [(first[:, :size], bias), *rest, expert.action, expert.log_std]
    put_actor(algorithm, layers)
    epsilon = algorithm.get_vec_normalize_env().epsilon
    statistics.mean = expert.mean[:size].astype(np.float64)
    statistics.var = 1.0 / expert.scale[:size].astype(np.float64) ** 2 - epsilon
    statistics.count = float(seen)
    algorithm.critic_alone = CRITIC_ALONE
