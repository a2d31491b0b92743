"""What experts choose from: probabilities and deviations, from the computation that acts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from gato_gym import get_task
from policies import make_policy
from policies.distributions import Categorical, Gaussian
from policies.experts.mlp import ExpertNetwork, TrainedExpert
from policies.random_policy import RandomPolicy

TASKS = ("atari-pong", "babyai-go-to-obj", "metaworld-reach", "mujoco-pendulum", "mujoco-pusher")


@pytest.mark.parametrize("task", TASKS)
def test_the_distribution_is_of_the_action_taken(task: str) -> None:
    """The likeliest choice, or the mean, is the deterministic action; rows are independent."""
    envs = SyncVectorEnv([get_task(task).make] * 3)
    expert = make_policy("expert", env=envs)
    observation, _ = envs.reset(seed=[3, 4, 5])
    decision = expert.decide(observation, deterministic=True)
    actions, _ = expert.predict(observation, deterministic=True)
    np.testing.assert_array_equal(decision.actions, actions)
    distribution = expert.distribution(observation)
    if isinstance(envs.single_action_space, spaces.Discrete):
        assert isinstance(distribution, Categorical)
        assert distribution.probabilities.shape == (3, envs.single_action_space.n)
        np.testing.assert_allclose(distribution.probabilities.sum(1), 1, rtol=1e-5)
        np.testing.assert_array_equal(distribution.probabilities.argmax(1), actions)
    else:
        assert isinstance(distribution, Gaussian)
        assert distribution.mean.shape == distribution.deviation.shape == actions.shape
        np.testing.assert_allclose(distribution.mean, actions, rtol=1e-6)
        assert (distribution.deviation >= 0).all()
    if not task.startswith("babyai"):  # the bot plays in all of its environments at once
        alone = expert.distribution(observation[1])
        np.testing.assert_array_equal(alone.recorded_row(), distribution.recorded_row(1))
    envs.close()


def test_samples_follow_the_probabilities() -> None:
    env = get_task("atari-pong").make()
    expert = make_policy("expert", env=env)
    observation, _ = env.reset(seed=0)
    distribution = expert.distribution(observation)
    assert isinstance(distribution, Categorical)
    state, counts = expert.seed_episodes([0]), np.zeros(6)
    for _ in range(400):
        action, state = expert.predict(observation, state)
        counts[action] += 1
    np.testing.assert_allclose(counts / 400, distribution.probabilities, atol=0.08)


def network(*, squash: bool, location: float, log_std: float) -> ExpertNetwork:
    """Of one input and one action, whose mean and deviation do not depend on the input."""
    one, zero = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    bias = np.zeros(1, np.float32)
    return ExpertNetwork(
        np.zeros(1, np.float32), np.ones(1, np.float32), ((one, bias),),
        (zero, np.full(1, location, np.float32)), (zero, np.full(1, log_std, np.float32)),
        "tanh", squash, 10.0,
    )  # fmt: skip


@pytest.mark.parametrize("squash", [False, True])
def test_the_deviation_is_that_of_samples(squash: bool) -> None:
    """In units of the space: 4,000 samples of a narrow distribution have its mean and deviation."""
    box = spaces.Box(-2, 6, (1,))
    expert: Any = TrainedExpert(
        network(squash=squash, location=0.4, log_std=-3.0), spaces.Box(-1, 1, (1,)), box
    )
    seen = np.zeros((4000, 1), np.float32)
    actions, _ = expert.predict(seen, expert.seed_episodes(range(4000)))
    distribution = expert.distribution(seen[0])
    assert float(actions.mean()) == pytest.approx(float(distribution.mean[0]), abs=0.02)
    assert float(actions.std()) == pytest.approx(float(distribution.deviation[0]), rel=0.05)


def test_softmax_of_large_logits_is_finite() -> None:
    distribution = Categorical.of_logits(np.array([[1e4, 0.0], [0.0, np.log(3.0)]], np.float32))
    np.testing.assert_allclose(distribution.probabilities, [[1, 0], [0.25, 0.75]], rtol=1e-6)


def test_who_gives_none_says_so() -> None:
    policy = RandomPolicy(spaces.Box(0, 1, (2,)), spaces.Discrete(3))
    with pytest.raises(TypeError, match="RandomPolicy does not give the distribution"):
        policy.distribution(np.zeros(2, np.float32))


def test_an_episode_keeps_half_precision() -> None:
    distribution = Gaussian(np.ones((2, 3), np.float32), np.full((2, 3), 0.1, np.float32))
    assert distribution.recorded_row(1).dtype == np.float16
    np.testing.assert_allclose(distribution.recorded_row(1), 0.1, rtol=1e-3)
    assert dataclasses.asdict(distribution.first())["mean"].shape == (3,)
