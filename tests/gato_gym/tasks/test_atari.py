"""Atari: one game alone and many at once are the same, and are what ALE's emulator plays."""

from __future__ import annotations

import re
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from gato_gym import compile_plan
from gato_gym.tasks import MissingPackageError, get_task, list_tasks
from gato_gym.tasks import atari as games


def shrunk(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """A frame as 84 x 84, each number the mean of the area it covers."""

    def weights(size: int) -> NDArray[np.float64]:
        edges = np.linspace(0, size, 85)
        pixels = np.arange(size)
        low = np.maximum(edges[:-1, None], pixels)
        high = np.minimum(edges[1:, None], pixels + 1)
        return np.maximum(high - low, 0) * 84 / size

    return weights(frame.shape[0]) @ frame.astype(np.float64) @ weights(frame.shape[1]).T


@pytest.mark.parametrize("game", ["Breakout", "SpaceInvaders"])
def test_frames_and_rewards_against_the_emulator(
    game: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four frames an action, two pooled, shrunk, stacked; every reward of the game counted."""
    import ale_py

    monkeypatch.setattr(games, "IDLE_FRAMES", 0)
    env = games.AtariEnv(game)
    observation, info = env.reset(seed=3)
    ale = ale_py.ALEInterface()
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale.setInt("random_seed", games._ale_seed(3))
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(ale_py.roms.get_rom_path({"SpaceInvaders": "space_invaders"}.get(game, "breakout")))
    ale.reset_game()
    actions = ale.getMinimalActionSet()
    assert len(actions) == env.action_space.n
    assert info["lives"] == ale.lives()
    frames, generator = (
        [np.zeros((84, 84))] * 3 + [shrunk(ale.getScreenGrayscale())],
        np.random.default_rng(0),
    )
    returned = played = 0.0
    terminated, steps = False, 0
    while not terminated and steps < 1200:
        np.testing.assert_allclose(observation, np.stack(frames[-4:]), atol=1.01)
        action = int(generator.integers(env.action_space.n))
        observation, reward, terminated, truncated, info = env.step(action)
        returned, steps = returned + reward, steps + 1
        screens = []
        for _ in range(4):
            if not ale.game_over():
                played += ale.act(actions[action])
            screens.append(ale.getScreenGrayscale())
        frames.append(shrunk(np.maximum(screens[-1], screens[-2])))
        assert not truncated
        assert terminated == ale.game_over()
        assert info["lives"] == ale.lives()
    assert terminated
    assert returned == played >= 1


def test_one_game_and_many_at_once() -> None:
    """Frames, rewards, ends and returns of the same seeds and actions."""
    seeds, steps = [11, 12, 13], 300
    actions = np.random.default_rng(1).integers(4, size=(steps, 3))
    many = games.AtariVectorEnv("Breakout", 3, threads=2)
    ones = [games.AtariEnv("Breakout") for _ in seeds]
    observations, info = many.reset(seed=seeds)
    over = np.zeros(3, np.bool_)
    alone = [env.reset(seed=seed) for env, seed in zip(ones, seeds, strict=True)]
    assert [outcome["lives"] for _, outcome in alone] == list(info["lives"])
    np.testing.assert_array_equal(observations, [outcome[0] for outcome in alone])
    returns, ends = np.zeros((2, 3)), 0
    for step in range(steps):
        observations, rewards, terminated, truncated, _ = many.step(actions[step])
        for row, env in enumerate(ones):
            if over[row]:  # a new game, and an action that is not played
                expected: tuple[Any, ...] = (env.reset()[0], 0.0, False, False)
            else:
                expected = env.step(actions[step, row])[:4]
            np.testing.assert_array_equal(observations[row], expected[0])
            outcome = rewards[row], terminated[row], truncated[row]
            assert outcome == expected[1:]
            returns[:, row] += rewards[row], expected[1]
        over = terminated | truncated
        ends += int(over.sum())
    assert ends >= 3
    np.testing.assert_array_equal(*returns)
    assert returns.sum() > 0


def test_a_seed_alone_decides_a_game() -> None:
    def play(env: gym.Env[Any, Any], seed: int) -> Any:
        seen = [env.reset(seed=seed)[0]]
        return np.array(seen + [env.step(step % 6)[0] for step in range(30)])

    env, other = get_task("atari-pong").make(), get_task("atari-pong").make()
    expected = play(env, 2**40)
    assert not np.array_equal(expected, play(other, 5))
    other.reset()
    np.testing.assert_array_equal(play(other, 2**40), expected)
    starts = [[env.reset(seed=9)[0], env.reset()[0], env.reset()[0]] for _ in range(2)]
    np.testing.assert_array_equal(*starts)


def test_half_an_hour_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert games.FRAMES == 30 * 60 * 60
    monkeypatch.setattr(games, "FRAMES", 80)
    monkeypatch.setattr(games, "IDLE_FRAMES", 0)
    env = games.AtariEnv("Pong")
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(20)]
    assert ends == [(False, False)] * 19 + [(False, True)]


def test_sticky_actions_are_a_choice() -> None:
    def play(sticky: float) -> Any:
        env = games.AtariEnv("Breakout", sticky=sticky)
        env.reset(seed=1)
        return np.array([env.step(2 + step % 2)[0] for step in range(40)])

    assert not np.array_equal(play(0.25), play(0.0))


def test_the_57_games() -> None:
    from ale_py.roms import get_rom_path

    tasks = list_tasks("atari")
    assert len(tasks) == 57
    for game in games.GAMES:
        assert get_rom_path(re.sub(r"(?<!^)(?=[A-Z])", "_", game).lower()).is_file()
    for task in tasks[::6]:
        env = task.make()
        assert env.observation_space == gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
        assert task.action == f"1 of {env.action_space.n}"  # type: ignore[attr-defined]
        env.close()


def test_a_stack_of_frames_is_one_token() -> None:
    task = get_task("atari-pong")
    env = task.make()
    plan = compile_plan(env.observation_space, env.action_space, task.options)
    observation, _ = env.reset(seed=0)
    (image,) = plan.encode(observation).images
    means = observation.reshape(4, 42, 2, 42, 2).mean((2, 4))  # of each two by two pixels
    assert plan.num_tokens == 1
    np.testing.assert_array_equal(image, np.floor(means + 0.5).transpose(1, 2, 0))


def test_rendering_and_wrong_seeds() -> None:
    env = games.AtariEnv("Pong", render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    frame = env.render()
    assert frame is not None
    assert frame.shape == (84, 84, 3)
    np.testing.assert_array_equal(frame[..., 0], observation[-1])
    with pytest.raises(ValueError, match="expected 2 numbers"):
        games.AtariVectorEnv("Pong", 2, threads=1).reset(seed=[1])


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py.vector_env", None)
    with pytest.raises(MissingPackageError, match=r'pip install "gato-gym\[atari\]"'):
        get_task("atari-pong").make()
