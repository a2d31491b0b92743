"""A game in which the action is the reward, and episodes of it of every quality, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gato_gym import Episode, write_minari

STEPS = 4


class Rewarded(gym.Env[Any, Any]):
    """Four steps; a step's reward is its action: a choice of 0 or 1, or a number of -1 to 1."""

    def __init__(self, *, continuous: bool = False) -> None:
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32)
        self.action_space: Any = spaces.Discrete(2)
        if continuous:
            self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._observe(), float(np.sum(action)), self.steps == STEPS, False, {}

    def _observe(self) -> Any:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


def episode(action: float, *, continuous: bool = False, seed: int = 0) -> Episode:
    """An episode that always takes one action."""
    generator = np.random.default_rng(seed)
    actions = np.full((STEPS, 1) if continuous else STEPS, action)
    return Episode(
        task="rewarded",
        observations=generator.uniform(-1, 1, (STEPS + 1, 3)).astype(np.float32),
        actions=actions.astype(np.float32 if continuous else np.int64),
        rewards=np.full(STEPS, action, np.float32),
        terminations=np.arange(STEPS) == STEPS - 1,
        truncations=np.zeros(STEPS, bool),
        seed=seed,
    )


def write_rewarded(root: Path, *, continuous: bool = False, episodes: int = 24) -> str:
    """The path of a dataset of which half the episodes return nothing, or -4 of 4."""
    worst = -1.0 if continuous else 0.0
    recorded = [
        episode(1.0 if number % 2 else worst, continuous=continuous, seed=number)
        for number in range(episodes)
    ]
    write_minari("test/rewarded-v0", recorded, env=Rewarded(continuous=continuous), root=root)
    return str(root / "test" / "rewarded-v0")
