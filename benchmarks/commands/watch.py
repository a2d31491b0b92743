"""Watch a policy play: ``python -m benchmarks.watch --task babyai-go-to-local``.

* :func:`main` -- the command. Exit status 0 when everything was played or the window was closed,
  2 when what was asked for cannot be done, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.policies import DEFAULT_POLICY, PolicyChoice
from benchmarks.protocol import BenchmarkError
from benchmarks.settings import acting, add_acting, add_protocol
from benchmarks.video.screens import Screen, Video, Window, has_display
from benchmarks.video.viewer import WatchSettings, chosen_task, watch
from policies.rollout.outcomes import EpisodeResult


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parser().parse_args(argv)
    console, errors = Console(highlight=False, soft_wrap=True), Console(stderr=True)
    videos: list[Video] = []
    try:
        settings = _settings(options)
        path = _video_path(options, settings)
        if not has_display():  # MuJoCo looks at it when it is imported
            os.environ.setdefault("MUJOCO_GL", "egl")

        def open_screen(fps: int) -> Screen:
            if path is None:
                return Window(f"{settings.task} – {settings.policy.name}", fps)
            console.print(f"recording {path}, {fps} frames a second", markup=False)
            videos.append(Video(path, fps))
            return videos[-1]

        def tell(result: EpisodeResult) -> None:
            console.print(_told(result), markup=False)

        watch(settings, open_screen, on_result=tell)
    except (BenchmarkError, ImportError) as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print(_stopped(videos), markup=False, highlight=False, soft_wrap=True)
        return 130
    for video in videos:
        console.print(f"{video.frames} frames are in {video.path}", markup=False)
    return 0


def _told(result: EpisodeResult) -> str:
    success = {None: "", True: ", success", False: ", no success"}[result.success]
    return (
        f"episode {result.key.index + 1}, seed {result.key.seed}: return "
        f"{result.total_return:.2f} in {result.length} timesteps{success}"
    )


def _stopped(videos: Sequence[Video]) -> str:
    if videos and videos[-1].frames:
        return f"stopped; the {videos[-1].frames} frames shown so far are in {videos[-1].path}"
    return "stopped"


def _settings(options: argparse.Namespace) -> WatchSettings:
    policy = PolicyChoice(
        options.policy,
        prompt=options.prompt,
        deterministic=acting(options.policy, options.deterministic),
        seed=options.seed,
        device=options.device,
    )
    return WatchSettings(
        options.task, policy, options.episodes, options.seed, options.fps, options.protocol
    )


def _video_path(options: argparse.Namespace, settings: WatchSettings) -> Path | None:
    """Where to record; None for a window.

    Raises:
        BenchmarkError: The file cannot be written, or is there already; or no such task.
    """
    path: Path | None = options.output
    if path is None and has_display():
        return None
    if path is None:
        name = Path(settings.policy.name).name or "policy"
        path = Path("watch") / f"{chosen_task(settings).id}-{name}-seed{settings.seed}.mp4"
    if path.suffix.lower() != ".mp4":
        raise BenchmarkError(f"--output is {path}, expected a file whose name ends in .mp4")
    if path.is_dir():
        raise BenchmarkError(f"{path} is a folder, expected a file: pass another --output")
    if path.exists() and not options.overwrite:
        raise BenchmarkError(
            f"{path} exists, expected a new file: pass --overwrite, or another --output"
        )
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.watch",
        description="Watch a policy play, the tokens of its actions beside the frame: in a window, "
        "or, without a display or with --output, as a video.",
        epilog="In the window, space pauses, the right arrow shows one timestep, q and Escape end.",
    )
    add = parser.add_argument
    add("--task", required=True, metavar="ID", help="such as babyai-go-to-local")
    add(
        "--policy",
        default=DEFAULT_POLICY,
        metavar="NAME|FOLDER",
        help="a shipped checkpoint, a checkpoint folder, a hub id, expert, random or "
        "module:factory (default: %(default)s)",
    )
    add("--episodes", type=int, default=1, metavar="N", help="default: %(default)s")
    add("--seed", type=int, default=0, metavar="S", help="as in benchmarks.run (default: 0)")
    add_protocol(parser)
    add("--output", type=Path, metavar="FILE.mp4", help="default: watch/TASK-POLICY-seedS.mp4")
    add("--overwrite", action="store_true", help="replace a video that is there")
    add("--fps", type=int, metavar="N", help="timesteps a second (default: the environment's own)")
    add("--prompt", choices=("shipped", "none"), default="shipped", help="default: %(default)s")
    add_acting(parser)
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
