"""Trained experts: what is computed, what is stored, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.numpy import load_file, save_file

from gato_gym.tasks import get_task
from policies.expert_training.recipes import RECIPES
from policies.experts import load_trained, make_expert
from policies.experts.mlp import ExpertError, ExpertNetwork, TrainedExpert
from policies.experts.store import SHIPPED, load_expert, read_config, save_expert

TASK = "mujoco-reacher"
SHIPPED_TASKS = sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def network(
    observation: int = 10, action: int = 2, *, squash: bool = False, activation: str = "tanh"
) -> ExpertNetwork:
    generator = np.random.default_rng(0)

    def layer(outputs: int, inputs: int) -> tuple[Any, Any]:
        weight = generator.normal(size=(outputs, inputs)).astype(np.float16).astype(np.float32)
        return weight, generator.normal(size=outputs).astype(np.float32)

    return ExpertNetwork(
        mean=generator.normal(size=observation).astype(np.float32),
        scale=generator.uniform(0.5, 2, observation).astype(np.float32),
        hidden=(layer(16, observation), layer(8, 16)),
        action=layer(action, 8),
        log_std=(np.zeros((action, 8), np.float32), np.full(action, -1.0, np.float32)),
        activation=activation,
        squash=squash,
    )


def box(size: int, limit: float = 1.0) -> spaces.Box:
    return spaces.Box(-limit, limit, (size,), np.float32)


@pytest.mark.parametrize(("squash", "activation"), [(False, "tanh"), (True, "relu")])
def test_mean_actions_against_torch_in_float64(squash: bool, activation: str) -> None:
    expert = network(squash=squash, activation=activation)
    function = {"tanh": torch.tanh, "relu": torch.relu}[activation]
    observations = np.random.default_rng(1).normal(size=(20, 10)) * 4
    x = torch.from_numpy((observations - expert.mean) * expert.scale).clamp(-10, 10)
    for weight, bias in expert.hidden:
        x = function(x @ torch.from_numpy(weight).double().T + torch.from_numpy(bias))
    x = x @ torch.from_numpy(expert.action[0]).double().T + torch.from_numpy(expert.action[1])
    expected = 2.0 * torch.tanh(x) if squash else x.clamp(-2, 2)
    policy = TrainedExpert(expert, box(10, np.inf), box(2, 2.0))
    actions, state = policy.predict(observations, deterministic=True)
    np.testing.assert_allclose(actions, expected.numpy(), atol=2e-4)
    assert state is None
    assert actions.dtype == np.float32


def test_samples_spread_as_the_network_says() -> None:
    policy = TrainedExpert(network(), box(10, np.inf), box(2, 100.0))
    observation = np.ones((1, 10))
    mean, _ = policy.predict(observation, deterministic=True)
    state, drawn = None, []
    for _ in range(2000):
        actions, state = policy.predict(observation, state)
        drawn.append(actions[0])
    np.testing.assert_allclose(np.mean(drawn, 0), mean[0], atol=0.04)
    np.testing.assert_allclose(np.std(drawn, 0), np.exp(-1.0), rtol=0.06)


def test_samples_belong_to_the_episode_not_to_the_batch() -> None:
    policy = TrainedExpert(network(), box(10, np.inf), box(2, 100.0))
    observations = np.random.default_rng(2).normal(size=(3, 10))
    together, state = policy.predict(observations)
    again, state = policy.predict(observations, state, np.array([True, False, False]))
    alone = [policy.predict(row)[0] for row in observations]
    np.testing.assert_array_equal(together, alone)
    assert not np.array_equal(again[0], together[0])  # a second episode, though it begins alike
    assert not np.array_equal(again[1], together[1])
    state = policy.seed_episodes([None, 5, None], state)
    seeded, _ = policy.predict(observations, state)
    expected = policy.predict(observations[1], policy.seed_episodes([5]))[0]
    np.testing.assert_array_equal(seeded[1], expected)
    with pytest.raises(ValueError, match="state has 3 rows for 2 observations"):
        policy.predict(observations[:2], state)


def test_stored_and_read_again(tmp_path: Path) -> None:
    expert = network(squash=True, activation="relu")
    save_expert(tmp_path / "expert", expert, {"task": TASK, "algorithm": "sac"})
    save_expert(tmp_path / "expert", expert, {"task": TASK, "algorithm": "sac"})
    read = load_expert(tmp_path / "expert")
    observation = np.linspace(-1, 1, 10)
    for numbers, expected in zip(
        read.forward(observation), expert.forward(observation), strict=True
    ):
        np.testing.assert_array_equal(numbers, expected)
    assert (read.squash, read.activation) == (True, "relu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expert"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"holds notes\.txt, expected nothing but"):
        save_expert(tmp_path / "mine", expert, {})


def spoiled(folder: Path, kind: str) -> None:
    """Damage an expert in one way."""
    config, model = folder / "config.json", folder / "model.safetensors"
    values = json.loads(config.read_text())
    tensors = load_file(model)
    if kind == "newer":
        config.write_text(json.dumps({**values, "format": 99}))
    elif kind == "no json":
        config.write_text("{")
    elif kind == "deep json":
        config.write_text("[" * 100_000)
    elif kind == "no config":
        config.unlink()
    elif kind == "unknown activation":
        config.write_text(json.dumps({**values, "activation": "sine"}))
    elif kind == "cut short":
        model.write_bytes(model.read_bytes()[:-9])
    elif kind == "pickle":
        model.write_bytes(b"\x80\x04cos\nsystem\n.")
    elif kind == "missing tensor":
        save_file({k: v for k, v in tensors.items() if k != "action.bias"}, model)
    elif kind == "other shape":
        save_file({**tensors, "mean": np.zeros(3, np.float32)}, model)
    elif kind == "not finite":
        save_file({**tensors, "action.bias": np.full(2, np.nan, np.float32)}, model)
    elif kind == "too large":
        model.write_bytes(b"\0" * (17 * 2**20))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("newer", "format 99 .* upgrade"),
        ("no json", "not JSON"),
        ("deep json", "not JSON|no format"),
        ("no config", "holds no config.json"),
        ("unknown activation", "activation is 'sine'"),
        ("cut short", "does not hold an expert"),
        ("pickle", "does not hold an expert"),
        ("missing tensor", "does not hold an expert"),
        ("other shape", "mean has shape"),
        ("not finite", "not finite"),
        ("too large", "17825792 bytes"),
    ],
)
def test_damaged_experts_are_refused_in_one_line(tmp_path: Path, kind: str, said: str) -> None:
    folder = tmp_path / "expert"
    save_expert(folder, network(), {"task": TASK})
    spoiled(folder, kind)
    with pytest.raises(ExpertError, match=said) as caught:
        load_expert(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_expert_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("policies.experts.store.SHIPPED", tmp_path)
    env = get_task(TASK).make()
    with pytest.raises(ExpertError, match=f"gato-gym expert train {TASK}"):
        make_expert(TASK, env)


def test_an_expert_of_another_task_is_refused(tmp_path: Path) -> None:
    save_expert(tmp_path / "expert", network(), {"task": "mujoco-ant"})
    with pytest.raises(ExpertError, match="holds the expert of 'mujoco-ant', expected"):
        load_trained(TASK, box(10, np.inf), box(2), folder=tmp_path / "expert")
    with pytest.raises(ValueError, match="expected Boxes of shapes"):
        TrainedExpert(network(), box(11, np.inf), box(2))


@pytest.mark.parametrize("task", SHIPPED_TASKS)
def test_shipped_experts_are_small_and_say_what_they_score(task: str) -> None:
    config = read_config(SHIPPED / task)
    assert config["task"] == task
    assert task in RECIPES
    assert config["score"]["episodes"] >= 30
    env = get_task(task).make()
    policy = load_trained(task, env.observation_space, env.action_space)
    assert env.action_space.contains(policy.predict(env.reset(seed=0)[0])[0])
    env.close()
    assert (SHIPPED / task / "curve.csv").read_text().startswith("steps,return,std,seconds\n")


def test_shipped_experts_together_are_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 14 * 2**20
