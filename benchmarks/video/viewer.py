"""Playing episodes for someone to watch.

* :class:`WatchSettings` -- the arguments.
* :func:`watch` -- plays, and shows every timestep; :func:`perform` -- of given episodes.
* :class:`Spectator` -- the environment that tells what happens in it.
* :class:`Performance` -- makes scenes of what it tells.

The episodes are those of ``benchmarks.run`` with the same seed, played by the same code.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from benchmarks.policies import DEFAULT_POLICY, PolicyChoice, describe_policy
from benchmarks.protocol import STANDARD, BenchmarkError, Protocol
from benchmarks.video.frame import Scene, action_names, instruction_of, token_row
from benchmarks.video.overlay import draw
from benchmarks.video.screens import Screen
from benchmarks.workers.worker import make_envs_and_policy
from gato_gym.spaces import Plan, compile_plan
from policies.rollout.env_batch import making
from policies.rollout.outcomes import EpisodeFailure, EpisodeKey, EpisodeResult
from policies.rollout.vector_rollout import play
from policies.threads import one_thread

if TYPE_CHECKING:
    from gato_gym.tasks import Task

__all__ = ["Performance", "Spectator", "WatchSettings", "chosen_task", "perform", "watch"]

END_SECONDS = 1.0
"""How long the last timestep of an episode is shown."""

HISTORY = 32
"""Actions whose tokens are kept; a picture has room for fewer."""

DEFAULT_FPS = 30
"""Where the environment does not say."""


@dataclass(frozen=True)
class WatchSettings:
    """The arguments.

    Attributes:
        task: Task id.
        policy: Who plays, and how.
        episodes: How many.
        seed: What the episodes' seeds are derived from, as in ``benchmarks.run``.
        fps: Timesteps shown a second; None takes the environment's own pace.
        protocol: Its name, as in ``benchmarks.run``.
    """

    task: str
    policy: PolicyChoice = field(default_factory=lambda: PolicyChoice(DEFAULT_POLICY))
    episodes: int = 1
    seed: int = 0
    fps: int | None = None
    protocol: str = STANDARD


def watch(
    settings: WatchSettings,
    open_screen: Callable[[int], Screen],
    *,
    on_result: Callable[[EpisodeResult], None] = lambda result: None,
) -> list[EpisodeResult]:
    """Play episodes and show them.

    Args:
        settings: What to do.
        open_screen: Gives the screen for so many frames a second. It is closed in the end,
            whatever happens.
        on_result: Called with each episode that has ended.

    Returns:
        The episodes that were played to their end; fewer than asked for when the screen was
        closed.

    Raises:
        BenchmarkError: What was asked for cannot be done.
        KeyboardInterrupt: The screen has been closed.
    """
    task = chosen_task(settings)
    protocol = Protocol.of_tasks(
        [task], episodes=settings.episodes, seed=settings.seed, name=settings.protocol
    )
    if settings.fps is not None and settings.fps < 1:
        raise BenchmarkError(f"--fps is {settings.fps}, expected 1 or more: pass --fps 30")
    describe_policy(settings.policy)
    return perform(
        task,
        settings.policy,
        protocol.episodes_of(task.id),
        open_screen,
        fps=settings.fps,
        on_result=on_result,
    )


def perform(
    task: Task,
    choice: PolicyChoice,
    episodes: Sequence[EpisodeKey],
    open_screen: Callable[[int], Screen],
    *,
    fps: int | None = None,
    on_result: Callable[[EpisodeResult], None] = lambda result: None,
) -> list[EpisodeResult]:
    """Play given episodes of a task and show them; arguments and errors as of :func:`watch`."""
    with one_thread():
        spectator = Spectator.of_task(task, episodes[0].sticky if episodes else 0.0)
        try:
            return _perform(task, choice, spectator, episodes, open_screen, fps, on_result)
        finally:
            spectator.close()


def _perform(
    task: Task,
    choice: PolicyChoice,
    spectator: Spectator,
    episodes: Sequence[EpisodeKey],
    open_screen: Callable[[int], Screen],
    fps: int | None,
    on_result: Callable[[EpisodeResult], None],
) -> list[EpisodeResult]:
    def one_row(task: Task) -> SyncVectorEnv:
        return SyncVectorEnv([lambda: spectator], autoreset_mode=AutoresetMode.DISABLED)

    envs, policy = make_envs_and_policy(choice, task, one_row)
    plan = getattr(policy, "plan", None) or compile_plan(
        spectator.observation_space, spectator.action_space, task.options
    )
    fps = fps or round(spectator.metadata.get("render_fps") or DEFAULT_FPS)
    screen, results = open_screen(fps), []
    try:
        name = Path(choice.name).name or choice.name
        show = Performance(screen, plan, name, episodes, action_names(spectator))
        spectator.performance = show
        played = play(
            envs,
            policy,
            episodes,
            deterministic=choice.deterministic,
            stopped=lambda: screen.closed,
        )
        for result in played:
            if isinstance(result, EpisodeFailure):
                raise BenchmarkError(
                    f"{result.key.task}, seed {result.key.seed} failed at timestep "
                    f"{result.length}, expected an episode: {result.reason}"
                )
            show.closing(result)
            results.append(result)
            on_result(result)
    finally:
        screen.close()
    return results


def chosen_task(settings: WatchSettings) -> Task:
    """The task that is asked for.

    Raises:
        BenchmarkError: There is none of that id; names the nearest.
    """
    from gato_gym.tasks import UnknownTaskError, get_task

    try:
        return get_task(settings.task)
    except UnknownTaskError as error:
        raise BenchmarkError(f"--task: {error}") from error


class Performance:
    """Makes a scene of every timestep and puts it on the screen.

    Args:
        screen: Where to.
        plan: How actions become tokens.
        policy: Name of who plays.
        episodes: What is played, in order.
        names: What the actions are called.

    Attributes:
        scene: What was shown last; None before the first episode.
    """

    def __init__(
        self,
        screen: Screen,
        plan: Plan,
        policy: str,
        episodes: Sequence[EpisodeKey],
        names: tuple[str, ...] | None = None,
    ) -> None:
        self._screen, self._plan, self._policy = screen, plan, policy
        self._episodes, self._names = episodes, names
        self._opened = 0
        self.scene: Scene | None = None

    def opening(self, observation: Any, frame: NDArray[np.uint8]) -> None:
        """An episode begins."""
        key = self._episodes[self._opened]
        self._opened += 1
        self._show(
            Scene(
                frame,
                task=key.task,
                policy=self._policy,
                episode=key.index + 1,
                episodes=len(self._episodes),
                seed=key.seed,
                instruction=instruction_of(observation),
            )
        )

    def timestep(
        self, action: Any, observation: Any, reward: float, info: Any, frame: NDArray[np.uint8]
    ) -> None:
        """An action was executed."""
        before = self.scene
        assert before is not None
        row = token_row(self._plan, action, step=before.step + 1, names=self._names)
        success = before.success
        if "success" in info:
            success = bool(success) or bool(info["success"])
        self._show(
            replace(
                before,
                frame=frame,
                instruction=instruction_of(observation),
                step=row.step,
                total_return=before.total_return + reward,
                success=success,
                rows=(row, *before.rows)[:HISTORY],
            )
        )

    def closing(self, result: EpisodeResult) -> None:
        """An episode has ended: its score, as the benchmark counts it, for a while."""
        assert self.scene is not None
        ended = replace(
            self.scene, total_return=result.total_return, success=result.success, ended=True
        )
        self._show(ended, seconds=END_SECONDS)

    def _show(self, scene: Scene, *, seconds: float = 0.0) -> None:
        self.scene = scene
        if not self._screen.closed:
            self._screen.show(draw(scene), seconds=seconds)


class Spectator(gym.Wrapper[Any, Any, Any, Any]):
    """Tells what happens in an environment, and changes nothing of it.

    Args:
        env: Renders ``rgb_array``.

    Attributes:
        performance: Who is told; None for nobody.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.performance: Performance | None = None

    @classmethod
    def of_task(cls, task: Task, sticky: float = 0.0) -> Spectator:
        """The environment of a task, which renders; ``sticky`` as in :class:`EpisodeKey`.

        Raises:
            BenchmarkError: It cannot be made, or what it renders with is missing.
        """
        try:
            return cls(making(task, sticky)(render_mode="rgb_array"))
        except Exception as error:  # simulators' graphics libraries fail in many ways at import
            if not _about_graphics(error):
                if isinstance(error, (ImportError, ValueError, gym.error.Error)):
                    raise BenchmarkError(f"{task.id}: {error}") from error
                raise
            raise BenchmarkError(_no_graphics(task.id, error)) from error

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, and show its first observation."""
        observation, info = self.env.reset(seed=seed, options=options)
        if self.performance is not None:
            self.performance.opening(observation, self._frame())
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment, and show what came of it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self.performance is not None:
            self.performance.timestep(action, observation, float(reward), info, self._frame())
        return observation, reward, terminated, truncated, info

    def _frame(self) -> NDArray[np.uint8]:
        name = self.spec.id.removeprefix("Gato/") if self.spec else str(self.unwrapped)
        try:
            frame = np.asarray(self.env.render())
        except Exception as error:  # renderers raise errors of their own libraries
            raise BenchmarkError(_no_graphics(name, error)) from error
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise BenchmarkError(
                f"{name} renders {frame.dtype} of shape {frame.shape}, expected uint8 of shape "
                "(height, width, 3): it cannot be watched"
            )
        return frame


def _about_graphics(error: Exception) -> bool:
    """Whether an error came from OpenGL or what MuJoCo uses of it."""
    text = "".join(traceback.format_exception(error))
    return any(word in text for word in ("MUJOCO_GL", "OpenGL", "libEGL", "OSMesa", "GLFW"))


def _no_graphics(task: str, error: Exception) -> str:
    backend = os.environ.get("MUJOCO_GL")
    what = " ".join(str(error).split()) or type(error).__name__
    return (
        f"{task} cannot be rendered (MUJOCO_GL is {backend or 'not set'}; {what[:200]}): expected "
        "a working OpenGL library; without a display, install one (Debian, Ubuntu: apt-get install "
        "libegl1 libgl1-mesa-dri) and set MUJOCO_GL=egl, or install libosmesa6 and set "
        "MUJOCO_GL=osmesa"
    )
