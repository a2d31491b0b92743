"""The network of JAT's family that comes with the package."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from policies import GatoPolicy, JatPolicy
from policies.gato.checkpoint_folder import SHIPPED
from policies.gato.tensor_files import CheckpointError
from policies.model.network import count_parameters

FOLDER = SHIPPED / "jat-mini"


@pytest.mark.parametrize(
    "task",
    [
        "atari-pong",
        "babyai-go-to-local",
        "dm_control-cheetah-run",
        "metaworld-reach",
        "mujoco-hopper",
    ],
)
def test_it_acts_in_every_suite_by_what_it_sees_alone(task: str) -> None:
    env = gym.make(f"Gato/{task}")
    policy = JatPolicy.load("jat-mini", env=env)
    observation, _ = env.reset(seed=3)
    first, state = policy.predict(observation, None, deterministic=True)
    assert env.action_space.contains(first)
    for _ in range(2):
        again, state = policy.predict(observation, state, deterministic=True)
        np.testing.assert_array_equal(again, first, "what it did before changes nothing")
    env.close()


def test_its_card_says_what_it_is() -> None:
    env = gym.make("Gato/mujoco-hopper")
    policy = JatPolicy.load("jat-mini", env=env)
    assert f"{count_parameters(policy.network) / 1e6:.2f} million parameters" in policy.card
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6 * 2**20
    with pytest.raises(CheckpointError, match="JatPolicy"):
        GatoPolicy.load("jat-mini", env=env)
    env.close()
