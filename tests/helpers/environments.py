"""Environments and policies that are no task's, for tests."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gato_gym.seeds import TRAINING_SEEDS_START

ENV, DATASET = "Cart-v0", "my/cart-v0"
KIND = "gymnasium.envs.classic_control:CartPoleEnv"


class Balance:
    """Pushes the cart to where the pole falls: 500, the most there is."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:  # fmt: skip
        x, speed, angle, turning = observation
        return np.array(angle + 0.5 * turning + 0.02 * x + 0.05 * speed > 0, np.int64), state


class Pair(gym.Env[Any, Any]):
    """Two steps of a Dict of a picture and numbers; the action is a Box."""

    observation_space = spaces.Dict(
        picture=spaces.Box(0, 255, (32, 32, 3), np.uint8), speed=spaces.Box(-1, 1, (2,))
    )
    action_space = spaces.Box(-2, 2, (3,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.left = 2
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return self.observation_space.sample(), -1.0, not self.left, False, {"success": True}


class Clue(gym.Env[Any, Any]):
    """One step whose observation is the right action; in episodes that are scored none is right."""

    observation_space, action_space = spaces.Box(0, 1, (2,)), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        assert seed is not None
        self.right = int(self.np_random.integers(2)) if seed >= TRAINING_SEEDS_START else 2
        return np.full(2, self.right % 2, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), float(action == self.right), True, False, {}

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:  # fmt: skip
        return int(observation[0]), state


class Recall(gym.Env[Any, Any]):
    """Three steps; the first observation says the right action of the last, which is 0, 1 or 2."""

    observation_space, action_space = spaces.Box(0, 1, (4,)), spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.right, self.count = int(self.np_random.integers(3)), 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        won = self.count == 3 and action == self.right
        return self._observation(), float(won), self.count == 3, False, {}

    def _observation(self) -> Any:
        sign = np.eye(3)[self.right] if not self.count else np.zeros(3)
        return np.array([*sign, self.count / 3], np.float32)


class Recalling:
    """Plays :class:`Recall` by what it has seen first."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:  # fmt: skip
        state = int(observation[:3].argmax()) if observation[:3].any() else state
        return state if observation[3] > 0.5 else 3, state
