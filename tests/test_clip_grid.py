"""Videos side by side in one animated image."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from PIL import Image

from benchmarks.protocol import BenchmarkError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("clip_grid", ROOT / "scripts" / "clip_grid.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_video(path: Path, shades: list[int], size: tuple[int, int]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for shade in shades:
            pixels = np.full((size[1], size[0], 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())


def test_videos_are_side_by_side_and_a_short_one_rests(script: ModuleType, tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", list(range(0, 200, 10)), (64, 64))
    write_video(tmp_path / "short.mp4", [255, 250, 100], (96, 64))
    target = tmp_path / "grid.webp"
    script.grid(
        target, (tmp_path / "long.mp4", tmp_path / "short.mp4"),
        width=32, fps=5.0, seconds=2.0, quality=95,
    )  # fmt: skip
    shades = []
    with Image.open(target) as picture:
        assert (getattr(picture, "n_frames", 1), picture.size) == (10, (64, 32))
        for frame in range(10):
            picture.seek(frame)
            pixels = np.asarray(picture.convert("L"), int)
            shades.append((pixels[16, 16], pixels[16, 48]))
    expected = [(20 * step, (255, 100)[min(step, 1)]) for step in range(10)]
    np.testing.assert_allclose(shades, expected, atol=8)


def test_an_image_too_large_for_a_page_is_refused(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "one.mp4", [0, 255] * 5, (64, 64))
    monkeypatch.setattr(script, "MOST_BYTES", 100)
    with pytest.raises(BenchmarkError, match="expected at most 100: lower --quality"):
        script.grid(tmp_path / "grid.webp", (tmp_path / "one.mp4",))
    assert not (tmp_path / "grid.webp").exists()
