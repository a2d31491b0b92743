"""A scene as a picture: the frame on the left, the score and the tokens on the right.

* :func:`draw` -- a :class:`~benchmarks.video.frame.Scene` as pixels, :data:`WIDTH` x
  :data:`HEIGHT` of them.
* :func:`arrange` -- how the chips of an action are laid out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.video.frame import Chip, Scene, TokenRow
from gato_gym.picture import COLOURS
from gato_gym.tasks.task import need

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

__all__ = ["HEIGHT", "WIDTH", "Arrangement", "arrange", "draw"]

WIDTH, HEIGHT = 1280, 720
"""Size of the picture; even, as H.264 needs it."""

MARGIN = 32
SIDE = HEIGHT - 2 * MARGIN
"""Side of the square that the frame is fitted into."""

LEFT, RIGHT = MARGIN + SIDE + MARGIN, WIDTH - MARGIN
"""Edges of the panel."""

LARGE, SMALL, TALL = (12, 16), (11, 14), 46
"""Sizes of a chip's id and of the label below it, where chips are few and where they are many;
height of those that are few."""

LEAST_WIDTH = 200
"""Width of a chip with its label beside its id: one width for short names of all lengths."""

GUTTER = 54
"""Room for a row's number."""

BACKGROUND, RAISED, LINE = "#12151b", "#0b0d11", "#2c323d"
BRIGHT, PLAIN, DIM = "#f4f6fa", "#c3cad6", "#7f8a9c"
GOOD, BAD = "#66c2a5", "#fc8d62"
INK, FAINT_INK = "#12151b", "#343b47"

CHIP_COLOURS = {"continuous": COLOURS["value"], "discrete": COLOURS["discrete"]}
FADED = (1.0, 0.46, 0.38, 0.32, 0.27)
"""How much of its colour a row keeps by its age; the last is for all that are older."""


@dataclass(frozen=True)
class Arrangement:
    """How the chips of an action are laid out: so many columns of chips of one size.

    ``stacked`` chips have their id above their label rather than beside it.
    """

    columns: int
    width: int
    height: int
    gap: int
    stacked: bool

    def lines(self, chips: int) -> int:
        """Lines that so many chips take."""
        return math.ceil(chips / self.columns)

    def depth(self, lines: int) -> int:
        """Height of so many lines of chips."""
        return lines * (self.height + self.gap) - self.gap


def arrange(chips: tuple[Chip, ...], *, width: int = RIGHT - LEFT - GUTTER) -> Arrangement:
    """Lay out the chips of an action so that none is narrower than what is written on it.

    Returns:
        One line of chips with the label beside the id where that fits into ``width``, and else as
        many lines as it takes of chips with the label below.
    """

    def widest(small: int, large: int) -> tuple[int, int]:
        ids = (_width(str(chip.token), _mono(small)) for chip in chips)
        return max(ids), max(_width(chip.label, _mono(large, bold=True)) for chip in chips)

    beside = max(sum(widest(17, 17)) + 40, LEAST_WIDTH)
    if len(chips) * (beside + 8) - 8 <= width:
        return Arrangement(len(chips), beside, 36, 8, stacked=False)
    few = len(chips) <= 8
    least = min(max(widest(*(LARGE if few else SMALL))) + 14, width)
    gap = 8 if few else 5
    columns = max(1, min(len(chips), (width + gap) // (least + gap)))
    columns = math.ceil(len(chips) / math.ceil(len(chips) / columns))  # lines of like length
    fitting = (width + gap) // columns - gap
    return Arrangement(columns, min(fitting, 2 * least), TALL if few else 38, gap, stacked=True)


def draw(scene: Scene) -> NDArray[np.uint8]:
    """A scene as a picture: uint8 ``[HEIGHT, WIDTH, 3]``.

    Raises:
        gato_gym.tasks.MissingPackageError: Pillow is missing.
    """
    need("PIL", "watch")
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((MARGIN, MARGIN, MARGIN + SIDE - 1, MARGIN + SIDE - 1), fill=RAISED)
    frame = _fit_frame(scene.frame)
    picture.paste(frame, (MARGIN + (SIDE - frame.width) // 2, MARGIN + (SIDE - frame.height) // 2))
    top = _draw_heading(pen, scene, MARGIN)
    top = _draw_score(pen, scene, top + 18)
    top = _draw_legend(pen, scene, top + 22)
    _draw_rows(picture, scene.rows, top + 14)
    return np.asarray(picture)


def _fit_frame(frame: NDArray[np.uint8]) -> Image.Image:
    """A frame scaled to :data:`SIDE`, small ones with hard edges between their pixels."""
    from PIL import Image, ImageOps

    image = Image.fromarray(np.ascontiguousarray(frame))
    scale = SIDE / max(image.size)
    if scale < 2:
        return ImageOps.contain(image, (SIDE, SIDE), Image.Resampling.LANCZOS)
    # A whole number of times first, so that every pixel has the same size.
    image = ImageOps.scale(image, math.ceil(scale), Image.Resampling.NEAREST)
    return ImageOps.contain(image, (SIDE, SIDE), Image.Resampling.BOX)


def _draw_heading(pen: ImageDraw.ImageDraw, scene: Scene, top: int) -> int:
    """Task, who plays, and the instruction; returns where it ends."""
    width = RIGHT - LEFT
    pen.text((LEFT, top), _fit(scene.task, _sans(28, bold=True), width), BRIGHT, _sans(28, True))
    top += 42
    episode = f"episode {scene.episode}"
    if scene.episodes > 1:
        episode += f" of {scene.episodes}"
    line = f" · {episode} · seed {scene.seed}"
    font = _sans(16)
    policy = _fit(scene.policy, font, width - _width(line, font))
    pen.text((LEFT, top), policy, PLAIN, font)
    pen.text((LEFT + _width(policy, font), top), line, DIM, font)
    top += 24
    if scene.instruction:
        font, top = _sans(19), top + 14
        for text in _wrap(scene.instruction, font, width, lines=4):
            pen.text((LEFT, top), text, COLOURS["text"], font)
            top += 27
    return top


def _draw_score(pen: ImageDraw.ImageDraw, scene: Scene, top: int) -> int:
    """Step, return, success; returns where they end."""
    success = {True: ("yes", GOOD), None: ("–", DIM)}.get(
        scene.success, ("no", BAD) if scene.ended else ("not yet", DIM)
    )
    columns = (
        ("STEP", f"{scene.step:,}", BRIGHT),
        ("RETURN", f"{scene.total_return:,.2f}", BRIGHT),
        ("SUCCESS", *success),
    )
    pen.line((LEFT, top, RIGHT, top), LINE)
    width, font = (RIGHT - LEFT) // len(columns), _mono(26, bold=True)
    for index, (name, value, fill) in enumerate(columns):
        left = LEFT + index * width
        pen.text((left, top + 12), name, DIM, _sans(12, bold=True))
        pen.text((left, top + 30), _fit(value, font, width - 8), fill, font)
    pen.line((LEFT, top + 74, RIGHT, top + 74), LINE)
    return top + 74


def _draw_legend(pen: ImageDraw.ImageDraw, scene: Scene, top: int) -> int:
    """The heading of the tokens, and what their colours mean; returns where it ends."""
    pen.text((LEFT, top), "ACTION TOKENS", DIM, _sans(12, bold=True))
    kinds = dict.fromkeys(chip.kind for row in scene.rows[:1] for chip in row.chips)
    right, font = RIGHT, _sans(13)
    for kind in reversed(kinds):
        right -= _width(kind, font)
        pen.text((right, top - 1), kind, PLAIN, font)
        pen.rounded_rectangle((right - 18, top + 2, right - 7, top + 13), 3, CHIP_COLOURS[kind])
        right -= 36
    return top + 16


def _draw_rows(picture: Image.Image, rows: tuple[TokenRow, ...], top: int) -> None:
    """Rows of tokens from the newest down, as many as fit whole; the newest in any case."""
    from PIL import ImageDraw

    pen, bottom = ImageDraw.Draw(picture), HEIGHT - MARGIN
    for age, row in enumerate(rows):
        plan = arrange(row.chips)
        needed = plan.lines(len(row.chips))
        room = (bottom - top + plan.gap) // (plan.height + plan.gap)
        if needed > room and age:
            return
        lines = max(1, min(needed, room))
        strength = FADED[min(age, len(FADED) - 1)]
        if not age:
            pen.rounded_rectangle((LEFT - 14, top, LEFT - 10, top + plan.depth(lines)), 2, BRIGHT)
        pen.text(
            (LEFT + GUTTER - 14, top + plan.height // 2), f"{row.step}",
            BRIGHT if not age else DIM, _mono(15), anchor="rm",
        )  # fmt: skip
        shown = row.chips if lines == needed else row.chips[: lines * plan.columns - 1]
        for index, chip in enumerate(shown):
            picture.paste(_chip(plan, chip, strength), _corner(plan, index, top))
        if len(shown) < len(row.chips):
            left, above = _corner(plan, len(shown), top)
            middle = (left + plan.width // 2, above + plan.height // 2)
            rest = f"+{len(row.chips) - len(shown)}"
            pen.text(middle, rest, PLAIN, _mono(14), anchor="mm")
        top += plan.depth(lines) + (12 if needed > 1 else 8)


def _corner(plan: Arrangement, index: int, top: int) -> tuple[int, int]:
    line, column = divmod(index, plan.columns)
    left = LEFT + GUTTER + column * (plan.width + plan.gap)
    return left, top + line * (plan.height + plan.gap)


@lru_cache(2048)
def _chip(plan: Arrangement, chip: Chip, strength: float) -> Image.Image:
    """One chip; most of them are drawn in many pictures."""
    from PIL import Image, ImageDraw

    width, height = plan.width, plan.height
    image = Image.new("RGB", (width, height), BACKGROUND)
    full = image.copy()
    corners = (0, 0, width - 1, height - 1)
    ImageDraw.Draw(full).rounded_rectangle(corners, 7, CHIP_COLOURS[chip.kind])
    image = Image.blend(image, full, strength)
    pen = ImageDraw.Draw(image)
    faint, strong = (FAINT_INK, INK) if strength == 1.0 else (PLAIN, BRIGHT)
    token = str(chip.token)
    if plan.stacked:
        small, large = SMALL if height < TALL else LARGE
        label = _fit(chip.label, _mono(large, bold=True), width - 6)
        pen.text((width // 2, 0.29 * height), token, faint, _mono(small), anchor="mm")
        pen.text((width // 2, 0.68 * height), label, strong, _mono(large, bold=True), anchor="mm")
    else:
        bold = _mono(17, bold=True)
        pen.text((12, height // 2), token, faint, _mono(17), anchor="lm")
        pen.text((width - 12, height // 2), chip.label, strong, bold, anchor="rm")
    return image


@cache
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / file), size)


def _sans(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    return _font("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf", size)


def _mono(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    return _font("DejaVuSansMono-Bold.ttf" if bold else "DejaVuSansMono.ttf", size)


@lru_cache(4096)
def _width(text: str, font: ImageFont.FreeTypeFont) -> int:
    return math.ceil(font.getlength(text))


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or its beginning and an ellipsis, no wider than ``width``."""
    if _width(text, font) <= width:
        return text
    while text and _width(text + "…", font) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, *, lines: int) -> list[str]:
    """The text in lines no wider than ``width``; what does not fit the last is cut off."""
    wrapped: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".lstrip()
            if line and _width(longer, font) > width:
                wrapped.append(line)
                longer = word
            line = longer
        wrapped.append(line)
    rest = " ".join(wrapped[lines - 1 :])
    return [_fit(line, font, width) for line in [*wrapped[: lines - 1], rest] if line]
