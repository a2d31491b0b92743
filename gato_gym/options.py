"""The choices that decide how a pair of spaces becomes tokens.

- `PlanOptions`: the choices of a plan, as plain values that travel as JSON.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gato_gym.files.bounded_io import as_type

__all__ = ["PlanOptions"]

_NEWER = {"image_size": 0, "actions": "autoregressive"}

_CHOICES = {
    "layout": ("paper", "lean"),
    "image_fit": ("pad", "resize"),
    "text": ("", "always", "changes"),
    "memory": ("all", "observations", "none"),
    "actions": ("autoregressive", "parallel"),
    "on_nan": ("error", "replace"),
    "outside": ("boxes", "clip", "error"),
}
_LARGEST = {
    "patch_size": 1024,
    "vector_size": 65_536,
    "text_refresh": 2**31,
    "sequence_length": 4096,
}
"""What a plan's memory grows with: the numbers may come from a file."""


@dataclass(frozen=True)
class PlanOptions:
    """How an observation space and an action space become tokens.

    Paths name parts of an observation: Dict keys and Tuple indices joined by "/"; a space that is
    neither has the path "".

    Args:
        layout: "paper", one token a number as published, or "lean", a vector as a few patches.
        patch_size: Side of an image patch, in pixels.
        image_fit: Whether an image is zero padded or resized up to a multiple of `patch_size`.
        image_size: lean: side, in pixels, that every image is resized to; the image is then one
            token, and the frames of a stack are its channels. 0 cuts images into patches.
        vector_size: lean: numbers in a vector patch. The last patch is zero padded.
        vector_mean: lean: mean of each number of the concatenated vector. With `vector_std`, the
            vector becomes `(x - mean) / std`, clipped to [-10, 10]. When empty, choices and Boxes
            whose bounds are at most 1000 in magnitude are scaled to [-1, 1]; other Boxes are
            mu-law companded.
        vector_std: lean: standard deviation of each number, all above zero.
        grids: Paths that are small symbolic grids, uint8 [height, width, planes].
        images: Paths of images that are not recognised (small, or neither uint8 nor between 0 and
            1 or 0 and 255); their bounds are scaled to 0 and 255.
        stacks: Paths that are stacks of image frames along their first axis, the newest last, as in
            Gymnasium's FrameStackObservation. Only the newest frame becomes patches; with
            `image_size`, all frames become one token.
        skip: Paths left out of the tokens, with everything below them.
        text: When text is emitted: "always", or "changes": at an episode's first timestep, when it
            changes, and every `text_refresh` timesteps. Empty picks "changes" for the lean layout
            and "always" for the paper's.
        text_refresh: Timesteps between two emissions of an unchanged text.
        memory: What later timesteps see of a finished one: "all", "observations" (all but its
            actions), or "none".
        actions: "autoregressive", one action token after another as published, or "parallel", all
            action tokens of a timestep from its last body token. Parallel actions are not
            remembered: `memory` is "observations" or "none".
        on_nan: "error" refuses a NaN by path and index; "replace" reads it as `nan_value`.
        nan_value: The number that a NaN is read as.
        outside: How observations outside their space are read. "boxes" reads a Box's number (as the
            nearest bin, or unchanged in a vector) and refuses an integer outside its Discrete,
            MultiDiscrete or MultiBinary. "clip" reads the nearest member, "error" refuses both.
            `Plan.outside` counts them.
        sequence_length: Elements of a Sequence, nodes and edges of a Graph, that have tokens.
            Longer observations are cut and count as outside; longer actions are refused.

    Raises:
        ValueError: A value is not allowed.

    Example:
        >>> options = PlanOptions(grids=("image",), memory="observations")
        >>> options.text
        'changes'
        >>> PlanOptions.from_json(options.to_json()) == options
        True
    """

    layout: str = "lean"
    patch_size: int = 16
    image_fit: str = "pad"
    image_size: int = 0
    vector_size: int = 64
    vector_mean: tuple[float, ...] = ()
    vector_std: tuple[float, ...] = ()
    grids: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    text: str = ""
    text_refresh: int = 64
    memory: str = "all"
    actions: str = "autoregressive"
    on_nan: str = "error"
    nan_value: float = 0.0
    outside: str = "boxes"
    sequence_length: int = 8

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"PlanOptions.{name} is {getattr(self, name)!r}: expected one of "
                    f"{[choice for choice in choices if choice]}"
                )
        for name, most in _LARGEST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ValueError(
                    f"PlanOptions.{name} is {value!r}: expected an int of 1 or more, at most {most}"
                )
        for name, kind in (
            ("vector_mean", float),
            ("vector_std", float),
            ("grids", str),
            ("images", str),
            ("stacks", str),
            ("skip", str),
        ):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(f"PlanOptions.{name} is {value!r}: expected a tuple, ({value!r},)")
            object.__setattr__(self, name, tuple(kind(item) for item in value))
        if len(self.vector_mean) != len(self.vector_std):
            raise ValueError(
                f"PlanOptions has {len(self.vector_mean)} vector_mean and {len(self.vector_std)} "
                "vector_std: give one of each for every number of the vector"
            )
        if not all(map(math.isfinite, self.vector_mean + self.vector_std)) or not all(
            std > 0 for std in self.vector_std
        ):
            raise ValueError(
                "PlanOptions.vector_mean and vector_std must be finite and vector_std above zero: "
                "use 1.0 for a number that never changes"
            )
        if isinstance(self.image_size, bool) or self.image_size not in range(513):
            raise ValueError(
                f"PlanOptions.image_size is {self.image_size!r}: expected an int from 1 to 512, or "
                "0 for patches"
            )
        if self.image_size and self.layout == "paper":
            raise ValueError(
                f"PlanOptions.image_size is {self.image_size} in the paper's layout, which has "
                "patches: expected 0, or layout 'lean'"
            )
        if self.actions == "parallel" and self.memory == "all":
            raise ValueError(
                "PlanOptions.actions is 'parallel' and memory 'all': parallel actions are not "
                "remembered, use memory 'observations' or 'none'"
            )
        if not math.isfinite(self.nan_value):
            raise ValueError(f"PlanOptions.nan_value is {self.nan_value}: expected a finite number")
        if not self.text:
            object.__setattr__(self, "text", "changes" if self.layout == "lean" else "always")

    @property
    def patch_side(self) -> int:
        """Side of an image's patch in pixels: of the whole image where it is one token."""
        return self.image_size or self.patch_size

    def to_json(self) -> dict[str, Any]:
        """Returns the options as JSON values, one entry for each field.

        Fields of version 0.2 are left out where they are at their defaults: older versions read it.
        """
        fields = {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in _NEWER or value != _NEWER[name]
        }
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PlanOptions:
        """Rebuilds options from `to_json`'s result.

        Raises:
            ValueError: If a field is unknown or a value is not allowed.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"PlanOptions has no field {', '.join(map(repr, unknown))}: expected some of "
                f"{sorted(known)}; a newer gato_gym may have written them"
            )
        options: PlanOptions = as_type(cls, dict(values), "PlanOptions")
        return options
