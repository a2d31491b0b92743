"""Videos of episodes: chosen before play, true to the record, and without effect on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import gymnasium as gym
import pytest

from benchmarks.policies import PolicyChoice
from benchmarks.protocol import BenchmarkError
from benchmarks.report import html as page
from benchmarks.run import main, run_benchmark
from benchmarks.settings import RunSettings
from benchmarks.store.clips import Clip, read_clips
from benchmarks.video import recording as clips
from benchmarks.video import screens
from benchmarks.video.viewer import Spectator
from gato_gym.tasks import get_task
from policies.processes import JobPool, WorkerError
from policies.rollout.outcomes import EpisodeKey

TASKS = "go-to-obj,open-red-door"


def settings(output: Path, **changes: Any) -> RunSettings:
    arguments = {
        "tasks": TASKS,
        "policy": PolicyChoice("expert", deterministic=True),
        "episodes": 2,
        "workers": 1,
        **changes,
    }
    return RunSettings("babyai", output, **arguments)


def recorded(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line in records:
        del line["seconds"]
    return records


class InThisProcess(JobPool[EpisodeKey]):
    """Does jobs at once: starting processes takes seconds."""

    def __init__(self, *arguments: Any, count: int) -> None:
        super().__init__(*arguments, count=0)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(clips, "JobPool", InThisProcess)


def test_the_first_episodes_are_filmed_and_nothing_else_changes(
    here: None, tmp_path: Path, quiet
) -> None:
    how = {"policy": PolicyChoice("random"), "tasks": "go-to-obj"}
    run_benchmark(settings(tmp_path / "plain", **how, episodes=3), console=quiet)
    summary = run_benchmark(
        settings(tmp_path / "filmed", **how, episodes=3, record=2), console=quiet
    )
    assert recorded(tmp_path / "plain") == recorded(tmp_path / "filmed")
    header = summary.header.protocol
    assert [(clip.task, clip.episode) for clip in summary.clips] == [
        (task, index) for task in header.tasks for index in range(2)
    ]
    by_key = {(line["task"], line["episode"]): line for line in recorded(tmp_path / "filmed")}
    for clip in summary.clips:
        line = by_key[clip.task, clip.episode]
        assert (clip.seed, clip.total_return, clip.length, clip.success) == (
            *(line["seed"], line["return"], line["length"], line["success"]),
        )
        assert clip.same
        with av.open(str(tmp_path / "filmed" / clip.file)) as video:
            frames = sum(1 for _ in video.decode(video=0))
            rate = float(video.streams.video[0].average_rate or 0)
        assert frames == 1 + clip.length + round(rate), "one at the start, and a second of the end"
    assert read_clips(tmp_path / "filmed") == summary.clips
    written = json.loads((tmp_path / "filmed" / "summary.json").read_text())
    assert [Clip.from_json(each) for each in written["clips"]] == list(summary.clips)


def test_after_a_resume_what_is_missing_is_filmed(here: None, tmp_path: Path, quiet) -> None:
    run_benchmark(settings(tmp_path), console=quiet)
    assert not (tmp_path / "videos").exists()
    lines = (tmp_path / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(lines[:1]))
    first = run_benchmark(settings(tmp_path, record=1, resume=True), console=quiet)
    assert len(first.clips) == 2
    written = {clip.file: (tmp_path / clip.file).stat().st_mtime_ns for clip in first.clips}
    (tmp_path / first.clips[0].file).unlink()
    again = run_benchmark(settings(tmp_path, record=1, resume=True), console=quiet)
    assert again.clips == first.clips
    kept = first.clips[1].file
    assert (tmp_path / kept).stat().st_mtime_ns == written[kept]
    assert (tmp_path / first.clips[0].file).exists()


def test_videos_are_made_in_processes_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    command = ["--suite", "babyai", "--tasks", "go-to-obj", "--policy", "expert", "--record", "1"]
    output = ["--output", str(tmp_path / "run"), "--episodes", "1", "--workers", "1"]
    assert main([*command, *output]) == 0
    printed = capsys.readouterr().out
    assert printed.count("averages over tasks") == 1
    assert printed.index("averages over tasks") < printed.index("babyai-go-to-obj-episode0.mp4")
    (clip,) = read_clips(tmp_path / "run")
    assert clip.same


def test_small_videos_are_in_the_page_and_large_ones_beside_it(
    here: None, tmp_path: Path, quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = run_benchmark(settings(tmp_path, record=1, episodes=1), console=quiet)
    sizes = sorted((tmp_path / clip.file).stat().st_size for clip in summary.clips)
    text = (tmp_path / "report.html").read_text()
    assert text.count('src="data:video/mp4;base64,') == 2
    assert "href=" not in text[text.index("Episodes to look at") :]
    monkeypatch.setattr(page, "LARGEST_VIDEO", sizes[0])
    text = page.render_page(summary, tmp_path)
    assert text.count('src="data:video/mp4;base64,') == 1
    assert text.count('href="videos/babyai-') == 1
    monkeypatch.setattr(page, "LARGEST_VIDEOS", sizes[0] - 1)
    assert page.render_page(summary, tmp_path).count('href="videos/babyai-') == 2
    assert "<video" not in page.render_page(summary)


def test_an_episode_that_goes_another_way_is_called_so(here: None, tmp_path: Path, quiet) -> None:
    run_benchmark(settings(tmp_path, episodes=1), console=quiet)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    lines[0]["return"] += 1.0
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = run_benchmark(settings(tmp_path, episodes=1, record=1, resume=True), console=quiet)
    same = {clip.task: clip.same for clip in summary.clips}
    other = "babyai-open-red-door" if lines[0]["task"].endswith("obj") else "babyai-go-to-obj"
    assert same == {lines[0]["task"]: False, other: True}
    assert "not what the run recorded for it" in (tmp_path / "report.html").read_text()


def test_what_cannot_be_filmed_leaves_the_scores(
    here: None, tmp_path: Path, quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, picture: Any, *, seconds: float = 0.0) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(screens.Video, "show", full)
    with pytest.raises(WorkerError, match=r"2 tasks have no videos.*No space left"):
        run_benchmark(settings(tmp_path, record=1), console=quiet)
    assert json.loads((tmp_path / "summary.json").read_text())["complete"]
    monkeypatch.undo()
    monkeypatch.setattr(clips, "JobPool", InThisProcess)
    assert len(run_benchmark(settings(tmp_path, record=1, resume=True), console=quiet).clips) == 2


def test_where_frames_take_long_few_are_filmed_and_none_after_success(
    here: None, tmp_path: Path, quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "draws_in_software", lambda task: True)
    how = {"policy": PolicyChoice("random", seed=1), "tasks": "go-to-obj"}
    (clip,) = run_benchmark(settings(tmp_path, **how, episodes=1, record=1), console=quiet).clips
    assert clip.same
    with av.open(str(tmp_path / clip.file)) as video:
        frames = sum(1 for _ in video.decode(video=0))
        rate = float(video.streams.video[0].average_rate or 0)
    assert rate == 2, "a quarter of the environment's 10, rounded"
    assert frames == 1 + clip.length // 4 + 2, "the first, every fourth, and a second of the end"


def test_after_success_a_second_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Meta-World, whose episodes go on."""
    task = get_task("babyai-go-to-obj")

    class Solved(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            *rest, info = self.env.step(action)
            return *rest, {**info, "success": True}

    class Counts:
        closed, shown = False, 0

        def show(self, picture: Any, *, seconds: float = 0.0) -> None:
            self.shown += 1

        def close(self) -> None:
            pass

    spectator = Spectator(Solved(task.make(render_mode="rgb_array")), task)
    spectator.screen = screen = Counts()
    spectator.every, spectator.after_success = 2, 4
    spectator.reset(seed=0)
    for _ in range(12):
        spectator.step(0)
    assert screen.shown == 3, "timesteps 0, 2 and 4 of those up to 1 + 4"
    assert spectator.scene.step == 12
    spectator.close()


def test_no_partial_file_is_left(
    here: None, tmp_path: Path, quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Spectator.step

    def fails(self: Spectator, action: Any) -> Any:
        if self.scene.step == 2:
            raise RuntimeError("the simulator broke")
        return step(self, action)

    monkeypatch.setattr(Spectator, "step", fails)
    with pytest.raises(WorkerError, match="2 tasks have no videos"):
        run_benchmark(settings(tmp_path, record=2), console=quiet)
    assert list((tmp_path / "videos").iterdir()) == []


def test_a_stop_leaves_no_partial_file(
    here: None, tmp_path: Path, quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "videos" / ".x-episode0.7.partial.mp4"

    def stopped(*_: Any, **__: Any) -> None:
        left.parent.mkdir(exist_ok=True)
        left.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(clips, "_film", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(settings(tmp_path, record=1), console=quiet)
    assert left.parent.exists()
    assert not left.exists()


def test_only_mujoco_is_asked_for_its_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    clips.draws_in_software.cache_clear()
    assert not clips.draws_in_software("babyai-open")
    for name, slow in ((b"llvmpipe (LLVM 15.0.6, 256 bits)", True), (b"NVIDIA A100", False)):
        answer = SimpleNamespace(stdout=name)
        monkeypatch.setattr(clips.subprocess, "run", lambda *_, answer=answer, **__: answer)
        clips.draws_in_software.cache_clear()
        assert clips.draws_in_software("metaworld-reach") is slow
    clips.draws_in_software.cache_clear()


def test_filming_that_cannot_be_done_is_refused_before_play(
    tmp_path: Path, quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BenchmarkError, match="--record is -1, expected 0 or more"):
        run_benchmark(settings(tmp_path / "run", record=-1), console=quiet)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BenchmarkError, match=r'--record: .*pip install "gato-gym\[watch\]"'):
        run_benchmark(settings(tmp_path / "run", record=1), console=quiet)
    assert not (tmp_path / "run").exists()
