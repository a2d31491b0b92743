"""Who sees whom: both attentions against a float64 reference that goes through all pairs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small import SMALL, random_shard, state_plan, talking_plan

from benchmarks.speed.gpu_checks import packed_roles
from policies.model.attention import TokenRoles, attend, block_mask, dense_mask, mask_for
from policies.model.network import GatoNetwork, PackedBatch
from policies.model.transformer import compile_blocks
from policies.training.data.packing import Mixture, Packer

WINDOW = 24


def batch() -> PackedBatch:
    """Rows of documents with and without prompts, of tasks with each memory."""
    shards = {
        "all": random_shard(talking_plan("all"), "all"),
        "observations": random_shard(talking_plan("observations"), "observations", seed=1),
        "two": random_shard(state_plan("all"), "two", seed=2),
        "none": random_shard(state_plan("none"), "none", seed=3),
    }
    mixture = Mixture(
        dict.fromkeys(shards, 1.0), dict.fromkeys(shards, 0.5), action_drop=0.3, smallest=20
    )
    return Packer(shards, mixture, SMALL, rows=4, length=160, seed=5).batch(0)


def visible(roles: TokenRoles) -> NDArray[np.bool_]:
    """The rule in words, pair by pair."""
    pairs = np.zeros((len(roles.documents), 160, 160), np.bool_)
    for row in range(len(pairs)):
        r = {f.name: getattr(roles, f.name)[row].tolist() for f in dataclasses.fields(roles)}
        for query in range(160):
            pairs[row, query, query] = True  # every token sees itself, padding too
            if r["documents"][query] == -1:
                continue
            for key in range(query):
                if r["documents"][key] != r["documents"][query]:
                    continue  # nothing of another document
                if r["prompts"][key]:
                    pairs[row, query, key] = True  # all of the own prompt
                    continue
                if r["positions"][query] - r["positions"][key] >= WINDOW:
                    continue  # too long ago
                same_timestep = r["timesteps"][key] == r["timesteps"][query]
                memory = ("all", "observations", "none")[r["memories"][key]]
                remembered = memory == "all" or (memory == "observations" and not r["actions"][key])
                pairs[row, query, key] = same_timestep or remembered
    return pairs


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: np.ndarray) -> np.ndarray:
    """Softmax attention in float64, of the pairs that are seen."""
    arrays = [t.double().numpy() for t in (q, k, v)]
    scores = np.einsum("bhqd,bhkd->bhqk", arrays[0], arrays[1]) / np.sqrt(q.shape[-1])
    weights = np.exp(scores) * seen[:, None]
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhqk,bhkd->bhqd", weights, arrays[2])


@pytest.fixture(scope="module")
def packed() -> PackedBatch:
    return batch()


def test_the_batch_has_every_case(packed: PackedBatch) -> None:
    roles, seen = packed.roles, visible(packed.roles)
    assert (roles.documents == -1).any()
    assert roles.documents.max() >= 2
    assert set(roles.memories[roles.documents >= 0].tolist()) == {0, 1, 2}
    live = (roles.prompts == 0) & (roles.documents >= 0)
    assert int(roles.positions[live].max()) - SMALL.prompt_tokens > WINDOW
    assert 0.02 < seen.mean() < 0.4


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_both_masks_are_the_rule_in_words(packed: PackedBatch) -> None:
    from torch.nn.attention.flex_attention import create_mask

    seen = visible(packed.roles)
    assert np.array_equal(dense_mask(packed.roles, WINDOW)[:, 0].numpy(), seen)
    blocks = block_mask(packed.roles, WINDOW)
    inside = create_mask(blocks.mask_mod, 4, 1, 160, 160, device="cpu")
    assert np.array_equal(inside[:, 0].numpy(), seen)
    # the blocks that are listed are those in which something is seen
    padded = np.pad(seen, ((0, 0), (0, 96), (0, 96))).reshape(4, 2, 128, 2, 128)
    assert np.array_equal(blocks.to_dense()[:, 0].numpy(), padded.any((2, 4)).astype(int))


@pytest.mark.parametrize("length", [100, 160, 300])
def test_the_blocks_are_those_that_pytorch_finds(length: int) -> None:
    from torch.nn.attention.flex_attention import create_block_mask

    roles = packed_roles(2, length)
    mine = block_mask(roles, WINDOW)
    theirs = create_block_mask(mine.mask_mod, 2, None, length, length, device="cpu")
    for kind in ("kv", "full_kv", "q", "full_q"):
        for name in (f"{kind}_num_blocks", f"{kind}_indices"):
            one, other = getattr(mine, name), getattr(theirs, name)
            assert one.dtype == other.dtype, name
            assert torch.equal(one, other), name
    assert mine.seq_lengths == theirs.seq_lengths
    assert mine.BLOCK_SIZE == theirs.BLOCK_SIZE


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("attention", ["dense", "flex"])
def test_attention_is_that_of_the_pairs(packed: PackedBatch, attention: str) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 2, 160, 16)
    mask = mask_for(packed.roles, WINDOW, attention=attention)
    assert isinstance(mask, torch.Tensor) == (attention == "dense")
    attended = attend(q, k, v, mask)
    expected = reference(q, k, v, visible(packed.roles))
    assert np.abs(attended.numpy() - expected).max() < 2e-6
    one = expected[:, :, -1] - reference(q, k, v, np.tri(160)[None].repeat(4, 0))[:, :, -1]
    assert np.abs(one).max() > 0.01, "a plain causal mask would pass"


def test_the_rule_compiles_once_for_all_batches(packed: PackedBatch) -> None:
    """As one graph, which is what a GPU's kernel is made of."""
    from torch._dynamo.testing import CompileCounter
    from torch.nn.attention.flex_attention import flex_attention

    counter = CompileCounter()
    compiled = torch.compile(flex_attention, backend=counter, fullgraph=True, dynamic=False)
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 2, 160, 16)
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        roles = packed.roles.at(torch.tensor(order))
        attended = compiled(q, k, v, block_mask=block_mask(roles, WINDOW))
        assert np.abs(attended.numpy() - reference(q, k, v, visible(roles))).max() < 2e-6
    assert counter.frame_count == 1


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_network_says_the_same_with_either(packed: PackedBatch) -> None:
    torch.manual_seed(0)
    network = GatoNetwork(SMALL).eval()
    said = {}
    for attention in ("auto", "dense", "flex"):
        network.backbone.attention = attention
        with torch.no_grad():
            said[attention] = network(packed)
    assert torch.equal(said["auto"], said["dense"])  # on a CPU
    assert torch.allclose(said["flex"], said["dense"], atol=1e-5)
    network.backbone.attention = "sparse"
    with pytest.raises(ValueError, match="attention is 'sparse': expected one of auto, dense"):
        network(packed)


def test_under_a_cpus_autocast_it_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 8, 16).bfloat16()
    mask = torch.ones(8, 8, dtype=torch.bool).tril()
    with torch.autocast("cpu", torch.bfloat16):
        y = attend(q, k, v, mask, scale=0.5)
        assert torch.is_autocast_enabled("cpu"), "outside of it nothing changes"
    scores = (q.double() @ k.double().mT * 0.5).masked_fill(~mask, -torch.inf)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), scores.softmax(-1) @ v.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_compiled_blocks_say_the_same_and_compile_once(
    packed: PackedBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.testing import CompileCounter

    torch.manual_seed(0)
    network, counter = GatoNetwork(SMALL).eval(), CompileCounter()
    network.backbone.attention = "flex"
    batches = [packed, dataclasses.replace(packed, roles=packed.roles.at(torch.arange(4).flip(0)))]
    with torch.no_grad():
        plain = [network(each) for each in batches]
        compile_module = torch.nn.Module.compile
        monkeypatch.setattr(
            torch.nn.Module,
            "compile",
            lambda module, **how: compile_module(module, backend=counter, **how),
        )
        compile_blocks(network.backbone)
        compiled = [network(each) for each in batches]
    assert counter.frame_count == 1, "for all blocks and batches"
    for one, other in zip(plain, compiled, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert not torch.equal(plain[0], plain[1])
