"""One timestep as a picture: the frame with its patch grid, and the tokens beneath.

* :func:`draw` -- write the picture of an :class:`~gato_gym.inspection.Inspection`.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gato_gym.inspection import Inspection, Token

__all__ = ["draw"]

COLOURS = {
    "text": "#8da0cb",
    "image": "#a6d854",
    "vector": "#66c2a5",
    "value": "#66c2a5",
    "grid": "#e5c494",
    "discrete": "#ffd92f",
    "sequence": "#e78ac3",
    "oneof": "#e78ac3",
    "graph": "#e78ac3",
    "separator": "#b3b3b3",
    "action": "#fc8d62",
}
"""Colour of each kind of token; one that several parts share has a stripe of each."""

MOST_TOKENS = 320
"""Tokens that are drawn; the rest are counted."""

PER_ROW = 16


def draw(inspection: Inspection, path: Path, *, window: int = 1024) -> None:
    """Draw a timestep.

    Args:
        inspection: The timestep.
        path: File to write; its ending names the format, such as ``.png`` or ``.svg``.
        window: Tokens of a window, for the caption.

    Raises:
        ValueError: Matplotlib writes no such format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tokens = inspection.tokens()
    rows = math.ceil(min(len(tokens), MOST_TOKENS) / PER_ROW)
    frames = _frames(inspection)
    heights = [3.4, 0.55 * rows + 0.3] if frames else [0.55 * rows + 0.3]
    figure = Figure(figsize=(11, sum(heights) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    top = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    if frames:
        _draw_frames(top[0], frames)
    _draw_tokens(top[-1], tokens)
    caption = [inspection.name, *textwrap.wrap(inspection.summary(window), 120)]
    figure.suptitle("\n".join(caption), fontsize=10)
    figure.savefig(path, dpi=130)


def _frames(inspection: Inspection) -> list[tuple[NDArray[np.uint8], int]]:
    """What the environment shows, and the side of its patches, 0 without: rendered, then read."""
    frames = [] if inspection.frame is None else [(inspection.frame, 0)]
    plan, first = inspection.plan, 0
    for field in plan.fields:
        if field.kind != "image":
            continue
        intervals = plan.image_intervals[first : first + field.count]
        rows, columns = (len(np.unique(intervals[:, axis])) for axis in (0, 2))
        newest = inspection.step.images[first + field.count - rows * columns : first + field.count]
        side = plan.options.patch_size
        whole = newest.reshape(rows, columns, side, side, -1).transpose(0, 2, 1, 3, 4)
        frames.append((_as_colours(whole.reshape(rows * side, columns * side, -1)), side))
        first += field.count
    return frames


def _as_colours(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 ``[H, W, 3]``: colours as they are, and else the newest channel in grey."""
    return image[..., :3] if image.shape[-1] in (3, 4) else np.repeat(image[..., -1:], 3, axis=-1)


def _draw_frames(figure: Any, frames: list[tuple[NDArray[np.uint8], int]]) -> None:
    for axes, (frame, side) in zip(
        figure.subplots(1, len(frames), squeeze=False)[0], frames, strict=True
    ):
        axes.imshow(frame)
        axes.set_title("as tokens" if side else "rendered", fontsize=9)
        axes.set_axis_off()
        for edge in range(0, frame.shape[0] + 1, side) if side else ():
            axes.axhline(edge - 0.5, color="white", linewidth=0.6)
        for edge in range(0, frame.shape[1] + 1, side) if side else ():
            axes.axvline(edge - 0.5, color="white", linewidth=0.6)


def _draw_tokens(figure: Any, tokens: list[Token]) -> None:
    from matplotlib.patches import Patch

    axes = figure.subplots()
    shown = tokens[:MOST_TOKENS]
    for index, token in enumerate(shown):
        row, column = divmod(index, PER_ROW)
        _draw_token(axes, token, column, -row)
    if len(tokens) > len(shown):
        axes.set_title(f"and {len(tokens) - len(shown):,} tokens more", fontsize=8, loc="right")
    axes.set_xlim(-0.05, PER_ROW)
    axes.set_ylim(0.95 - math.ceil(len(shown) / PER_ROW), 1.05)
    axes.set_axis_off()
    kinds = dict.fromkeys(kind for token in tokens for kind in token.kinds)
    legend = [Patch(color=COLOURS[kind], label=kind) for kind in kinds]
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend), frameon=False)


def _draw_token(axes: Any, token: Token, left: float, bottom: float) -> None:
    from matplotlib.patches import Rectangle

    height = 0.9 / len(token.kinds)
    for stripe, kind in enumerate(reversed(token.kinds)):
        corner = (left, bottom + stripe * height)
        axes.add_patch(Rectangle(corner, 0.92, height, color=COLOURS[kind], linewidth=0))
    if token.patch is not None:
        extent = (left + 0.14, left + 0.78, bottom + 0.1, bottom + 0.8)
        axes.imshow(_as_colours(token.patch), extent=extent, aspect="auto", zorder=2)
        return
    lines = token.label.splitlines() or [""]
    lines = lines[:3] + ["…"] * (len(lines) > 3)
    axes.text(
        left + 0.46, bottom + 0.45, "\n".join(line[:12] for line in lines), fontsize=6.5,
        ha="center", va="center", parse_math=False,
    )  # fmt: skip
