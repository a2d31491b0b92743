"""What only a GPU shows: real recordings, and the actions that a CPU chooses."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from policies import GatoPolicy
from policies.model.cuda_graphs import record

pytestmark = pytest.mark.gpu


def test_a_recording_computes_with_the_values_that_it_is_given() -> None:
    ones, rows = torch.ones(4, device="cuda"), torch.arange(4, device="cuda")
    play = record(lambda first, second: 2 * first + second, ones, rows)
    assert play(3 * ones, rows + 1).tolist() == [7, 8, 9, 10]
    assert play(ones, rows).tolist() == [2, 3, 4, 5]


def test_a_recording_may_follow_the_end_of_all_others() -> None:
    ones = torch.ones(4, device="cuda")
    for factor in (2, 3):
        play = record(lambda first, second: factor * first + second, ones, ones)  # noqa: B023
        again = record(lambda first, second: first - second, ones, ones)
        assert play(ones, ones).tolist() == 4 * [factor + 1]
        assert again(ones, ones).tolist() == 4 * [0]
        assert play(ones, 2 * ones).tolist() == 4 * [factor + 2]
        del play, again


def test_actions_are_those_of_a_cpu() -> None:
    env = gym.make("CartPole-v1")
    policy = GatoPolicy.create(env, config="tiny")
    seen = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    chosen, _ = policy.predict(seen, deterministic=True)
    again, _ = policy.to("cuda").predict(seen, deterministic=True)
    assert np.mean(chosen == again) > 0.95  # the last bits of a logit decide a tie
    assert 0 < chosen.mean() < 1
