"""Small networks and spaces for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from recorded import make_shard

from gato_gym import Plan, PlanOptions, compile_plan
from policies.model.config import NetworkConfig
from policies.model.network import GatoNetwork
from policies.training.data.shards import TaskShard

SMALL = NetworkConfig(
    width=32, layers=2, heads=2, head_size=16, feed_forward=32, window=64, prompt_tokens=16,
    text_rank=8, vector_hidden=16, grid_channels=8, grid_groups=2, vector_size=16,
)  # fmt: skip
INSTRUCTED = dataclasses.replace(SMALL, grid_words=2)
"""The same, whose grids attend to the words of an instruction."""

TALKING = spaces.Dict(state=spaces.Box(-1, 1, (3,), np.float32), words=spaces.Text(30))
STATE = spaces.Box(-1, 1, (3,), np.float32)
WORDS = ("go left", "go right", "stay where you are")


def without_zeros(network: GatoNetwork) -> GatoNetwork:
    """The network; what starts as zero, and so changes nothing, has random numbers."""
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return network


def talking_plan(memory: str = "observations") -> Plan:
    """A plan with text, a vector and five actions."""
    options = PlanOptions(memory=memory, text_refresh=8, vector_size=16)
    return compile_plan(TALKING, spaces.Discrete(5), options)


def state_plan(memory: str = "none") -> Plan:
    """A plan with a vector and two continuous actions."""
    options = PlanOptions(memory=memory, vector_size=16)
    return compile_plan(STATE, spaces.Box(-1, 1, (2,), np.float32), options)


def random_shard(plan: Plan, task: str, *, episodes: int = 6, seed: int = 0) -> TaskShard:
    """A shard of random episodes of 5 to 30 steps; a state's first number is its episode's."""
    generator = np.random.default_rng(seed)
    recorded = []
    for number in range(episodes):
        length = int(generator.integers(5, 31))
        observations = []
        for _ in range(length):
            state = generator.uniform(-1, 1, 3).astype(np.float32)
            state[0] = number / episodes
            talks = isinstance(plan.observation_space, spaces.Dict)
            words = WORDS[number % len(WORDS)]
            observations.append({"state": state, "words": words} if talks else state)
        ranges = plan.action_ranges
        ids = generator.integers(ranges[:, 0], ranges[:, 1], (length, len(ranges)))
        recorded.append((observations, ids))
    return make_shard(plan, recorded, task)


class Talker(gym.Env[Any, Any]):
    """Seven-step episodes whose text the seed decides."""

    observation_space = TALKING
    action_space = spaces.Discrete(5)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.words = WORDS[int(self.np_random.integers(3))]
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._observe(), float(action), self.steps == 7, False, {}

    def _observe(self) -> dict[str, Any]:
        state = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return {"state": state, "words": self.words}
