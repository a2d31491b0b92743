"""PPO beside imitation, and the command that does it: resumable, with a report."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from rich.console import Console
from small import SMALL, random_shard, state_plan
from stable_baselines3 import PPO

from gato_gym import PlanOptions, compile_plan
from gato_gym.commands.common import run_command
from policies import GatoPolicy
from policies.collection.record import record_episodes
from policies.commands.reinforce import Reinforce
from policies.gato.checkpoint import save_checkpoint
from policies.gato.sampling import Sampler
from policies.gato.task_specs import TaskRecord
from policies.model.config import fitted
from policies.model.network import GatoNetwork
from policies.sb3 import GatoActorCriticPolicy, Imitation, history_env, reinforce
from policies.sb3.settings import ReinforceSettings
from policies.training.data.packing import Mixture, Packer
from policies.training.loss import action_loss

OPTIONS = PlanOptions(memory="none", vector_size=16)
BANDIT, OTHER = "Bandit-v0", "Other-v0"


class Bandit(gym.Env[Any, Any]):
    """Two steps; one of three actions pays, where ``pays`` is not None."""

    observation_space, action_space = spaces.Box(-1, 1, (3,)), spaces.Discrete(3)
    interrupt_at: int | None = None
    steps = 0

    def __init__(self, pays: int | None = 0) -> None:
        self.pays = pays

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 2
        return np.ones(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        Bandit.steps += 1
        if Bandit.steps == Bandit.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        return np.ones(3, np.float32), float(action == self.pays), not self.left, False, {}


class Idle(Bandit):
    """Two continuous actions, which nothing pays for."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.ones(3, np.float32), 0.0, not self.left, False, {}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, pays in ((BANDIT, 0), (OTHER, 1)):
        gym.register(name, Bandit, kwargs={"pays": pays}, order_enforce=False)
    monkeypatch.setattr(Bandit, "interrupt_at", None)
    monkeypatch.setattr(Bandit, "steps", 0)
    yield
    for name in (BANDIT, OTHER):
        del gym.registry[name]


def source(folder: Path, *tasks: str) -> Path:
    """A checkpoint of fresh weights that knows the tasks."""
    torch.manual_seed(0)
    plan = compile_plan(Bandit.observation_space, Bandit.action_space, OPTIONS)
    network = GatoNetwork(fitted(dataclasses.replace(SMALL, tasks=tasks), [plan]))
    record = TaskRecord.of(plan, prompted=False)
    save_checkpoint(folder, network, dict.fromkeys(tasks, record), Sampler(), dtype=torch.float32)
    return folder


def settings(folder: Path, **changes: Any) -> ReinforceSettings:
    base = ReinforceSettings(
        str(source(folder / "source", BANDIT, OTHER)), BANDIT, folder / "run", steps=512,
        check_tasks=(OTHER,), episodes=50, num_envs=2, rollout=16, batch_size=16, rate=3e-3,
        target_kl=1.0, critic_steps=64, save_every=2, device="cpu",
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def quiet() -> Console:
    return Console(quiet=True)


def test_the_imitation_term_adds_its_gradient_and_nothing_else(tmp_path: Path) -> None:
    """Where nothing is paid PPO's own gradient is zero; SGD then shows what is added."""
    torch.manual_seed(0)
    plan = state_plan()
    folder, network = tmp_path / "c", GatoNetwork(SMALL)
    save_checkpoint(folder, network, {"act": TaskRecord.of(plan)}, Sampler(), dtype=torch.float32)
    shard = random_shard(plan, "act")
    packer = Packer({"act": shard}, Mixture({"act": 1.0}), SMALL, rows=2, length=32, seed=0)
    agent = PPO(
        GatoActorCriticPolicy, history_env(Idle(), folder), n_steps=4, batch_size=4, n_epochs=1,
        learning_rate=1.0, device="cpu",
        policy_kwargs={"checkpoint": folder, "optimizer_class": torch.optim.SGD},
    )  # fmt: skip
    batch = packer.batch(4)  # of the first update, after four timesteps
    report = action_loss(network, network(batch), batch.targets, sigma=4.0)
    (0.3 * report.total / report.scale).backward()
    agent.learn(4, callback=Imitation(packer.batch, weight=0.3))
    largest = 0.0
    for name, weight in agent.policy.network.named_parameters():
        before = dict(network.named_parameters())[name]
        gradient = torch.zeros_like(before) if before.grad is None else before.grad
        torch.testing.assert_close(weight, before - gradient, atol=1e-6, rtol=1e-5)
        largest = max(largest, float(gradient.abs().max()))
    assert largest > 1e-3
    weights = {name: weight.clone() for name, weight in agent.policy.named_parameters()}
    agent.learn(4)  # without the callback nothing is left of it
    for name, weight in agent.policy.named_parameters():
        torch.testing.assert_close(weight, weights[name])


def test_reinforces_a_task_and_reports_the_others(tmp_path: Path) -> None:
    asked = settings(tmp_path)
    report = reinforce(asked, console=quiet())
    returns = {
        task: {when: np.mean(scores[when]["returns"]) for when in ("before", "after")}
        for task, scores in report["tasks"].items()
    }
    assert list(returns) == [BANDIT, OTHER]
    assert returns[BANDIT]["after"] > max(1.6, returns[BANDIT]["before"] + 0.3)
    assert returns[OTHER]["after"] < returns[OTHER]["before"]  # what pays here is not paid there
    assert report["steps"] == 512
    env = gym.make(BANDIT)
    played = GatoPolicy.load(asked.output, env=env)
    actions = played.predict(np.ones((500, 3), np.float32))[0]
    assert abs(np.mean(actions == 0) * 2 - returns[BANDIT]["after"]) < 0.2
    suffixes = {path.suffix for path in asked.output.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".model", ".md", ""}
    again = reinforce(asked, console=quiet())  # nothing is left to do
    assert again["tasks"] == report["tasks"]


def test_stops_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = settings(tmp_path, episodes=1, save_every=100)
    monkeypatch.setattr(Bandit, "interrupt_at", 150)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 160: run the same command again"):
        reinforce(asked, console=quiet())
    saved = GatoPolicy.load(asked.output, task=BANDIT)
    monkeypatch.setattr(Bandit, "interrupt_at", None)
    with pytest.raises(ValueError, match=r"rate: 0.003 there, 0.1 now"):
        reinforce(dataclasses.replace(asked, rate=0.1), console=quiet())
    seen = []
    monkeypatch.setattr("policies.sb3.run.PPO", _watched(seen))
    report = reinforce(asked, console=quiet())
    assert report["steps"] == 512
    assert [step for step, *_ in report["curve"]][-1] == 512
    (weights,) = seen
    for name, weight in saved.network.named_parameters():
        torch.testing.assert_close(weights[name], weight)


def _watched(seen: list[dict[str, torch.Tensor]]) -> type[PPO]:
    class Watched(PPO):
        def learn(self, *args: Any, **kwargs: Any) -> Any:
            seen.append({n: w.clone() for n, w in self.policy.network.named_parameters()})
            return super().learn(*args, **kwargs)

    return Watched


def test_one_command_does_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = source(tmp_path / "source", BANDIT)
    line = f"--from {folder} --task {BANDIT} --output {tmp_path / 'run'} --steps 64"
    more = "--num-envs 2 --rollout 16 --batch-size 16 --episodes 2 --device cpu"
    assert run_command(Reinforce, f"{line} {more}".split(), prog="gato-gym reinforce") == 0
    out = capsys.readouterr().out
    assert f"{BANDIT}: return" in out
    assert f"gato-gym score {BANDIT} --policy {tmp_path / 'run'}" in out
    assert (tmp_path / "run" / "report.json").exists()
    unknown = line.replace(f"--task {BANDIT}", "--task Nothing-v0")
    assert run_command(Reinforce, unknown.split(), prog="gato-gym reinforce") == 2
    assert "the checkpoint has no task 'Nothing-v0'" in capsys.readouterr().err


class Second:
    """Always the second action."""

    def predict(self, observation: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        return 1, None


def test_keeps_imitating_given_episodes(tmp_path: Path) -> None:
    """Weighed heavily, the imitated action wins against the one that pays."""
    with gym.make(BANDIT) as env:
        record_episodes(
            env, Second(), 4, "my/bandit-v0", root=tmp_path / "data", environment=BANDIT
        )
    dataset = str(tmp_path / "data" / "my" / "bandit-v0")
    asked = settings(
        tmp_path, datasets=(dataset,), imitation=50.0, steps=256, check_tasks=(), episodes=20
    )
    report = reinforce(asked, console=quiet())
    loss = report["imitation_loss"]
    assert loss["after"] < 0.3 * loss["before"]
    assert np.mean(report["tasks"][BANDIT]["after"]["returns"]) < 0.5
    without = dataclasses.replace(asked, output=tmp_path / "without", datasets=())
    assert reinforce(without, console=quiet())["imitation_loss"] == {"before": None, "after": None}
