"""Shards hold what the plan says of a Minari dataset's episodes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from gato_gym import Episode, compile_plan, get_task, write_minari
from policies.training.config import TrainConfig
from policies.training.data.packing import Mixture
from policies.training.data.shards import TaskShard, build_shards
from policies.training.export import demonstration, export
from policies.training.trainer import open_shards, train

BABYAI, ARM = "babyai-go-to-obj", "metaworld-reach"


def babyai_episode(number: int) -> Episode:
    """Five steps of invented observations."""
    generator = np.random.default_rng(number)
    image = generator.integers(0, 4, (6, 7, 7, 3)).astype(np.uint8)
    image[..., 0] = generator.choice([1, 2, 5, 6], (6, 7, 7))
    words = ["go to the red ball"] * 6
    return Episode(
        task=BABYAI,
        observations={"direction": np.arange(6) % 4, "image": image, "mission": words},
        actions=generator.integers(0, 7, 5),
        rewards=np.array([0, 0, 0, 0, 0.9], np.float32),
        terminations=np.array([False] * 4 + [True]),
        truncations=np.zeros(5, bool),
        seed=number,
        info={"success": True},
    )


def arm_episode(number: int) -> Episode:
    """Twelve steps of invented observations with means and spreads of their own."""
    generator = np.random.default_rng(number)
    return Episode(
        task=ARM,
        observations=generator.normal(np.arange(39), 1 + np.arange(39) % 3, (13, 39)),
        actions=generator.uniform(-1, 1, (12, 4)).astype(np.float32),
        rewards=np.ones(12, np.float32),
        terminations=np.zeros(12, bool),
        truncations=np.array([False] * 11 + [True]),
        seed=number,
        info={"success": True, "noise": 0.5 if number == 0 else 0.0},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for task, make in ((BABYAI, babyai_episode), (ARM, arm_episode)):
        env = get_task(task).make()
        write_minari(f"gato/{task}-v0", [make(n) for n in range(4)], env=env, root=root)
        env.close()
    build_shards([BABYAI, ARM], root=root, output=root / "shards", augment=2, workers=1)
    return root


def test_a_shard_is_what_its_plan_encodes(folder: Path) -> None:
    shard = TaskShard.open(folder / "shards" / BABYAI)
    assert len(shard.ends) == 4 * 3, "each episode and two copies"
    assert shard.num_steps == 60
    env = get_task(BABYAI).make()
    plan = compile_plan(env.observation_space, env.action_space, get_task(BABYAI).options)
    episode = babyai_episode(1)
    observed = {key: part[:5] for key, part in episode.observations.items()}
    expected = plan.encode_batch(observed)
    steps = np.arange(shard.starts[3], shard.ends[3])
    found = shard.timesteps(steps)
    assert np.array_equal(found.grids, expected.grids)
    assert np.array_equal(found.ids, expected.ids)
    assert np.array_equal(found.actions, plan.encode_actions(episode.actions))
    assert np.array_equal(shard.text(int(shard.arrays["text_index"][steps[0]])), expected.text[0])
    assert shard.emits[steps].tolist() == [True] + [False] * 4


def test_numbers_are_normalised_by_the_suites_statistics(folder: Path) -> None:
    shard = TaskShard.open(folder / "shards" / ARM)
    raw = np.concatenate([arm_episode(n).observations[:12] for n in range(4)])
    vectors = np.asarray(shard.arrays["vectors"])[:, 0, :39]
    assert np.allclose(vectors, (raw - raw.mean(0)) / raw.std(0), atol=1e-4)
    assert np.allclose(vectors.mean(0), 0, atol=1e-3)
    options = json.loads((folder / "shards" / ARM / "meta.json").read_text())["options"]
    assert np.allclose(options["vector_mean"], raw.mean(0), rtol=1e-4)


def test_a_shard_made_with_the_same_settings_is_kept(folder: Path) -> None:
    path = folder / "shards" / BABYAI / "actions.npy"
    before = path.stat().st_mtime_ns
    arguments = {"root": folder, "output": folder / "shards", "workers": 1}
    build_shards([BABYAI], augment=2, **arguments)  # type: ignore[arg-type]
    assert path.stat().st_mtime_ns == before
    build_shards([BABYAI], augment=1, **arguments)  # type: ignore[arg-type]
    assert len(TaskShard.open(folder / "shards" / BABYAI).ends) == 8
    build_shards([BABYAI], augment=2, **arguments)  # type: ignore[arg-type]


def test_no_shard_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"policies\.training\.data\.shards"):
        TaskShard.open(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no shard of \['babyai'\]"):
        open_shards(tmp_path, ["babyai"])


def test_from_shards_to_a_policy_that_acts(folder: Path, tmp_path: Path) -> None:
    from small import SMALL

    from policies import GatoPolicy

    network = {**SMALL.to_json(), "vector_size": 64}
    config = TrainConfig(
        network=SMALL.from_json(network),
        mixture=Mixture({"babyai": 0.5, "metaworld": 0.5}, {"babyai": 0.5, "metaworld": 0.5}),
        steps=4,
        rows=2,
        length=96,
    )
    train(config, folder / "shards", tmp_path / "run")
    saved = load_file(tmp_path / "run" / "last" / "optimiser.safetensors")
    averaged = saved["average.backbone.blocks.0.qkv.weight"]
    export(tmp_path / "run", shards=folder / "shards", root=folder, output=tmp_path / "checkpoint")
    for task, prompted in ((BABYAI, False), (ARM, True)):
        env = get_task(task).make()
        policy = GatoPolicy.load(tmp_path / "checkpoint", env=env)
        assert policy.task == task
        assert (policy.prompt is not None) == prompted
        assert policy.tasks[task].prompt is not None
        weights = policy.network.backbone.blocks[0].qkv.weight
        assert np.allclose(weights, averaged, atol=2e-3)
        observation, _ = env.reset(seed=0)
        action, _ = policy.predict(observation)
        assert env.action_space.contains(action)
        env.close()
    assert demonstration(ARM, folder).seed == 1, "the first clean one"
