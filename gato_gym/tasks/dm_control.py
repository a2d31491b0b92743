"""dm_control: the 28 tasks of the suite's benchmarking set, through shimmy (arXiv 1801.00690).

* :data:`SUITE` -- the 28 tasks: 1000 steps, rewards in [0, 1] as dm_control gives them.
* :class:`DMControlEnv` -- one of them, its observation one vector.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import partial
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.options import PlanOptions
from gato_gym.tasks.suite import MEASURED, Suite
from gato_gym.tasks.task import Task, need, vector_of

BENCHMARKING = {
    ("acrobot", "swingup"): (6, 1),
    ("acrobot", "swingup_sparse"): (6, 1),
    ("ball_in_cup", "catch"): (8, 2),
    ("cartpole", "balance"): (5, 1),
    ("cartpole", "balance_sparse"): (5, 1),
    ("cartpole", "swingup"): (5, 1),
    ("cartpole", "swingup_sparse"): (5, 1),
    ("cheetah", "run"): (17, 6),
    ("finger", "spin"): (9, 2),
    ("finger", "turn_easy"): (12, 2),
    ("finger", "turn_hard"): (12, 2),
    ("fish", "swim"): (24, 5),
    ("fish", "upright"): (21, 5),
    ("hopper", "hop"): (15, 4),
    ("hopper", "stand"): (15, 4),
    ("humanoid", "run"): (67, 21),
    ("humanoid", "stand"): (67, 21),
    ("humanoid", "walk"): (67, 21),
    ("manipulator", "bring_ball"): (44, 5),
    ("pendulum", "swingup"): (3, 1),
    ("point_mass", "easy"): (4, 2),
    ("reacher", "easy"): (6, 2),
    ("reacher", "hard"): (6, 2),
    ("swimmer", "swimmer15"): (61, 14),
    ("swimmer", "swimmer6"): (25, 5),
    ("walker", "run"): (24, 6),
    ("walker", "stand"): (24, 6),
    ("walker", "walk"): (24, 6),
}
"""Domain and task of ``dm_control.suite.BENCHMARKING``, sorted: numbers of an observation and of an
action."""

STEPS = 1000
OPTIONS = PlanOptions(memory="none")
"""With room for the whole vector in one token."""


class DMControlEnv(gym.Wrapper[Any, Any, Any, Any]):
    """A dm_control task whose observation is one vector and whose actions are float32.

    The parts of dm_control's observation are flattened and joined by sorted name. A seed makes a
    new random state, and the simulator starts from its initial state, so that the seed alone
    determines an episode. Without a seed, the random state continues.

    Args:
        env: shimmy's environment of the task.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        parts, box = env.observation_space, env.action_space
        assert isinstance(parts, spaces.Dict)
        assert isinstance(box, spaces.Box)
        self._names = sorted(parts.spaces)
        size = sum(math.prod(parts[name].shape or ()) for name in self._names)
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.action_space = spaces.Box(
            box.low.astype(np.float32), box.high.astype(np.float32), box.shape, np.float32
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Start an episode; seeds are reduced to the 32 bits that dm_control accepts."""
        if seed is not None:
            seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        observation, _ = self.env.reset(seed=seed, options=options)
        return self._join(observation), {}

    def step(
        self, action: Any
    ) -> tuple[NDArray[np.float64], SupportsFloat, bool, bool, dict[str, Any]]:
        """One step; the action is clipped to the Box. The TimeLimit wrapper truncates."""
        box = self.action_space
        assert isinstance(box, spaces.Box)
        clipped = np.clip(np.asarray(action, np.float64), box.low, box.high)
        observation, reward, terminated, truncated, _ = self.env.step(clipped)
        return self._join(observation), float(reward), terminated, truncated, {}

    def _join(self, observation: dict[str, Any]) -> NDArray[np.float64]:
        return np.concatenate([np.ravel(observation[name]) for name in self._names])


def make_dm_control(domain: str, name: str, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """The environment of a task, such as ``cheetah`` ``run``."""
    with warnings.catch_warnings():  # glfw warns at import where there is no display
        warnings.simplefilter("ignore")
        suite = need("dm_control.suite", "dm_control")
        wrapper = need("shimmy.dm_control_compatibility", "dm_control").DmControlCompatibilityV0
    return DMControlEnv(wrapper(suite.load(domain, name), render_mode=render_mode))


def _tasks() -> list[Task]:
    """The 28 tasks."""
    return [
        Task(
            id=f"dm_control-{domain}-{name}",
            suite="dm_control",
            env_id=f"dm_control/{domain}-{name}-v0",
            max_episode_steps=STEPS,
            options=replace(OPTIONS, vector_size=max(OPTIONS.vector_size, numbers)),
            extra="dm_control",
            description=f"dm_control {domain} {name}: a vector of joint states, {STEPS} steps",
            factory=partial(make_dm_control, domain, name),
            observation=vector_of(numbers),
            action=vector_of(actions),
        )
        for (domain, name), (numbers, actions) in BENCHMARKING.items()
    ]


SUITE = Suite(
    "dm_control",
    tuple(_tasks()),
    title="DeepMind Control",
    simulators=("dm_control", "mujoco", "shimmy"),
    recipes="policies.expert_training.recipes:RECIPES",
    references=MEASURED,
    rules={"max_episode_steps": STEPS},
    unit_episodes=4,
)
