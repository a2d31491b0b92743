"""Networks that read returns to go: what a timestep carries, in training and at play."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from rewarded import STEPS, Rewarded, write_rewarded
from small import SMALL, random_shard, state_plan, talking_plan

from policies import GatoPolicy
from policies.model.network import GatoNetwork
from policies.rollout.vector_rollout import play_one
from policies.training.data.datasets import find_tasks
from policies.training.data.encoding import shard_task
from policies.training.data.packing import Mixture, Packer
from policies.training.initialization import start_from
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings

CONDITIONED = dataclasses.replace(SMALL, return_conditioned=True)


def network() -> GatoNetwork:
    torch.manual_seed(0)
    made = GatoNetwork(CONDITIONED)
    torch.nn.init.normal_(made.return_embedding.layers[2].weight)  # type: ignore[union-attr]
    return made


def test_every_body_token_of_a_live_timestep_carries_its_return_to_go() -> None:
    shard = random_shard(talking_plan(), "talk")
    rewards = np.random.default_rng(3).normal(size=shard.num_steps).astype(np.float32)
    shard.arrays["rewards"] = rewards
    packer = Packer(
        {"talk": shard}, Mixture({"talk": 1.0}, prompt_share={"talk": 0.5}), CONDITIONED,
        rows=3, length=96, seed=0,
    )  # fmt: skip
    batch = packer.batch(0)
    assert batch.returns is not None
    to_go = {}
    for start, stop in zip(shard.starts, shard.ends, strict=True):
        for step in range(start, stop):
            to_go[shard.arrays["vectors"][step].tobytes()] = rewards[step:stop].sum(dtype=float)
    largest = max(map(abs, to_go.values()))
    carried = dict(zip(batch.returns.slots.tolist(), batch.returns.values.tolist(), strict=True))
    vectors = batch.tokens.vectors
    assert vectors is not None
    prompts = batch.roles.prompts.flatten()
    seen = 0
    for slot, value in zip(vectors.slots.tolist(), vectors.values.numpy(), strict=True):
        if prompts[slot]:
            assert slot not in carried
            continue
        assert carried[slot] == pytest.approx(to_go[value.tobytes()] / largest, abs=1e-5)
        seen += 1
    assert seen > 20
    assert len(carried) == seen * shard.plan.num_tokens


def test_rewards_lower_what_is_left_to_collect() -> None:
    policy = GatoPolicy(network(), state_plan())
    observation, other = np.float32([0.1, 0.2, 0.3]), np.float32([0.5, -0.2, 0.0])
    asked = policy.with_return(total=10.0)
    _, state = asked.predict(np.stack([other, other]))
    asked.observe_reward(state, 1, 2.5)
    asked.observe_reward(state, 1, 0.5)
    assert state.returns.tolist() == [10.0, 7.0]

    def logits(view: GatoPolicy, batch: Any, state: Any = None) -> list[list[float]]:
        chosen: list[Any] = []
        original = view.network.symbol_logits
        view.network.symbol_logits = lambda *a: chosen.append(original(*a)) or chosen[-1]  # type: ignore
        view.predict(batch, state, deterministic=True)
        del view.network.symbol_logits
        first = chosen[-view.plan.num_actions]  # what comes before tries the sizes of blocks
        return [row.tolist() for row in first.flatten(0, -2)]

    both = logits(asked, np.stack([observation] * 2), state)
    assert both[0] != both[1]
    for row, left in enumerate((10.0, 7.0)):
        assert logits(policy.with_return(total=left), observation)[0] == both[row]
    _, state = asked.predict(np.stack([other, other]), state, np.array([False, True]))
    assert state.returns.tolist() == [10.0, 10.0]  # an episode begins with all of it


def test_a_fresh_embedding_changes_nothing() -> None:
    torch.manual_seed(1)
    before, after = GatoNetwork(SMALL), GatoNetwork(CONDITIONED)
    start_from(after, before.state_dict())
    observations = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)
    plain, conditioned = (GatoPolicy(each, state_plan()) for each in (before, after))
    expected, _ = plain.predict(observations, deterministic=True)
    actions, _ = conditioned.with_return(total=3.0).predict(observations, deterministic=True)
    assert actions.tolist() == expected.tolist()


def test_networks_without_returns_refuse_a_target() -> None:
    policy = GatoPolicy(GatoNetwork(SMALL), state_plan())
    with pytest.raises(ValueError, match=r"reads no returns to go: train one with return_cond"):
        policy.with_return(0.9)


def test_shards_have_rewards_only_where_they_are_asked_for(tmp_path: Path) -> None:
    (task,) = find_tasks([write_rewarded(tmp_path / "data")])
    plain = shard_task(task, tmp_path / "shard", [(0, 0), (0, 1)])
    assert "rewards" not in plain.arrays
    with pytest.raises(ValueError, match="has no rewards: encode it with them"):
        _ = plain.returns
    shard = shard_task(task, tmp_path / "shard", [(0, 0), (0, 1)], rewards=True)
    assert shard.returns_to_go.tolist() == [0, 0, 0, 0, 4, 3, 2, 1]
    assert shard.part(1, 2).returns_to_go.tolist() == [4, 3, 2, 1]
    assert (shard.returns.scale, shard.returns.best) == (4, 4)
    again = shard_task(task, tmp_path / "shard", [(0, 0), (0, 1)])
    assert "rewards" in again.arrays  # what it is made of is there


def test_all_episodes_are_learned_from_and_the_target_decides(tmp_path: Path) -> None:
    settings = TrainSettings(
        datasets=(write_rewarded(tmp_path / "data"),), output=tmp_path / "run",
        preset="tiny", steps=80, rows=4, length=64, device="cpu", score_every=0,
        return_conditioned=True, network={"width": 32, "layers": 1, "feed_forward": 32},
    )  # fmt: skip
    run = TrainRun(settings)
    assert run.tasks[0].counts == (24, 24)
    checkpoint = run.train()
    env = Rewarded()
    best = GatoPolicy.load(checkpoint, env=env)
    assert (best.returns.scale, best.returns.best, best.target_return) == (STEPS, STEPS, STEPS)
    assert GatoPolicy.load(checkpoint, env=env, target_return="50%").target_return < STEPS
    assert play_one(env, best, 3, deterministic=True) == STEPS
    worst = best.with_return(total=0.0)
    assert play_one(env, worst, 3, deterministic=True) == 0.0
    worst.save(tmp_path / "again")
    again = GatoPolicy.load(tmp_path / "again", env=env, target_return=0.0)
    assert play_one(env, again, 3, deterministic=True) == 0.0
    envs = gym.vector.SyncVectorEnv([Rewarded] * 2)
    state = None
    observations, _ = envs.reset(seed=[1, 2])
    for _ in range(STEPS):
        actions, state = best.predict(observations, state, deterministic=True)
        observations, rewards, *_ = envs.step(actions)
        for row, reward in enumerate(rewards):
            best.observe_reward(state, row, reward)
        assert actions.tolist() == [1, 1]
    envs.close()
    assert state.returns.tolist() == [0.0, 0.0]
