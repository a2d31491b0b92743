"""Policies that need no training: the experts of the suites.

* :func:`make_expert` -- the expert of a task, for an environment or a vector environment of it.
* :func:`has_expert` -- whether a task has one.
* :func:`load_trained` -- a trained expert: the one that is shipped, or one from a folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym

from gato_gym.tasks import get_suite, get_task, resolve
from policies.base import Policy, spaces_of

__all__ = [
    "has_expert",
    "load_trained",
    "make_expert",
]


def make_expert(task_id: str, env: Any) -> Policy:
    """The expert that plays a task.

    Args:
        task_id: Such as ``babyai-go-to-local``.
        env: Where it plays: an environment of the task, Gymnasium's ``SyncVectorEnv`` or
            Stable-Baselines3's ``DummyVecEnv``. BabyAI's bot reads the level itself, so its
            environments must live in this process.

    Raises:
        UnknownTaskError: There is no such task.
        MissingPackageError: The suite's simulator is not installed.
        ExpertError: The task's expert is a trained one, and none is shipped.
        ValueError: The environments are out of the expert's reach, or have other spaces; or a
            suite's expert is no policy.

    Example:
        >>> from gato_gym import get_task
        >>> env = get_task("babyai-go-to-obj").make()
        >>> expert = make_expert("babyai-go-to-obj", env)
        >>> observation, _ = env.reset(seed=0)
        >>> action, state = expert.predict(observation)
        >>> bool(env.action_space.contains(action))
        True
    """
    task = get_task(task_id)
    suite = get_suite(task.suite)
    if suite.expert is None:
        return load_trained(task.id, *spaces_of(env))
    expert = resolve(suite.expert)(task, env)
    if not isinstance(expert, Policy):
        raise ValueError(
            f"the expert of suite {suite.name!r} is a {type(expert).__name__}: expected a "
            "policies.Policy; let its class derive from it"
        )
    return expert


def has_expert(task_id: str) -> bool:
    """Whether :func:`make_expert` has an expert of this task: a program's, or a shipped network.

    Raises:
        UnknownTaskError: There is no such task.

    Example:
        >>> has_expert("babyai-go-to-local"), has_expert("mujoco-pendulum")
        (True, True)
    """
    from policies.experts.store import shipped_folder

    task = get_task(task_id)
    is_program = get_suite(task.suite).expert is not None
    return is_program or (shipped_folder(task.id) / "config.json").is_file()


def load_trained(
    task_id: str,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    *,
    folder: Path | None = None,
) -> Policy:
    """A trained expert.

    Args:
        task_id: The task it plays.
        observation_space: The space of one environment's observations.
        action_space: The space of one environment's actions.
        folder: Where ``gato-gym expert train`` wrote it; None takes the shipped one.

    Raises:
        ExpertError: There is none, or it is damaged, or another task's.
        ValueError: The spaces are not those it was trained for.
    """
    from policies.experts.mlp import ExpertError
    from policies.experts.store import load_expert, play_with, read_config, shipped_folder

    place = shipped_folder(task_id) if folder is None else folder
    if folder is None and not place.is_dir():
        raise ExpertError(
            f"no trained expert of {task_id!r} comes with this gato-gym: train one with "
            f"gato-gym expert train {task_id}, then gato-gym expert ship {task_id}"
        )
    trained_for = read_config(place).get("task")
    if trained_for != task_id:
        raise ExpertError(f"{place} holds the expert of {trained_for!r}, expected {task_id!r}")
    return play_with(load_expert(place), observation_space, action_space)
