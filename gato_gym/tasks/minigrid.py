"""MiniGrid beyond BabyAI: 28 grid worlds whose goal is a green square (arXiv 2306.13831).

* :data:`SUITE` -- the tasks: rooms, crossings, lava, keys and locked doors.

They have BabyAI's observations and actions. A planner that sees the whole grid is their expert.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import gymnasium as gym

from gato_gym.tasks.babyai import OPTIONS, BabyAIEnv
from gato_gym.tasks.suite import Suite
from gato_gym.tasks.task import Task, need

WORLDS = (
    "DistShift1", "DistShift2", "DoorKey-16x16", "DoorKey-5x5", "DoorKey-6x6", "DoorKey-8x8",
    "Empty-16x16", "Empty-5x5", "Empty-6x6", "Empty-8x8", "Empty-Random-5x5", "Empty-Random-6x6",
    "FourRooms", "LavaCrossingS11N5", "LavaCrossingS9N1", "LavaCrossingS9N2", "LavaCrossingS9N3",
    "LavaGapS5", "LavaGapS6", "LavaGapS7", "LockedRoom", "MultiRoom-N2-S4", "MultiRoom-N4-S5",
    "MultiRoom-N6", "SimpleCrossingS11N5", "SimpleCrossingS9N1", "SimpleCrossingS9N2",
    "SimpleCrossingS9N3",
)  # fmt: skip
"""MiniGrid's names of the worlds."""

VERSIONS = {"MultiRoom-N4-S5": 1}
"""Versions other than 0."""


def _env_id(name: str) -> str:
    return f"MiniGrid-{name}-v{VERSIONS.get(name, 0)}"


def make_world(name: str, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """The environment of a world."""
    need("minigrid", "babyai")
    env = gym.make(_env_id(name), render_mode=render_mode, disable_env_checker=True)
    return BabyAIEnv(env.unwrapped)


def world_id(name: str) -> str:
    """``LavaCrossingS9N1`` to ``minigrid-lava-crossing-s9n1``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name)
    return f"minigrid-{words.lower()}"


SUITE = Suite(
    "minigrid",
    tuple(
        Task(
            id=world_id(name),
            suite="minigrid",
            env_id=_env_id(name),
            max_episode_steps=None,
            options=OPTIONS,
            factory=partial(make_world, name),
            extra="babyai",
            description=f"MiniGrid {name}: reach the green square of a grid world",
            observation="7×7 grid, text",
            action="1 of 7",
        )
        for name in WORLDS
    ),
    title="MiniGrid",
    simulators=("minigrid",),
    expert="policies.experts.minigrid:make_planner",
    expert_kind="planner",
    references="benchmarks:references/minigrid.json",
    unit_episodes=64,
    navigation=True,
)
