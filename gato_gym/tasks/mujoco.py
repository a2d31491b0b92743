"""MuJoCo: Gymnasium's 11 ``-v5`` locomotion, balance and reaching tasks.

* :data:`SUITE` -- the 11 tasks; rewards, observations and limits are Gymnasium's own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym

from gato_gym.options import PlanOptions
from gato_gym.tasks.suite import MEASURED, Suite
from gato_gym.tasks.task import Task, need, vector_of

ENVIRONMENTS = {
    "ant": ("Ant-v5", 1000, 105, 8),
    "doublependulum": ("InvertedDoublePendulum-v5", 1000, 9, 1),
    "halfcheetah": ("HalfCheetah-v5", 1000, 17, 6),
    "hopper": ("Hopper-v5", 1000, 11, 3),
    "humanoid": ("Humanoid-v5", 1000, 348, 17),
    "pendulum": ("InvertedPendulum-v5", 1000, 4, 1),
    "pusher": ("Pusher-v5", 100, 23, 7),
    "reacher": ("Reacher-v5", 50, 10, 2),
    "standup": ("HumanoidStandup-v5", 1000, 348, 17),
    "swimmer": ("Swimmer-v5", 1000, 8, 2),
    "walker": ("Walker2d-v5", 1000, 17, 6),
}
"""By the names of the published scores: Gymnasium's id, steps of an episode, numbers of an
observation and of an action."""

OPTIONS = PlanOptions(memory="none")
"""With room for the whole vector in one token."""


def make_mujoco(env_id: str, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """The environment behind a Gymnasium id such as ``Ant-v5``, without its time limit."""
    need("mujoco", "mujoco")
    return gym.make(env_id, render_mode=render_mode, disable_env_checker=True).unwrapped


def _tasks() -> list[Task]:
    """The 11 tasks."""
    return [
        Task(
            id=f"mujoco-{name}",
            suite="mujoco",
            env_id=env_id,
            max_episode_steps=steps,
            options=replace(OPTIONS, vector_size=max(OPTIONS.vector_size, numbers)),
            extra="mujoco",
            description=f"MuJoCo {env_id}: a vector of joint states, at most {steps} steps",
            factory=partial(make_mujoco, env_id),
            observation=vector_of(numbers),
            action=vector_of(actions),
        )
        for name, (env_id, steps, numbers, actions) in ENVIRONMENTS.items()
    ]


SUITE = Suite(
    "mujoco",
    tuple(_tasks()),
    title="MuJoCo",
    simulators=("gymnasium", "mujoco"),
    recipes="policies.expert_training.recipes:RECIPES",
    references=MEASURED,
    unit_episodes=4,
)
