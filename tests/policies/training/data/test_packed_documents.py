"""Rows of real experts' documents: nearly full, and no target sees another document."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorded import make_shard

from gato_gym import compile_plan, get_task
from policies.experts import make_expert
from policies.model.network import GatoNetwork, PackedBatch
from policies.training.config import train_config
from policies.training.data.packing import Packer
from policies.training.data.shards import TaskShard
from policies.training.settings import TrainSettings

EPISODES = {
    "babyai-go-to-local": 16,
    "babyai-open-doors-order-n4": 8,
    "metaworld-reach": 4,
    "metaworld-door-open": 4,
}
STEPS = 50
SETTINGS = TrainSettings(
    datasets=(),
    output=Path("run"),
    network={"width": 192, "heads": 3, "feed_forward": 384, "vector_hidden": 384},
    weights={"babyai": 0.45, "metaworld": 0.55},
    prompt_shares={"babyai": 0.06, "metaworld": 0.75},
    rows=24,
    length=256,
)
CONFIG = train_config(SETTINGS, ["babyai", "metaworld"], [], steps=100)


def expert_shard(task_id: str) -> TaskShard:
    """A few episodes of a task's expert, of 50 steps at most."""
    task = get_task(task_id)
    env = task.make()
    plan = compile_plan(env.observation_space, env.action_space, task.options)
    expert, episodes = make_expert(task_id, env), []
    for seed in range(EPISODES[task_id]):
        observation, _ = env.reset(seed=seed)
        state: Any = None
        observations, actions = [], []
        for _ in range(STEPS):
            action, state = expert.predict(observation, state)
            observations.append(observation)
            actions.append(action)
            observation, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break
        episodes.append((observations, plan.encode_actions(np.array(actions))))
    env.close()
    return dataclasses.replace(make_shard(plan, episodes, task_id), group=task.suite)


@pytest.fixture(scope="module")
def packer() -> Packer:
    shards = {task: expert_shard(task) for task in EPISODES}
    return Packer(
        shards,
        dataclasses.replace(CONFIG.mixture, emphasis={}),
        CONFIG.network,
        rows=CONFIG.rows,
        length=CONFIG.length,
        seed=0,
    )


def test_at_most_two_positions_of_a_hundred_are_padding(packer: Packer) -> None:
    drawn: dict[str, int] = {}
    empty = positions = 0
    for index in range(6):
        batch = packer.batch(index)
        empty += int((batch.roles.documents == -1).sum())
        positions += batch.roles.documents.numel()
        for task, tokens in batch.task_tokens.items():
            drawn[task] = drawn.get(task, 0) + tokens
    assert set(drawn) == set(EPISODES)
    assert sum(drawn.values()) == positions - empty
    assert empty / positions <= 0.02
    shares = {s: sum(n for t, n in drawn.items() if t.startswith(s)) for s in ("babyai", "meta")}
    assert shares["babyai"] / positions == pytest.approx(0.45, abs=0.06)


def said(network: GatoNetwork, batch: PackedBatch) -> torch.Tensor:
    """Probabilities of every target id, in the order of the targets."""
    values = network.config.vocabulary
    with torch.no_grad():
        hidden = network(batch).flatten(0, 1)[batch.targets.slots]
        logits = network.symbol_logits(hidden, values.text.stop, values.size)
    return logits.gather(1, batch.targets.ids[:, None] - values.text.stop)[:, 0]


def changed(batch: PackedBatch, tokens: torch.Tensor) -> PackedBatch:
    """The batch with everything that these flattened tokens carry changed: ids, numbers, grids."""
    inputs = batch.tokens
    ids = inputs.ids.flatten().clone()
    ids[tokens & (ids >= 0)] -= 1 * (ids[tokens & (ids >= 0)] > 0)
    parts, touched = {}, 0
    for name in ("added_ids", "vectors", "grids"):
        part = getattr(inputs, name)
        values, mine = part.values.clone(), tokens[part.slots]
        touched += int(mine.sum())
        values[mine] = values[mine] + 1
        parts[name] = dataclasses.replace(part, values=values)
    assert touched
    replaced = dataclasses.replace(inputs, ids=ids.view_as(inputs.ids), **parts)
    return dataclasses.replace(batch, tokens=replaced)


def test_no_target_crosses_a_document(packer: Packer) -> None:
    """What others hold changes no bit of a document's targets; what it held before does."""
    torch.manual_seed(0)
    network = GatoNetwork(CONFIG.network).eval()
    narrow = Packer(packer.shards, packer.mixture, CONFIG.network, rows=2, length=256, seed=1)
    batch = narrow.batch(0)
    owners = batch.roles.documents.flatten() + 100 * (torch.arange(512) // 256)
    owners[batch.roles.documents.flatten() == -1] = -1
    slots = batch.targets.slots
    assert (owners[slots] >= 0).all()
    before = said(network, batch)
    documents = sorted(set(owners[slots].tolist()))
    assert len(documents) >= 6
    kinds = set()
    for document in documents:
        mine = owners[slots] == document
        assert torch.equal(said(network, changed(batch, owners != document))[mine], before[mine])
        first = int(slots[mine].min())
        earlier = (owners == document) & (torch.arange(512) <= first)
        differs = said(network, changed(batch, earlier))[mine] != before[mine]
        assert differs[slots[mine] == first].all(), "its own observation reaches its first target"
        kinds.add(bool(batch.roles.prompts.flatten()[owners == document].any()))
    assert kinds == {True, False}


def test_positions_start_again_with_each_document(packer: Packer) -> None:
    batch = packer.batch(2)
    start = CONFIG.network.prompt_tokens
    firsts = 0
    for row in range(len(batch.roles.documents)):
        docs, positions = batch.roles.documents[row], batch.roles.positions[row]
        assert (docs[1:] >= docs[:-1])[docs[1:] >= 0].all()
        for document in range(int(docs.max()) + 1):
            mine = docs == document
            prompts = batch.roles.prompts[row][mine] == 1
            live = positions[mine][~prompts]
            firsts += int(live.min() == start)
            assert positions[mine][prompts].tolist() == list(range(int(prompts.sum())))
            assert live.min() >= start
    assert firsts > 20


def test_the_end_of_a_row_is_filled_from_the_same_seed(packer: Packer) -> None:
    """A row is a function of seed, batch and row, however it is filled."""
    whole = packer.batch(3)
    part = packer.batch(3, rank=5, world=6)
    assert torch.equal(part.tokens.ids, whole.tokens.ids[5::6])
    assert torch.equal(part.roles.documents, whole.roles.documents[5::6])
