"""Where pictures are shown: in a window, or in a file.

* :class:`Video` -- an MP4 file, which takes its name when it is complete.
* :class:`Window` -- a window with keys.
* :class:`Screen` -- what they have in common.
* :func:`has_display` -- whether a window can be opened here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.protocol import BenchmarkError
from gato_gym.tasks.task import need

__all__ = ["Screen", "Video", "Window", "has_display"]

EXTRA = "watch"
"""The pip extra that brings what is imported here."""


class Screen(Protocol):
    """Shows one picture after another, at a steady pace."""

    @property
    def closed(self) -> bool:
        """Whether the person who watches has had enough."""

    def show(self, picture: NDArray[np.uint8], *, seconds: float = 0.0) -> None:
        """Show a picture ``[H, W, 3]`` for a frame, or for so many seconds."""

    def close(self) -> None:
        """Finish."""


def has_display() -> bool:
    """Whether there is a display to open a window on."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Video:
    """An MP4 file (H.264), written under another name and renamed when it is closed.

    It holds what was shown until then, whatever ended it; with nothing shown there is no file.
    Each picture is encoded as it comes: a game of Atari would not fit into memory.

    Args:
        path: The file.
        fps: Pictures a second.
        quality: libx264's constant rate factor: 17 looks like the original, and more is
            smaller.

    Attributes:
        path: As given.
        frames: Pictures written so far.

    Raises:
        gato_gym.tasks.MissingPackageError: PyAV is not installed.
    """

    closed = False

    def __init__(self, path: Path, fps: int, *, quality: int = 17) -> None:
        self._av = need("av", EXTRA)
        # No frame waits for later ones, so that an interruption costs none already shown.
        self._options = {"crf": str(quality), "preset": "veryfast", "tune": "zerolatency"}
        self.path, self.fps, self.frames = path, fps, 0
        self._partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.mp4")
        self._container: Any = None
        self._stream: Any = None

    def show(self, picture: NDArray[np.uint8], *, seconds: float = 0.0) -> None:
        """Write a picture ``[H, W, 3]``, H and W even: once, or ``seconds`` times ``fps``."""
        if self._container is None:
            self._open(picture.shape[1], picture.shape[0])
        frame = self._av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="itu709", dst_color_range="MPEG")
        for _ in range(max(1, round(seconds * self.fps))):
            frame.pts = self.frames
            self._container.mux(self._stream.encode(frame))
            self.frames += 1

    def _open(self, width: int, height: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        options = {"movflags": "+faststart"}
        self._container = self._av.open(str(self._partial), "w", format="mp4", options=options)
        self._stream = self._container.add_stream("libx264", self.fps, options=self._options)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709, as decoded
        context.color_range = 1  # limited

    def close(self) -> None:
        """Complete the file, and give it its name; what cannot be completed is deleted."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            if self.frames:
                container.mux(self._stream.encode(None))
            container.close()
            if self.frames:
                os.replace(self._partial, self.path)
        finally:
            self._partial.unlink(missing_ok=True)


class Window:
    """A window. Space pauses, the right arrow shows one timestep, q, Escape and its button close.

    Args:
        title: Its title.
        fps: Pictures a second, at most.

    Raises:
        gato_gym.tasks.MissingPackageError: Pygame is not installed.
        BenchmarkError: No window can be opened.
    """

    def __init__(self, title: str, fps: int) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        self._pygame = need("pygame", EXTRA)
        self._title, self._fps = title, fps
        self._surface: Any = None
        self._clock = self._pygame.time.Clock()
        self._paused = False
        self.closed = False

    def show(self, picture: NDArray[np.uint8], *, seconds: float = 0.0) -> None:
        """Show a picture ``[H, W, 3]`` until its time is up, or, when paused, until a key says so.

        Raises:
            BenchmarkError: No window can be opened.
        """
        if self._surface is None:
            self._open(picture.shape[1], picture.shape[0])
        pixels = self._pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        left, onward = max(1, round(seconds * self._fps)), False
        while not self.closed and left > 0 and not onward:
            self._paint(pixels)
            self._clock.tick(self._fps)
            onward = self._react()
            left -= not self._paused

    def _open(self, width: int, height: int) -> None:
        pygame = self._pygame
        try:
            pygame.display.init()
            self._surface = pygame.display.set_mode((width, height), pygame.RESIZABLE)
        except pygame.error as error:
            raise BenchmarkError(
                f"no window could be opened ({error}): expected a display; write a video with "
                "--output FILE.mp4"
            ) from error
        pygame.display.set_caption(self._title)

    def _paint(self, pixels: Any) -> None:
        """Fill the window, which may have another size than the picture, as far as it goes."""
        area = pixels.get_rect().fit(self._surface.get_rect())
        if area.size != pixels.get_size():
            pixels = self._pygame.transform.smoothscale(pixels, area.size)
        self._surface.fill("black")
        self._surface.blit(pixels, area)
        self._pygame.display.flip()

    def _react(self) -> bool:
        """Take in what was pressed; True for the one timestep asked for."""
        pygame, onward = self._pygame, False
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                self.closed = True
            if event.type != pygame.KEYDOWN:
                continue
            if event.key in (pygame.K_ESCAPE, pygame.K_q):
                self.closed = True
            elif event.key == pygame.K_SPACE:
                self._paused = not self._paused
                paused = " (paused: space resumes, right arrow shows one timestep)"
                pygame.display.set_caption(self._title + paused * self._paused)
            elif event.key == pygame.K_RIGHT:
                onward = self._paused
        return onward

    def close(self) -> None:
        """Close the window."""
        self.closed = True
        self._pygame.display.quit()
