"""A run that starts from a checkpoint: its weights, its tasks, their token options."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from environments import Balance

from policies import GatoPolicy
from policies.collection.record import record_episodes
from policies.gato.checkpoint import load_checkpoint
from policies.random_policy import RandomPolicy
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

TINY = {"width": 16, "heads": 1, "head_size": 16, "feed_forward": 16, "layers": 1, "text_rank": 2}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    with gym.make("CartPole-v1") as env:
        record_episodes(env, Balance(), 3, "my/cartpole-v0")
        random = RandomPolicy(env.observation_space, env.action_space)
        record_episodes(env, random, 3, "my/wobbling-v0", seed=50)
    with gym.make("Acrobot-v1", max_episode_steps=20) as env:
        random = RandomPolicy(env.observation_space, env.action_space)
        record_episodes(env, random, 3, "my/acrobot-v0")
    return tmp_path


def settings(root: Path, name: str, *datasets: str, start: Path | None = None) -> TrainSettings:
    return TrainSettings(
        datasets=datasets,
        output=root / name,
        network=TINY if start is None else {},
        steps=3,
        keep=0.0,
        rows=2,
        length=64,
        score_every=0,
        task_embeddings=True,
        options={"actions": "parallel"},
        start=None if start is None else str(start),
    )


def test_a_run_continues_from_a_checkpoint_with_more_tasks(root: Path) -> None:
    first = TrainRun(settings(root, "first", "my/cartpole-v0")).train()
    before = load_checkpoint(first)
    more = ("my/cartpole-v0", "my/wobbling-v0", "my/acrobot-v0")
    asked = settings(root, "second", *more, start=root / "first")
    run = TrainRun(dataclasses.replace(asked, prompt_shares={"Acrobot-v1": 0.0}))
    kept = before.tasks["CartPole-v1"].options
    assert len(kept.vector_mean) == 4
    assert run.shards["CartPole-v1"].plan.options == kept  # not of the wobbling ones
    assert run.config.network.tasks == ("CartPole-v1", "Acrobot-v1")
    assert run.config.network.width == 16

    trainer = run.pipeline.trainer(root / "look")
    weights, given = trainer.network.state_dict(), before.network.state_dict()
    for name, tensor in given.items():
        there = weights[name][tuple(slice(size) for size in tensor.shape)]
        assert np.array_equal(there.numpy(), tensor.numpy()), name

    second = run.train()
    shown = {task: of.prompt is not None for task, of in load_checkpoint(second).tasks.items()}
    assert shown == {"Acrobot-v1": False, "CartPole-v1": True}, "one never had a prompt in training"
    policy = GatoPolicy.load(second, env=gym.make("Acrobot-v1"))
    assert policy.decoder.task_row == 1
    assert policy.prompt is None


def test_a_run_refuses_to_resume_from_another_start(root: Path) -> None:
    for name in ("one", "two"):
        TrainRun(settings(root, name, "my/cartpole-v0")).train()
    TrainRun(settings(root, "run", "my/cartpole-v0", start=root / "one")).train()
    (root / "two" / "checkpoint" / "model.safetensors").write_bytes(
        (root / "run" / "checkpoint" / "model.safetensors").read_bytes()
    )
    with pytest.raises(ValueError, match="start"):
        TrainRun(settings(root, "run", "my/cartpole-v0", start=root / "two"))
