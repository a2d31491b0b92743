"""Texts, and images with their texts, in the rows of the control tasks."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from small import SMALL, random_shard, state_plan, talking_plan

from gato_gym.__main__ import main
from gato_gym.text import default_tokenizer
from policies import GatoPolicy
from policies.collection.record import record_episodes
from policies.gato import text_generation as writing
from policies.model.inputs.sequence import TokenCollector
from policies.model.inputs.text_sequence import Passage, image_patches, lay_out_passages
from policies.model.network import GatoNetwork, PackedBatch, inference
from policies.registry import make_policy
from policies.training.config import TrainConfig
from policies.training.data.collator import BatchBuilder
from policies.training.data.packing import Mixture, Packer
from policies.training.data.text_shards import (
    TextDocument,
    TextShard,
    draw_text_document,
    shard_texts,
)
from policies.training.data.text_sources import find_texts
from policies.training.loss import batch_loss, text_targets

SEPARATOR = SMALL.vocabulary.separator
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
SIZES = {"small": (16, 16), "tall": (32, 16), "large": (32, 32)}
STORIES = (
    "the door is open",
    "a key lies on the floor of the second room",
    "go",
    " ".join(map(str, range(150))),
)


def picture(colour: str, seed: int = 0, size: tuple[int, int] = (32, 16)) -> NDArray[np.uint8]:
    """Stripes of a colour on a noisy dark ground: uint8 ``[H, W, 3]``."""
    image = np.random.default_rng(seed).integers(0, 20, (*size, 3)).astype(np.uint8)
    image[:, (np.arange(size[1]) + seed) % 4 < 2] = COLOURS[colour]
    return image


def write_pairs(folder: Path, count: int = 12, *, sizes: bool = False) -> Path:
    """Pictures and what their colour is, every fourth one larger than the others; or their size."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        colour = list(COLOURS)[index % 3 if not sizes else index // 3 % 3]
        size, said = (32, 32) if index % 4 == 0 else (32, 16), colour
        if sizes:
            said, size = list(SIZES.items())[index % 3]
        Image.fromarray(picture(colour, index, size)).save(folder / f"{index}.png")
        lines.append(json.dumps({"image": f"{index}.png", "text": f"it is {said}"}))
    (folder / "colours.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "colours.jsonl"


def write_texts(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "stories.jsonl"
    path.write_text("\n".join(json.dumps({"text": story}) for story in STORIES))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> dict[str, TextShard]:
    sources = find_texts([write_texts(tmp_path)], [write_pairs(tmp_path)])
    return shard_texts(sources, tmp_path / "texts")


def make_packer(
    texts: dict[str, TextShard], rows: int = 4, length: int = 128, **weights: float
) -> Packer:
    plans = {"talk": talking_plan(), "act": state_plan()}
    shards = {task: random_shard(plans[task], task) for task in weights if task in plans}
    return Packer(
        shards, Mixture(weights), SMALL, rows=rows, length=length,
        seed=3, texts=texts,
    )  # fmt: skip


def said(batch: PackedBatch, tokens: torch.Tensor) -> str:
    pieces = [i for i in batch.tokens.ids.flatten()[tokens].tolist() if i not in (-1, SEPARATOR)]
    return default_tokenizer().decode(pieces)


def test_a_shard_holds_every_text_and_image(shards: dict[str, TextShard]) -> None:
    decode = default_tokenizer().decode
    stories = shards["stories"]
    assert [decode(stories.passage(i).text.tolist()) for i in range(4)] == list(STORIES)
    pairs = shards["colours"]
    assert len(pairs) == 12
    assert pairs.sizes.tolist() == [3 + 4 + 1, *[3 + 2 + 1] * 3] * 3  # text, patches, separator
    second = pairs.passage(1)
    assert second.patches is not None
    assert np.array_equal(second.patches.reshape(32, 16, 3), picture("green", 1))
    assert second.intervals is not None
    assert second.intervals.tolist() == [[0, 64, 0, 128], [64, 128, 0, 128]]


def test_five_pairs_lie_in_one_document_with_targets_on_their_texts_alone(
    shards: dict[str, TextShard],
) -> None:
    packer = make_packer(shards, colours=1.0)
    doc = draw_text_document(
        shards["colours"], np.random.default_rng(0), SMALL, budget=128, length=128, pairs=5
    )
    assert doc is not None
    builder = BatchBuilder(packer.spec, 4)
    builder.add_text(doc, 1, 7, 0)
    batch = builder.finish()
    ids = batch.tokens.ids[1, 7 : 7 + doc.size]
    assert (batch.tokens.ids == -1).sum() == 4 * 128 - (ids >= 0).sum()
    assert int((ids == SEPARATOR).sum()) == 4, "the fifth is predicted, and is no token"
    starts = [0, *((ids == SEPARATOR).nonzero()[:, 0] + 1).tolist(), doc.size]
    at, wanted = batch.targets.slots - (128 + 7), batch.targets.ids
    seen = []
    for begin, end in itertools.pairwise(starts):
        patches = int((ids[begin:end] == -1).sum())
        assert patches in (2, 4)
        pieces = ids[begin + patches : end]
        mine = (at >= begin) & (at < end)
        # from the last patch on: each piece, and then the separator, by the token before it
        assert at[mine].tolist() == list(range(begin + patches - 1, begin + patches + 3))
        assert wanted[mine].tolist() == [*pieces[:3].tolist(), SEPARATOR]
        seen.append(default_tokenizer().decode(pieces[:3].tolist()))
    assert len(seen) == 5
    assert all(text.removeprefix("it is ") in COLOURS for text in seen)
    assert batch.tokens.images is not None
    assert set((batch.tokens.images.slots - 135).tolist()) == set(
        (ids == -1).nonzero()[:, 0].tolist()
    )
    assert batch.roles.positions[1, 7 : 7 + doc.size].tolist() == list(range(16, 16 + doc.size))
    assert (batch.targets.weights == 1).all()


def test_documents_are_cropped_to_what_is_left_of_a_row(shards: dict[str, TextShard]) -> None:
    sizes = set()
    for seed in range(60):
        generator = np.random.default_rng(seed)
        for budget in (3, 9, 20):
            doc = draw_text_document(
                shards["colours"], generator, SMALL, budget=budget, length=128, pairs=5
            )
            if doc is None:
                assert budget == 3, "an image has two patches or four"
                continue
            assert doc.size <= budget
            assert doc.layout.targets.size
            ends = doc.layout.ids[-1] == -1
            assert not ends or doc.layout.predictors[-1] == doc.size - 1, "its text begins next"
            sizes.add(doc.size)
    assert len(sizes) > 5


def test_a_long_text_is_read_from_several_places(shards: dict[str, TextShard]) -> None:
    whole = default_tokenizer().encode(STORIES[3]).astype(np.int64)
    assert len(whole) > 200
    begins = set()
    for seed in range(80):
        doc = draw_text_document(
            shards["stories"], np.random.default_rng(seed), SMALL, budget=100, length=128, pairs=5
        )
        assert doc is not None
        layout = doc.layout
        if len(layout.ids) < 50:
            continue
        first = int(layout.positions[0]) - SMALL.prompt_tokens
        begins.add(first)
        assert first % 64 == 0
        assert layout.ids.tolist() == whole[first : first + 100].tolist()
        following = np.r_[whole, SEPARATOR][first + 1 : first + 101]
        assert layout.targets.tolist() == following.tolist()
        assert (
            layout.local_positions.tolist() == np.minimum(first + np.arange(doc.size), 255).tolist()
        )
    assert begins >= {0, 64, 128}


def test_rows_mix_tasks_and_texts_by_weight(shards: dict[str, TextShard]) -> None:
    packer = make_packer(shards, talk=1.0, act=1.0, colours=1.0, stories=1.0)
    drawn: dict[str, int] = {}
    together = 0
    for index in range(30):
        batch = packer.batch(index)
        for name, tokens in batch.task_tokens.items():
            drawn[name] = drawn.get(name, 0) + tokens
        is_text = text_targets(SMALL, batch.targets)
        rows = batch.targets.slots // 128
        together += len(set(rows[is_text].tolist()) & set(rows[~is_text].tolist()))
    total = sum(drawn.values())
    for name in ("talk", "act", "colours", "stories"):
        assert drawn[name] / total == pytest.approx(0.25, abs=0.08)
    assert together > 60, "of 120 rows"


def test_names_and_counts_that_cannot_be_are_refused(shards: dict[str, TextShard]) -> None:
    with pytest.raises(ValueError, match=r"texts are named \['act'\] as tasks are"):
        make_packer({"act": shards["colours"]}, act=1.0)
    with pytest.raises(ValueError, match=r"open are \['act', 'colours', 'stories'\]"):
        make_packer(shards, act=1.0, songs=1.0)
    with pytest.raises(ValueError, match="pairs is 0: expected 1 or more"):
        Mixture({}, pairs=0)


def test_tasks_are_drawn_as_before_where_there_is_no_text(shards: dict[str, TextShard]) -> None:
    """Bit for bit: neither an argument nor a text without weight draws a random number."""
    torch.manual_seed(0)
    network = GatoNetwork(SMALL)
    config = TrainConfig(SMALL, Mixture({"talk": 1.0, "act": 1.0}))
    losses = []
    for texts in ({}, shards):
        batch = make_packer(texts, talk=1.0, act=1.0).batch(4)
        losses.append((batch, batch_loss(network, network(batch), batch, config)))
    (first, one), (second, other) = losses
    assert torch.equal(first.tokens.ids, second.tokens.ids)
    assert torch.equal(first.targets.slots, second.targets.slots)
    assert torch.equal(one.total, other.total)
    assert float(one.sums[6:].abs().sum()) == 0


def test_the_loss_is_the_mean_over_targets_of_each_kind(shards: dict[str, TextShard]) -> None:
    """Against a plain log-softmax of the whole text vocabulary in float64."""
    torch.manual_seed(0)
    network = GatoNetwork(SMALL)
    batch = make_packer(shards, rows=2, act=1.0, colours=1.0).batch(0)
    config = TrainConfig(SMALL, Mixture({}), sigma=0)
    report = batch_loss(network, network(batch), batch, config)
    is_text = text_targets(SMALL, batch.targets)
    hidden = network.head(network(batch).flatten(0, 1)[batch.targets.slots]).double()
    embedding = network.embedding
    words = embedding.text_out(embedding.text.weight).double()
    table = torch.cat([words, embedding.symbols.weight[-1:].double()])
    labels = torch.where(batch.targets.ids == SEPARATOR, 32000, batch.targets.ids)[is_text]
    scores = (hidden[is_text] @ table.T).log_softmax(1)
    expected = -scores.gather(1, labels[:, None]).sum().detach()
    assert float(report.sums[7]) == pytest.approx(float(expected), rel=1e-5)
    assert float(report.sums[6]) == int(is_text.sum())
    assert float(report.sums[8]) == int((scores.argmax(1) == labels).sum())
    acted = float(report.sums[1] + report.sums[4])
    assert float(report.total.detach()) == pytest.approx(float(expected) + acted, rel=1e-5)
    assert float(report.scale) == pytest.approx(float(batch.targets.weights.sum()), rel=1e-6)


@pytest.mark.parametrize("text", ["it is a blue box", "x " * 150])
def test_writing_computes_what_training_did(text: str, shards: dict[str, TextShard]) -> None:
    """An image and its text as one row, and piece by piece; the longer one passes the window."""
    torch.manual_seed(2)
    network = inference(GatoNetwork(SMALL))
    image = picture("blue", 5, (40, 33))
    pieces = default_tokenizer().encode(text).astype(np.int64)
    passage = Passage(pieces, *image_patches(image))
    layout = lay_out_passages([passage], SMALL.vocabulary, first_position=SMALL.prompt_tokens)
    packer = make_packer(shards, rows=1, length=512, colours=1.0)
    builder = BatchBuilder(packer.spec, 1)
    builder.add_text(TextDocument("colours", layout), 0, 0, 0)
    batch = builder.finish()
    with torch.no_grad():
        whole = network.writing_logits(network(batch)[0, batch.targets.slots])
    assert batch.targets.ids.tolist() == [*pieces.tolist(), SEPARATOR]
    logits = _forced_logits(network, pieces, image)
    assert logits.shape == whole.shape
    assert torch.allclose(logits, whole, atol=1e-5)


def _forced_logits(
    network: GatoNetwork, pieces: NDArray[np.int64], image: NDArray[np.uint8]
) -> torch.Tensor:
    """Logits while writing, where every piece is chosen for the sampler."""
    seen = []

    class Forced:
        def choose(self, logits: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            seen.append(logits[0])
            chosen = pieces[len(seen) - 1] if len(seen) <= len(pieces) else logits.shape[1] - 1
            return torch.tensor([int(chosen)])

    x_ND = writing._embed(network, np.zeros(0, np.int64), image)
    uniforms = np.zeros(len(pieces) + 1, np.float32)
    sampler: Any = Forced()
    written = list(writing._choose(network, x_ND, 0, uniforms, sampler, greedy=True))
    assert written == pieces.tolist()
    return torch.stack(seen)


def test_a_document_of_pairs_sees_its_past_and_no_other(shards: dict[str, TextShard]) -> None:
    """Later pairs see earlier ones, as in Gato's rows; other documents change no bit."""
    torch.manual_seed(0)
    network = GatoNetwork(SMALL).eval()
    batch = make_packer(shards, rows=2, act=1.0, colours=3.0).batch(1)

    def hidden(changed: torch.Tensor) -> torch.Tensor:
        images = batch.tokens.images
        assert images is not None
        values = images.values.clone()
        values[changed[images.slots]] *= -1
        tokens = dataclasses.replace(
            batch.tokens, images=dataclasses.replace(images, values=values)
        )
        with torch.no_grad():
            return network(dataclasses.replace(batch, tokens=tokens)).flatten(0, 1)

    owners = (batch.roles.documents + 100 * torch.arange(2)[:, None]).flatten()
    is_patch = torch.zeros(256, dtype=torch.bool)
    assert batch.tokens.images is not None
    is_patch[batch.tokens.images.slots] = True
    nothing = torch.zeros(256, dtype=torch.bool)
    before = hidden(nothing)
    documents = sorted(set(owners[is_patch].tolist()))
    assert len(documents) >= 3
    for document in documents:
        mine = owners == document
        after = hidden(is_patch & mine)
        assert torch.equal(after[~mine], before[~mine])
        first = batch.roles.timesteps.flatten()[mine] == 0
        if (~first).any():
            only_first = hidden(is_patch & mine & (batch.roles.timesteps.flatten() == 0))
            later = only_first[mine][~first] != before[mine][~first]
            assert later.any(), "a later pair sees the first one's image"


def test_images_of_other_channels_in_the_batch_change_nothing() -> None:
    """Grey images of a task beside RGB ones: a channel that is not there is 0, in either."""
    grey = np.random.default_rng(0).integers(0, 255, (16, 16, 1)).astype(np.uint8)
    grey_patches = []
    for others in ([], [picture("red")]):
        collector = TokenCollector(1, 32)
        for offset, image in enumerate([grey, *others]):
            passage = Passage(np.array([5]), *image_patches(image))
            layout = lay_out_passages([passage], SMALL.vocabulary, first_position=0)
            collector.add_text(layout, SMALL.vocabulary, 8 * offset)
        images = collector.finish().images
        assert images is not None
        grey_patches.append(images.values[0])
    assert torch.equal(*grey_patches)
    assert float(grey_patches[0][1:].abs().sum()) == 0


def test_training_learns_what_is_seen(tmp_path: Path) -> None:
    """Sizes of images it has not seen, after a few steps in rows shared with a task."""
    path = write_pairs(tmp_path, sizes=True)
    texts = shard_texts(find_texts([], [path]), tmp_path / "texts")
    torch.manual_seed(0)
    network = GatoNetwork(SMALL)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    packer = make_packer(texts, rows=2, act=1.0, colours=3.0)
    config = TrainConfig(SMALL, packer.mixture)
    losses = []
    for step in range(45):
        batch = packer.batch(step)
        report = batch_loss(network, network(batch), batch, config)
        optimiser.zero_grad()
        (report.total / report.scale).backward()
        optimiser.step()
        losses.append(float(report.sums[7] / report.sums[6]))
    assert losses[0] > 9
    assert np.mean(losses[-5:]) < 0.1, "without the images: a quarter of ln 3, 0.27"
    policy = GatoPolicy(inference(network), state_plan())
    for index, (name, size) in enumerate(SIZES.items()):
        image = picture("red", 100 + index, size)
        assert policy.generate_text(image=image, temperature=0) == f"it is {name}"


BAD = {
    "not JSON": ("{", "line 2 is not JSON"),
    "no object": ("[1]", "line 2 is a list: expected a JSON object"),
    "empty text": ('{"image": "0.png", "text": " "}', "\"text\" is ' ': expected a text"),
    "no text": ('{"image": "0.png"}', '"text" is None'),
    "no image": ('{"text": "a"}', '"image" is None: expected the path of an image'),
    "missing image": ('{"image": "no.png", "text": "a"}', "no file no.png"),
    "no picture": ('{"image": "colours.jsonl", "text": "a"}', "is no PNG or JPEG image"),
    "large": ('{"image": "wide.png", "text": "a"}', "wide.png has 5000 x 1 pixels: expected at"),
}


@pytest.mark.parametrize(("line", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write_pairs(tmp_path, 1)
    Image.new("RGB", (5000, 1)).save(tmp_path / "wide.png")
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        shard_texts(find_texts([], [path]), tmp_path / "texts")
    assert not (tmp_path / "texts" / "colours").exists()


def test_files_are_found_or_named(tmp_path: Path) -> None:
    folder = tmp_path / "books"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no \.txt or \.jsonl file"):
        find_texts([folder], [])
    (folder / "b.txt").write_text("one book")
    (folder / "a.jsonl").write_text('{"text": "first"}\n\n{"text": "second"}\n')
    (source,) = find_texts([folder], [])
    assert (source.name, [text for text, _ in source]) == ("books", ["first", "second", "one book"])
    with pytest.raises(FileNotFoundError, match="no file"):
        find_texts([tmp_path / "none.jsonl"], [])
    with pytest.raises(ValueError, match=r"expected a \.jsonl file"):
        find_texts([], [folder / "b.txt"])
    with pytest.raises(ValueError, match="named \\['books'\\]"):
        find_texts([folder, folder], [])
    (folder / "b.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        list(source)
    (empty := tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="holds no text"):
        shard_texts(find_texts([empty], []), tmp_path / "texts")


def test_a_shard_is_made_anew_where_a_file_has_changed(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, 3)
    place = tmp_path / "texts" / "colours" / "patches.npy"
    shard_texts(find_texts([], [path]), tmp_path / "texts")
    first = place.stat().st_mtime_ns
    shard_texts(find_texts([], [path]), tmp_path / "texts")
    assert place.stat().st_mtime_ns == first
    Image.fromarray(picture("blue", 9)).save(tmp_path / "0.png")
    shard = shard_texts(find_texts([], [path]), tmp_path / "texts")["colours"]
    patches = shard.passage(0).patches
    assert patches is not None
    assert np.array_equal(patches.reshape(32, 16, 3), picture("blue", 9))


def test_the_command_trains_on_texts_and_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with gym.make("CartPole-v1") as env:
        record_episodes(env, make_policy("random", env=env), 3, "my/cartpole-v0")
    pairs, texts = write_pairs(tmp_path), write_texts(tmp_path)
    train = ["train", "--dataset", "my/cartpole-v0", "--output", "runs/mine", "--preset", "tiny"]
    train += ["--rows", "2", "--length", "64", "--steps", "2", "--keep", "0"]
    mixed = [*train, "--text", str(texts), "--pairs", str(pairs), "--weights", '{"colours": 2}']
    assert main([*mixed, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "│ colours │ 12 │ 0 │ │ 78 │" in said, "12 texts of 4 tokens, 30 patches"
    assert "│ stories │ 4 │ 0 │ │" in said
    assert main(mixed) == 0, capsys.readouterr().err
    config = json.loads((tmp_path / "runs/mine/training/config.json").read_text())
    assert config["mixture"]["weights"] == {"CartPole-v1": 1.0, "colours": 2.0, "stories": 1.0}
    assert (
        "- colours: 12 pairs of an image" in (tmp_path / "runs/mine/checkpoint/card.md").read_text()
    ), "what it was trained on"
    policy = GatoPolicy.load("runs/mine")
    assert policy.generate_text(image=picture("red"), max_tokens=2)
    capsys.readouterr()
    assert main(train) == 2
    assert "stories.kind: 'texts' there, None now" in capsys.readouterr().err
    pairs.write_text(pairs.read_text().replace("it is", "here is"))
    assert main(mixed) == 2
    assert "colours.content" in capsys.readouterr().err
    Image.new("RGB", (160, 160)).save(tmp_path / "0.png")
    assert main([*mixed, "--output", "runs/other"]) == 2
    assert "an image of 'colours' has 100 patches" in capsys.readouterr().err
    assert main([*train, "--text", str(pairs), "--pairs", str(pairs)]) == 2
    assert "several texts or pairs are named ['colours']" in capsys.readouterr().err
