"""The sizes of a JAT network, as the published ``config.json`` names them.

* :class:`JatConfig` -- every size; its defaults are those of the published checkpoint.
* :func:`preset` -- sizes by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gato_gym.files.bounded_io import as_type

MODEL_TYPE = "jat"
ATTENTION = ("global", "local")
FIXED = {
    "activation_function": "gelu_new",
    "resid_dropout": 0.0,
    "embed_dropout": 0.0,
    "attention_dropout": 0.0,
}
"""What a published configuration says that this network has no choice in."""

LARGEST_SIZE = 2**20
SQUEEZE = 8
"""Channels of an image's convolutions over those that weigh them."""


@dataclass(frozen=True)
class JatConfig:
    """Sizes of one network, arXiv 2402.09844.

    Attributes:
        hidden_size: D, width of the residual stream.
        num_layers: Number of transformer blocks.
        num_heads: Attention heads; they divide ``hidden_size``.
        intermediate_size: Width of the feed-forward; None is four times ``hidden_size``.
        attention_layers: "global" or "local" for each block; empty alternates, global first.
        window_size: Tokens that a token of a local block sees, itself included.
        max_position_embeddings: Learned positions, the most tokens of a sequence.
        vocab_size: Text tokens; discrete observations and actions share their table.
        max_continuous_size: Numbers that a vector is repeated cyclically up to.
        max_discrete_value: Symbols of a discrete observation, its text included.
        image_channels: Channels after each convolution of four frames, multiples of 8.
        image_size: Side of a caption's image, in pixels.
        num_channels: Channels of a caption's image.
        patch_size: Side of a patch of it.
        layer_norm_epsilon: Of every LayerNorm.
        eos_token_id: Text token that pads a discrete observation's text.
        context_tokens: Most tokens of context at play, two a timestep, 2 for the observation
            alone; None is the published evaluation's. It is the window where none is asked for.
        observation_loss_coef: κ, the share of the observation loss; 0 predicts no observation.
        action_loss_coef: The share of the action loss.

    Raises:
        ValueError: A size is out of range, or sizes do not divide one another.

    Example:
        >>> JatConfig(num_layers=3).layers
        ('global', 'local', 'global')
    """

    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int | None = None
    attention_layers: tuple[str, ...] = ()
    window_size: int = 256
    max_position_embeddings: int = 512
    vocab_size: int = 50257
    max_continuous_size: int = 377
    max_discrete_value: int = 212
    image_channels: tuple[int, int, int] = (32, 64, 128)
    image_size: int = 224
    num_channels: int = 3
    patch_size: int = 16
    layer_norm_epsilon: float = 1e-5
    eos_token_id: int = 50256
    context_tokens: int | None = None
    observation_loss_coef: float = 0.005
    action_loss_coef: float = 0.995

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "eos_token_id" else 1
            if type(value) is int and not least <= value <= LARGEST_SIZE:
                raise ValueError(
                    f"{field.name} is {value}: expected {least} to {LARGEST_SIZE}; take a fresh "
                    "copy of the configuration"
                )
        context, most = self.context_tokens, self.max_position_embeddings
        if context is not None and (context % 2 or context > most):
            raise ValueError(
                f"context_tokens is {context}: expected an even number of 2 to {most}, which is "
                "max_position_embeddings"
            )
        for part, whole in (("num_heads", "hidden_size"), ("patch_size", "image_size")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{part} is {getattr(self, part)} and {whole} {getattr(self, whole)}: expected "
                    "one that divides the other"
                )
        if unknown := set(self.attention_layers) - set(ATTENTION):
            raise ValueError(f"attention_layers has {sorted(unknown)}: expected {ATTENTION}")
        if self.attention_layers and len(self.attention_layers) != self.num_layers:
            raise ValueError(
                f"attention_layers has {len(self.attention_layers)} entries: expected one for each "
                f"of {self.num_layers} layers"
            )
        if any(size < 1 or size % SQUEEZE or size > LARGEST_SIZE for size in self.image_channels):
            raise ValueError(
                f"image_channels is {list(self.image_channels)}: expected multiples of {SQUEEZE}"
            )
        if self.eos_token_id >= self.vocab_size:
            raise ValueError(
                f"eos_token_id is {self.eos_token_id}: expected one of {self.vocab_size} tokens"
            )

    @property
    def layers(self) -> tuple[str, ...]:
        """Each block's kind of attention."""
        return self.attention_layers or tuple(ATTENTION[i % 2] for i in range(self.num_layers))

    @property
    def observation_heads(self) -> bool:
        """Whether next observations are predicted."""
        return self.observation_loss_coef > 0

    @property
    def feed_forward(self) -> int:
        """Width of the feed-forward."""
        return self.intermediate_size or 4 * self.hidden_size

    @property
    def symbol_size(self) -> int:
        """Numbers that a discrete observation keeps of each symbol."""
        return max(1, self.hidden_size // 50)

    def to_json(self) -> dict[str, Any]:
        """The configuration as ``config.json`` holds it, with the names that were published."""
        values = dataclasses.asdict(self)
        del values["attention_layers"]
        types = [[[kind], 1] for kind in self.layers]
        return {"model_type": MODEL_TYPE, **values, "attention_types": types, **FIXED}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str = "config.json") -> JatConfig:
        """The configuration of a published ``config.json``; what has no meaning here is left out.

        Args:
            values: The object in the file.
            where: What it is called in errors.

        Raises:
            ValueError: It is no JAT configuration, or asks for what this network does not do.

        Example:
            >>> JatConfig.from_json({"model_type": "jat", "num_layers": 2}).layers
            ('global', 'local')
        """
        if values.get("model_type") != MODEL_TYPE:
            raise ValueError(
                f"{where}: model_type is {values.get('model_type')!r}, expected {MODEL_TYPE!r}"
            )
        for name, expected in FIXED.items():
            if values.get(name, expected) != expected:
                raise ValueError(
                    f"{where}: {name} is {values[name]!r}, expected {expected!r}, which is all "
                    "that this network does"
                )
        known = {field.name for field in dataclasses.fields(cls)} - {"attention_layers"}
        sizes = {name: values[name] for name in known & values.keys()}
        if "attention_types" in values:
            sizes["attention_layers"] = _layers(values["attention_types"], where)
        config: JatConfig = as_type(cls, sizes, where)
        return config


_SMALL = {
    "vocab_size": 512, "eos_token_id": 511, "max_position_embeddings": 128, "image_size": 64,
}  # fmt: skip
"""Of networks whose text tokens are learned from their own episodes."""
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 96, "num_layers": 2, "num_heads": 2, "window_size": 64,
        "image_channels": (8, 16, 16), **_SMALL,
    },
    "mini": {
        "hidden_size": 240, "num_layers": 4, "num_heads": 4, "window_size": 64,
        "image_channels": (16, 32, 32), **_SMALL,
    },
    "small": {"hidden_size": 384, "num_layers": 6, "num_heads": 6, "window_size": 64, **_SMALL},
    "published": {},
}  # fmt: skip
"""What differs from the published sizes, by name; "mini" takes 11 MiB in bfloat16."""


def preset(name: str) -> JatConfig:
    """A configuration by name: tiny, mini, small, published.

    Raises:
        ValueError: No preset has this name.

    Example:
        >>> preset("mini").hidden_size, preset("published") == JatConfig()
        (240, True)
    """
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} of JAT is unknown: choose one of {', '.join(PRESETS)}")
    return JatConfig(**PRESETS[name])


def _layers(types: Any, where: str) -> list[str]:
    """``[[["global", "local"], 6]]`` as twelve kinds."""
    runs = as_type(list[tuple[list[str], int]], types, f"{where}: attention_types")
    if any(not 0 <= count <= LARGEST_SIZE for _, count in runs):
        raise ValueError(f"{where}: attention_types repeats a run {runs[0][1]} times")
    return [kind for kinds, count in runs for kind in kinds * count]
