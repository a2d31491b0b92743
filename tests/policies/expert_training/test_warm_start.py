"""Where a training begins: with another task's training, an expert, or without its memory."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco")
pytest.importorskip("sbx")

from rich.console import Console

from gato_gym.__main__ import main
from gato_gym.tasks import get_task
from policies.expert_training.recipe import Recipe
from policies.expert_training.recipes import recipe_for
from policies.expert_training.sb3.algorithms import make_algorithm
from policies.expert_training.sb3.convert import network_of
from policies.expert_training.sb3.sbx_state import jax_tensors
from policies.expert_training.sb3.warm_start import start_from
from policies.expert_training.trainer import TrainSettings, train
from policies.expert_training.training_state import STATE_FILE, TrainingStateError, load_state
from policies.experts.store import load_expert, shipped_folder

PPO_RECIPE = Recipe(
    "ppo", steps=1024, bar=0, enough=1e9, num_envs=2, n_steps=64, batch_size=64, n_epochs=1,
    width=8, evaluations=1, evaluation_episodes=1,
)  # fmt: skip
QUIET = Console(file=io.StringIO())


def test_a_recipe_may_start_from_another_tasks_training(tmp_path: Path) -> None:
    easy, hard = "dm_control-reacher-easy", "dm_control-reacher-hard"
    train(TrainSettings(easy, tmp_path / easy, PPO_RECIPE, score_episodes=1), console=QUIET)
    _, tensors, _ = load_state(tmp_path / easy / STATE_FILE)
    recipe = dataclasses.replace(PPO_RECIPE, steps=1, start=easy, learning_rate=0.0)
    train(TrainSettings(hard, tmp_path / hard, recipe, score_episodes=1), console=QUIET)
    _, started, _ = load_state(tmp_path / hard / STATE_FILE)
    name = "policy/mlp_extractor.policy_net.0.weight"
    torch.testing.assert_close(started[name], tensors[name], rtol=0, atol=0)
    said = io.StringIO()
    absent = dataclasses.replace(recipe, start="mujoco-ant")
    arguments = TrainSettings(hard, tmp_path / "third", absent, score_episodes=1)
    train(arguments, console=Console(file=said, width=200))
    assert "starts from nothing" in said.getvalue()


def test_a_recipe_may_start_from_another_tasks_expert(tmp_path: Path) -> None:
    """The actor is the package's, and stays so while the critic learns; then both learn."""
    task = get_task("dm_control-reacher-hard")
    start = "dm_control-reacher-easy"
    recipe = dataclasses.replace(recipe_for(task.id), start=start, learning_starts=100)
    algorithm = make_algorithm(recipe, task.make, seed=0)
    assert start_from(algorithm, start, tmp_path).startswith(f"starts from the expert of {start}")
    before = network_of(algorithm)
    shipped = load_expert(shipped_folder(start))
    for name, tensor in shipped.tensors().items():
        np.testing.assert_allclose(before.tensors()[name], tensor, rtol=1e-4, err_msg=name)

    critic = jax_tensors(algorithm)
    entropy = {name for name in critic if name.startswith("ent_coef_state/params")}
    algorithm.critic_alone = 200  # type: ignore[attr-defined]
    algorithm.learn(160)
    after = jax_tensors(algorithm)
    changed = {name for name in critic if not torch.equal(critic[name], after[name])}
    assert changed, "the critic learns"
    rate = "actor_state/opt_state/hyperparams/learning_rate"  # the same, in fewer bits
    assert {name for name in changed if not name.startswith("qf_state/")} <= {rate, *entropy}
    assert max(float(after[name]) for name in entropy) < np.log(0.02), "small beside the rewards"
    algorithm.learn(120, reset_num_timesteps=False)
    now = jax_tensors(algorithm)
    actor = {name for name in critic if name.startswith("actor_state/params")}
    assert all(not torch.equal(after[name], now[name]) for name in actor | entropy)

    other = dataclasses.replace(recipe, width=8)
    with pytest.raises(TrainingStateError, match=f"the expert of {start} does not fit this recipe"):
        start_from(make_algorithm(other, task.make, seed=0), start, tmp_path)
    with pytest.raises(TrainingStateError, match="it is none of SAC's"):
        start_from(algorithm, "mujoco-reacher", tmp_path)


def test_a_training_may_go_on_from_the_packages_expert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(task: str, steps: int = 6000) -> int:
        command = ["expert", "train", task, "--from-expert", "--steps", str(steps)]
        return main([*command, "--output", str(tmp_path / task)])

    assert run("mujoco-pusher") == 0
    state, first, setting = load_state(tmp_path / "mujoco-pusher" / STATE_FILE)
    assert setting["recipe"]["start"] == "mujoco-pusher"
    assert state.curve[0][1] > -40, "as the expert plays; chance has -150"
    assert run("mujoco-pusher", 12_000) == 0, "the same command goes on"
    _, second, _ = load_state(tmp_path / "mujoco-pusher" / STATE_FILE)
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert any(name.startswith("qf_state/params") for name in changed)
    assert not any(name.startswith("actor_state/params") for name in changed), "it is early yet"
    capsys.readouterr()
    assert run("mujoco-reacher") == 2
    assert "the recipe of mujoco-reacher is PPO's: expected SAC's" in capsys.readouterr().err
    assert run("dm_control-humanoid-run") == 2
    assert "no expert of dm_control-humanoid-run comes with this" in capsys.readouterr().err


def test_a_training_without_its_memory_plays_before_it_learns() -> None:
    """What it has learned would be unlearned from its first few steps alone."""
    task = get_task("mujoco-reacher")
    recipe = Recipe(
        "sac", 400, 0, 1e9, num_envs=2, width=8, batch_size=64, gradient_steps=1,
        learning_starts=100, buffer_size=4000,
    )  # fmt: skip
    for offset, least in ((0, 100), (200, 200), (100_000, 400)):
        algorithm = make_algorithm(recipe, task.make, seed=0, offset=offset)
        algorithm.num_timesteps = offset
        algorithm.learn(least - recipe.num_envs, reset_num_timesteps=False)
        assert algorithm._n_updates == 0
        algorithm.learn(2 * recipe.num_envs, reset_num_timesteps=False)
        assert algorithm._n_updates > 0
