"""What all tests share.

One torch thread, so that tests run side by side; helpers importable by name; Ctrl-C works. And a
task small enough to know every return by heart, with a policy that betrays a mixed-up row.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from rich.console import Console

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started in the background, where POSIX ignores it; what a test starts and stops inherits that
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(Path(__file__).with_name("helpers")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need a GPU where there is none."""
    if torch.cuda.is_available():
        return
    left_out = [item for item in items if item.get_closest_marker("gpu")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


class CountingEnv(gym.Env[dict[str, Any], int]):
    """Shows its seed, a clock and an instruction; pays for the action that fits all three.

    An episode lasts ``1 + seed % 7`` timesteps. Every timestep pays ``(seed + clock) % 5`` for
    the action ``(seed + clock + len(words)) % 4`` and nothing otherwise.
    """

    observation_space = spaces.Dict(
        {
            "numbers": spaces.Box(0, 2**31 - 1, (2,), np.int64),
            "words": spaces.Text(max_length=32, charset="abcdefghij"),
        }
    )
    action_space = spaces.Discrete(4)

    def __init__(self) -> None:
        self.over = True
        self.resets = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        assert seed is not None
        self.seed_, self.clock, self.over = seed, 0, False
        self.words = "abcdefghij"[: 1 + seed % 10]
        self.resets += 1
        return self._observation(), {}

    def step(self, action: int) -> Any:
        assert not self.over, "stepped after the episode's end"
        right = (self.seed_ + self.clock + len(self.words)) % 4
        reward = float((self.seed_ + self.clock) % 5) if action == right else 0.0
        self.clock += 1
        self.over = self.clock >= 1 + self.seed_ % 7
        return self._observation(), reward, self.over, False, {"success": self.clock == 3}

    def _observation(self) -> dict[str, Any]:
        return {"numbers": np.array([self.seed_, self.clock]), "words": self.words}


def right_return(seed: int) -> float:
    """The return of an episode whose every action is right."""
    return float(sum((seed + clock) % 5 for clock in range(1 + seed % 7)))


@dataclass(frozen=True)
class StubTask:
    """Has what the benchmark uses of a task."""

    id: str = "babyai-stub"
    suite: str = "babyai"
    env_id: str = "Counting-v0"
    max_episode_steps: int | None = 7
    envs: list[CountingEnv] = field(default_factory=list, compare=False)

    def make(self) -> CountingEnv:
        self.envs.append(CountingEnv())
        return self.envs[-1]


class RememberingPolicy:
    """Right only when each row's state, episode start and words are its own.

    Its clock and the words it goes by come from its state, which it fills at episode starts.
    """

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        numbers, words = observation["numbers"], observation["words"]
        rows = len(numbers)
        self.batches.append(rows)
        clocks, lengths = state if state is not None else (np.zeros(rows, int), np.zeros(rows, int))
        assert episode_start is not None
        assert episode_start.shape == (rows,)
        assert state is not None or episode_start.all()
        clocks = np.where(episode_start, 0, clocks)
        lengths = np.where(episode_start, [len(text) for text in words], lengths)
        actions = (numbers[:, 0] + clocks + lengths) % 4
        return actions, (clocks + 1, lengths)


@pytest.fixture
def task() -> StubTask:
    """A task of :class:`CountingEnv`; ``task.envs`` lists the environments made of it."""
    return StubTask()


@pytest.fixture
def policy() -> RememberingPolicy:
    """A policy that is right at every timestep; ``policy.batches`` lists its batch sizes."""
    return RememberingPolicy()


@pytest.fixture(name="right_return")
def _right_return() -> Callable[[int], float]:
    return right_return


@pytest.fixture
def quiet() -> Console:
    """A console that nobody reads."""
    return Console(file=io.StringIO(), force_terminal=False)
