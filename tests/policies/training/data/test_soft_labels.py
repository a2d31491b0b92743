"""What an expert chose from becomes labels beside its actions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from gymnasium import spaces
from small import SMALL

from gato_gym import Episode, PlanOptions, compile_plan
from policies.training.data.packing import Mixture, Packer
from policies.training.data.shards import TaskShard, write_shard
from policies.training.data.soft_labels import label_columns, soft_labels

STATE = spaces.Box(-1, 1, (2,), np.float32)
OPTIONS = PlanOptions(vector_size=16, memory="none", actions="parallel")
LOPSIDED = spaces.Box(np.array([-1, 0], np.float32), np.array([1, 10], np.float32))


def episode(actions: np.ndarray, distribution: np.ndarray | None) -> Episode:
    length = len(actions)
    observations = np.random.default_rng(0).uniform(-1, 1, (length + 1, 2)).astype(np.float32)
    return Episode(
        task="test",
        observations=observations,
        actions=actions,
        rewards=np.zeros(length, np.float32),
        terminations=np.zeros(length, bool),
        truncations=np.eye(length, dtype=bool)[-1],
        distribution=None if distribution is None else distribution.astype(np.float16),
    )


def test_deviations_are_in_units_of_half_the_actions_range() -> None:
    plan = compile_plan(STATE, LOPSIDED, OPTIONS)
    given = np.array([[0.5, 0.5], [0.25, 5.0]])
    labels = soft_labels(plan, episode(np.zeros((2, 2), np.float32), given))
    assert labels.tolist() == [[0.5, 0.0999755859375], [0.25, 1.0]]  # of halves 1 and 5


def test_what_nobody_said_or_cannot_be_said_is_zeros() -> None:
    plan = compile_plan(STATE, spaces.Discrete(3), OPTIONS)
    actions = np.array([0, 2])
    assert soft_labels(plan, episode(actions, None)).tolist() == [[0.0] * 3] * 2
    assert soft_labels(plan, episode(actions, np.ones((2, 4)))).tolist() == [[0.0] * 3] * 2
    unbounded = compile_plan(STATE, spaces.Box(-np.inf, np.inf, (2,)), OPTIONS)
    several = compile_plan(STATE, spaces.MultiDiscrete([3, 2]), OPTIONS)
    assert label_columns(unbounded) == label_columns(several) == 0


def test_targets_have_their_own_label(tmp_path: Path) -> None:
    choices = compile_plan(STATE, spaces.Discrete(3), OPTIONS)
    numbers = compile_plan(STATE, LOPSIDED, OPTIONS)
    probabilities = np.array([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    deviations = np.array([[0.5, 5.0], [0.125, 2.5]])
    recorded = {
        "choose": (choices, episode(np.array([1, 2]), probabilities)),
        "push": (numbers, episode(np.array([[-1, 0], [1, 10]], np.float32), deviations)),
    }
    shards = {}
    for name, (plan, one) in recorded.items():
        write_shard(tmp_path / name, plan, [one], {"task": name, "group": name})
        arrays = {p.stem: np.load(p) for p in (tmp_path / name).glob("*.npy")}
        shards[name] = TaskShard(name, plan, arrays, group=name)
    mixture = Mixture({"choose": 0.5, "push": 0.5}, memoryless_steps=4)
    targets = Packer(shards, mixture, SMALL, rows=2, length=64, seed=0).batch(0).targets
    hard = dataclasses.replace(mixture, soft_labels=False)
    without = Packer(shards, hard, SMALL, rows=2, length=64, seed=0).batch(0).targets
    assert without.soft.shape == (len(targets.ids), 0)
    assert without.ids.tolist() == targets.ids.tolist()
    rows = {
        (int(i), int(p)): soft.tolist()
        for i, p, soft in zip(targets.ids, targets.places, targets.soft, strict=True)
    }
    values = SMALL.vocabulary
    first = values.discrete.start
    assert rows[first + 1, 0] == [0.25, 0.75, 0.0]
    assert rows[first + 2, 0] == [0.0, 0.0, 1.0]
    low, high = values.continuous.start, values.continuous.stop - 1
    assert rows[low, 0] == [0.5, 0.0, 0.0]
    assert rows[low, 1] == [1.0, 0.0, 0.0]
    assert rows[high, 0] == [0.125, 0.0, 0.0]
    assert rows[high, 1] == [0.5, 0.0, 0.0]
