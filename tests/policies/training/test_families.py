"""JAT through the one trainer: from episodes to a policy that plays several tasks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from environments import Balance
from gymnasium import spaces
from recorded import ARM, BABYAI, OPEN, arm_episode, babyai_episode, write_invented
from small_training import losses

from benchmarks.playable import left_out
from benchmarks.policies import PolicyChoice
from gato_gym import Episode, get_task
from gato_gym.__main__ import main
from policies.collection.record import play_returns, record_episodes
from policies.gato.checkpoint_folder import family_of
from policies.jat.checkpoint import load_checkpoint
from policies.jat.config import preset
from policies.jat.gpt2_text import Gpt2Tokenizer
from policies.jat.modalities import Modalities, normalized_captions
from policies.jat.policy import JatPolicy
from policies.registry import make_policy
from policies.training.config import TrainConfig
from policies.training.data.jat_batches import JatBatch, Stretch, episode_batch
from policies.training.data.jat_shards import JatShard, write_jat_shard
from policies.training.data.jat_texts import shard_jat_texts
from policies.training.data.packing import Mixture
from policies.training.data.text_sources import TextSource, find_texts
from policies.training.families.jat import JatFamily
from policies.training.optimizer import OptimiserConfig
from policies.training.run import TrainRun
from policies.training.settings import TrainSettings
from policies.training.trainer import Trainer

DATASET = "my/cartpole-v0"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_episodes_to_a_policy_that_balances(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with gym.make("CartPole-v1") as env:
        record_episodes(env, Balance(), 5, DATASET)
    train = ["train", "--family", "jat", "--dataset", DATASET, "--output", "runs/mine"]
    small = ["--preset", "tiny", "--rows", "4", "--length", "128", "--steps", "120"]
    assert main([*train, *small, "--score-every", "60", "--score-tasks", "CartPole-v1"]) == 0
    said = capsys.readouterr().out
    assert "CartPole-v1: continuous observations, discrete actions" in said
    assert "CartPole-v1 scores" in said
    with gym.make("CartPole-v1") as env:
        policy = make_policy("runs/mine", env=env)
        assert isinstance(policy, JatPolicy)
        assert np.mean(play_returns(env, policy, 2)) > 150, "random: about 20"
    files = {path.suffix for path in (root / "runs/mine").rglob("*") if path.is_file()}
    assert files <= {".safetensors", ".json", ".npy", ".md", ".txt", ".csv", ".lock", ""}


def frames_episode(number: int) -> Episode:
    """Nine steps of four frames each, the last of which is new, and of choices from 2 on."""
    generator = np.random.default_rng(number)
    frames = generator.integers(0, 256, (13, 84, 84)).astype(np.uint8)
    probabilities = generator.dirichlet(np.ones(3), 9).astype(np.float16)
    return Episode(
        task="frames",
        observations=np.stack([frames[i : i + 4] for i in range(10)]),
        actions=generator.integers(2, 5, 9),
        rewards=generator.normal(size=9).astype(np.float32),
        terminations=np.zeros(9, bool),
        truncations=np.arange(9) == 8,
        executed=np.full(9, 3),
        distribution=probabilities,
    )


EPISODES = {
    BABYAI: [babyai_episode(n) for n in range(4)],
    ARM: [arm_episode(n) for n in range(4)],
    "frames": [frames_episode(n) for n in range(4)],
}
SPACES = {
    BABYAI: (
        spaces.Dict(
            direction=spaces.Discrete(4),
            image=spaces.Box(0, 255, (7, 7, 3), np.uint8),
            mission=spaces.Text(100),
        ),
        spaces.Discrete(7),
    ),
    ARM: (spaces.Box(-np.inf, np.inf, (39,), np.float64), spaces.Box(-1, 1, (4,), np.float32)),
    "frames": (spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(3, start=2)),
}
SIZES = dataclasses.replace(
    preset("tiny"), hidden_size=60, num_layers=1, max_position_embeddings=16
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, JatShard]:
    folder, opened = tmp_path_factory.mktemp("shards"), {}
    for task, episodes in EPISODES.items():
        modalities = Modalities.of(*SPACES[task], SIZES, Gpt2Tokenizer.of_bytes())
        write_jat_shard(folder / task, modalities, episodes, {"task": task, "group": task})
        opened[task] = JatShard.open(folder / task, modalities)
    return opened


def config(**changes: Any) -> TrainConfig:
    base = TrainConfig(
        network=SIZES,
        mixture=Mixture(dict.fromkeys(EPISODES, 1.0)),
        optimiser=OptimiserConfig(warmup=2),
        steps=40,
        rows=6,
        length=32,
        family="jat",
    )
    return dataclasses.replace(base, **changes)


def test_a_shard_holds_the_episodes_as_they_were(shards: dict[str, JatShard]) -> None:
    for task, shard in shards.items():
        assert len(shard.ends) == 4
        for number, episode in enumerate(EPISODES[task]):
            steps = slice(int(shard.starts[number]), int(shard.ends[number]))
            seen = shard.observations(steps)
            observed, last = episode.observations, episode.length
            if task == BABYAI:
                assert seen[:, 0].tolist() == observed["direction"][:last].tolist()
                grids = seen[:, 1:148].reshape(-1, 7, 7, 3)
                assert np.array_equal(grids, observed["image"][:last])
                ids = shard.modalities.tokenizer.encode("go to the red ball")
                assert seen[0, 148:].tolist() == [*ids, *[511] * (64 - len(ids))]
            else:
                assert np.array_equal(seen, observed[:last].astype(seen.dtype))
            rewards = [0.0, *episode.rewards[:-1].tolist()]
            assert shard.arrays["rewards"][steps].tolist() == rewards
            low = 2 if task == "frames" else 0
            actions = shard.arrays["actions"][steps].reshape(episode.actions.shape)
            assert np.array_equal(actions + low, episode.actions)
    assert len(shards["frames"].arrays["frames"]) == 4 * 12, "a frame is kept once"
    assert shards["frames"].arrays["executed"].tolist() == [[1]] * 36
    assert shards[ARM].arrays["executed"].shape == (48, 0)
    assert shards[ARM].part(1, 3).observations(slice(0, 12)).tolist() == (
        shards[ARM].observations(slice(12, 24)).tolist()
    )


def test_stacks_that_do_not_overlap_are_kept_whole(tmp_path: Path) -> None:
    episode = frames_episode(0)
    stacks = np.random.default_rng(1).integers(0, 256, (10, 84, 84, 4)).astype(np.uint8)
    space = spaces.Box(0, 255, (84, 84, 4), np.uint8)
    modalities = Modalities.of(space, SPACES["frames"][1], SIZES, None)
    other = dataclasses.replace(episode, observations=stacks)
    write_jat_shard(tmp_path / "s", modalities, [other, other], {"task": "a", "group": "a"})
    shard = JatShard.open(tmp_path / "s", modalities)
    for steps in (slice(0, 9), slice(9, 18)):
        assert np.array_equal(shard.observations(steps), stacks[:9].transpose(0, 3, 1, 2))


def test_batches_hold_stretches_of_episodes_in_the_shares_of_the_mixture(
    shards: dict[str, JatShard],
) -> None:
    asked = config(mixture=Mixture({BABYAI: 2.0, ARM: 1.0, "frames": 1.0}), rows=40)
    packer = JatFamily().packer(asked, shards, None)
    tokens = dict.fromkeys(EPISODES, 0)
    for index in range(10):
        for task, count in packer.batch(index).task_tokens.items():
            tokens[task] += count
    assert tokens[BABYAI] / sum(tokens.values()) == pytest.approx(0.5, abs=0.06)
    group = packer.batch(0).groups["continuous-continuous"]
    assert group.continuous_observations is not None
    assert group.mask is not None
    every = np.concatenate([e.observations[:-1] for e in EPISODES[ARM]]).astype(np.float32)
    for seen, live in zip(group.continuous_observations, group.mask, strict=True):
        (first,) = np.flatnonzero((every == seen[0].numpy()).all(1))
        assert first % 12 in (0, 4, 8), "every half of eight timesteps"
        count = int(live.sum())
        assert np.array_equal(every[first : first + count], seen[:count])
        assert first // 12 == (first + count - 1) // 12, "of one episode"
        assert not live[count:].any()


def test_processes_share_the_rows_of_a_batch(shards: dict[str, JatShard]) -> None:
    packer = JatFamily().packer(config(), shards, None)
    whole = packer.batch(3)
    parts = [packer.batch(3, rank=rank, world=3) for rank in range(3)]
    for task in EPISODES:
        counts = [part.task_tokens.get(task, 0) for part in parts]
        assert sum(counts) == whole.task_tokens.get(task, 0)
    network = JatFamily().build(SIZES)
    with torch.no_grad():
        loss = JatFamily().loss(network, whole, config(), tasks=3)
        halves = [JatFamily().loss(network, part, config(), tasks=3) for part in parts]
    assert sum(float(part.total) for part in halves) == pytest.approx(float(loss.total), rel=1e-5)
    torch.testing.assert_close(sum(part.tasks for part in halves), loss.tasks)


@torch.no_grad()
def test_the_loss_is_that_of_each_task_alone(shards: dict[str, JatShard]) -> None:
    """Against the published losses of one episode at a time, with their weights."""
    network = JatFamily().build(SIZES)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    for task, weight in ((BABYAI, 1.0), (ARM, 50.0)):
        shard = shards[task]
        pairs = zip(shard.starts[:3], (3, 8, 5), strict=True)
        stretches = [Stretch(shard, int(begin), int(begin) + n) for begin, n in pairs]
        group = episode_batch(stretches)
        tokens = {task: 2 * sum(stretch.length for stretch in stretches)}
        batch = JatBatch(
            {shard.kind: group}, {shard.kind: torch.zeros(3, dtype=torch.long)}, tokens
        )
        report = JatFamily().loss(network, batch, config(), tasks=1)
        expected = 0.0
        for stretch in stretches:
            alone = network.losses(episode_batch([stretch]))
            expected += 0.995 * stretch.length * float(alone.action)
            expected += 0.005 * (stretch.length - 1) * float(alone.observation)
        assert float(report.total) == pytest.approx(expected, rel=1e-4)
        assert float(report.scale) == tokens[task] / 2
        assert group.weights is not None
        assert group.weights.max() == weight


def test_vectors_of_several_sizes_share_a_batch(
    shards: dict[str, JatShard], tmp_path: Path
) -> None:
    """Padding changes no number: each row's errors are those of its task alone."""
    short = dataclasses.replace(
        arm_episode(9), observations=arm_episode(9).observations[:, :7],
        actions=arm_episode(9).actions[:, :2],
    )  # fmt: skip
    box = spaces.Box(-np.inf, np.inf, (7,)), spaces.Box(-1, 1, (2,), np.float32)
    modalities = Modalities.of(*box, SIZES, None)
    write_jat_shard(tmp_path / "s", modalities, [short], {"task": "short", "group": "short"})
    stretches = [Stretch(JatShard.open(tmp_path / "s", modalities), 0, 5)]
    stretches.append(Stretch(shards[ARM], 2, 8))
    network = JatFamily().build(SIZES)
    with torch.no_grad():
        both = network.errors(episode_batch(stretches))
        for row, stretch in enumerate(stretches):
            group = episode_batch([stretch])
            plain = dataclasses.replace(group, observation_sizes=None, action_sizes=None)
            for alone in (network.errors(group), network.errors(plain)):
                for name in ("actions", "observations", "misses"):
                    expected = getattr(alone, name)[0]
                    found = getattr(both, name)[row, : len(expected)]
                    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_what_was_executed_is_seen_and_what_the_expert_chose_from_is_learned(
    shards: dict[str, JatShard],
) -> None:
    group = episode_batch([Stretch(shards["frames"], 0, 4)])
    assert group.past_actions is not None
    assert group.past_actions.tolist() == [[1, 1, 1, 1]]
    assert group.discrete_actions is not None
    episode = EPISODES["frames"][0]
    assert group.discrete_actions[0].tolist() == (episode.actions[:4] - 2).tolist()
    network = JatFamily().build(SIZES)
    with torch.no_grad():
        logits = network(group).actions[0]
        errors = network.errors(group).actions[0]
    assert episode.distribution is not None
    shares = torch.from_numpy(episode.distribution[:4].astype(np.float32))
    logs = logits.log_softmax(1)[:, :3]
    torch.testing.assert_close(errors, -(shares * logs).sum(1) / shares.sum(1))


def test_a_training_is_resumed_bit_for_bit_and_learns(
    shards: dict[str, JatShard], tmp_path: Path
) -> None:
    asked = config(precision="float32", accumulate=2)
    straight = Trainer(asked, shards, tmp_path / "a")
    straight.resume()
    expected = losses(straight, 24)
    first = Trainer(asked, shards, tmp_path / "b")
    first.resume()
    assert losses(first, 4) == expected[:4]
    first.save()
    second = Trainer(asked, shards, tmp_path / "b")
    second.resume()
    assert losses(second, 4) == expected[4:8]
    assert np.mean(expected[-4:]) < 0.9 * np.mean(expected[:4])


def test_a_row_may_be_as_short_as_two_timesteps(root: Path) -> None:
    write_invented(root / "data")
    settings = TrainSettings(
        datasets=(f"gato/{ARM}-v0",), output=root / "run", family="jat", preset="tiny", steps=1,
        rows=6, length=4, network={"context_tokens": 2}, score_every=0,
    )  # fmt: skip
    run = TrainRun(settings)
    batch = run.pipeline.trainer().packer.batch(0)
    assert batch.groups["continuous-continuous"].rewards.shape == (6, 2)
    policy = JatPolicy.load(run.train(), task=ARM, device="cpu")
    assert policy.decoder.window == 2
    with pytest.raises(ValueError, match="length is 4: expected at least 8 tokens of a row"):
        TrainRun(dataclasses.replace(settings, family="gato", network={}, output=root / "other"))


def test_one_checkpoint_plays_the_tasks_that_it_was_trained_on(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_invented(root / "data")
    names = [f"gato/{task}-v0" for task in (BABYAI, ARM)]
    settings = TrainSettings(
        datasets=(*names,), output=root / "run", family="jat", preset="tiny", steps=4, rows=2,
        held_out=0.5, score_every=0,
    )  # fmt: skip
    run = TrainRun(settings)
    run.describe()
    checkpoint = run.train()
    card = (checkpoint / "card.md").read_text()
    assert "A JAT checkpoint of size tiny" in card
    assert family_of(checkpoint) == "jat"
    for task in (BABYAI, ARM):
        policy = JatPolicy.load(root / "run", task=task, device="cpu")
        with get_task(task).make() as env:
            assert policy.action_space == env.action_space
            observation, _ = env.reset(seed=0)
            action, _ = policy.predict(observation)
            assert env.action_space.contains(action)
            named = JatPolicy.load(root / "run", env=env)
            assert named.predict(observation, deterministic=True)[0] == pytest.approx(
                policy.predict(observation, deterministic=True)[0]
            )
    assert len(policy.tokenizer.encode("go to the red ball")) == 5, "words of its missions"
    tasks = [get_task(task) for task in (BABYAI, ARM, OPEN)]
    assert set(left_out(PolicyChoice(str(root / "run")), tasks)) == {OPEN}
    with pytest.raises(ValueError, match=f"expected an environment, or one of .* {BABYAI}, {ARM}"):
        JatPolicy.load(root / "run")
    policy.save(root / "copy")
    assert JatPolicy.load(root / "copy", task=ARM).tasks == policy.tasks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "paper"}, "layout is 'paper' and the family jat, which has no such setting"),
        ({"sigma": 1.0}, "sigma is 1.0 and the family jat"),
        ({"preset": "79m"}, "preset '79m' of JAT is unknown: choose one of tiny, mini"),
        ({"network": {"max_continuous_size": 20}}, "JAT cannot be trained on 'metaworld-reach'"),
        ({"network": {"width": 3}}, "width"),
        ({"family": "decision"}, "family is 'decision': expected one of gato, jat"),
    ],
)
def test_settings_that_are_refused(root: Path, changes: dict[str, Any], message: str) -> None:
    write_invented(root / "data")
    base = {"datasets": (f"gato/{ARM}-v0",), "output": root / "run", "family": "jat"}
    with pytest.raises(ValueError, match=message):
        TrainRun(TrainSettings(**{**base, **changes}))


def test_mini_fits_twelve_mebibytes() -> None:
    with torch.device("meta"):
        network = JatFamily().build(preset("mini"))
    assert 2 * sum(parameter.numel() for parameter in network.parameters()) < 12 * 2**20


@pytest.fixture
def sources(tmp_path: Path) -> list[TextSource]:
    """Two texts, and three images of 40 x 30 pixels with a text each."""
    image = pytest.importorskip("PIL.Image")
    lines = [{"text": "a ball " * 30}, {"text": "a box"}]
    (tmp_path / "words.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pairs = []
    for number in range(3):
        pixels = np.zeros((30, 40, 3), np.uint8)
        pixels[:, :20], pixels[:, 20:] = 80 * number, 255
        image.fromarray(pixels).save(tmp_path / f"{number}.png")
        pairs.append({"text": f"it is {number}", "image": f"{number}.png"})
    (tmp_path / "scenes.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return find_texts([tmp_path / "words.jsonl"], [tmp_path / "scenes.jsonl"])


def test_texts_and_pairs_are_in_the_same_batches(
    sources: list[TextSource], shards: dict[str, JatShard], tmp_path: Path
) -> None:
    sizes = dataclasses.replace(SIZES, image_size=16, patch_size=8)
    tokenizer = Gpt2Tokenizer.of_bytes()
    texts = {
        name: dataclasses.replace(part, tokenizer=tokenizer)
        for name, part in shard_jat_texts(sources, tmp_path / "texts", sizes).items()
    }
    assert texts["words"].texts == ["a ball " * 30, "a box"]
    pictures = np.array(texts["scenes"].arrays["pictures"])
    assert pictures.shape == (3, 16, 16, 3)
    assert pictures[2, 8, [0, 15]].tolist() == [[160] * 3, [255] * 3], "cropped, not stretched"
    asked = config(network=sizes, mixture=Mixture({ARM: 1.0, "words": 1.0, "scenes": 2.0}), rows=40)
    family = JatFamily()
    packer = family.packer(asked, {ARM: shards[ARM]}, texts)
    batch = packer.batch(0)
    total = sum(batch.task_tokens.values())
    shares = [batch.task_tokens[name] / total for name in (ARM, "words", "scenes")]
    assert shares == pytest.approx([0.25, 0.25, 0.5], abs=0.12)
    assert packer.num_tokens("scenes") == 3 * (4 + len("it is 0") + 1)
    words, scenes = batch.texts["texts"], batch.texts["pairs"]
    long, short = [*tokenizer.encode("a ball " * 30), 511], [*tokenizer.encode("a box"), 511]
    for ids, live in zip(words.ids.tolist(), words.mask.sum(1).tolist(), strict=True):
        whole = short if ids[:live] == short else long
        assert any(whole[at : at + live] == ids[:live] for at in range(len(whole) - live + 1))
    assert scenes.images is not None
    whole_rows = scenes.mask.sum(1) > len("it is ")
    assert whole_rows.any()
    digits = [tokenizer.encode(str(number))[0] for number in range(3)]
    numbers = [digits.index(ids[len("it is ")]) for ids in scenes.ids[whole_rows].tolist()]
    assert torch.equal(scenes.images[whole_rows], normalized_captions(pictures)[numbers])

    network = family.build(sizes)
    with torch.no_grad():
        report = family.loss(network, batch, asked, tasks=3)
        alone = float(
            family.loss(network, dataclasses.replace(batch, texts={}), asked, tasks=3).total
        )
        predicted = [float(part.mask[:, 1:].sum()) for part in (words, scenes)]
        expected = alone + sum(
            count * float(network.text_loss(part))
            for count, part in zip(predicted, (words, scenes), strict=True)
        )
    assert float(report.total) == pytest.approx(expected, rel=1e-5)
    assert float(report.sums[6]) == sum(predicted)
    group = batch.groups["continuous-continuous"]
    assert group.mask is not None
    assert float(report.scale) == sum(predicted) + float(group.mask.sum())
    with pytest.raises(ValueError, match="an image of 'scenes' has 4 patches: expected at most 2"):
        family.check_texts(
            config(network=dataclasses.replace(sizes, max_position_embeddings=4)), texts
        )


def test_the_command_trains_on_texts_too(
    root: Path, sources: list[TextSource], capsys: pytest.CaptureFixture[str]
) -> None:
    write_invented(root / "data")
    train = ["train", "--family", "jat", "--dataset", f"gato/{ARM}-v0", "--output", "run"]
    more = ["--text", "words.jsonl", "--pairs", "scenes.jsonl", "--preset", "tiny"]
    assert main([*train, *more, "--rows", "2", "--steps", "2"]) == 0
    said = capsys.readouterr().out
    assert "words" in said
    assert "scenes" in said
    assert "text " in said
    policy = JatPolicy.load("run", task=ARM)
    assert len(policy.tokenizer.encode("a ball")) < 6, "learned from the texts"


def test_a_run_starts_from_a_checkpoint(root: Path) -> None:
    write_invented(root / "data")
    names = {task: f"gato/{task}-v0" for task in (BABYAI, ARM)}
    shared: dict[str, Any] = {"family": "jat", "rows": 1, "steps": 1, "score_every": 0}
    first = TrainSettings((names[BABYAI],), root / "first", preset="tiny", **shared)
    checkpoint = load_checkpoint(TrainRun(first).train())
    second = TrainSettings((names[ARM],), root / "second", start=str(root / "first"), **shared)
    run = TrainRun(second)
    assert run.config.network == checkpoint.network.config
    network = run.pipeline.trainer(root / "other").network
    for name, weights in checkpoint.network.state_dict().items():
        assert torch.equal(network.state_dict()[name], weights)
    tokenizer = run.shards[ARM].modalities.tokenizer
    assert tokenizer.merges == checkpoint.tokenizer.merges
    larger = dataclasses.replace(second, network={"intermediate_size": 100})
    with pytest.raises(
        ValueError, match=r"differ in transformer\.h\.0\.mlp\..*: expected the same"
    ):
        TrainRun(larger).pipeline.trainer(root / "larger")
