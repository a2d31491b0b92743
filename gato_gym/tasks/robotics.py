"""Robotics: Gymnasium-Robotics' four Fetch tasks, an arm that reaches goals (arXiv 1802.09464).

* :data:`SUITE` -- reach, push, slide, pick and place: 50 steps, a reward of -1 until it is done.
"""

from __future__ import annotations

import contextlib
import io
from functools import partial
from typing import Any

import gymnasium as gym

from gato_gym.options import PlanOptions
from gato_gym.tasks.suite import Suite
from gato_gym.tasks.task import Task, need

NAMES = {"pick-and-place": "PickAndPlace", "push": "Push", "reach": "Reach", "slide": "Slide"}
"""Gymnasium-Robotics' names of the tasks."""

STEPS = 50
OPTIONS = PlanOptions(memory="none")
"""Of an observation's three vectors, which one token holds."""


def make_fetch(name: str, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """The environment of a task, such as ``PickAndPlace``, without its time limit."""
    with contextlib.redirect_stderr(io.StringIO()):  # a notice about other environments
        need("gymnasium_robotics", "robotics")
    return gym.make(f"Fetch{name}-v4", render_mode=render_mode, disable_env_checker=True).unwrapped


SUITE = Suite(
    "robotics",
    tuple(
        Task(
            id=f"robotics-fetch-{name}",
            suite="robotics",
            env_id=f"Fetch{known}-v4",
            max_episode_steps=STEPS,
            options=OPTIONS,
            factory=partial(make_fetch, known),
            extra="robotics",
            description=f"Fetch{known}-v4: a robot arm, sparse rewards, {STEPS} steps",
            observation=f"{10 if name == 'reach' else 25} numbers, 2 goals of 3",
            action="4 numbers",
        )
        for name, known in NAMES.items()
    ),
    title="Gymnasium-Robotics",
    simulators=("gymnasium-robotics", "mujoco"),
    expert="policies.experts.fetch:make_script",
    expert_kind="script",
    references="benchmarks:references/robotics.json",
    rules={"max_episode_steps": STEPS, "reward": "sparse", "success_ends_episode": False},
    unit_episodes=16,
)
