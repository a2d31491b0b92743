"""``gato-gym watch``, also ``python -m benchmarks.watch``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Fixed

from benchmarks.policies import DEFAULT_POLICY, PlayingOptions, PolicyChoice
from benchmarks.protocol import BenchmarkError
from benchmarks.settings import Acting
from benchmarks.video.screens import Screen, Video, Window, has_display
from benchmarks.video.viewer import WatchSettings, chosen_task, watch
from gato_gym.commands.common import Command, Invocation
from gato_gym.commands.flags import flag
from gato_gym.terminal import new_console
from policies.rollout.outcomes import EpisodeResult


@dataclass(frozen=True)
class Watch(WatchSettings, Command):
    """Watch a policy play, with the tokens of its actions beside the frame.

    It plays in a window or, without a display or with --output, into a video. In the window, space
    pauses, the right arrow shows one timestep, q and Escape end.

    Attributes:
        player: A shipped checkpoint, a checkpoint's folder, a hub id, expert, random, retrieve or
            module:factory.
        output: The video; by default watch/TASK-POLICY-seedS.mp4.
        overwrite: Replace a video that is there.
    """

    policy: Fixed[PolicyChoice] = field(default_factory=lambda: PolicyChoice(DEFAULT_POLICY))
    player: Annotated[str, flag(name="policy", metavar="NAME")] = DEFAULT_POLICY
    output: Annotated[Path | None, flag(metavar="FILE.mp4")] = None
    overwrite: bool = False
    playing: PlayingOptions = field(default_factory=PlayingOptions)
    acting: Acting = field(default_factory=Acting)

    def run(self, call: Invocation) -> None:
        name, how = self.player, asdict(self.playing)
        policy = PolicyChoice(name, deterministic=self.acting.of(name), seed=self.seed, **how)
        settings = replace(self, policy=policy)
        console = new_console(highlight=False, soft_wrap=True)
        videos: list[Video] = []
        path = settings.video_path()
        if not has_display():  # MuJoCo looks at it when it is imported
            os.environ.setdefault("MUJOCO_GL", "egl")

        def open_screen(fps: int) -> Screen:
            if path is None:
                return Window(f"{self.task} – {name}", fps)
            console.print(f"recording {path}, {fps} frames a second", markup=False)
            videos.append(Video(path, fps))
            return videos[-1]

        def report(result: EpisodeResult) -> None:
            console.print(_outcome(result), markup=False)

        try:
            watch(settings, open_screen, on_result=report)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_stopped(videos)) from None
        for video in videos:
            console.print(f"{video.frames} frames are in {video.path}", markup=False)

    def video_path(self) -> Path | None:
        """Where to record; None for a window.

        Raises:
            BenchmarkError: The file cannot be written, or is there already; or no such task.
        """
        path = self.output
        if path is None and has_display():
            return None
        if path is None:
            name = Path(self.player).name or "policy"
            path = Path("watch") / f"{chosen_task(self).id}-{name}-seed{self.seed}.mp4"
        if path.suffix.lower() != ".mp4":
            raise BenchmarkError(f"--output is {path}, expected a file whose name ends in .mp4")
        if path.is_dir():
            raise BenchmarkError(f"{path} is a folder, expected a file: pass another --output")
        if path.exists() and not self.overwrite:
            raise BenchmarkError(
                f"{path} exists, expected a new file: pass --overwrite, or another --output"
            )
        return path


def _outcome(result: EpisodeResult) -> str:
    success = {None: "", True: ", success", False: ", no success"}[result.success]
    return (
        f"episode {result.key.index + 1}, seed {result.key.seed}: return "
        f"{result.total_return:.2f} in {result.length} timesteps{success}"
    )


def _stopped(videos: Sequence[Video]) -> str:
    if videos and videos[-1].frames:
        return f"stopped; the {videos[-1].frames} frames shown so far are in {videos[-1].path}"
    return "stopped"
