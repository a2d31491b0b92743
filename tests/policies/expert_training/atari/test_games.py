"""Games as a training sees them: the task's own frames, the sign of rewards, and whole returns."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ale_py")

from gato_gym.tasks.atari import AtariEnv
from policies.expert_training.atari.games import KEPT_RETURNS, TrainingGames, pixel_statistics
from policies.experts.cnn import halved


def test_a_training_shows_what_the_task_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same frames, halved, and, but for their sign, rewards as the task's environment."""
    monkeypatch.setattr("gato_gym.tasks.atari._ale_seed", lambda seed: seed)
    training, task = TrainingGames("Breakout", 1), AtariEnv("Breakout")
    first, other = training.reset(5), task.reset(seed=5)[0]
    np.testing.assert_array_equal(first[0], halved(other))
    generator = np.random.default_rng(0)
    lost = rewarded = 0
    total, lives, terminated = 0.0, 5, False
    while not terminated:
        action = int(generator.integers(4))
        step = training.step(np.array([action]))
        seen, reward, terminated, _, info = task.step(action)
        total += float(reward)
        assert step.rewards[0] == np.sign(reward)
        rewarded += int(reward > 0)
        assert bool(step.ended[0]) == (info["lives"] < lives)
        lost += int(step.ended[0])
        lives = info["lives"]
        # once it is over, another game has begun
        assert np.array_equal(step.frames[0], halved(seen)) != terminated
    assert lost == 5
    assert rewarded > 0
    assert list(training.finished) == [total]


def test_actions_that_last_add_their_rewards_up_to_an_end() -> None:
    once, lasting = TrainingGames("Breakout", 2), TrainingGames("Breakout", 2, repeat=4)
    for games in (once, lasting):
        assert games.reset(5).shape == (2, 4, 42, 42)
    generator, ends, rewarded = np.random.default_rng(0), 0, 0.0
    for _ in range(150):
        actions = generator.integers(4, size=2)
        expected, over = np.zeros(2, np.float32), np.zeros(2, np.bool_)
        for _ in range(4):
            step = once.step(actions)
            expected += step.rewards * ~over
            over |= step.ended
        lasted = lasting.step(actions)
        np.testing.assert_array_equal(lasted.frames, step.frames)
        np.testing.assert_array_equal(lasted.rewards, expected)
        np.testing.assert_array_equal(lasted.ended, over)
        ends, rewarded = ends + int(over.sum()), rewarded + float(expected.sum())
    assert ends > 2
    assert rewarded > 0
    assert once.finished == lasting.finished
    assert once.finished.maxlen == KEPT_RETURNS


def test_pixels_are_scaled_by_how_much_they_move() -> None:
    """Pong's walls never move, and have the largest scale; its paddles' columns do."""
    mean, scale = pixel_statistics(TrainingGames("Pong", 4), seed=0)
    assert mean.shape == scale.shape == (42, 42)
    assert 0 <= float(mean.min()) <= float(mean.max()) <= 1
    assert float(scale.max()) == pytest.approx(50, rel=1e-3)
    assert float(scale.median()) == pytest.approx(50, rel=1e-3)
    columns = scale[8:38].median(0).values
    assert sorted(int(column) for column in columns.argsort()[:2]) == [4, 37]
