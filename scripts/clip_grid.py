"""Put the videos of finished benchmark runs side by side in one small animated image.

python -m benchmarks.run --suite atari --tasks pong --record 1 --output results/atari
python scripts/clip_grid.py docs/gato-mini.webp results/atari/videos/*.mp4 ...
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import tyro

from benchmarks.protocol import BenchmarkError
from gato_gym.commands.common import exit_status
from gato_gym.files.atomic_io import write_whole
from gato_gym.tasks.task import need

MOST_BYTES = 2 * 2**20
"""What a page may have to load for it."""


def frames_of(video: Path, *, width: int, fps: float, seconds: float) -> list[Any]:
    """A video's frames at another rate; the last stays to the end.

    Of each, the square on its left, ``width`` pixels wide, which is what the environment shows.
    """
    av, image = need("av", "watch"), need("PIL.Image", "watch")
    count = round(fps * seconds)
    frames: list[Any] = []
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            while len(frames) < count and frame.time >= len(frames) / fps:
                side = min(frame.height, frame.width)
                square = frame.to_image().crop((0, 0, side, side))
                frames.append(square.resize((width, width), image.Resampling.LANCZOS))
            if len(frames) == count:
                break
    if not frames:
        raise BenchmarkError(f"{video} has no frames: make the run again with --record 1")
    return frames + frames[-1:] * (count - len(frames))


def grid(
    output: Path,
    videos: tuple[Path, ...],
    /,
    *,
    width: int = 176,
    fps: float = 10.0,
    seconds: float = 8.0,
    quality: int = 40,
) -> None:
    """Write an animated WebP.

    Args:
        output: The file.
        videos: Side by side, in this order.
        width: Of each, in pixels.
        fps: Frames a second.
        seconds: How long it is; a shorter video rests at its last frame.
        quality: WebP's, 0 to 100.
    """
    image = need("PIL.Image", "watch")
    panels = [frames_of(video, width=width, fps=fps, seconds=seconds) for video in videos]
    pictures = []
    for together in zip(*panels, strict=True):
        picture = image.new("RGB", (width * len(panels), width))
        for column, frame in enumerate(together):
            picture.paste(frame, (column * width, 0))
        pictures.append(picture)
    content = io.BytesIO()
    pictures[0].save(
        content, "webp", save_all=True, append_images=pictures[1:],
        duration=round(1000 / fps), loop=0, quality=quality, method=6,
    )  # fmt: skip
    size = content.tell()
    if size > MOST_BYTES:
        raise BenchmarkError(
            f"{output} would have {size:,} bytes, expected at most {MOST_BYTES:,}: lower "
            "--quality, --width, --fps or --seconds"
        )
    write_whole(output, content.getvalue())
    print(f"{output}: {len(panels)} videos, {len(pictures)} frames, {size:,} bytes")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: tyro.cli(grid)))
