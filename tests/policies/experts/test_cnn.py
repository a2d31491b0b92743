"""Experts that see images: what is computed, stored and refused, and how they are trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from gato_gym.seeds import EVALUATION_SEEDS_START, SCORE_SEEDS_START
from gato_gym.tasks import get_task
from policies.expert_training.atari.games import TrainingGames, pixel_statistics
from policies.expert_training.atari.network import AtariNetwork
from policies.expert_training.evaluation import evaluate
from policies.expert_training.shipping import score_expert
from policies.experts import load_trained
from policies.experts.cnn import ImageExpert, ImageNetwork, halved
from policies.experts.mlp import ExpertError
from policies.experts.store import load_expert, network_from, play_with, save_expert

TASK = "atari-pong"
SEEN = spaces.Box(0, 255, (4, 84, 84), np.uint8)


@pytest.fixture(scope="module")
def model() -> AtariNetwork:
    """Of few units, with a game's pixels, and logits that differ."""
    torch.manual_seed(0)
    network = AtariNetwork(6, width=8)
    mean, scale = pixel_statistics(TrainingGames("Pong", 4), seed=0)
    network.mean.copy_(mean)
    network.scale.copy_(scale)
    with torch.no_grad():
        network.action.weight *= 50
    return network


@pytest.fixture(scope="module")
def network(model: AtariNetwork) -> ImageNetwork:
    return model.to_expert()


@pytest.fixture(scope="module")
def frames() -> Any:
    return np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84)).astype(np.uint8)


def test_the_network_computes_what_pytorch_does(
    model: AtariNetwork, network: ImageNetwork, frames: Any
) -> None:
    assert network.strides == (3, 2)
    with torch.no_grad():
        expected, _ = model(torch.from_numpy(halved(frames)))
    logits = torch.from_numpy(np.stack([network.forward(row) for row in frames]))
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(logits, expected, atol=5e-3, rtol=0)  # weights are of float16


def test_a_training_may_begin_with_an_expert(network: ImageNetwork, frames: Any) -> None:
    torch.manual_seed(1)
    other = AtariNetwork(6, width=8)
    other.load_expert(network)
    for name, tensor in network.tensors().items():
        np.testing.assert_array_equal(other.to_expert().tensors()[name], tensor, err_msg=name)
    with pytest.raises(ValueError, match=r"it has weights \(8, 800\), expected \(16, 800\)"):
        AtariNetwork(6, width=16).load_expert(network)
    kept = AtariNetwork(6, width=8)
    value = kept.value.weight.detach().clone()
    kept.load_expert(dataclasses.replace(network, value=None))
    torch.testing.assert_close(kept.value.weight, value, rtol=0, atol=0)


def test_rows_are_independent_and_sampling_is_seeded(network: ImageNetwork, frames: Any) -> None:
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


def test_samples_follow_the_softmax(network: ImageNetwork, frames: Any) -> None:
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


def test_stored_and_read_again_it_is_the_same(
    network: ImageNetwork, frames: Any, tmp_path: Path
) -> None:
    save_expert(tmp_path / "expert", network, {"task": TASK})
    again = load_expert(tmp_path / "expert")
    np.testing.assert_array_equal(again.forward(frames[0]), network.forward(frames[0]))
    size = (tmp_path / "expert" / "model.safetensors").stat().st_size
    assert size < 100_000
    env = get_task(TASK).make()
    policy = load_trained(TASK, env.observation_space, env.action_space, folder=tmp_path / "expert")
    assert env.action_space.contains(policy.predict(frames[0])[0])


def test_what_does_not_fit_is_refused(network: ImageNetwork) -> None:
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


def test_pixels_are_seen_by_how_much_they_differ(network: ImageNetwork) -> None:
    """A ball of Pong, faint as halving makes it, is many deviations off; its background is none."""
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


def test_it_samples_where_that_scores_more(
    network: ImageNetwork, frames: Any, tmp_path: Path
) -> None:
    likeliest = int(network.forward(frames[0]).argmax())
    for wanted, samples in ({likeliest}, False), (set(range(6)) - {likeliest}, True):
        envs = [OneFrame(frames[0], wanted) for _ in range(3)]
        best, score = score_expert(network, envs, episodes=5, tried=5)
        assert isinstance(best, ImageNetwork)
        assert best.samples is samples
        save_expert(tmp_path / f"{samples}", best, {"task": TASK})
        assert load_expert(tmp_path / f"{samples}").config() == best.config()
        policy = play_with(best, SEEN, spaces.Discrete(6))
        returns = evaluate(policy, envs, 5, first_seed=SCORE_SEEDS_START)
        assert score.mean == np.mean(returns)
        assert returns == evaluate(policy, envs, 5, first_seed=SCORE_SEEDS_START)
        if samples:  # though they begin alike
            assert len(set(returns)) > 1
        else:
            assert returns == [20.0] * 5


def test_episodes_that_try_a_manner_are_short(
    network: ImageNetwork, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every environment; those that score are whole, and none of those that chose."""
    monkeypatch.setattr("policies.expert_training.shipping.TRIED_STEPS", 5)
    lengths: list[int] = []
    seeds: list[int | None] = []

    class Counted(OneFrame):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            lengths.append(0)
            seeds.append(seed)
            self.episode = len(lengths) - 1
            return super().reset(seed=seed, options=options)

        def step(self, action: Any) -> Any:
            lengths[self.episode] += 1
            return super().step(action)

    envs = [Counted(frames[0], {0}) for _ in range(2)]
    score_expert(network, envs, episodes=3, tried=2)
    assert lengths == [5] * 4 + [20] * 3
    tried, scored = EVALUATION_SEEDS_START, SCORE_SEEDS_START
    assert seeds == [tried, tried + 1] * 2 + [scored, scored + 1, scored + 2]


def test_halved_is_the_rounded_mean() -> None:
    frames = np.array([[[0, 1, 255, 255], [0, 1, 255, 254]]], np.uint8)
    assert halved(frames).tolist() == [[[1, 255]]]
    assert halved(frames).dtype == np.uint8
