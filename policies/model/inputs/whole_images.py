"""A whole image, with all frames of a stack, to one embedding.

* :class:`WholeImageEmbedding` -- two convolutions that the text and the task modulate, then one
  linear map.

Shapes: N images, C channels (all frames of a stack), S side, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.model.config import NetworkConfig

__all__ = ["WholeImageEmbedding"]

FIRST, SECOND = (6, 3), (4, 2)
"""Kernel and stride of the two convolutions: 42 pixels become 13, and these 5."""


class WholeImageEmbedding(nn.Module):
    """Two convolutions without padding and a linear map.

    Args:
        config: Its ``image_size``, ``image_channels`` and ``patch_channels`` are used; the second
            convolution has twice as many channels as the first.

    Raises:
        ValueError: Images are too small for the convolutions.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        side = config.image_size
        for kernel, stride in (FIRST, SECOND):
            side = (side - kernel) // stride + 1
        if side < 1:
            raise ValueError(f"image_size is {config.image_size}: expected 15 or more")
        first, second = config.patch_channels, 2 * config.patch_channels
        self.channels, self.scale = config.image_channels, config.image_size**0.5
        self.first = nn.Conv2d(config.image_channels, first, *FIRST)
        self.second = nn.Conv2d(first, second, *SECOND)
        self.modulate = nn.Linear(config.width, 2 * (first + second))
        nn.init.zeros_(self.modulate.bias)
        self.out = nn.Linear(second * side * side, config.width)

    def forward(self, images_NCSS: Tensor, condition_ND: Tensor) -> Tensor:
        """Embeddings float ``[N, D]`` of images that `scale_patches` scaled."""
        missing = self.channels - images_NCSS.shape[1]
        x = F.pad(images_NCSS, (0, 0, 0, 0, 0, missing)) if missing else images_NCSS
        x = x.to(memory_format=torch.channels_last, copy=True).mul_(self.scale)
        convolutions = (self.first, self.second)
        sizes = [2 * convolution.out_channels for convolution in convolutions]
        changes = self.modulate(condition_ND)[..., None, None].split(sizes, dim=1)
        for convolution, change in zip(convolutions, changes, strict=True):
            factor, shift = change.chunk(2, dim=1)
            x = F.gelu(convolution(x) * (1 + factor) + shift)
        if x.requires_grad:  # a gradient in another order is walked number by number
            x.register_hook(_channels_last)
        embedded: Tensor = self.out(x.flatten(1))
        return embedded


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
