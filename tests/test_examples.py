"""Every example and every notebook runs, with smaller numbers than it has."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from run_scripts import code_of, run_script

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL_EXAMPLES = {
    "few_episodes.py": (
        ["--demonstrations", "1", "3", "--episodes", "2"],
        r"  1 episodes: +-\d.*  3 episodes: +-\d",
    ),
    "play.py": (
        ["--episodes", "1", "--tasks", "mujoco-reacher"],
        r"gato-mini +-\d.*expert +-\d.*random +-\d",
    ),
    "record_video.py": ([], r"return 0\.\d\d: videos/babyai-go-to-local-episode-0\.mp4"),
    "score_your_policy.py": (
        ["--episodes", "1", "--workers", "1"],
        r"pusher .* 0\.\d\d .*reacher .* 0\.\d\d .*results/still/report\.html",
    ),
    "tokens.py": (
        [],
        r"paper: 28 tokens.*lean: 21 tokens.*action \[33025, 32768, 32000\]",
    ),
    "train_on_your_agent.py": (
        ["--agent-steps", "64", "--episodes", "2", "--updates", "2"],
        r"agent +\d+\.\d\d.*network +\d+\.\d\d",
    ),
}
SMALL_NOTEBOOKS = {
    "benchmark_and_read_the_report.ipynb": (
        {"EPISODES = 20": "EPISODES = 5", "go-to-local,open-door,pickup-dist": "go-to-obj"},
        r"babyai-go-to-obj +\d\.\d\d \(\d\.\d\d to \d\.\d\d\), success \d.*[0-9a-f]{16} 5 ep",
    ),
    "tokens_of_your_environment.ipynb": ({}, r"lean: 1 tokens.*paper: 5 tokens.*go to the"),
    "train_on_your_agent.ipynb": (
        {"AGENT_STEPS = 60_000": "AGENT_STEPS = 64", "EPISODES = 20": "EPISODES = 2",
         "UPDATES = 600": "UPDATES = 4"},
        r"2 episodes, mean return \d+.*agent +\d.*network +\d",
    ),
}  # fmt: skip


class Clip:
    """In place of MoviePy's: writes nothing but how many frames there are, and their shape."""

    def __init__(self, frames: list[np.ndarray], fps: int) -> None:
        self.text = f"{len(frames)} frames of {frames[0].shape} at {fps}"

    def write_videofile(self, path: str, logger: None) -> None:
        Path(path).write_text(self.text)


@pytest.fixture
def moviepy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Gymnasium's RecordVideo asks of MoviePy."""
    package, module = ModuleType("moviepy"), ModuleType("moviepy.video.io.ImageSequenceClip")
    module.ImageSequenceClip = Clip  # type: ignore[attr-defined]
    for name in ("moviepy.video", "moviepy.video.io"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "moviepy", package)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_there_are_six_examples_of_forty_lines_and_three_notebooks() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [path.name for path in scripts] == sorted(SMALL_EXAMPLES)
    assert len(scripts) == 6
    for path in scripts:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 40, path.name
        assert f"python examples/{path.name}" in "\n".join(lines[:5])
    notebooks = sorted(path.name for path in (EXAMPLES / "notebooks").glob("*.ipynb"))
    assert notebooks == sorted(SMALL_NOTEBOOKS)
    assert len(notebooks) == 3


@pytest.mark.parametrize("name", SMALL_EXAMPLES)
def test_the_example_runs(name: str, tmp_path: Path, moviepy: None) -> None:
    arguments, shown = SMALL_EXAMPLES[name]
    printed = run_script(EXAMPLES / name, tmp_path, arguments)
    assert re.search(shown, printed, re.DOTALL), printed
    if name == "record_video.py":
        (video,) = (tmp_path / "videos").iterdir()
        assert re.match(r"\d+ frames of \(\d+, \d+, 3\) at 10", video.read_text())


@pytest.mark.parametrize("name", SMALL_NOTEBOOKS)
def test_the_notebook_runs(name: str, tmp_path: Path) -> None:
    smaller, shown = SMALL_NOTEBOOKS[name]
    code = code_of(EXAMPLES / "notebooks" / name)
    for large, small in smaller.items():
        assert large in code
        code = code.replace(large, small)
    script = tmp_path / "notebook.py"
    script.write_text(code)
    printed = run_script(script, tmp_path)
    assert re.search(shown, printed, re.DOTALL), printed
