"""Suites whose simulators are extras: without them, and with a stand-in of EnvPool."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from gato_gym.tasks import MissingPackageError, Suite, register_suite
from gato_gym.tasks.procgen import SUITE as PROCGEN
from gato_gym.tasks.robotics import SUITE as ROBOTICS
from gato_gym.tasks.sokoban import SUITE as SOKOBAN

for each in (PROCGEN, ROBOTICS, SOKOBAN):
    register_suite(each)


@pytest.mark.parametrize(
    ("suite", "package", "extra", "count"),
    [
        (PROCGEN, "envpool", "envpool", 16),
        (ROBOTICS, "gymnasium_robotics", "robotics", 4),
        (SOKOBAN, "envpool", "envpool", 1),
    ],
    ids=lambda value: value.name if isinstance(value, Suite) else "",
)
def test_without_its_simulator_a_suite_is_listed_and_names_the_command(
    suite: Suite, package: str, extra: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert len({task.env_id for task in suite.tasks}) == count
    with pytest.raises(MissingPackageError, match=rf'pip install "gato-gym\[{extra}\]"'):
        suite.tasks[0].make()


class Pool:
    """Stands in for a pool of one environment: three steps, and pixels that the seed decides."""

    def __init__(self, env_id: str, *, num_envs: int, seed: int, **options: Any) -> None:
        assert num_envs == 1
        self.options, self._seed, self._step = options, seed, 0
        self._sokoban = env_id == SOKOBAN.tasks[0].env_id
        image = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        grid = spaces.Dict(
            grid=spaces.Box(0, 4, (10, 10, 2), np.uint8), step_count=spaces.Discrete(9)
        )
        self.observation_space: Any = grid if self._sokoban else image
        self.action_space = spaces.Discrete(15)

    def _returned(self) -> tuple[Any, dict[str, Any]]:
        info: dict[str, Any] = {"env_id": np.zeros(1), "players": {}, "level_seed": np.zeros(1)}
        if not self._sokoban:
            return np.full((1, 64, 64, 3), (self._seed + self._step) % 256, np.uint8), info
        grid = np.zeros((1, 10, 10, 2), np.uint8)
        grid[0, 0, 0], grid[0, 0, 1], grid[0, 0, 2], grid[0, 0, 3] = (0, 1), (3, 0), (4, 0), (4, 2)
        seen = {"grid": grid, "step_count": np.array([self._step], np.int32)}
        return seen, info | {"solved": np.array([self._step == 3])}

    def reset(self) -> tuple[Any, dict[str, Any]]:
        return self._returned()

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert actions.shape == (1,)
        self._step += 1
        observations, infos = self._returned()
        ended = np.array([self._step == 3])
        return observations, actions.astype(np.float32), ended, ~ended, infos


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    """The pools that are made."""
    made: list[Pool] = []

    def make(env_id: str, **options: Any) -> Pool:
        made.append(Pool(env_id, **options))
        return made[-1]

    module = SimpleNamespace(make_gymnasium=make, __file__="/there/envpool/__init__.py")
    monkeypatch.setitem(sys.modules, "envpool", module)
    return made


def test_a_seed_alone_decides_an_episode_of_envpool(pools: list[Pool]) -> None:
    env = PROCGEN.tasks[0].make(render_mode="rgb_array").unwrapped
    first, info = env.reset(seed=2**40)
    assert first in env.observation_space
    assert info == {"level_seed": 0}
    observation, reward, terminated, truncated, _ = env.step(np.int64(7))
    assert (reward, terminated, truncated) == (7.0, False, True)
    assert (observation == (int(first[0, 0, 0]) + 1) % 256).all()
    np.testing.assert_array_equal(env.render(), observation)
    later = [int(env.reset()[0][0, 0, 0]) for _ in range(4)]
    assert len(set(later)) > 1, "without a seed, other levels follow"
    np.testing.assert_array_equal(env.reset(seed=2**40)[0], first)
    assert later == [int(env.reset()[0][0, 0, 0]) for _ in range(4)]
    assert pools[-1].options == {"channel_first": False, "num_threads": 1}


def test_sokoban_has_all_levels_and_says_what_is_solved(pools: list[Pool]) -> None:
    env = SOKOBAN.tasks[0].make(render_mode="rgb_array")
    observation, _ = env.reset(seed=1)
    assert pools[-1].options["base_path"] == "/there/envpool"
    assert observation in env.observation_space
    assert [env.step(0)[4]["success"] for _ in range(3)] == [False, False, True]
    frame: Any = env.render()
    assert frame.shape == (160, 160, 3)
    wall, agent, box, placed, floor = (tuple(frame[8, 8 + 16 * column]) for column in range(5))
    assert len({wall, agent, box, placed, floor}) == 5
    assert floor == tuple(frame[100, 100])


def test_a_library_that_the_system_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ImportError("install the Qt5 Core/Gui shared libraries")

    monkeypatch.setitem(sys.modules, "envpool", SimpleNamespace(make_gymnasium=fails))
    with pytest.raises(MissingPackageError, match="cannot make BigfishHard-v0: install the Qt5"):
        PROCGEN.tasks[0].make()


def test_the_real_envpool_draws_levels_by_the_seed() -> None:
    pytest.importorskip("envpool")
    env = SOKOBAN.tasks[0].make()
    levels = [env.reset(seed=seed)[0]["grid"] for seed in (1, 2, 1)]
    assert (levels[0] == levels[2]).all()
    assert (levels[0] != levels[1]).any()
    for grid in levels:
        assert (grid[..., 0] == 4).sum() == (grid[..., 1] == 2).sum() == 4, "boxes and targets"
