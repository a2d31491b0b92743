"""What the comparison with EnvPool says of stand-ins whose differences are known."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.studies.envpool import PAIRS, Comparison, by_seed, compared
from gato_gym.tasks import get_task

PENDULUM = next(pair for pair in PAIRS if pair.task == "mujoco-pendulum")


class Pool:
    """Plays the reference itself from other starts; ``offset`` is added to later observations."""

    def __init__(self, seed: int, rows: int, offset: float, bonus: float, limit: int) -> None:
        self._envs = [get_task(PENDULUM.task).make() for _ in range(rows)]
        self.single_action_space = self._envs[0].action_space
        self._seed, self._offset, self._bonus, self._limit = seed + 77, offset, bonus, limit
        self._step = 0

    def reset(self) -> tuple[Any, dict[str, Any]]:
        starts = [env.reset(seed=self._seed + row)[0] for row, env in enumerate(self._envs)]
        return np.array(starts), {"env_id": np.arange(len(starts)), "players": {}}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._step += 1
        steps = [env.step(action) for env, action in zip(self._envs, actions, strict=True)]
        observations, rewards, terminated, truncated, _ = map(np.array, zip(*steps, strict=True))
        seen, ended = observations + self._offset, truncated | (self._step >= self._limit)
        return seen, np.float32(rewards + self._bonus), terminated, ended, {}

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("offset", "bonus", "limit", "row"),
    [
        (0.0, 0.0, 10**6, "differ | equal | equal | equal"),
        (0.5, 0.0, 10**6, "differ | up to 0.5 | equal | equal"),
        (0.0, 0.25, 10**6, "differ | equal | up to 0.2 | equal"),
        (0.0, 0.0, 1, "differ | equal | equal | differ"),
    ],
)
def test_differences_are_reported(
    offset: float, bonus: float, limit: int, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(env_id: str, *, num_envs: int, seed: int, num_threads: int) -> Pool:
        assert env_id == "InvertedPendulum-v5"
        return Pool(seed, num_envs, offset, bonus, limit)

    monkeypatch.setitem(sys.modules, "envpool", SimpleNamespace(make_gymnasium=make))
    found = compared(PENDULUM, seeds=2, steps=20)
    assert found.row().startswith(f"| mujoco-pendulum | {row} | ")


def test_frames_from_before_the_start_are_told_apart_from_play() -> None:
    nothing = np.zeros(20)
    stacks = Comparison("atari-pong", False, np.eye(20)[0] * 9, nothing, True, (1.0, 2.0))
    assert "| differ | equal from step 3 on | equal | equal | 1 | 2 |" in stacks.row()
    apart = Comparison("babyai-open", False, None, nothing, True, (1.0, 2.0))
    assert "| differ | no start in common | – | – | 1 | 2 |" in apart.row()


def test_a_start_is_looked_for_by_its_numbers_whatever_their_type() -> None:
    env = get_task("babyai-go-to-obj").make()
    first, _ = env.reset(seed=7)
    narrow = {**first, "direction": np.int32(first["direction"])}
    assert any(start["mission"] == first["mission"] for start in by_seed(env, narrow, {}))
    other = {**narrow, "image": np.full_like(first["image"], 99)}
    assert not list(by_seed(env, other, {}))
