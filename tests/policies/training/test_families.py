"""JAT through the one trainer: from episodes to a policy that plays several tasks."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from environments import Balance

from gato_gym.__main__ import main
from policies.collection.record import play_returns, record_episodes
from policies.jat.policy import JatPolicy
from policies.registry import make_policy

DATASET = "my/cartpole-v0"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_episodes_to_a_policy_that_balances(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with gym.make("CartPole-v1") as env:
        record_episodes(env, Balance(), 5, DATASET)
    train = ["train", "--family", "jat", "--dataset", DATASET, "--output", "runs/mine"]
    small = ["--preset", "tiny", "--rows", "4", "--length", "128", "--steps", "120"]
    assert main([*train, *small, "--score-every", "60", "--score-tasks", "CartPole-v1"]) == 0
    said = capsys.readouterr().out
    assert "CartPole-v1: continuous observations, discrete actions" in said
    assert "CartPole-v1 scores" in said
    with gym.make("CartPole-v1") as env:
        policy = make_policy("runs/mine", env=env)
        assert isinstance(policy, JatPolicy)
        assert np.mean(play_returns(env, policy, 2)) > 150, "random: about 20"
    files = {path.suffix for path in (root / "runs/mine").rglob("*") if path.is_file()}
    assert files <= {".safetensors", ".json", ".npy", ".md", ".txt", ".csv", ".lock", ""}
