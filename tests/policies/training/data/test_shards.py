"""Shards hold what the plan says of a Minari dataset's episodes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
from recorded import ARM, BABYAI, OPEN, PUSH, arm_episode, babyai_episode, write_invented
from safetensors.torch import load_file
from small import SMALL, WORDS, random_shard, talking_plan

from gato_gym import compile_plan, get_task
from gato_gym.episodes.minari_datasets import find_minari
from gato_gym.text import default_tokenizer
from policies import GatoPolicy
from policies.training.data import datasets
from policies.training.data.datasets import find_tasks
from policies.training.data.encoding import shard_tasks
from policies.training.data.shards import TaskShard
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings


def encode(root: Path, *tasks: str, augment: int = 2, workers: int = 1) -> None:
    """Shards of these tasks, normalised by suite."""
    names = [root / f"gato/{task}-v0" for task in tasks]
    dataset_tasks = find_tasks(names, share=0.0, group_by="suite")
    shard_tasks(dataset_tasks, root / "shards", augment=augment, workers=workers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_invented(root)
    encode(root, BABYAI, ARM)
    return root


def test_processes_read_datasets_alike_and_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [folder / f"gato/{task}-v0" for task in (ARM, BABYAI)]
    monkeypatch.setattr(datasets, "FEWEST_READ", 1)
    here, there = (find_tasks(names, share=0.0, workers=count) for count in (1, 2))
    assert [task.id for task in there] == sorted([ARM, BABYAI])
    assert [task.identity() for task in there] == [task.identity() for task in here]
    assert next(there[0].episodes()).length == next(here[0].episodes()).length


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
    timesteps = shard.timesteps(steps)
    assert np.array_equal(timesteps.grids, expected.grids)
    assert np.array_equal(timesteps.ids, expected.ids)
    assert np.array_equal(timesteps.actions, plan.encode_actions(episode.actions))
    assert np.array_equal(shard.text(int(shard.arrays["text_index"][steps[0]])), expected.text[0])
    assert shard.emits.tolist() == ([True] + [False] * 4) * 12, "though all texts are the same"


def test_a_part_of_a_shard_has_its_episodes_alone() -> None:
    whole = random_shard(talking_plan(), "talk")
    part = whole.part(2, 5)
    sizes = (whole.ends - whole.starts)[2:5]
    assert part.ends.tolist() == np.cumsum(sizes).tolist()
    assert part.num_steps == sizes.sum()
    for number, (start, stop) in enumerate(zip(part.starts, part.ends, strict=True), start=2):
        steps = np.arange(start, stop)
        assert np.allclose(part.timesteps(steps).vectors[:, 0, 0], number / 6)
        words = part.text(int(part.arrays["text_index"][start])).tolist()
        assert words == list(default_tokenizer().encode(WORDS[number % 3]))
        assert np.flatnonzero(part.emits[steps]).tolist() == list(range(0, stop - start, 8))


def test_numbers_are_normalised_by_their_statistics(folder: Path) -> None:
    shard = TaskShard.open(folder / "shards" / ARM)
    raw = np.concatenate([arm_episode(n).observations[:12] for n in range(4)])
    vectors = np.asarray(shard.arrays["vectors"])[:, 0, :39]
    assert np.allclose(vectors, (raw - raw.mean(0)) / raw.std(0), atol=1e-4)
    assert np.allclose(vectors.mean(0), 0, atol=1e-3)
    options = json.loads((folder / "shards" / ARM / "meta.json").read_text())["options"]
    assert np.allclose(options["vector_mean"], raw.mean(0), rtol=1e-4)


def test_a_part_of_a_dataset_is_trained_on_as_that_part(folder: Path, tmp_path: Path) -> None:
    dataset = find_minari(folder / f"gato/{ARM}-v0")
    first, second = (
        minari.MinariDataset(dataset.storage, np.array(chosen)) for chosen in ([3, 1], [2, 0])
    )
    for part, numbers in ((first, (3, 1)), (second, (2, 0))):
        (task,) = find_tasks([part], share=0.0)
        assert task.counts == (2, 2)
        assert [episode.seed for episode in task.episodes()] == list(numbers)
        assert [episode.seed for episode in task.episodes([(0, 1)])] == [numbers[1]]
        shard = shard_tasks([task], tmp_path)[ARM]  # of equal returns and lengths, yet another part
        raw = np.concatenate([arm_episode(n).observations[:12] for n in numbers])
        vectors = np.asarray(shard.arrays["vectors"])[:, 0, :39]
        assert np.allclose(vectors, (raw - raw.mean(0)) / raw.std(0), atol=1e-4)
    whole = find_tasks([dataset], share=0.0)[0].identity()["sources"][0]
    assert sorted(whole) == ["contents", "dataset", "episodes", "keep", "returns", "steps"]
    assert (whole["episodes"], whole["steps"]) == (4, 48)
    with pytest.raises(
        ValueError, match=r"holds no episode: .*, or keep some of its 4 where it is"
    ):
        find_tasks([dataset.filter_episodes(lambda each: False)])


def test_a_shard_made_with_the_same_settings_is_kept(folder: Path) -> None:
    path = folder / "shards" / BABYAI / "actions.npy"
    before = path.stat().st_mtime_ns
    encode(folder, BABYAI, augment=2)
    assert path.stat().st_mtime_ns == before
    encode(folder, BABYAI, augment=1)
    assert len(TaskShard.open(folder / "shards" / BABYAI).ends) == 8
    encode(folder, BABYAI, augment=2)


def test_any_number_of_processes_makes_the_same_shards(folder: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted((folder / "shards").rglob("*.npy"))}

    one = contents()
    for name in (BABYAI, ARM):
        shutil.rmtree(folder / "shards" / name)
    encode(folder, BABYAI, ARM, workers=2)
    assert contents() == one


def test_no_shard_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gato-gym train encodes"):
        TaskShard.open(tmp_path)


def settings(folder: Path, output: Path, **changes: Any) -> TrainSettings:
    """Four updates of a small network, as gato-mini's recipe groups and prompts them."""
    network = {k: v for k, v in SMALL.to_json().items() if k != "vocabulary"}
    base = TrainSettings(
        datasets=tuple(str(folder / f"gato/{task}-v0") for task in (BABYAI, OPEN, ARM, PUSH)),
        output=output,
        shards=folder / "shards",
        network={**network, "vector_size": 64},
        steps=4,
        group_by="suite",
        augment=2,
        keep=0.0,
        prompt_share=0.5,
        rows=2,
        length=96,
        keep_every=2,
        device="cpu",
    )
    return dataclasses.replace(base, **changes)


def test_from_shards_to_a_policy_that_acts(folder: Path, tmp_path: Path) -> None:
    run = TrainRun(settings(folder, tmp_path / "run"))
    assert run.config.mixture.weights == {"babyai": 1.0, "metaworld": 1.0}
    checkpoint = run.train()
    saved = load_file(tmp_path / "run" / "training" / "last" / "optimiser.safetensors")
    averaged = saved["average.backbone.blocks.0.qkv.weight"]
    for task, prompted in ((BABYAI, False), (ARM, True)):
        env = get_task(task).make()
        policy = GatoPolicy.load(checkpoint, env=env)
        assert policy.task == task
        assert policy.tasks[task].prompt is not None
        assert (policy.prompt is not None) == prompted, "an instruction says what is played"
        weights = policy.network.backbone.blocks[0].qkv.weight
        assert np.allclose(weights, averaged, atol=2e-3)
        observation, _ = env.reset(seed=0)
        action, _ = policy.predict(observation)
        assert env.action_space.contains(action)
        env.close()
    (arm,) = (task for task in run.tasks if task.id == ARM)
    assert arm.demonstration().seed == 1, "the first clean one"


def test_a_kept_step_is_exported(folder: Path, tmp_path: Path) -> None:
    run = TrainRun(settings(folder, tmp_path / "run"))
    run.train()
    early = run.export(tmp_path / "early", step=2)
    late = run.export(tmp_path / "late")
    name = "backbone.blocks.0.qkv.weight"
    kept = load_file(tmp_path / "run" / "training" / "kept" / "step-000002.safetensors")[name]
    assert np.array_equal(early.state_dict()[name], kept.float())
    assert not np.array_equal(early.state_dict()[name], late.state_dict()[name])
    assert "step 2 of 4" in (tmp_path / "early" / "card.md").read_text()


def test_some_tasks_of_the_shards_are_trained_on(folder: Path, tmp_path: Path) -> None:
    run = TrainRun(settings(folder, tmp_path / "run", tasks=(ARM,), held_out=0.25))
    assert list(run.shards) == [ARM]
    assert (len(run.shards[ARM].ends), len(run.held_out[ARM].ends)) == (2, 2)
    run.train()
    with pytest.raises(ValueError, match=r"held_out: 0\.25 there, 0\.0 now"):
        TrainRun(settings(folder, tmp_path / "run", tasks=(ARM,)))
    with pytest.raises(ValueError, match=r"tasks names \['metaworld-none'\]"):
        TrainRun(settings(folder, tmp_path / "run", tasks=("metaworld-none",)))


def test_a_run_stops_where_it_is_told_to_and_goes_on(folder: Path, tmp_path: Path) -> None:
    TrainRun(settings(folder, tmp_path / "whole")).train()
    TrainRun(settings(folder, tmp_path / "run", until=3)).train()
    progress = tmp_path / "run" / "training" / "last" / "progress.json"
    assert json.loads(progress.read_text())["step"] == 3
    TrainRun(settings(folder, tmp_path / "run")).train()
    last = "training/last/model.safetensors"
    assert (tmp_path / "run" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


def test_a_run_of_an_older_recipe_is_resumed_in_its_folder(folder: Path, tmp_path: Path) -> None:
    TrainRun(settings(folder, tmp_path / "new", until=2)).train()
    (tmp_path / "new" / "training").rename(tmp_path / "old")
    (tmp_path / "old" / "data.json").unlink()
    run = TrainRun(settings(folder, tmp_path / "old"))
    assert run.state == tmp_path / "old"
    run.train()
    assert json.loads((run.state / "last" / "progress.json").read_text())["step"] == 4
