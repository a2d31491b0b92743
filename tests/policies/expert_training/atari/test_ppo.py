"""PPO of games: its equations, what it writes, and that it learns and resumes."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("ale_py")

from rich.console import Console

from policies.expert_training.atari.ppo import (
    VALUE_ALONE,
    AtariPPO,
    _learning_precision,
    generalized_advantages,
)
from policies.expert_training.atari.recipes import GAMES
from policies.expert_training.trainer import TrainSettings, train
from policies.expert_training.training_state import STATE_FILE, TrainingStateError, load_state
from policies.experts.cnn import ImageNetwork
from policies.experts.store import load_expert, save_expert

TASK = "atari-pong"
TINY = dataclasses.replace(
    GAMES[TASK], steps=64, num_envs=2, n_steps=16, batch_size=32, n_epochs=1, width=8,
    evaluations=1, evaluation_episodes=1,
)  # fmt: skip
QUIET = Console(file=io.StringIO())


def learner(**other: object) -> AtariPPO:
    return AtariPPO("Pong", dataclasses.replace(TINY, **other), seed=0)  # type: ignore[arg-type]


def test_advantages_are_weighted_sums_of_later_errors() -> None:
    """Against the definition: a sum over the errors up to an end, each weighed by its distance."""
    random = np.random.default_rng(0)
    rewards = random.normal(size=(7, 3)).astype(np.float32)
    values = random.normal(size=(8, 3)).astype(np.float32)
    ended = random.random((7, 3)) < 0.3
    gamma, gae_lambda = 0.9, 0.7
    expected = np.zeros((7, 3))
    for row in range(3):
        for t in range(7):
            weight = 1.0
            for later in range(t, 7):
                following = 0.0 if ended[later, row] else values[later + 1, row]
                error = rewards[later, row] + gamma * following - values[later, row]
                expected[t, row] += weight * error
                weight *= gamma * gae_lambda
                if ended[later, row]:
                    break
    advantages = generalized_advantages(rewards, values, ended, gamma=gamma, gae_lambda=gae_lambda)
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-5)


def test_the_loss_is_ppos() -> None:
    """Against the paper's equation 9, minibatch of three, in float64 by hand."""
    ppo = learner(clip_range=0.1, ent_coef=0.02)
    frames = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (3, 4, 42, 42)).astype(np.uint8)
    )
    with torch.no_grad():
        ppo._model.action.weight *= 100
        logits, values = ppo._model(frames)
    log_probabilities = torch.log_softmax(logits.double(), 1)
    actions = torch.tensor([0, 3, 5])
    taken = log_probabilities[torch.arange(3), actions]
    before = taken + torch.tensor([0.5, -0.3, 0.05]).double()  # of the policy that played
    advantages, returns = torch.tensor([1.0, -2.0, 4.0]), torch.tensor([0.5, 0.0, -1.0])
    loss = ppo._loss({
        "frames": frames, "actions": actions, "log_probabilities": before.float(),
        "advantages": advantages, "returns": returns,
    })  # fmt: skip
    scaled = (advantages.double() - 1.0) / (np.std([1.0, -2.0, 4.0], ddof=1) + 1e-8)
    surrogate = 0.0
    for ratio, advantage in zip((taken - before).exp(), scaled, strict=True):
        clipped = min(max(float(ratio), 0.9), 1.1)
        surrogate += min(float(ratio * advantage), clipped * float(advantage)) / 3
    entropy = float(-(log_probabilities.exp() * log_probabilities).sum(1).mean())
    squared = float((values.double() - returns.double()).square().mean())
    assert loss.item() == pytest.approx(-surrogate + 0.5 * squared - 0.02 * entropy, rel=1e-4)


def test_an_update_moves_towards_what_was_rewarded() -> None:
    ppo = learner(n_epochs=20, learning_rate=1e-2, gae_lambda=0.0)
    ppo.learn(32, lambda: True)
    rollout = ppo._rollout
    rollout.values[:] = 0
    rollout.ended[:] = True
    rollout.rewards[:] = rollout.actions == 3
    frames = rollout.frames[0].copy()
    before = ppo._forward(frames)[0]
    ppo._update()
    after = ppo._forward(frames)[0]
    share = torch.softmax(torch.from_numpy(np.stack([before, after])), -1)[..., 3].mean(1)
    assert share[1] > 1.05 * share[0], "as far as clipping by 0.1 lets it"


def test_a_training_writes_an_expert_and_resumes(tmp_path: Path) -> None:
    short = dataclasses.replace(TINY, steps=32)
    train(TrainSettings(TASK, tmp_path / "run", short, score_episodes=1), console=QUIET)
    first, _, _ = load_state(tmp_path / "run" / STATE_FILE)
    # chance loses a game of Pong in a thousand steps: the evaluation has to play one
    assert [steps for steps, *_ in first.curve] == [32]
    state = train(TrainSettings(TASK, tmp_path / "run", TINY, score_episodes=1), console=QUIET)
    assert state.steps == 64
    assert state.finished == "all steps done"
    assert state.best is not None
    assert -21 <= state.best <= 21
    assert isinstance(load_expert(tmp_path / "run" / "expert"), ImageNetwork)


def test_the_state_restores_everything_that_is_learned() -> None:
    ppo = learner()
    ppo.learn(64, lambda: True)
    saved = {name: tensor.clone() for name, tensor in ppo.tensors().items()}
    other = AtariPPO("Pong", TINY, seed=5, steps=64)
    other.restore({**saved, "best/action.bias": torch.zeros(6)})
    assert other.tensors().keys() == saved.keys()
    assert any(name.startswith("optimizer/") for name in saved)
    for name, tensor in saved.items():
        torch.testing.assert_close(other.tensors()[name], tensor, rtol=0, atol=0, msg=name)
    wider = AtariPPO("Pong", dataclasses.replace(TINY, width=16), seed=0)
    with pytest.raises(TrainingStateError, match="does not fit this recipe"):
        wider.restore(saved)


def test_a_training_is_decided_by_its_seed() -> None:
    one, again, other = (AtariPPO("Pong", TINY, seed=seed) for seed in (0, 0, 1))
    for ppo in (one, again, other):
        ppo.learn(64, lambda: True)
    name = "model/action.weight"
    torch.testing.assert_close(one.tensors()[name], again.tensors()[name], rtol=0, atol=0)
    assert not torch.equal(one.tensors()[name], other.tensors()[name])


def test_a_training_may_begin_with_the_packages_expert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.experts.store.SHIPPED", tmp_path)
    with pytest.raises(TrainingStateError, match="no expert of atari-pong comes with"):
        learner().start_from(TASK, None)
    expert = AtariPPO("Pong", TINY, seed=7).network()
    save_expert(tmp_path / TASK, expert, {"task": TASK})
    ppo = learner()
    assert ppo.start_from(TASK, None) == "starts from the expert of atari-pong"
    for name, tensor in expert.tensors().items():
        np.testing.assert_array_equal(ppo.network().tensors()[name], tensor, err_msg=name)
    with pytest.raises(TrainingStateError, match="the expert of atari-pong does not fit"):
        learner(width=16).start_from(TASK, None)


def test_a_value_that_was_not_kept_is_learned_before_the_policy_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.experts.store.SHIPPED", tmp_path)
    expert = dataclasses.replace(AtariPPO("Pong", TINY, seed=7).network(), value=None)
    save_expert(tmp_path / TASK, expert, {"task": TASK})
    ppo = learner(learning_rate=1e-2)
    ppo.start_from(TASK, None)
    before = ppo.network()
    ppo.learn(64, lambda: True)
    assert ppo.steps < VALUE_ALONE
    after = ppo.network()
    np.testing.assert_array_equal(after.action[0], before.action[0])
    assert before.value is not None
    assert after.value is not None
    assert (after.value[0] != before.value[0]).any()


def test_returns_are_of_whole_games_and_taken_once() -> None:
    ppo = learner()
    ppo._games.finished.extend([3.0, 5.0])
    assert ppo.take_returns(0) == []
    assert ppo.take_returns(3) == []
    assert ppo.take_returns(2) == [3.0, 5.0]
    assert ppo.take_returns(1) == []


def test_precision_is_asked_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_units, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has_units: {"amx_bf16": has})
        assert _learning_precision(torch.device("cpu")) is expected
    ppo = learner()
    ppo._precision = torch.bfloat16
    ppo.learn(64, lambda: True)
    assert all(np.isfinite(part).all() for part in ppo.network().tensors().values())
