"""Fine-tuning on few episodes: known tasks, new tasks, new spaces, low-rank updates, going on."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from environments import DATASET, ENV, KIND, Balance, Pair
from gymnasium import spaces

from benchmarks.studies.few_shot import familiar, nested_order
from benchmarks.studies.finetune import FinetuneRun
from benchmarks.studies.settings import FinetuneSettings
from gato_gym.__main__ import main
from gato_gym.episodes.minari_datasets import read_minari
from policies import GatoPolicy
from policies.collection.record import play_returns, record_episodes
from policies.collection.scores import interval, play_scores
from policies.gato.checkpoint import load_checkpoint
from policies.gato.task_specs import SpaceMismatchError
from policies.registry import make_policy
from policies.training.data.datasets import find_tasks
from policies.training.trainer import Trainer

SHORT = ["--rows", "2", "--length", "64", "--steps", "4", "--score-episodes", "2"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with six episodes of 40 steps and a checkpoint that knows their environment."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    gym.register(ENV, entry_point=KIND, max_episode_steps=40)
    with gym.make(ENV) as env:
        record_episodes(env, Balance(), 6, DATASET)
    train = ["train", "--dataset", DATASET, "--output", "runs/base", "--preset", "0.4m"]
    assert main([*train, "--steps", "2", "--rows", "2", "--length", "64"]) == 0
    yield tmp_path
    del gym.registry[ENV]


def finetune(*more: str, dataset: str = DATASET, output: str = "runs/ft") -> int:
    base = ["finetune", "--from", "runs/base", "--dataset", dataset, "--output", output]
    return main([*base, *SHORT, *more])


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder).network.state_dict()


def test_subsets_are_nested_and_differ_between_seeds(root: Path) -> None:
    (task,) = find_tasks([DATASET])
    orders = [nested_order(task, seed) for seed in range(4)]
    assert all(sorted(order) == [(0, i) for i in range(6)] for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert nested_order(task, 2) == orders[2]
    (episode,) = task.episodes([(0, 4)])
    assert np.array_equal(episode.observations, list(read_minari(DATASET))[4].observations)


def test_a_known_task(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finetune("--episodes", "1,3", "--seeds", "2", "--from-scratch") == 0
    said = capsys.readouterr().out
    assert "a task that the checkpoint knows" in said
    assert "gato-gym score Cart-v0 --policy runs/ft" in said
    rows = {(row["arm"], int(row["episodes"])): row for row in table("runs/ft/curve.csv")}
    arms = [(arm, count) for arm in ("scratch", "tuned") for count in (1, 3)]
    assert set(rows) == {*arms, ("untrained", 0), ("chance", 0), ("expert", 0)}
    assert float(rows["expert", 0]["return"]) == 40.0
    for arm, count in arms:
        row = rows[arm, count]
        scores = [
            json.loads((root / f"runs/ft/units/{arm}-{count:04d}-seed-{s}/score.json").read_text())
            for s in range(2)
        ]
        assert row["seeds"] == "2"
        mean = np.mean([score["returns"] for score in scores])
        assert float(row["return"]) == pytest.approx(mean, rel=1e-5)
        assert float(row["return_low"]) <= mean <= float(row["return_high"])
        assert row["success"] == "", "the environment does not tell"
    assert (root / "runs/ft/curve.png").read_bytes().startswith(b"\x89PNG")

    with gym.make(ENV) as env:
        unit = "runs/ft/units/tuned-0003-seed-0"
        score = json.loads((root / unit / "score.json").read_text())
        policies = [GatoPolicy.load(name, env=env) for name in ("runs/ft", unit)]
        for policy in policies:
            assert policy.task == ENV
            assert play_returns(env, policy, 2, deterministic=False) == score["returns"]
        base = play_returns(env, GatoPolicy.load("runs/base", env=env), 2, deterministic=False)
        assert float(rows["untrained", 0]["return"]) == pytest.approx(np.mean(base), rel=1e-5)


def test_it_starts_from_the_checkpoint(root: Path) -> None:
    """With a rate of almost nothing, a tuned network is the one that it was made from."""
    assert finetune("--episodes", "1", "--seeds", "1", "--rate", "1e-12") == 0
    base, tuned = weights("runs/base"), weights("runs/ft")
    for name, tensor in base.items():
        torch.testing.assert_close(tuned[name], tensor, rtol=1e-2, atol=1e-6)


def test_what_was_stopped_goes_on_and_ends_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--episodes", "1,2", "--seeds", "1")
    assert finetune(*few, output="runs/whole") == 0
    update, seen = Trainer.update, []

    def stop(self: Trainer) -> Any:
        seen.append(self.step)
        if len(seen) == 7:
            self.save()
            raise KeyboardInterrupt
        return update(self)

    monkeypatch.setattr(Trainer, "update", stop)
    assert finetune(*few) == 130
    assert "3 of 4 units are done" in capsys.readouterr().out
    first = root / "runs/ft/units/tuned-0001-seed-0/score.json"
    written = first.stat().st_mtime_ns
    seen[:] = [0] * 10
    assert finetune(*few) == 0
    assert seen[10:] == [2, 3], "the second unit, from its third step on"
    assert first.stat().st_mtime_ns == written
    assert (root / "runs/ft/curve.png").read_bytes().startswith(b"\x89PNG")
    there, here = weights("runs/whole"), weights("runs/ft")
    assert all(torch.equal(there[name], here[name]) for name in there)
    assert (root / "runs/whole/curve.csv").read_text() == (root / "runs/ft/curve.csv").read_text()

    assert finetune(*few, "--steps", "5") == 2
    assert "steps: 4 there, 5 now" in capsys.readouterr().err


def test_low_rank_updates(root: Path) -> None:
    pytest.importorskip("peft")
    assert finetune("--episodes", "2", "--seeds", "1", "--lora", "2", "--rate", "0.01") == 0
    base, tuned = weights("runs/base"), weights("runs/ft")
    changed = [name for name in base if not torch.equal(base[name], tuned[name])]
    assert len(changed) == 2 * 4, "four matrices of each of two blocks"
    assert all(name.startswith("backbone.") for name in changed)
    for name in changed:
        sizes = torch.linalg.svdvals(tuned[name] - base[name])
        # rounding to bfloat16 leaves a little of every rank
        assert sizes[2] < 0.2 * sizes[0], name
        assert sizes[1] > 0


def test_a_new_task_of_known_spaces_is_read_as_the_checkpoint_reads_them(root: Path) -> None:
    gym.register("ShortCart-v0", entry_point=KIND, max_episode_steps=20)
    try:
        with gym.make("ShortCart-v0") as env:
            record_episodes(env, Balance(), 3, "my/short-v0", seed=50)
            assert finetune("--episodes", "1", "--seeds", "1", dataset="my/short-v0") == 0
            policy = GatoPolicy.load("runs/ft", env=env)
            known = load_checkpoint("runs/base").tasks[ENV].options
            assert policy.task == "ShortCart-v0"
            assert policy.plan.options == known
    finally:
        del gym.registry["ShortCart-v0"]
    assert (root / "runs/ft/units/untrained-0000-seed-0/score.json").exists()


class Board(gym.Env[Any, Any]):
    """One step before a 9 x 8 grid of symbols, larger than a network's usual one."""

    observation_space = spaces.Box(0, 9, (9, 8, 3), np.uint8)
    action_space = spaces.MultiDiscrete([3, 2])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, True, False, {"success": True}


@pytest.mark.parametrize("kind", [Pair, Board])
def test_new_spaces(root: Path, kind: type[gym.Env[Any, Any]]) -> None:
    gym.register("New-v0", entry_point=lambda: kind())
    try:
        env = kind()
        record_episodes(env, make_policy("random", env=env), 4, "my/new-v0")
        few = ("--episodes", "2", "--seeds", "1")
        options = ("--options", json.dumps({"grids": [""]})) if kind is Board else ()
        assert finetune(*few, *options, dataset="my/new-v0") == 2, "whose environment nobody told"
        assert finetune(*few, *options, "--env", "New-v0", dataset="my/new-v0") == 0
    finally:
        del gym.registry["New-v0"]
    rows = {row["arm"]: row for row in table("runs/ft/curve.csv")}
    assert set(rows) == {"chance", "tuned", "expert"}, "nothing to play untrained"
    assert float(rows["tuned"]["success"]) == 1.0
    action, _ = GatoPolicy.load("runs/ft", env=env).predict(env.reset(seed=0)[0])
    assert env.action_space.contains(action)
    grown = load_checkpoint("runs/ft").network.config
    assert grown.grid_size == (9 if kind is Board else 7)


def test_what_cannot_be_used_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["finetune", "--output", "runs/ft", "--dataset", DATASET]
    assert main([*run, "--from", "gato-huge"]) == 2
    assert "no checkpoint 'gato-huge'" in capsys.readouterr().err
    assert finetune("--episodes", "1,7") == 2
    assert (
        "7 episodes of 'Cart-v0' are asked for and 6 of 6 are good enough"
        in capsys.readouterr().err
    )
    assert finetune("--episodes", "0") == 2
    assert "expected numbers of 1 or more" in capsys.readouterr().err
    assert finetune(dataset="my/none-v0") == 2
    assert "no Minari dataset 'my/none-v0'" in capsys.readouterr().err


def test_an_id_whose_spaces_changed_is_refused(root: Path) -> None:
    (task,) = find_tasks([DATASET])
    other = dataclasses.replace(task, action_space=spaces.Discrete(3))
    with pytest.raises(SpaceMismatchError, match=r"knows 'Cart-v0' with spaces .*Discrete\(2"):
        familiar(load_checkpoint("runs/base"), other)


class Turns:
    """A batch of actions that depend on the observation and on the timestep."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:  # fmt: skip
        single = observation.ndim == 1
        seen = observation[None] if single else observation
        count = np.zeros(len(seen), int) if state is None else state + 1
        count[np.asarray(episode_start)] = 0
        actions = (seen[:, 2] > 0) ^ (count % 5 == 4)
        actions = actions.astype(np.int64)
        return (actions[0] if single else actions), count


def test_several_environments_play_what_one_plays() -> None:
    envs = [gym.make("CartPole-v1") for _ in range(3)]
    scores = play_scores(envs, Turns(), 7)
    assert list(scores.returns) == play_returns(envs[0], Turns(), 7)
    assert len(set(scores.returns)) > 1
    assert scores.successes is None
    assert play_scores(envs, Turns(), 2).returns == scores.returns[:2]


def test_intervals() -> None:
    assert interval([[0.0], [1.0]], redraw_groups=False) == (0.5, 0.5)
    assert interval([[0.0], [1.0]], redraw_groups=True) == (0.0, 1.0)
    # of n coin flips redrawn, the mean's deviation is sqrt(p (1 - p) / n)
    flips = [np.arange(400) % 4 == 0]
    low, high = interval(flips, redraw_groups=False)
    deviation = (0.25 * 0.75 / 400) ** 0.5
    assert low == pytest.approx(0.25 - 1.96 * deviation, abs=0.006)
    assert high == pytest.approx(0.25 + 1.96 * deviation, abs=0.006)


def test_the_dataset_of_two_environments_is_refused(root: Path) -> None:
    env = Pair()
    record_episodes(env, make_policy("random", env=env), 2, "my/pair-v0")
    settings = FinetuneSettings(
        source="runs/base", datasets=(DATASET, "my/pair-v0"), output=root / "runs/two"
    )
    with pytest.raises(ValueError, match="datasets are of Cart-v0, my/pair-v0"):
        FinetuneRun(settings)
