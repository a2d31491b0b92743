"""Images to embeddings and back.

* :class:`ImageEncoder`, :class:`ImageDecoder` -- four 84 x 84 frames, as Atari's.
* :class:`PatchEncoder` -- the patches of a caption's image.

Modules have the names of the published tensors.

Shapes: N images, C channels, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from policies.jat.config import SQUEEZE

FRAMES, SIDE = 4, 84
Channels = tuple[int, int, int]
SMALLEST = 11
"""Side of an image after three convolutions of stride 2."""


class ChannelAttention(nn.Module):
    """Squeeze and excitation (arXiv 1709.01507): each channel times a factor of all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // SQUEEZE, bias=False),
            nn.ReLU(),
            nn.Linear(channels // SQUEEZE, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """The same shape."""
        factors: Tensor = self.fc(x_NCHW.mean((2, 3)))
        return x_NCHW * factors[:, :, None, None]


class ImageEncoder(nn.Module):
    """Three convolutions of stride 2, each normalised by image and channel, and a linear map."""

    def __init__(self, width: int, channels: Channels) -> None:
        super().__init__()
        first, second, third = channels
        self.conv1 = nn.Conv2d(FRAMES, first, 3, stride=2, padding=1)
        self.att1 = ChannelAttention(first)
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.att2 = ChannelAttention(second)
        self.conv3 = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.att3 = ChannelAttention(third)
        self.fc = nn.Linear(third * SMALLEST * SMALLEST, width)

    def forward(self, x: Tensor) -> Tensor:
        """Images float ``[N, 4, 84, 84]`` in [-1, 1] to ``[N, D]``."""
        x = self.att1(F.leaky_relu(F.instance_norm(self.conv1(x))))
        x = self.att2(F.leaky_relu(F.instance_norm(self.conv2(x))))
        x = self.att3(F.leaky_relu(F.instance_norm(self.conv3(x))))
        return self.fc(x.flatten(1))


class ImageDecoder(nn.Module):
    """The way back: a linear map and three transposed convolutions."""

    def __init__(self, width: int, channels: Channels) -> None:
        super().__init__()
        first, second, third = channels
        self.fc = nn.Linear(width, third * SMALLEST * SMALLEST)
        self.deconv1 = _doubling(third, second)
        self.att1 = ChannelAttention(second)
        self.deconv2 = _doubling(second, first)
        self.att2 = ChannelAttention(first)
        self.deconv3 = _doubling(first, FRAMES)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, D]`` to images float ``[N, 4, 84, 84]`` in [-1, 1]."""
        x = self.fc(x).unflatten(1, (-1, SMALLEST, SMALLEST))
        x = F.leaky_relu(F.instance_norm(self.deconv1(x)))
        x = self.att1(F.interpolate(x, size=(SIDE // 4, SIDE // 4)))  # of 22 x 22
        x = self.att2(F.leaky_relu(F.instance_norm(self.deconv2(x))))
        return self.deconv3(x).tanh()


class PatchEncoder(nn.Module):
    """Each patch of an image as one embedding, in reading order."""

    def __init__(self, channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, width, patch_size, stride=patch_size)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Images to ``[N, patches, D]``."""
        patches: Tensor = self.projection(x_NCHW)
        return patches.flatten(2).transpose(1, 2)


def _doubling(inner: int, outer: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inner, outer, 3, stride=2, padding=1, output_padding=1)
