"""Text from the network: a prompt, and an image before it, continued token by token.

* :func:`write` -- the parts of a text, as they are chosen.

The sequence is the image's patches followed by the text. It slides through the network's window
like an episode, so a text can be longer than the window. The separator ends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.text import default_tokenizer
from policies.gato.sampling import Sampler
from policies.model.embedding import TEXT_PLACES
from policies.model.kv_cache import RingCache
from policies.model.network import GatoNetwork
from policies.model.sequence import TokenCollector
from policies.model.text_sequence import Passage, image_patches, lay_out_passages

__all__ = ["write"]

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What the first bytes of a character decode to until the rest follows."""


def write(
    network: GatoNetwork,
    prompt: str,
    *,
    image: NDArray[np.uint8] | None = None,
    max_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """The continuation of a prompt, in parts.

    Args:
        network: The weights, for inference.
        prompt: The beginning of the text; can be empty if there is an image.
        image: uint8 ``[H, W, C]`` with 1, 3 or 4 channels; precedes the prompt.
        max_tokens: Largest number of tokens to write, 1 or more.
        temperature: Divides the logits; 0 always takes the most likely token.
        top_p: As in :class:`policies.gato.sampling.Sampler`.
        seed: Seed of the sampled tokens.

    Yields:
        Consecutive parts of the text, without the prompt.

    Raises:
        ValueError: Prompt and image are missing, or an argument is out of range.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}: expected 1 or more")
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}: expected 0 (the likeliest) or more")
    sampler = Sampler(temperature=temperature or 1.0, top_p=top_p)
    tokenizer = default_tokenizer()
    given = tokenizer.encode(prompt).astype(np.int64)
    if image is None and not len(given):
        raise ValueError("the prompt is empty and there is no image: pass text, an image, or both")
    x_ND = _embed(network, given, image)
    uniforms = np.random.default_rng(seed).random(max_tokens, np.float32)
    pieces = given.tolist()
    shown = text = prompt
    for piece in _choose(network, x_ND, len(given), uniforms, sampler, greedy=temperature == 0):
        pieces.append(piece)
        text = tokenizer.decode(pieces)
        if not text.endswith(INCOMPLETE):
            yield text[len(shown) :]
            shown = text
    if text != shown:
        yield text[len(shown) :]


@torch.inference_mode()
def _embed(network: GatoNetwork, ids: NDArray[np.int64], image: Any) -> Tensor:
    """The image's and the prompt's tokens: float ``[N, D]``."""
    config = network.config
    patches, intervals = (None, None)
    if image is not None:
        patches, intervals = image_patches(np.asarray(image), patch_size=config.patch_size)
    passage = Passage(ids, patches, intervals)
    layout = lay_out_passages([passage], config.vocabulary, first_position=config.prompt_tokens)
    collector = TokenCollector(1, len(layout.ids))
    collector.add_text(layout, config.vocabulary, 0)
    device = network.embedding.text.weight.device
    conditions = torch.zeros(1, config.width, device=device)
    return network.embedding(collector.finish().to(device), conditions)[0]


@torch.inference_mode()
def _choose(
    network: GatoNetwork,
    x_ND: Tensor,
    text_length: int,
    uniforms: NDArray[np.float32],
    sampler: Sampler,
    *,
    greedy: bool,
) -> Iterator[int]:
    """Pieces of a text, until the separator."""
    config, first = network.config, network.config.vocabulary.text.start
    cache = RingCache.empty(
        config, rows=1, ring=config.window + len(x_ND), pinned=0, like=network.head.weight
    )
    position = config.prompt_tokens
    for place, uniform in enumerate(torch.from_numpy(uniforms), start=text_length):
        positions = position + np.arange(len(x_ND))
        hidden = network.step(x_ND, np.zeros(len(x_ND), np.int64), positions, cache)[-1:]
        position += len(x_ND)
        logits = network.writing_logits(hidden)
        chosen = sampler.choose(
            logits, uniform[None].to(logits.device), continuous=False, deterministic=greedy
        )
        if int(chosen) == logits.shape[1] - 1:
            return
        yield int(chosen)
        x_ND = network.embedding.embed_text(chosen + first)
        x_ND = x_ND + network.embedding.place.weight[min(place, TEXT_PLACES - 1)]
