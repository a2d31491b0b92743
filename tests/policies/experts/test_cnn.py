"""Experts that see images: what is computed, stored and refused, and how they are trained."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from rich.console import Console

from gato_gym.tasks import get_task
from gato_gym.tasks.atari import AtariEnv
from policies.expert_training.sb3.algorithms import make_algorithm
from policies.expert_training.atari.recipes import GAMES
from policies.expert_training.atari_vec_env import AtariVecEnv
from policies.expert_training.sb3.convert import network_of
from policies.expert_training.evaluation import evaluate
from policies.expert_training.trainer import TrainSettings, _Training, train
from policies.experts import load_trained
from policies.experts.cnn import ImageExpert, ImageNetwork, halved
from policies.experts.mlp import ExpertError
from policies.experts.store import load_expert, network_from, play_with, save_expert

TASK = "atari-pong"
SEEN = spaces.Box(0, 255, (4, 84, 84), np.uint8)
TINY = dataclasses.replace(
    GAMES[TASK], steps=64, num_envs=2, n_steps=16, batch_size=32, n_epochs=1, width=8,
    evaluations=1, evaluation_episodes=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def algorithm() -> Any:
    return make_algorithm(TINY, get_task(TASK).make, seed=0)


@pytest.fixture(scope="module")
def frames() -> Any:
    return np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84)).astype(np.uint8)


def test_the_network_computes_what_pytorch_does(algorithm: Any, frames: Any) -> None:
    network = network_of(algorithm)
    assert isinstance(network, ImageNetwork)
    assert network.strides == (3, 2)
    with torch.no_grad():
        expected = algorithm.policy.get_distribution(
            torch.from_numpy(halved(frames))
        ).distribution.logits
    found = torch.from_numpy(np.stack([network.forward(row) for row in frames]))
    # float16 weights; Stable-Baselines3 normalises its logits
    torch.testing.assert_close(found.log_softmax(1), expected, atol=2e-3, rtol=0)


def test_rows_are_independent_and_sampling_is_seeded(algorithm: Any, frames: Any) -> None:
    network = network_of(algorithm)
    policy = ImageExpert(network, SEEN, spaces.Discrete(6))
    actions, state = policy.predict(frames)
    for row in range(len(frames)):
        alone, _ = policy.predict(frames[row])
        assert alone == actions[row]
    assert state is not None
    likeliest, _ = policy.predict(frames, deterministic=True)
    np.testing.assert_array_equal(likeliest, [network.forward(row).argmax() for row in frames])
    other = ImageExpert(network, SEEN, spaces.Discrete(6), seed=1)
    draws = [np.array([p.predict(frames)[0] for _ in range(1)]) for p in (policy, other)]
    assert (draws[0] != draws[1]).any()
    with pytest.raises(ValueError, match="state has 5 rows for 2"):
        policy.predict(frames[:2], state)


def test_samples_follow_the_softmax(algorithm: Any, frames: Any) -> None:
    network = network_of(algorithm)
    weight, _ = network.action
    skewed = np.array([2.0, 0.0, 0.0, 0.0, 0.0, -9.0], np.float32)
    network = dataclasses.replace(network, action=(weight * 0, skewed))
    policy = ImageExpert(network, SEEN, spaces.Discrete(6))
    state, counts = None, np.zeros(6)
    rows = np.repeat(frames[:1], 1, 0)
    for _ in range(400):
        actions, state = policy.predict(rows, state)
        counts[actions[0]] += 1
    expected = np.exp(skewed) / np.exp(skewed).sum()
    np.testing.assert_allclose(counts / 400, expected, atol=0.08)


def test_stored_and_read_again_it_is_the_same(algorithm: Any, frames: Any, tmp_path: Path) -> None:
    network = network_of(algorithm)
    save_expert(tmp_path / "expert", network, {"task": TASK})
    again = load_expert(tmp_path / "expert")
    np.testing.assert_array_equal(again.forward(frames[0]), network.forward(frames[0]))
    size = (tmp_path / "expert" / "model.safetensors").stat().st_size
    assert size < 100_000
    env = get_task(TASK).make()
    policy = load_trained(TASK, env.observation_space, env.action_space, folder=tmp_path / "expert")
    assert env.action_space.contains(policy.predict(frames[0])[0])


def test_what_does_not_fit_is_refused(algorithm: Any) -> None:
    network = network_of(algorithm)
    for seen, acts in [
        (SEEN, spaces.Discrete(5)),
        (spaces.Box(0, 255, (3, 84, 84), np.uint8), spaces.Discrete(6)),
        (spaces.Box(0, 255, (4, 120, 120), np.uint8), spaces.Discrete(6)),
        (spaces.Box(-1, 1, (4,)), spaces.Discrete(6)),
        (SEEN, spaces.Box(-1, 1, (6,))),
    ]:
        with pytest.raises(ValueError, match="expected images of 4 channels and Discrete"):
            ImageExpert(network, seen, acts)
    tensors = network.tensors()
    with pytest.raises(ExpertError, match="strides are"):
        network_from(tensors, {"strides": [3]})
    with pytest.raises(KeyError):
        network_from({"convolution.0.weight": tensors["convolution.0.weight"]}, {"strides": [4]})
    broken = tensors | {"action.bias": tensors["action.bias"] * np.float32("nan")}
    with pytest.raises(ExpertError, match="not finite"):
        network_from(broken, {"strides": [3, 2]})
    small = tensors | {"pixels.mean": tensors["pixels.mean"][:40]}
    with pytest.raises(ExpertError, match="pixels have means"):
        network_from(small, {"strides": [3, 2]})
    narrow = tensors | {"action.bias": tensors["action.bias"][:3]}
    with pytest.raises(ExpertError, match="action has weight"):
        network_from(narrow, {"strides": [3, 2]})


def test_pixels_are_seen_by_how_much_they_differ(algorithm: Any) -> None:
    """A ball of Pong, faint as halving makes it, is many deviations off; its background is none."""
    network = network_of(algorithm)
    assert isinstance(network, ImageNetwork)
    play = slice(10, 36), slice(8, 34)  # within the walls, and between the paddles
    shown = (network.mean[play] + 0.1 - network.mean[play]) * network.scale[play]
    assert np.median(shown) > 2
    assert network.scale.max() <= 50


class OneFrame(gym.Env[Any, Any]):
    """Games that all begin alike; an action that is wanted has a reward of 1."""

    observation_space, action_space = SEEN, spaces.Discrete(6)

    def __init__(self, frame: Any, wanted: set[int]) -> None:
        self.frame, self.wanted, self.left = frame, wanted, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.left = 20
        return self.frame, {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        return self.frame, float(int(action) in self.wanted), self.left == 0, False, {}


def test_it_samples_where_that_scores_more(algorithm: Any, frames: Any, tmp_path: Path) -> None:
    network = network_of(algorithm)
    assert isinstance(network, ImageNetwork)
    likeliest = int(network.forward(frames[0]).argmax())
    settings = TrainSettings(TASK, tmp_path / "run", TINY)
    for wanted, samples in ({likeliest}, False), (set(range(6)) - {likeliest}, True):
        env = OneFrame(frames[0], wanted)
        quiet = Console(file=io.StringIO())
        training = _Training(lambda env=env: env, TASK, TINY, settings, quiet)  # type: ignore[misc]
        best = training._at_its_best(network)
        assert best.samples is samples
        save_expert(tmp_path / f"{samples}", best, {"task": TASK})
        assert load_expert(tmp_path / f"{samples}").config() == best.config()
        policy = play_with(best, SEEN, spaces.Discrete(6))
        returns = evaluate(policy, env, 5, first_seed=0)
        assert returns == evaluate(policy, env, 5, first_seed=0)
        if samples:  # though they begin alike
            assert len(set(returns)) > 1
        else:
            assert returns == [20.0] * 5


def test_halved_is_the_rounded_mean() -> None:
    frames = np.array([[[0, 1, 255, 255], [0, 1, 255, 254]]], np.uint8)
    assert halved(frames).tolist() == [[[1, 255]]]
    assert halved(frames).dtype == np.uint8


def test_a_training_shows_what_the_task_shows() -> None:
    """The same frames, halved, and, but for their sign, rewards as the task's environment."""
    training = AtariVecEnv("Breakout", 1)
    task = AtariEnv("Breakout")
    training.seed(5)
    training._seed = np.array([_ale_seed(5)])
    first, other = training.reset(), task.reset(seed=5)[0]
    np.testing.assert_array_equal(first[0], halved(other))
    generator = np.random.default_rng(0)
    lost = rewarded = 0
    lives = 5
    for _ in range(600):
        action = int(generator.integers(4))
        observations, rewards, dones, infos = training.step(np.array([action]))
        seen, reward, terminated, _, info = task.step(action)
        assert rewards[0] == np.sign(reward)
        rewarded += int(reward > 0)
        assert bool(dones[0]) == (info["lives"] < lives)
        lost += int(dones[0])
        if dones[0]:
            assert infos[0]["TimeLimit.truncated"] is False
            np.testing.assert_array_equal(infos[0]["terminal_observation"], halved(seen))
        if terminated:
            assert not np.array_equal(observations[0], halved(seen))  # another game has begun
            break
        np.testing.assert_array_equal(observations[0], halved(seen))
        lives = info["lives"]
    assert lost == 5
    assert rewarded > 0


def test_actions_that_last_add_their_rewards_up_to_an_end() -> None:
    once, lasting = AtariVecEnv("Breakout", 2), AtariVecEnv("Breakout", 2, repeat=4)
    for games in (once, lasting):
        games.seed(5)
        np.testing.assert_array_equal(games.reset().shape, (2, 4, 42, 42))
    generator, ends, rewarded = np.random.default_rng(0), 0, 0.0
    for _ in range(150):
        actions = generator.integers(4, size=2)
        expected, over = np.zeros(2, np.float32), np.zeros(2, np.bool_)
        finals: dict[int, Any] = {}
        for _ in range(4):
            observations, rewards, dones, infos = once.step(actions)
            expected += rewards * ~over
            for row in np.flatnonzero(dones & ~over):
                finals[int(row)] = infos[row]["terminal_observation"]
            over |= dones
        found = lasting.step(actions)
        np.testing.assert_array_equal(found[0], observations)
        np.testing.assert_array_equal(found[1], expected)
        np.testing.assert_array_equal(found[2], over)
        for row, shown in finals.items():
            np.testing.assert_array_equal(found[3][row]["terminal_observation"], shown)
        ends, rewarded = ends + int(over.sum()), rewarded + float(expected.sum())
    assert ends > 2
    assert rewarded > 0


def _ale_seed(seed: int) -> int:
    from gato_gym.tasks import atari

    return atari._ale_seed(seed)


def test_a_training_writes_an_expert_and_goes_on(tmp_path: Path) -> None:
    quiet = Console(file=io.StringIO())
    short = dataclasses.replace(TINY, steps=32)
    # chance loses a game of Pong in a thousand steps: one episode to evaluate, one to score
    train(TrainSettings(TASK, tmp_path / "run", short, score_episodes=1), console=quiet)
    state = train(TrainSettings(TASK, tmp_path / "run", TINY, score_episodes=1), console=quiet)
    assert state.steps == 64
    assert len(state.curve) == 2
    assert state.best is not None
    assert -21 <= state.best <= 21
    network = load_expert(tmp_path / "run" / "expert")
    assert isinstance(network, ImageNetwork)
