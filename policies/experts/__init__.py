"""Policies that need no training: the experts of the suites, and chance.

* :func:`make_expert` -- the expert of a task, for an environment or a vector environment of it.
* :class:`RandomPolicy` -- actions drawn from the action space.
* :func:`execute`, :func:`failure_of` -- for those who execute other actions than the expert's.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from policies.base import Policy, State
from policies.experts.babyai import BotRow
from policies.experts.random import RandomPolicy

__all__ = ["RandomPolicy", "execute", "failure_of", "make_expert"]


def make_expert(task_id: str, env: Any) -> Policy:
    """The expert that plays a task.

    Args:
        task_id: Such as ``babyai-go-to-local``.
        env: What it will play in: an environment of the task, Gymnasium's ``SyncVectorEnv`` or
            Stable-Baselines3's ``DummyVecEnv``. BabyAI's bot reads the level itself, so its
            environments must live in this process.

    Raises:
        UnknownTaskError: There is no such task.
        MissingPackageError: The suite's simulator is not installed.
        ValueError: The environments are out of the expert's reach, or have other spaces.

    Example:
        >>> from gato_gym import get_task
        >>> env = get_task("babyai-go-to-obj").make()
        >>> expert = make_expert("babyai-go-to-obj", env)
        >>> observation, _ = env.reset(seed=0)
        >>> action, state = expert.predict(observation)
        >>> bool(env.action_space.contains(action))
        True
    """
    from gato_gym.tasks import get_task

    task = get_task(task_id)
    observation_space, action_space = single_spaces(env)
    if task.suite == "babyai":
        from policies.experts.babyai import BabyAIBotPolicy

        return BabyAIBotPolicy(env, observation_space, action_space)
    from policies.experts.metaworld import MetaWorldExpert

    return MetaWorldExpert(task.env_id, observation_space, action_space)


def execute(state: State, row: int, action: Any) -> None:
    """Tell an expert's state that ``action`` was executed in a row, whatever the expert chose.

    Experts that keep a plan (BabyAI's bot) go on from there; the others need not be told.
    """
    if isinstance(state, list) and isinstance(state[row], BotRow):
        state[row].executed = int(action)


def failure_of(state: State, row: int) -> str | None:
    """Why the expert of a row has given up in this episode; None where it has not."""
    if isinstance(state, list) and isinstance(state[row], BotRow):
        return state[row].failure
    return None


def single_spaces(env: Any) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Spaces of one environment of ``env``, which may be a vector environment."""
    if isinstance(env, gym.vector.VectorEnv):
        return env.single_observation_space, env.single_action_space
    return env.observation_space, env.action_space
