"""Where a training begins, when its recipe starts from another or from an expert.

* :func:`start_from` -- another task's training, or an expert that comes with the package.
* :func:`entropy_state` -- SAC's weight of entropy where its actor is an expert.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.expert_training.sb3.algorithm_state import restore
from policies.expert_training.sb3.sbx_state import is_jax, put_actor
from policies.expert_training.training_state import STATE_FILE, TrainingStateError, load_state
from policies.experts.mlp import ExpertNetwork
from policies.experts.store import load_expert, read_config, shipped_folder

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

CRITIC_ALONE = 50_000
"""Steps in which a critic learns before an actor of another training does: by an untrained one it
would unlearn what it can."""


ENTROPY_TO_REWARD = 0.02
"""First weight of an expert's entropy, in parts of a step's mean reward: it ends at 0.01 to 0.04 of
it, and SAC's own first weight, 1, would drown Pusher's rewards."""

LEAST_REWARD = 1e-3
"""Where it met none."""


def start_from(algorithm: BaseAlgorithm, task: str, trainings: Path | None) -> str:
    """Take the first weights and the normalisation from a task of the same domain.

    Args:
        algorithm: As it is made.
        task: The task.
        trainings: Folder of trainings, by task; where the task has none, SAC takes the package's
            expert. None: only that will do.

    Returns:
        What it starts from, in words.

    Raises:
        TrainingStateError: The training or expert does not fit, or there is no expert.
    """
    if trainings is not None and (path := trainings / task / STATE_FILE).exists():
        _, tensors, _ = load_state(path)
        restore(algorithm, tensors, optimisers=False)
        return f"starts from {path}"
    folder = shipped_folder(task)
    if trainings is None and not is_jax(algorithm):
        raise TrainingStateError(
            f"the recipe of {task} is PPO's: expected SAC's, whose critic can follow an actor; "
            "train it without --from-expert"
        )
    if trainings is None and not folder.is_dir():
        raise TrainingStateError(
            f"no expert of {task} comes with this gato-gym: train it without --from-expert"
        )
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
    algorithm.learning_starts = 0  # no random actions: what it remembers is the expert's


def entropy_state(algorithm: Any) -> Any:
    """The state of SBX's SAC for the weight of entropy, small beside the rewards it remembers."""
    memory, envs = algorithm.replay_buffer, algorithm.get_vec_normalize_env()
    rewards = envs.normalize_reward(memory.rewards[: memory.size()])
    weight = ENTROPY_TO_REWARD * max(float(np.abs(rewards).mean()), LEAST_REWARD)
    state = algorithm.ent_coef_state
    like = state.params["log_ent_coef"]
    return state.replace(params={"log_ent_coef": np.full_like(like, np.log(weight))})
