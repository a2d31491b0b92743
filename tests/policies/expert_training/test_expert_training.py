"""Training of experts: it learns, goes on where it stopped, and nothing it writes is a pickle."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from gato_gym.__main__ import main
from gato_gym.seeds import EVALUATION_SEEDS_START, SCORE_SEEDS_START
from gato_gym.tasks import get_task, list_tasks
from policies.expert_training import queue, shipping
from policies.expert_training.evaluation import Evaluation, evaluate
from policies.expert_training.recipe import Recipe
from policies.expert_training.recipes import RECIPES, recipe_for
from policies.expert_training.sb3.algorithm_state import restore, tensors_of
from policies.expert_training.sb3.algorithms import make_algorithm
from policies.expert_training.sb3.convert import load_zip, network_of
from policies.expert_training.sb3.learner import MEMORY_FILE, BaselinesLearner
from policies.expert_training.sb3.replay_buffer import restore_memory, save_memory
from policies.expert_training.sb3.vec_env import LeanVecEnv
from policies.expert_training.settings import QueueSettings
from policies.expert_training.trainer import TrainSettings, train
from policies.expert_training.training_state import (
    STATE_FILE,
    TrainingState,
    TrainingStateError,
    load_state,
    save_state,
)
from policies.expert_training.weight_averaging import Average
from policies.experts.mlp import ExpertNetwork, TrainedExpert
from policies.experts.store import load_expert, read_config
from policies.random_policy import RandomPolicy

TASK = "mujoco-reacher"
PPO_RECIPE = Recipe(
    "ppo", steps=1024, bar=0, enough=1e9, num_envs=2, n_steps=64, batch_size=64, n_epochs=1,
    width=8, evaluations=4, evaluation_episodes=1,
)  # fmt: skip
SAC_RECIPE = dataclasses.replace(
    PPO_RECIPE, algorithm="sac", steps=400, activation="relu", learning_starts=100,
    gradient_steps=1, buffer_size=1000, normalize_reward=False,
)  # fmt: skip
WITH_OPTIONS = dataclasses.replace(SAC_RECIPE, inputs=6, critic_norm=True, return_steps=3)
RECIPES_BY_NAME = {"ppo": PPO_RECIPE, "sac": SAC_RECIPE, "sac-options": WITH_OPTIONS}
QUIET = Console(file=io.StringIO())


def settings(folder: Path, recipe: Recipe = PPO_RECIPE, **other: Any) -> TrainSettings:
    return TrainSettings(TASK, folder, recipe, score_episodes=2, **other)


OWN_CALLBACK = """
from stable_baselines3.common.callbacks import BaseCallback

class Stopping(BaseCallback):
    def _on_step(self):
        self.logger.record("own/steps", self.num_timesteps)
        return self.num_timesteps < 512

def no_callback():
    return print
"""


def test_a_callback_of_ones_own_logs_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_callback.py").write_text(OWN_CALLBACK)
    monkeypatch.chdir(tmp_path)
    run = settings(tmp_path / "run", callback="own_callback:Stopping", tensorboard=True)
    state = train(run, console=QUIET)
    assert state.finished is None
    assert 512 <= state.steps < PPO_RECIPE.steps
    (events,) = (tmp_path / "run/tensorboard").rglob("events.*")
    assert b"own/steps" in events.read_bytes()
    monkeypatch.delitem(sys.modules, "own_callback")
    state = train(settings(tmp_path / "run"), console=QUIET)
    assert state.finished == "all steps done", "it is resumed without"
    for name, told in (("no_callback", "returned a builtin_function"), ("nobody", "no function")):
        with pytest.raises(ValueError, match=told):
            train(settings(tmp_path / name, callback=f"own_callback:{name}"), console=QUIET)


@pytest.mark.parametrize("recipe", RECIPES_BY_NAME.values(), ids=RECIPES_BY_NAME)
def test_a_training_writes_an_expert_that_plays_as_the_algorithm(
    tmp_path: Path, recipe: Recipe
) -> None:
    state = train(settings(tmp_path / "run", recipe), console=QUIET)
    assert state.finished == "all steps done"
    assert state.steps >= recipe.steps
    assert state.best == max(mean for _, mean, _, _ in state.curve)
    config = read_config(tmp_path / "run" / "expert")
    env = get_task(TASK).make()
    policy = TrainedExpert(
        load_expert(tmp_path / "run" / "expert"), env.observation_space, env.action_space
    )
    again = Evaluation.of(evaluate(policy, [env], 1, first_seed=EVALUATION_SEEDS_START))
    assert again.mean == state.best
    assert config["score"]["episodes"] == 2
    lines = (tmp_path / "run" / "curve.csv").read_text().splitlines()
    assert len(lines) == 1 + len(state.curve)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "expert", "curve.csv", STATE_FILE,
    }  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES_BY_NAME.values(), ids=RECIPES_BY_NAME)
def test_the_state_restores_everything_that_is_learned(tmp_path: Path, recipe: Recipe) -> None:
    train(settings(tmp_path / "run", recipe), console=QUIET)
    _, tensors, _ = load_state(tmp_path / "run" / STATE_FILE)
    fresh = make_algorithm(recipe, get_task(TASK).make, seed=5)
    restore(fresh, tensors)
    restored = tensors_of(fresh)
    kept = {name: t for name, t in tensors.items() if not name.startswith("best/")}
    assert restored.keys() == kept.keys()
    assert any("optimizer" in name or "opt_state" in name for name in kept)
    for name, tensor in kept.items():
        torch.testing.assert_close(restored[name], tensor, rtol=0, atol=0, msg=name)


def test_a_killed_training_goes_on(tmp_path: Path) -> None:
    """kill -9 while it learns: the same command goes on from the last evaluation."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "gato_gym", "expert", "train", TASK, "--steps", "60000"]
    command += ["--output", str(folder)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (folder / STATE_FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before, _, _ = load_state(folder / STATE_FILE)
    recipe = dataclasses.replace(recipe_for(TASK), steps=before.steps + 5000)
    after = train(settings(folder, recipe), console=QUIET)
    assert after.steps >= recipe.steps
    assert after.curve[: len(before.curve)] == before.curve
    assert after.seconds > before.seconds


def test_a_stopped_training_remembers(tmp_path: Path) -> None:
    """Ctrl-C after an evaluation: what SAC has seen by then is there when it goes on."""

    class Stopping(io.StringIO):
        def write(self, text: str) -> int:
            raise KeyboardInterrupt

    memory = tmp_path / "run" / MEMORY_FILE
    recipe = dataclasses.replace(SAC_RECIPE, return_steps=3)
    with pytest.raises(KeyboardInterrupt):
        train(settings(tmp_path / "run", recipe), console=Console(file=Stopping()))
    held = load_file(memory)
    state, _, _ = load_state(tmp_path / "run" / STATE_FILE)
    assert held["observations"].shape == (state.steps // 2, 2, 10)
    assert held["observations"].dtype == np.float32
    np.testing.assert_array_equal(held["observations"][5], held["next_observations"][4])

    fresh = make_algorithm(recipe, get_task(TASK).make, seed=0).replay_buffer  # type: ignore[attr-defined]
    restore_memory(memory, fresh)
    assert (fresh.pos, fresh.full) == (state.steps // 2, False)
    np.testing.assert_array_equal(fresh.rewards[: fresh.pos], held["rewards"])
    assert np.maximum(fresh.timeouts, fresh.dones)[fresh.pos - 1].tolist() == [1, 1]
    assert (fresh.timeouts[: fresh.pos - 1] == held["timeouts"][:-1]).all()
    small = make_algorithm(
        dataclasses.replace(recipe, buffer_size=20), get_task(TASK).make, seed=0
    ).replay_buffer  # type: ignore[attr-defined]
    with pytest.raises(TrainingStateError, match=r"expected at most \(10, 2, 10\)"):
        restore_memory(memory, small)

    assert train(settings(tmp_path / "run", recipe), console=QUIET).finished == "all steps done"
    assert not memory.exists(), "it is of no use to a training that has ended"


def test_a_memory_that_is_full_goes_on_where_it_was(tmp_path: Path) -> None:
    recipe = dataclasses.replace(SAC_RECIPE, buffer_size=200, steps=250)
    algorithm = make_algorithm(recipe, get_task(TASK).make, seed=0)
    algorithm.learn(250)
    full = algorithm.replay_buffer  # type: ignore[attr-defined]
    save_memory(tmp_path / MEMORY_FILE, full)
    fresh = make_algorithm(recipe, get_task(TASK).make, seed=1).replay_buffer  # type: ignore[attr-defined]
    restore_memory(tmp_path / MEMORY_FILE, fresh)
    assert (fresh.pos, fresh.full) == (full.pos, True) == (25, True)
    np.testing.assert_array_equal(fresh.next_observations, full.next_observations)
    (tmp_path / MEMORY_FILE).write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(TrainingStateError, match="remove it to resume without"):
        restore_memory(tmp_path / MEMORY_FILE, fresh)


def test_a_finished_training_is_left_alone_and_a_longer_one_goes_on(tmp_path: Path) -> None:
    first = train(settings(tmp_path / "run"), console=QUIET)
    written = (tmp_path / "run" / STATE_FILE).stat().st_mtime_ns
    assert train(settings(tmp_path / "run"), console=QUIET) == first
    assert (tmp_path / "run" / STATE_FILE).stat().st_mtime_ns == written
    longer = dataclasses.replace(PPO_RECIPE, steps=2048)
    assert train(settings(tmp_path / "run", longer), console=QUIET).steps >= 2048


def test_other_settings_are_refused(tmp_path: Path) -> None:
    train(settings(tmp_path / "run"), console=QUIET)
    with pytest.raises(TrainingStateError, match=r"seed 0 -> 1"):
        train(settings(tmp_path / "run", seed=1), console=QUIET)
    other = dataclasses.replace(PPO_RECIPE, gamma=0.5)
    with pytest.raises(TrainingStateError, match=r"gamma 0.99 -> 0.5"):
        train(settings(tmp_path / "run", other), console=QUIET)
    (tmp_path / "run" / STATE_FILE).write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(TrainingStateError, match="remove it to start afresh"):
        train(settings(tmp_path / "run"), console=QUIET)


def test_what_is_evaluated_is_a_mean_of_policies() -> None:
    def network(value: float) -> ExpertNetwork:
        layer = np.full((2, 3), value, np.float32), np.full(2, value, np.float32)
        head = np.full((1, 2), value, np.float32), np.full(1, value, np.float32)
        return ExpertNetwork(
            np.full(3, value, np.float32), np.ones(3, np.float32), (layer,), head, head,
            "relu", False, 10.0,
        )  # fmt: skip

    average = Average()
    for value in (1.0, 2.0, 6.0):
        average.add(network(value))
    for name, tensor in average.take().tensors().items():
        np.testing.assert_array_equal(tensor, network(3.0).tensors()[name])
    average.add(network(4.0))
    np.testing.assert_array_equal(average.take().mean, network(4.0).mean)
    with pytest.raises(ValueError, match="expected one or more"):
        average.take()


def test_enough_and_flat_stops_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.expert_training.trainer.FLAT_EVALUATIONS", 1)
    recipe = dataclasses.replace(PPO_RECIPE, steps=10**6, evaluations=10**4, enough=-1e9)
    state = train(settings(tmp_path / "run", recipe), console=QUIET)
    assert state.finished == "enough, and flat"
    assert state.steps < 10**5
    more = dataclasses.replace(recipe, steps=state.steps + 1024, enough=1e9, evaluation_episodes=2)
    assert state.best is not None
    after = train(settings(tmp_path / "run", more), console=QUIET)
    assert after.finished == "all steps done", "what was enough is not"
    assert after.best == max(mean for steps, mean, *_ in after.curve if steps > state.steps), (
        "the best over one episode is no match for means over two"
    )


def test_ppo_learns(tmp_path: Path) -> None:
    """mujoco-pendulum: a point for every step, and chance drops the pole after six."""
    recipe = dataclasses.replace(
        recipe_for("mujoco-pendulum"), steps=10_000, num_envs=8, batch_size=128, learning_rate=1e-3,
        evaluations=1,
    )  # fmt: skip
    arguments = TrainSettings("mujoco-pendulum", tmp_path / "run", recipe, score_episodes=1)
    state = train(arguments, console=QUIET)
    assert state.best is not None
    assert state.best > 100


@pytest.mark.parametrize("limit", [None, 50])
def test_the_vector_environment_plays_as_stable_baselines_own(limit: int | None) -> None:
    makers = [get_task(TASK).make] * 2
    ours, theirs = LeanVecEnv(makers, limit=limit), DummyVecEnv(makers)
    seen = []
    for envs in (ours, theirs):
        envs.seed(3)
        np.testing.assert_allclose(envs.reset(), envs._obs_from_buf())
    generator = np.random.default_rng(0)
    ends = []
    for step in range(1, 60):
        actions = generator.uniform(-1, 1, (2, 2)).astype(np.float32)
        step_result, expected = ours.step(actions), theirs.step(actions)
        ends += [(step, row) for row in range(2) if step_result[2][row]]
        if limit is None:
            for mine, other in zip(step_result[:3], expected[:3], strict=True):
                np.testing.assert_array_equal(mine, other)
            for mine_info, info in zip(step_result[3], expected[3], strict=True):
                assert mine_info.get("TimeLimit.truncated") == (info["TimeLimit.truncated"] or None)
                if "terminal_observation" in info:
                    np.testing.assert_array_equal(
                        mine_info["terminal_observation"], info["terminal_observation"]
                    )
                    seen.append(step)
    assert ends == ([(50, 0), (50, 1)] if limit is None else [(25, 0), (50, 1)])
    assert seen == ([50, 50] if limit is None else [])


@pytest.mark.parametrize("repeat", [2, 3])
def test_a_repeated_action_is_that_many_steps(repeat: int) -> None:
    makers = [get_task(TASK).make] * 2
    ours, theirs = LeanVecEnv(makers, repeat=repeat), LeanVecEnv(makers)
    for envs in (ours, theirs):
        envs.seed(3)
        envs.reset()
    generator = np.random.default_rng(0)
    for action in range(50 // repeat + 1):
        actions = generator.uniform(-1, 1, (2, 2)).astype(np.float32)
        step_result = ours.step(actions)
        left = 50 - repeat * action  # an episode has 50 steps, and none goes over its end
        expected = [theirs.step(actions) for _ in range(min(repeat, left))]
        np.testing.assert_array_equal(step_result[0], expected[-1][0])
        np.testing.assert_allclose(step_result[1], sum(each[1] for each in expected), rtol=1e-6)
        np.testing.assert_array_equal(step_result[2], left <= repeat)
        if left <= repeat:
            break


def test_a_training_goes_on_where_recipes_have_more_now(tmp_path: Path) -> None:
    train(settings(tmp_path / "run"), console=QUIET)
    path = tmp_path / "run" / STATE_FILE
    state, tensors, setting = load_state(path)
    del setting["recipe"]["action_repeat"]
    setting["recipe"]["gone"] = None
    save_state(path, state, tensors, setting)
    longer = dataclasses.replace(PPO_RECIPE, steps=2048)
    assert train(settings(tmp_path / "run", longer), console=QUIET).steps == 2048
    other = dataclasses.replace(longer, action_repeat=2)
    with pytest.raises(TrainingStateError, match="action_repeat 1 -> 2"):
        train(settings(tmp_path / "run", other), console=QUIET)


# ---------------------------------------------------------------- conversion


@pytest.mark.parametrize("kind", [PPO, SAC])
@pytest.mark.parametrize("normalized", [True, False])
def test_converted_algorithms_act_alike(kind: Any, normalized: bool) -> None:
    env = DummyVecEnv([get_task("mujoco-pusher").make])  # actions within 2, not 1
    if normalized:
        env = VecNormalize(env)
        env.obs_rms.mean += 0.3
        env.obs_rms.var *= 4.0
    algorithm = kind("MlpPolicy", env, policy_kwargs={"net_arch": [16, 16]}, device="cpu")
    network = network_of(algorithm)
    single = get_task("mujoco-pusher").make()
    policy = TrainedExpert(network, single.observation_space, single.action_space)
    observations = np.random.default_rng(0).normal(size=(9, 23)) * 3
    given = env.normalize_obs(observations) if normalized else observations
    expected, _ = algorithm.predict(given, deterministic=True)
    actions, _ = policy.predict(observations, deterministic=True)
    np.testing.assert_allclose(actions, expected, atol=5e-3)  # float16 weights


@pytest.mark.parametrize("inputs", [None, 14])
def test_sac_of_sbx_acts_as_its_expert(inputs: int | None) -> None:
    recipe = dataclasses.replace(SAC_RECIPE, inputs=inputs)
    algorithm = make_algorithm(recipe, get_task("mujoco-pusher").make, seed=0)
    algorithm.learn(300)
    single = get_task("mujoco-pusher").make()
    network = network_of(algorithm, size=23 if inputs else None)
    policy = TrainedExpert(network, single.observation_space, single.action_space)
    observations = np.random.default_rng(0).normal(size=(9, 23)) * 3
    given = algorithm.get_vec_normalize_env().normalize_obs(observations[:, :inputs])  # type: ignore[union-attr]
    expected, _ = algorithm.predict(given, deterministic=True)
    actions, _ = policy.predict(observations, deterministic=True)
    np.testing.assert_allclose(actions, expected, atol=5e-3)  # float16 weights
    algorithm.policy.actor.activation_fn = abs
    with pytest.raises(ValueError, match="expected tanh or relu"):
        network_of(algorithm)


@pytest.mark.parametrize("recipe", [PPO_RECIPE, SAC_RECIPE], ids=["ppo", "sac"])
def test_a_training_is_decided_by_its_seed(recipe: Recipe) -> None:
    weights = []
    for seed in (0, 0, 1):
        algorithm = make_algorithm(recipe, get_task(TASK).make, seed=seed)
        algorithm.learn(300)
        weights.append(tensors_of(algorithm))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert not all(torch.equal(tensor, weights[2][name]) for name, tensor in weights[0].items())


def test_a_state_of_another_network_is_refused() -> None:
    make = get_task(TASK).make
    tensors = tensors_of(make_algorithm(SAC_RECIPE, make, seed=0))
    wider = make_algorithm(dataclasses.replace(SAC_RECIPE, width=16), make, seed=0)
    with pytest.raises(TrainingStateError, match="does not fit this recipe"):
        restore(wider, tensors)


def test_other_policies_are_refused() -> None:
    env = get_task(TASK).make()
    with pytest.raises(ValueError, match="gSDE"):
        network_of(PPO("MlpPolicy", env, use_sde=True, device="cpu"))
    kwargs = {"activation_fn": torch.nn.ELU}
    with pytest.raises(ValueError, match="expected Linear and Tanh"):
        network_of(PPO("MlpPolicy", env, policy_kwargs=kwargs, device="cpu"))


def test_a_zip_is_read_only_from_a_trusted_author(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = get_task(TASK).make()
    algorithm = PPO("MlpPolicy", env, policy_kwargs={"net_arch": [16]}, device="cpu")
    algorithm.save(tmp_path / "model.zip")
    with pytest.raises(PermissionError, match="--trust-zip"):
        load_zip(tmp_path / "model.zip", "ppo")
    command = ["expert", "convert", str(tmp_path / "model.zip"), "--task", TASK]
    command += ["--algorithm", "ppo", "--output", str(tmp_path / "expert")]
    assert main(command) == 2
    assert "runs whatever code" in capsys.readouterr().err
    assert main([*command, "--trust-zip"]) == 0
    policy = TrainedExpert(
        load_expert(tmp_path / "expert"), env.observation_space, env.action_space
    )
    observation, _ = env.reset(seed=0)
    expected, _ = algorithm.predict(observation, deterministic=True)
    actions, _ = policy.predict(observation, deterministic=True)
    np.testing.assert_allclose(actions, expected, atol=5e-3)


# ---------------------------------------------------------------- recipes and the queue


def test_every_task_of_the_trained_suites_has_a_recipe() -> None:
    tasks = {task.id for suite in ("mujoco", "dm_control", "atari") for task in list_tasks(suite)}
    assert set(RECIPES) == tasks
    order = list(RECIPES)
    for task, recipe in RECIPES.items():
        assert (
            recipe.algorithm == "sac" or recipe.num_envs * recipe.n_steps % recipe.batch_size == 0
        )
        if recipe.start is not None:
            assert order.index(recipe.start) < order.index(task)
            start = RECIPES[recipe.start]
            assert (start.width, start.activation) == (recipe.width, recipe.activation)
    with pytest.raises(ValueError, match="no recipe for one"):
        recipe_for("babyai-unlock")


def test_a_queue_goes_on_after_a_failure_and_skips_what_is_at_its_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those without any expert come first, a little each; then all that are below their bar."""
    trained = []

    def fake(settings: TrainSettings, *, console: Console) -> None:
        if settings.task == "mujoco-swimmer":
            raise RuntimeError("diverged")
        trained.append((settings.task, settings.until))

    shares = {"mujoco-hopper": 1.2, "mujoco-reacher": 0.7}
    monkeypatch.setattr(queue, "train", fake)
    monkeypatch.setattr(queue, "shipped_share", shares.get)
    said = io.StringIO()
    tasks = queue.chosen("mujoco", "swimmer,hopper,reacher,walker")
    assert tasks == ["mujoco-reacher", "mujoco-swimmer", "mujoco-hopper", "mujoco-walker"]
    assert queue.TrainQueue(tasks, root=tmp_path).run(Console(file=said, width=200)) == 1
    assert trained == [
        ("mujoco-walker", queue.FIRST_PASS),
        ("mujoco-reacher", recipe_for("mujoco-reacher").steps),
        ("mujoco-walker", recipe_for("mujoco-walker").steps),
    ]
    assert said.getvalue().count("mujoco-swimmer: failed, RuntimeError: diverged") == 1
    assert "mujoco-hopper: its expert comes with the package" in said.getvalue()


def test_a_queue_trains_side_by_side_and_stops_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes; none begins after the time is over, and both can be resumed.

    The clock goes on at once, then stands still: however long a process takes to start, the other
    one begins too.
    """
    clock = iter([0.0])
    monkeypatch.setattr(queue, "time", SimpleNamespace(monotonic=lambda: next(clock, 9.0)))
    monkeypatch.setattr(queue, "shipped_share", lambda task: None)
    tasks = ["mujoco-reacher", "mujoco-swimmer"]

    settings = QueueSettings(jobs=2, steps=50_000, minutes=0.001)
    console = Console(file=io.StringIO())
    assert queue.TrainQueue(tasks, tmp_path, settings).run(console) == 0
    assert not list(tmp_path.iterdir())
    assert queue.TrainQueue(tasks, tmp_path, settings).run(console) == 0
    stopped = queue.standings(tasks, tmp_path)
    assert all(row.steps > 0 and row.finished is None for row in stopped)
    config = read_config(tmp_path / tasks[0] / "expert")
    assert config["score"] is None, "there was no time left to score it"


def test_standings_tell_where_each_training_is(tmp_path: Path) -> None:
    state = TrainingState(steps=5, seconds=90.0, best=-7.5, finished="all steps done")
    (tmp_path / TASK).mkdir()
    save_state(tmp_path / TASK / STATE_FILE, state, {"one": torch.zeros(1)}, {})
    done, untouched = queue.standings([TASK, "mujoco-ant"], tmp_path)
    assert (done.steps, done.minutes, done.best, done.finished) == (5, 1.5, -7.5, "all steps done")
    assert (untouched.steps, untouched.best, untouched.finished) == (0, None, None)
    assert done.shipped is not None
    assert done.shipped > 1


def test_the_rate_falls_over_the_recipes_steps_however_often_a_training_is_stopped() -> None:
    def rates(*stops: int) -> list[float]:
        learner = BaselinesLearner(PPO_RECIPE, get_task(TASK).make, seed=0)
        optimiser, seen = learner.algorithm.policy.optimizer, []

        def after_rollout() -> bool:
            seen.append(optimiser.param_groups[0]["lr"])
            return True

        for until in stops:
            learner.learn(until, after_rollout)
        learner.close()
        return seen

    once = rates(1024)
    assert len(once) == 8
    assert once[0] == PPO_RECIPE.learning_rate
    assert once == sorted(once, reverse=True)
    assert rates(256, 512, 1024) == once


def test_a_training_stops_where_it_is_told_and_is_resumed(tmp_path: Path) -> None:
    state = train(settings(tmp_path / "run", until=512), console=QUIET)
    assert (state.steps, state.finished) == (512, None)
    assert read_config(tmp_path / "run" / "expert")["score"] is not None
    state = train(settings(tmp_path / "run"), console=QUIET)
    assert (state.steps, state.finished) == (1024, "all steps done")


def test_what_is_shipped_beats_chance_and_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.experts.store.SHIPPED", tmp_path / "package")
    run = tmp_path / "run"
    assert shipping.ship(run, TASK, episodes=2) is None
    env = get_task(TASK).make()
    chance = RandomPolicy(env.observation_space, env.action_space)
    returns = evaluate(chance, [env], 2, first_seed=SCORE_SEEDS_START)
    assert shipping._chance(TASK, 2) == Evaluation.of(returns)
    train(settings(run), console=QUIET)
    scored = read_config(run / "expert")["score"]
    monkeypatch.setattr(
        shipping, "_chance", lambda task, episodes: Evaluation(scored["mean"] - 0.1, 1.0, 2)
    )
    assert "does not beat chance" in str(shipping.ship(run, TASK, episodes=2))
    assert not (tmp_path / "package").exists()
    monkeypatch.setattr(
        shipping, "_chance", lambda task, episodes: Evaluation(scored["mean"] - 500, 1.0, 2)
    )
    assert str(shipping.ship(run, TASK, episodes=2)).startswith("shipped")
    assert "kept" in str(shipping.ship(run, TASK, episodes=2))
    assert {path.name for path in (tmp_path / "package" / TASK).iterdir()} == {
        "config.json", "model.safetensors", "curve.csv",
    }  # fmt: skip
    # over two episodes it was scored; over five it is played again, and so is what is shipped
    assert "kept" in str(shipping.ship(run, TASK, episodes=5))
    for folder in (run / "expert", tmp_path / "package" / TASK):
        config = read_config(folder)
        assert config["score"]["episodes"] == 5
        policy = TrainedExpert(load_expert(folder), env.observation_space, env.action_space)
        returns = evaluate(policy, [env], 5, first_seed=SCORE_SEEDS_START)
        assert config["score"]["mean"] == Evaluation.of(returns).mean


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "mujoco-hopper", "--device", "cuda"], "expected cpu for a task that is not"),
        (["train", "babyai-unlock"], "no recipe for one"),
        (["train", "mujoco-hoper"], "did you mean mujoco-hopper"),
        (["train", "--suite", "mujoco", "--output", "x"], "names the folder of one training"),
        (["score", "babyai-unlock"], "no recipe for one"),
        (["score", "mujoco-hopper", "--expert", "nowhere"], "holds no config.json"),
        (["ship"], "runs/experts holds no finished training of any task: gato-gym expert train"),
        (["ship", "mujoco-hopper"], "holds no finished training of mujoco-hopper"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["expert", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
