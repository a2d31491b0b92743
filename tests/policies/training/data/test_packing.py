"""Packed batches: prompts from other episodes, no leaks, the same for any number of ranks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium import spaces
from recorded import make_shard
from small import SMALL, WORDS, random_shard, state_plan, talking_plan

from gato_gym import Plan, PlanOptions, compile_plan
from policies.model.attention import TokenRoles, dense_mask
from policies.model.network import GatoNetwork, PackedBatch
from policies.training.data.packing import Mixture, Packer


def make_packer(
    *, prompt_share: float = 1.0, prompt_end: float = 0.5, rows: int = 4, seed: int = 3
) -> Packer:
    shards = {
        "talk": random_shard(talking_plan(), "talk"),
        "act": random_shard(state_plan(), "act", seed=1),
    }
    shares = {"talk": prompt_share, "act": prompt_share}
    mixture = Mixture({"talk": 0.6, "act": 0.4}, prompt_share=shares, prompt_end=prompt_end)
    return Packer(shards, mixture, SMALL, rows=rows, length=128, seed=seed)


def episode_of(shard_steps: np.ndarray, ends: np.ndarray) -> np.ndarray:
    return np.searchsorted(ends, shard_steps, side="right")


@pytest.mark.parametrize("task", ["talk", "act"])
def test_prompt_is_of_another_episode_than_every_live_step(task: str) -> None:
    packer = make_packer()
    shard = packer.shards[task]
    generator = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        doc = packer._draw(shard, generator, 128, prompted=True)
        assert doc is not None
        prompt, live = doc.parts
        prompt_episode = set(episode_of(prompt[2], shard.ends).tolist())
        assert len(prompt_episode) == 1
        assert prompt_episode.isdisjoint(episode_of(live[2], shard.ends).tolist())
        vectors = prompt[1].vectors[:, 0, 0]
        assert np.allclose(vectors, next(iter(prompt_episode)) / 6, atol=1e-6)
        seen |= prompt_episode
    assert seen == set(range(6))


@pytest.mark.parametrize("share", [0.0, 0.75])
def test_some_prompts_are_their_episodes_end_and_the_rest_begin_anywhere(share: float) -> None:
    packer = make_packer(prompt_end=share)
    shard = packer.shards["act"]
    longest = int(np.argmax(shard.ends - shard.starts))
    vectors = shard.arrays["vectors"][shard.starts[longest] : shard.ends[longest], 0]
    begins = []
    for seed in range(400):
        _, arrays, _ = packer._prompt(shard, longest, np.random.default_rng(seed))
        assert len(arrays.vectors) == 16
        (begin,) = np.flatnonzero((vectors == arrays.vectors[0, 0]).all(1)).tolist()
        assert np.array_equal(arrays.vectors[:, 0], vectors[begin : begin + 16])
        begins.append(begin)
    # those that begin anywhere also end there by chance, once in length - 15 places
    places = len(vectors) - 15
    assert set(begins) == set(range(places))
    at_end = np.mean(np.array(begins) == places - 1)
    assert at_end == pytest.approx(share + (1 - share) / places, abs=0.07)


@pytest.mark.parametrize(
    "plan", [talking_plan("all"), talking_plan(), state_plan("all"), state_plan("observations")]
)
def test_a_run_has_the_positions_of_its_whole_episode(plan: Plan) -> None:
    """It begins wherever a text is emitted, every 8 timesteps, or half a row after another."""
    shard = random_shard(plan, "test", seed=2)
    length = 16
    packer = Packer({"test": shard}, Mixture({"test": 1.0}), SMALL, rows=1, length=length, seed=0)
    generator, begins = np.random.default_rng(0), set()
    for _ in range(150):
        episode = int(generator.integers(6))
        start, stop = int(shard.starts[episode]), int(shard.ends[episode])
        steps, first = packer._run_of_steps(shard, episode, generator)
        assert np.array_equal(steps, np.arange(steps[0], stop))
        whole = packer._live(shard, np.arange(start, stop), SMALL.prompt_tokens, 10_000)
        assert whole is not None
        before = whole[0].steps == steps[0] - start
        assert first == whole[0].positions[before][0]
        size = int((whole[0].steps >= steps[0] - start).sum())
        for budget, count in ((size, len(steps)), (size - 1, len(steps) - 1)):
            live = packer._live(shard, steps, first, budget)
            assert len(live[2] if live else ()) == count
        begins.add((episode, int(steps[0]) - start))
    lengths = shard.ends - shard.starts
    assert begins == {(n, at) for n, size in enumerate(lengths) for at in range(0, size, 8)}


def test_share_of_prompts_is_as_configured() -> None:
    batches = [make_packer(prompt_share=0.25).batch(k) for k in range(20)]
    prompted = total = 0
    for batch in batches:
        for row in range(len(batch.roles.documents)):
            docs = batch.roles.documents[row]
            for document in range(int(docs.max()) + 1):
                total += 1
                prompted += int(batch.roles.prompts[row][docs == document].any())
    assert prompted / total == pytest.approx(0.25, abs=0.08)


def outputs(network: GatoNetwork, batch: PackedBatch) -> torch.Tensor:
    with torch.no_grad():
        return network(batch)


@pytest.fixture(scope="module")
def network() -> GatoNetwork:
    torch.manual_seed(0)
    return GatoNetwork(SMALL).eval()


def test_a_label_does_not_reach_the_position_that_predicts_it(network: GatoNetwork) -> None:
    batch = make_packer().batch(0)
    before = outputs(network, batch).flatten(0, 1)
    fed = batch.roles.actions.flatten().nonzero()[:, 0]
    assert len(fed) > 20
    changed_anything = False
    for token in fed[:20].tolist():
        ids = batch.tokens.ids.clone().flatten()
        ids[token] = ids[token] - 1 if ids[token] % 2 else ids[token] + 1
        tokens = dataclasses.replace(batch.tokens, ids=ids.view_as(batch.tokens.ids))
        after = outputs(network, dataclasses.replace(batch, tokens=tokens)).flatten(0, 1)
        row = token // 128 * 128
        assert torch.equal(before[row:token], after[row:token])
        changed_anything |= not torch.equal(before[token:], after[token:])
    assert changed_anything
    for slot, target in zip(batch.targets.slots.tolist(), batch.targets.ids.tolist(), strict=True):
        if (slot + 1) % 128 and batch.roles.actions.flatten()[slot + 1]:
            assert batch.tokens.ids.flatten()[slot + 1] == target


def test_a_document_does_not_see_its_neighbours(network: GatoNetwork) -> None:
    batch = make_packer().batch(1)
    before = outputs(network, batch)
    docs = batch.roles.documents[0]
    assert docs.max() >= 1, "the row needs two documents for this to mean anything"
    first = (docs == 0).nonzero()[:, 0]
    assert batch.tokens.vectors is not None
    inside = batch.tokens.vectors.slots <= first.max()
    vectors = batch.tokens.vectors.values.clone()
    vectors[inside] += 1.0
    parts = dataclasses.replace(batch.tokens.vectors, values=vectors)
    changed = dataclasses.replace(batch, tokens=dataclasses.replace(batch.tokens, vectors=parts))
    after = outputs(network, changed)
    assert not torch.equal(before[0, first], after[0, first])
    assert torch.equal(before[0, first.max() + 1 :], after[0, first.max() + 1 :])
    assert torch.equal(before[1:], after[1:])


def test_past_actions_are_hidden_where_the_task_says_so() -> None:
    n = 6
    one = torch.ones(1, n, dtype=torch.long)
    steps = torch.tensor([[0, 0, 1, 1, 2, 2]])
    actions = torch.tensor([[0, 1, 0, 1, 0, 1]])
    positions = torch.arange(n)[None]
    for memory, expected in enumerate(([1] * 5, [1, 0, 1, 0, 1], [0, 0, 0, 0, 1])):
        roles = TokenRoles(one * 0, positions, steps, actions, one * 0, one * memory)
        assert dense_mask(roles, 64)[0, 0, 4, :5].int().tolist() == expected
    roles = TokenRoles(one * 0, positions, steps, actions, one * 0, one * 0)
    assert dense_mask(roles, 2)[0, 0, 4, :5].int().tolist() == [0, 0, 0, 1, 1]


def test_two_ranks_together_see_the_batch_of_one() -> None:
    packer = make_packer(rows=4)
    whole, parts = packer.batch(5), [packer.batch(5, rank=r, world=2) for r in range(2)]
    for rank, part in enumerate(parts):
        assert torch.equal(part.tokens.ids, whole.tokens.ids[rank::2])
        assert torch.equal(part.roles.positions, whole.roles.positions[rank::2])
    assert sum(len(p.targets.ids) for p in parts) == len(whole.targets.ids)


def test_ranks_and_parts_share_the_rows_without_overlap() -> None:
    """Image positions too are drawn by the row, and not by who packs it."""
    space = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    plan = compile_plan(space, spaces.Discrete(3), PlanOptions(memory="observations"))
    generator = np.random.default_rng(0)
    frames = [list(generator.integers(0, 256, (9, 32, 32, 3), np.uint8)) for _ in range(4)]
    low, high = plan.action_ranges[0]
    shard = make_shard(
        plan, [(seen, generator.integers(low, high, (9, 1))) for seen in frames], "see"
    )
    packer = Packer({"see": shard}, Mixture({"see": 1.0}), SMALL, rows=6, length=96, seed=0)
    whole, world = packer.batch(3), 4
    parts = [packer.batch(3, rank=part, world=world) for part in range(world)]

    def pictures(batch: PackedBatch, row: int) -> torch.Tensor:
        images = batch.tokens.images
        assert images is not None
        assert images.intervals is not None
        mine = images.slots // 96 == row
        return torch.cat([images.values[mine].flatten(1), images.intervals[mine]], dim=1)

    taken = []
    for rank, part in enumerate(parts):
        for place, row in enumerate(range(rank, 6, world)):
            assert torch.equal(part.tokens.ids[place], whole.tokens.ids[row])
            assert torch.equal(pictures(part, place), pictures(whole, row))
            taken.append(row)
    assert sorted(taken) == list(range(6))
    assert whole.tokens.images is not None
    assert len(whole.tokens.images.intervals.unique()) > 20, "not the mean of each interval"


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    assert torch.equal(make_packer().batch(2).tokens.ids, make_packer().batch(2).tokens.ids)
    assert not torch.equal(make_packer().batch(2).tokens.ids, make_packer().batch(3).tokens.ids)
    assert not torch.equal(
        make_packer().batch(2).tokens.ids, make_packer(seed=4).batch(2).tokens.ids
    )


def test_a_document_is_drawn_for_its_share_of_the_tokens_over_its_size() -> None:
    shards = {
        "long": random_shard(state_plan(), "long", seed=1),
        "short": random_shard(state_plan("observations"), "short", seed=5, episodes=2),
        "talk": random_shard(talking_plan(), "talk"),
    }
    for name in ("long", "short"):
        shards[name] = dataclasses.replace(shards[name], group="act")
    mixture = Mixture({"act": 1.0, "talk": 3.0}, prompt_share={"act": 0.25})
    packer = Packer(shards, mixture, SMALL, rows=1, length=32, seed=3)
    lengths = {name: shard.ends - shard.starts for name, shard in shards.items()}
    assert max(lengths["short"]) * 2 > 32 > min(lengths["talk"])
    mean = {name: float(np.mean(each)) for name, each in lengths.items()}
    weight = mean["long"] ** 0.5 + mean["short"] ** 0.5
    texts = shards["talk"].arrays["text_ends"][-1] / 3
    usual = {  # a quarter of 16 tokens of prompt; 32 timesteps of two tokens, or what fits a row
        "long": 4 + 64,
        "short": 4 + float(np.mean([min(2 * steps, 32) for steps in lengths["short"]])),
        "talk": float(np.mean([min(steps + texts, 32) for steps in lengths["talk"]])),
    }
    drawn = np.array(
        [
            mean["long"] ** 0.5 / weight / usual["long"],
            mean["short"] ** 0.5 / weight / usual["short"],
            3 / usual["talk"],
        ]
    )
    assert np.allclose(packer.probabilities, drawn / drawn.sum(), rtol=1e-6)


def test_emphasis_multiplies_a_task_s_share_of_the_tokens() -> None:
    names = [f"act-{i}" for i in range(3)]
    made_shards = (random_shard(state_plan(), name, seed=1) for name in names)
    shards = {shard.task: dataclasses.replace(shard, group="act") for shard in made_shards}

    def emphasised(**emphasis: float) -> Packer:
        mixture = Mixture({"act": 1.0}, emphasis=emphasis)
        return Packer(shards, mixture, SMALL, rows=1, length=128, seed=3)

    assert np.allclose(emphasised().probabilities, 1 / 3)
    assert np.allclose(emphasised(**{"act-1": 2.0}).probabilities, (0.25, 0.5, 0.25))
    with pytest.raises(ValueError, match=r"emphasises \['talk'\], of which no shard is open"):
        emphasised(talk=2.0)


def test_a_batch_whose_texts_are_all_empty() -> None:
    space = spaces.Dict(image=spaces.Box(0, 10, (7, 7, 3), np.uint8), words=spaces.Text(9))
    options = PlanOptions(grids=("image",), memory="observations", vector_size=16)
    plan = compile_plan(space, spaces.Discrete(5), options)
    images = np.random.default_rng(0).integers(0, 11, (12, 7, 7, 3), np.uint8)
    seen = [{"image": image, "words": ""} for image in images]
    shard = make_shard(plan, [(seen, np.full((12, 1), 33025))])
    packer = Packer({"test": shard}, Mixture({"test": 1.0}), SMALL, rows=2, length=24, seed=0)
    batch = packer.batch(0)
    assert (batch.tokens.conditions == -1).all()
    assert torch.isfinite(GatoNetwork(SMALL)(batch)).all()


def test_a_task_whose_texts_fit_no_row_is_refused() -> None:
    plan = talking_plan()
    shard = random_shard(plan, "talk")
    state = np.zeros(3, np.float32)
    shortest = min(len(plan.encode({"state": state, "words": words}).text) for words in WORDS)
    mixture, fits = Mixture({"talk": 1.0}, smallest=1), shortest + plan.num_tokens
    batch = Packer({"talk": shard}, mixture, SMALL, rows=8, length=fits, seed=0).batch(0)
    assert batch.task_tokens["talk"]
    with pytest.raises(ValueError, match=f"'talk' has {fits} tokens and a row of a batch has"):
        Packer({"talk": shard}, mixture, SMALL, rows=8, length=fits - 1, seed=0)


def retrieving(plan: Plan, *, share: float, rows: int = 8) -> Packer:
    shard = random_shard(plan, "task", episodes=4)
    config = dataclasses.replace(SMALL, prompt_tokens=40)
    mixture = Mixture({"task": 1.0}, {"task": 1.0}, prompt_retrieved=share, memoryless_steps=6)
    return Packer({"task": shard}, mixture, config, rows=rows, length=120, seed=1)


@pytest.mark.parametrize("memory", ["none", "observations"])
def test_a_retrieved_prompt_is_the_nearest_steps_of_other_episodes(memory: str) -> None:
    """Each is compared with all that a document of one demonstration could have had."""
    plan = state_plan(memory) if memory == "none" else talking_plan(memory)
    packer = retrieving(plan, share=1.0)
    shard = packer.shards["task"]
    vectors = np.asarray(shard.arrays["vectors"]).reshape(shard.num_steps, -1)[:, :3].astype(float)
    scaled = vectors / vectors.std(axis=0)
    texts = np.asarray(shard.arrays["text_index"])
    seen = 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        episode = int(generator.integers(len(shard.ends)))
        doc = packer._draw_retrieved(shard, episode, generator, 120)
        assert doc is not None
        (layout, arrays, _), (_, live, steps) = doc.parts
        start, stop = shard.starts[episode], shard.ends[episode]
        assert start <= steps[0] < stop
        assert np.array_equal(steps, np.arange(steps[0], steps[0] + len(steps)))
        shown = [
            int(np.flatnonzero((np.asarray(shard.arrays["vectors"]) == vector).all((1, 2)))[0])
            for vector in arrays.vectors
        ]
        assert not any(start <= step < stop for step in shown)
        assert np.array_equal(arrays.actions, shard.arrays["actions"][shown])
        apart = np.linalg.norm(scaled - scaled[steps[0]], axis=1)
        assert (np.diff(apart[shown]) >= 0).all(), "nearest first"
        of = {int(np.searchsorted(shard.ends, step, side="right")) for step in shown}
        pool = np.concatenate([np.arange(shard.starts[e], shard.ends[e]) for e in sorted(of)])
        if (texts[pool] == texts[steps[0]]).any():
            pool = pool[texts[pool] == texts[steps[0]]]
        best = pool[np.argsort(apart[pool], kind="stable")][: len(shown)]
        assert shown == best.tolist()
        fed = layout.ids[layout.actions == 1].reshape(len(shown), -1)
        assert np.array_equal(fed, arrays.actions)
        assert len(layout.ids) <= 40
        assert live.actions.shape[0] == len(steps)
        seen += len(of) > 1
    assert seen > 3


def test_the_share_of_retrieved_prompts_is_kept_and_none_leaves_batches_as_they_are() -> None:
    plan = state_plan()
    for share, low, high in ((0.0, 0, 0), (0.5, 0.3, 0.7), (1.0, 1, 1)):
        packer = retrieving(plan, share=share)
        prompted = retrieved = 0
        for number in range(20):
            roles = packer.batch(number).roles
            keys = roles.documents + 100 * torch.arange(len(roles.documents))[:, None]
            shown = roles.prompts == 1
            prompted += len(keys[shown].unique())
            retrieved += len(keys[shown & (roles.actions == 1)].unique())
        assert low <= retrieved / prompted <= high
    plain = Packer(
        packer.shards, Mixture({"task": 1.0}, {"task": 1.0}, memoryless_steps=6), packer.config,
        rows=8, length=120, seed=1,
    )  # fmt: skip
    same = retrieving(plan, share=0.0).batch(3), plain.batch(3)
    assert torch.equal(same[0].tokens.ids, same[1].tokens.ids)
    assert torch.equal(same[0].targets.ids, same[1].targets.ids)
