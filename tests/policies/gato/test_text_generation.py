"""Text out of the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import SMALL, talking_plan

from gato_gym.text import default_tokenizer
from policies import GatoPolicy
from policies.model.network import GatoNetwork, inference


@pytest.fixture(scope="module")
def policy() -> GatoPolicy:
    torch.manual_seed(1)
    return GatoPolicy(GatoNetwork(SMALL), talking_plan())


def forced(text: str) -> GatoPolicy:
    """A policy whose network writes one piece of ``text`` after another, then ends.

    Its blocks add nothing, so that what follows depends on the last token alone; its head turns
    each piece's embedding into a vector at which the next piece's row is the likeliest.
    """
    torch.manual_seed(3)
    network = inference(GatoNetwork(SMALL))
    pieces = torch.from_numpy(default_tokenizer().encode(text).astype(np.int64))
    assert len(set(pieces.tolist())) == len(pieces), "each piece must decide its successor"
    network.embedding.place.weight.zero_()
    for block in network.backbone.blocks:
        block.attention_out.weight.zero_()
        block.feed_out.weight.zero_()
    table = torch.eye(SMALL.text_rank)[: len(pieces)]
    network.embedding.text.weight.zero_()
    network.embedding.text.weight[pieces] = table
    orthogonal = torch.linalg.qr(torch.randn(SMALL.width, SMALL.text_rank + 1)).Q
    lookup, separator = orthogonal[:, :-1], orthogonal[:, -1]
    network.embedding.text_out.weight.copy_(lookup)
    network.embedding.symbols.weight[-1] = separator
    hidden = network.backbone.norm(lookup.T[: len(pieces)])  # [pieces, D]
    answers = torch.stack([*lookup.T[1 : len(pieces)], separator])
    network.head.weight.copy_(10 * (torch.linalg.pinv(hidden) @ answers).T)
    network.head.bias.zero_()
    return GatoPolicy(network, talking_plan())


def test_it_writes_what_the_network_says_until_the_separator() -> None:
    text = "the red ball is here"
    policy = forced(text)
    first = default_tokenizer().decode(default_tokenizer().encode(text)[:1])
    assert first + policy.generate_text(first, temperature=0) == text
    assert policy.generate_text(first, temperature=0, max_tokens=2) == " red ball"


def test_a_character_of_several_pieces_comes_whole() -> None:
    policy = forced("go\N{DUCK}")
    assert len(default_tokenizer().encode("go\N{DUCK}")) == 5  # the duck's bytes one by one
    assert list(policy.stream_text("go", temperature=0)) == ["\N{DUCK}"]
    assert policy.generate_text("go", temperature=0, max_tokens=1) == "\N{REPLACEMENT CHARACTER}"


def test_streaming_gives_the_same_text(policy: GatoPolicy) -> None:
    whole = policy.generate_text("go to", max_tokens=30, seed=5)
    parts = list(policy.stream_text("go to", max_tokens=30, seed=5))
    assert "".join(parts) == whole
    assert len(parts) > 10
    assert whole != policy.generate_text("go to", max_tokens=30, seed=6)
    assert whole == policy.generate_text("go to", max_tokens=30, seed=5)


def test_the_image_matters(policy: GatoPolicy) -> None:
    images = [np.full((20, 33, 3), value, np.uint8) for value in (0, 255)]
    texts = [policy.generate_text("a", image, max_tokens=12, seed=5) for image in images]
    assert texts[0] != texts[1]
    assert policy.generate_text(image=images[0][..., :1], max_tokens=3)


def test_a_text_longer_than_the_window_goes_on(policy: GatoPolicy) -> None:
    prompt = "go to the red ball " * 20  # longer than the window of 64 tokens
    assert policy.generate_text(prompt, max_tokens=100, temperature=0)


def test_what_cannot_be_is_refused(policy: GatoPolicy) -> None:
    with pytest.raises(ValueError, match="prompt is empty and there is no image"):
        policy.generate_text()
    with pytest.raises(ValueError, match=r"image is float64 \[3, 3\]: expected uint8"):
        policy.generate_text("a", np.zeros((3, 3)))
    with pytest.raises(ValueError, match="max_tokens is 0"):
        policy.generate_text("a", max_tokens=0)
    with pytest.raises(ValueError, match="temperature is -1"):
        policy.generate_text("a", temperature=-1)
    with pytest.raises(ValueError, match="top_p is 0"):
        policy.generate_text("a", top_p=0)
