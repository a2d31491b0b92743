"""Statistics of vectors: those of exact fractions, whatever their magnitude."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from fractions import Fraction
from pathlib import Path
from urllib.parse import quote

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym import Episode, PlanOptions, compile_plan, write_minari
from policies.training.data.datasets import DatasetTask, find_tasks
from policies.training.data.encoding import shard_tasks
from policies.training.data.vector_statistics import moments, with_statistics

ACTIONS = spaces.Discrete(2)


def box(count: int, dtype: type[np.floating] = np.float64) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (count,), dtype)


def episode(vectors: NDArray[np.floating]) -> Episode:
    """An episode of these observations ``[T, N]``; its last one is repeated."""
    length = len(vectors)
    last = np.arange(length) == length - 1
    return Episode(
        task="numbers",
        observations=np.concatenate([vectors, vectors[-1:]]),
        actions=np.zeros(length, np.int64),
        rewards=np.ones(length, np.float32),
        terminations=last,
        truncations=np.zeros(length, bool),
    )


def statistics(*parts: NDArray[np.floating]) -> PlanOptions:
    """Options with the statistics of some datasets, each an array ``[E, T, N]``."""
    dtype = parts[0].dtype.type
    plan = compile_plan(box(parts[0].shape[-1], dtype), ACTIONS)
    return with_statistics(plan, [moments(plan, map(episode, part)) for part in parts])


def exact(values: NDArray[np.floating]) -> tuple[float, float]:
    """Mean and standard deviation in exact fractions."""
    numbers = [Fraction(float(value)) for value in values.ravel()]
    mean = sum(numbers, Fraction()) / len(numbers)
    variance = sum(((number - mean) ** 2 for number in numbers), Fraction()) / len(numbers)
    return float(mean), math.sqrt(variance)


@pytest.mark.parametrize(
    ("centre", "spread"),
    [(1.7e9, 100.0), (1e6, 0.5), (0.0, 1e-5), (-3e-4, 1e-9), (2.5e30, 1e29), (0.0, 1e-30)],
    ids=["clock", "shifted", "small-sensor", "tiny-sensor", "huge", "atoms"],
)
def test_mean_and_deviation_are_those_of_exact_fractions(centre: float, spread: float) -> None:
    draw = np.random.default_rng(0)
    values = centre + spread * draw.uniform(-1, 1, (6, 20, 1))
    mean, std = exact(values)
    for parts in ((values,), (values[:1], values[1:3], values[3:])):
        options = statistics(*parts)
        assert abs(options.vector_mean[0] - mean) <= 1e-15 * abs(mean) + 1e-9 * std
        assert options.vector_std[0] == pytest.approx(std, rel=1e-9)
        plan = compile_plan(box(1), ACTIONS, PlanOptions.from_json(options.to_json()))
        scaled = plan.encode_batch(values.reshape(-1, 1)).vectors[:, 0, 0]
        assert (float(scaled.mean()), float(scaled.std())) == pytest.approx((0, 1), abs=1e-5)


def test_what_does_not_change_beyond_rounding_is_constant() -> None:
    ulp64, ulp32 = np.spacing(0.3), np.spacing(np.float32(0.3))
    pattern = (np.arange(40) % 2).reshape(2, 20, 1)
    double = np.concatenate(
        [0.3 + ulp64 * pattern, 0.3 + ulp32 * pattern, 0 * pattern + 1e9 / 7, 1e-40 * pattern],
        axis=2,
    )
    options = statistics(double)
    assert [options.vector_std[column] for column in (0, 2, 3)] == [1.0] * 3, "float32 has no 1e-40"
    assert options.vector_mean[2] == 1e9 / 7
    assert options.vector_std[1] == pytest.approx(ulp32 / 2), "float64 tells these apart"
    single = np.concatenate([0.3 + ulp32 * pattern, 0.3 + 1e-5 * pattern], axis=2)
    options = statistics(single.astype(np.float32))
    assert options.vector_std[0] == 1.0, "float32 hardly does"
    assert options.vector_std[1] == pytest.approx(5e-6, rel=0.01)


def test_a_group_of_equal_spaces_has_the_statistics_of_all_its_tasks(tmp_path: Path) -> None:
    """They come from its tasks' first 20 episodes each; a task by itself has those of up to 200."""
    draw = np.random.default_rng(2)
    centres = {"arm": (3.0, 2), "leg": (-5.0, 2), "hand": (40.0, 3)}
    values = {name: draw.normal(at, 1, (25, 2, n)) for name, (at, n) in centres.items()}
    env: gym.Env[object, object] = gym.Env()
    env.action_space, env.spec = ACTIONS, None
    for name, vectors in values.items():
        env.observation_space = box(vectors.shape[-1])
        write_minari(f"test/{name}-v0", map(episode, vectors), env=env, root=tmp_path)
    alone = find_tasks([tmp_path / f"test/{name}-v0" for name in values], share=0.0)
    group = [dataclasses.replace(task, group="robots") for task in alone]

    def check(folder: str, tasks: list[DatasetTask], task: DatasetTask, *names: str) -> None:
        shard = shard_tasks(tasks, tmp_path / folder)[task.id]
        measured = 20 if task.group == "robots" else 25
        raw = np.concatenate([values[name][:measured] for name in names], axis=None)
        raw = raw.reshape(-1, centres[names[0]][1])
        assert shard.plan.options.vector_mean == pytest.approx(raw.mean(0))
        assert shard.plan.options.vector_std == pytest.approx(raw.std(0))

    arm, hand, leg = group
    for task in (arm, leg):
        check("pair", [arm, leg], task, "arm", "leg")
    for task, name in ((arm, "arm"), (hand, "hand"), (leg, "leg")):
        check("group", group, task, name)
    shutil.rmtree(tmp_path / "pair" / quote(arm.id, safe=""))
    check("pair", [arm, leg], arm, "arm", "leg")
    check("pair", [arm], arm, "arm")  # which was encoded beside another
    check("alone", alone, alone[0], "arm")


def test_infinities_count_for_nothing_and_are_clipped(tmp_path: Path) -> None:
    """As tokens do without statistics, whose infinity is the end of the scale."""
    draw = np.random.default_rng(1)
    values = draw.normal(5, 2, (3, 8, 4))
    values[0, 0, 0], values[1, :, 1], values[2, 3, 2] = np.inf, -np.inf, 1e300
    values[:, :, 3] = np.inf
    env: gym.Env[object, object] = gym.Env()
    env.observation_space, env.action_space, env.spec = box(4), ACTIONS, None
    write_minari("test/numbers-v0", map(episode, values), env=env, root=tmp_path)
    tasks = find_tasks([tmp_path / "test/numbers-v0"], share=0.0)
    (shard,) = shard_tasks(tasks, tmp_path / "shards").values()
    (meta,) = (tmp_path / "shards").rglob("meta.json")
    options = json.loads(meta.read_text())["options"]
    for column in range(3):
        usual = values[:, :, column][np.abs(values[:, :, column]) < 1e100]
        got = options["vector_mean"][column], options["vector_std"][column]
        assert got == pytest.approx(exact(usual), rel=1e-12)
    assert (options["vector_mean"][3], options["vector_std"][3]) == (0.0, 1.0)
    vectors = shard.arrays["vectors"][:, 0, :4].reshape(3, 8, 4)
    assert np.isfinite(vectors).all()
    assert (vectors[0, 0, 0], vectors[2, 3, 2]) == (10, 10)
    assert (vectors[1, :, 1] == -10).all()
    assert (vectors[:, :, 3] == 10).all()
