"""Meta-World: the 50 tasks of MT50 v3, a robot arm and a 39-number state (arXiv 1910.10897).

* :data:`SUITE` -- the 50 tasks: 500 steps, the goal visible.
* :class:`MetaWorldEnv` -- one of them; its seed alone decides an episode.
"""

from __future__ import annotations

from functools import partial
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gato_gym.options import PlanOptions
from gato_gym.tasks.suite import MEASURED, Suite
from gato_gym.tasks.task import Task, need, vector_of

NAMES = (
    "assembly", "basketball", "bin-picking", "box-close", "button-press", "button-press-topdown",
    "button-press-topdown-wall", "button-press-wall", "coffee-button", "coffee-pull",
    "coffee-push", "dial-turn", "disassemble", "door-close", "door-lock", "door-open",
    "door-unlock", "drawer-close", "drawer-open", "faucet-close", "faucet-open", "hammer",
    "hand-insert", "handle-press", "handle-press-side", "handle-pull", "handle-pull-side",
    "lever-pull", "peg-insert-side", "peg-unplug-side", "pick-out-of-hole", "pick-place",
    "pick-place-wall", "plate-slide", "plate-slide-back", "plate-slide-back-side",
    "plate-slide-side", "push", "push-back", "push-wall", "reach", "reach-wall", "shelf-place",
    "soccer", "stick-pull", "stick-push", "sweep", "sweep-into", "window-close", "window-open",
)  # fmt: skip

STEPS = 500
CAMERA = {
    "azimuth": 155.0,
    "elevation": -30.0,
    "distance": 1.55,
    "lookat": np.array([0.0, 0.62, 0.16]),
}
"""Where frames are rendered from: the robot's right, with gripper and object in front. Of
Meta-World's own cameras some are upside down, and the default one has the arm before the object."""

OPTIONS = PlanOptions(memory="none")


class MetaWorldEnv(gym.Wrapper[Any, Any, Any, Any]):
    """A Meta-World task with Gymnasium's seeding and float32 actions and observations.

    Args:
        env: Meta-World's goal-observable environment.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        inner = env.observation_space
        assert isinstance(inner, spaces.Box)
        self.observation_space = spaces.Box(-np.inf, np.inf, inner.shape, np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._generator = np.random.default_rng()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        Goal and objects are drawn from ``seed``, or from a number that the last seed decides; the
        simulator starts from its initial state, so nothing of an earlier episode is left.
        """
        mujoco = need("mujoco", "metaworld")
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        inner: Any = self.env.unwrapped
        mujoco.mj_resetData(inner.model, inner.data)
        inner._did_see_sim_exception = False
        inner._freeze_rand_vec, inner.seeded_rand_vec = False, True
        inner.seed(int(self._generator.integers(2**31)))
        observation, info = self.env.reset()
        return np.asarray(observation, np.float64), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step; ``info["success"]`` is a bool. Truncation is the TimeLimit wrapper's."""
        clipped = np.clip(np.asarray(action, np.float32), -1.0, 1.0)
        observation, reward, terminated, truncated, info = self.env.step(clipped)
        info = {**info, "success": bool(info["success"])}
        return np.asarray(observation, np.float64), float(reward), terminated, truncated, info


def make_metaworld(name: str, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """The environment of a task, such as ``assembly``."""
    need("metaworld", "metaworld")
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

    env_class: Any = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{name}-v3-goal-observable"]
    env = env_class(seed=0, render_mode=render_mode)
    env.mujoco_renderer.default_cam_config = CAMERA
    return MetaWorldEnv(env)


def _tasks() -> list[Task]:
    """The 50 tasks."""
    return [
        Task(
            id=f"metaworld-{name}",
            suite="metaworld",
            env_id=f"{name}-v3",
            max_episode_steps=STEPS,
            options=OPTIONS,
            extra="metaworld",
            description=f"Meta-World {name}-v3: a robot arm, goal visible, {STEPS} steps",
            factory=partial(make_metaworld, name),
            observation=vector_of(39),
            action=vector_of(4),
        )
        for name in NAMES
    ]


SUITE = Suite(
    "metaworld",
    tuple(_tasks()),
    title="Meta-World",
    simulators=("metaworld", "mujoco"),
    expert="policies.experts.metaworld:make_script",
    expert_kind="script",
    references=MEASURED,
    rules={"max_episode_steps": STEPS, "goal_visible": True, "success_ends_episode": False},
    unit_episodes=8,
)
