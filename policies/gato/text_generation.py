"""Text from the network: a prompt, and an image before it, continued token by token.

* :func:`write` -- the parts of a text, as they are chosen.

The sequence is the image's patches followed by the text. It slides through the network's window
like an episode, so a text can be longer than the window. The separator ends it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.images import patch_grid
from gato_gym.text import default_tokenizer
from policies.gato.sampling import Sampler
from policies.model.inputs.embedding import TEXT_PLACES
from policies.model.inputs.sequence import TokenCollector
from policies.model.inputs.text_sequence import Passage, image_patches, lay_out_passages
from policies.model.kv_cache import RingCache
from policies.model.network import GatoNetwork

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
        ValueError: Prompt and image are missing, an argument is out of range, or the image has as
            many patches as the window has tokens.
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
        height, width = np.shape(image)[:2] if np.ndim(image) == 3 else (0, 0)
        count = math.prod(patch_grid(height, width, patch_size=config.patch_size))
        if count >= config.window:
            raise ValueError(
                f"the image of {height} x {width} pixels has {count} patches: expected fewer than "
                f"{config.window}, the tokens of the network's window; scale it down"
            )
        patches, intervals = image_patches(np.asarray(image), patch_size=config.patch_size)
    passage = Passage(ids, patches, intervals)
    layout = lay_out_passages([passage], config.vocabulary, first_position=config.prompt_tokens)
    collector = TokenCollector(1, len(layout.ids))
    collector.add_text(layout, config.vocabulary, 0)
    device = network.embedding.text.weight.device
    conditions = torch.zeros(1, config.condition_size, device=device)
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
    chunk = min(len(x_ND), config.window)
    cache = RingCache.empty(
        config, rows=1, ring=config.window + chunk, pinned=0, like=network.head.weight
    )
    position = config.prompt_tokens
    for place, uniform in enumerate(torch.from_numpy(uniforms), start=text_length):
        for part_ND in x_ND.split(chunk):  # a long prompt costs its length, not its square
            positions = position + np.arange(len(part_ND))
            rows = np.zeros(len(part_ND), np.int64)
            hidden = network.step(part_ND, rows, positions, cache)[-1:]
            position += len(part_ND)
        logits = network.writing_logits(hidden)
        chosen = sampler.choose(
            logits, uniform[None].to(logits.device), continuous=False, deterministic=greedy
        )
        if int(chosen) == logits.shape[1] - 1:
            return
        yield int(chosen)
        x_ND = network.embedding.embed_text(chosen + first)
        x_ND = x_ND + network.embedding.place.weight[min(place, TEXT_PLACES - 1)]
