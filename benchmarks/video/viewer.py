"""Playing episodes for someone to watch.

* :func:`watch` -- plays what :class:`WatchSettings` ask for, and shows every timestep;
  :func:`perform` -- given episodes.
* :class:`Spectator` -- an environment that renders its frame beside the score and the tokens.

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

from benchmarks.policies import DEFAULT_POLICY, PolicyChoice, describe_policy
from benchmarks.protocol import STANDARD, BenchmarkError, Protocol
from benchmarks.video.frame import Scene, action_names, instruction_of, token_row
from benchmarks.video.overlay import draw
from benchmarks.video.screens import Screen
from benchmarks.workers.worker import make_envs_and_policy
from gato_gym.spaces import Plan, compile_plan
from policies.rollout.disturbances import UNDISTURBED, Disturbance
from policies.rollout.members import as_reward, success_in
from policies.rollout.outcomes import EpisodeFailure, EpisodeKey, EpisodeResult
from policies.rollout.vector_rollout import play
from policies.threads import one_thread

if TYPE_CHECKING:
    from gato_gym.tasks import Task

__all__ = ["Spectator", "WatchSettings", "chosen_task", "perform", "watch"]

END_SECONDS = 1.0
"""How long the last timestep of an episode is shown."""

SPARSE = 4
"""Timesteps a picture where frames take long."""

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
    sparse: bool = False,
    on_result: Callable[[EpisodeResult], None] = lambda result: None,
) -> list[EpisodeResult]:
    """Play given episodes of a task and show them; arguments and errors as of :func:`watch`.

    ``sparse`` shows every :data:`SPARSE`-th timestep at the same pace, and those within a second
    of success as the last ones before the end, for where a frame takes long.
    """
    with one_thread():
        env = _make(task, episodes[0].disturbance if episodes else UNDISTURBED)
        name = Path(choice.name).name or choice.name
        spectator = Spectator(env, task, policy=name, episodes=episodes)
        try:
            envs, policy = make_envs_and_policy(
                choice,
                task,
                lambda _: SyncVectorEnv([lambda: spectator], autoreset_mode=AutoresetMode.DISABLED),
            )
            spectator.plan = getattr(policy, "plan", None) or spectator.plan
            fps = fps or round(env.metadata.get("render_fps") or DEFAULT_FPS)
            if sparse:
                spectator.every, spectator.after_success = SPARSE, fps
            spectator.screen = screen = open_screen(max(1, round(fps / spectator.every)))
            results = []
            for result in play(
                envs,
                policy,
                episodes,
                deterministic=choice.deterministic,
                stopped=lambda: screen.closed,
            ):
                if isinstance(result, EpisodeFailure):
                    raise BenchmarkError(
                        f"{result.key.task}, seed {result.key.seed} failed at timestep "
                        f"{result.length}, expected an episode: {result.reason}"
                    )
                spectator.show_end(result)
                results.append(result)
                on_result(result)
            return results
        finally:
            if spectator.screen is not None:
                spectator.screen.close()
            spectator.close()


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


class Spectator(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that renders its frame beside the score and the tokens of the last actions.

    Nothing else of it changes, so that whatever shows an environment's ``rgb_array``, Gymnasium's
    ``RecordVideo`` and ``HumanRendering`` among it, shows this one.

    Args:
        env: Renders ``rgb_array``.
        task: What it is an environment of.
        policy: Name of who plays.
        episodes: What is played, in order.

    Attributes:
        plan: How actions become tokens; by default the task's own.
        screen: Shown the timesteps; None for nobody.
        every: One in so many timesteps is shown.
        after_success: Timesteps after the first with success that are shown; None for all.
        scene: What is rendered; its frame is that of the last ``render``.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        task: Task,
        *,
        policy: str = "policy",
        episodes: Sequence[EpisodeKey] = (),
    ) -> None:
        super().__init__(env)
        self.plan: Plan = compile_plan(env.observation_space, env.action_space, task.options)
        self.screen: Screen | None = None
        self.every, self._solved = 1, 0
        self.after_success: int | None = None
        blank = np.zeros((1, 1, 3), np.uint8)
        self.scene = Scene(blank, task.id, policy, 0, len(episodes), 0)
        self._names = action_names(env)
        self._numbers: dict[int | None, int] = {key.seed: key.index + 1 for key in episodes}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, and show its first observation."""
        observation, info = self.env.reset(seed=seed, options=options)
        before = self.scene
        self.scene = Scene(
            before.frame,
            before.task,
            before.policy,
            self._numbers.get(seed, before.episode + 1),
            before.episodes,
            seed or 0,
            instruction_of(observation),
        )
        self._show()
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment, and show what came of it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        before = self.scene
        row = token_row(self.plan, action, step=before.step + 1, names=self._names)
        reported = success_in(info)
        success = before.success if reported is None else bool(before.success) or reported
        if success and not before.success:
            self._solved = row.step
        self.scene = replace(
            before,
            instruction=instruction_of(observation),
            step=row.step,
            total_return=before.total_return + as_reward(reward),
            success=success,
            rows=(row, *before.rows)[:HISTORY],
        )
        self._show()
        return observation, reward, terminated, truncated, info

    def render(self) -> Any:
        """The picture: uint8 ``[HEIGHT, WIDTH, 3]`` of :mod:`benchmarks.video.overlay`.

        Raises:
            BenchmarkError: The environment cannot be rendered, or not as a picture.
        """
        name = self.scene.task
        try:
            frame = np.asarray(self.env.render())
        except Exception as error:  # renderers raise errors of their own libraries
            raise BenchmarkError(_no_graphics(name, error)) from error
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise BenchmarkError(
                f"{name} renders {frame.dtype} of shape {frame.shape}, expected uint8 of shape "
                "(height, width, 3): it cannot be watched"
            )
        self.scene = replace(self.scene, frame=frame)
        return draw(self.scene)

    def show_end(self, result: EpisodeResult) -> None:
        """Show for a while the score of an episode that ended, as the benchmark counts it."""
        self.scene = replace(
            self.scene, total_return=result.total_return, success=result.success, ended=True
        )
        if self.screen is not None and not self.screen.closed:
            self.screen.show(self.render(), seconds=END_SECONDS)

    def _show(self) -> None:
        step, shown = self.scene.step, self.after_success
        late = self.scene.success and shown is not None and step > self._solved + shown
        due = step % self.every == 0 and not late
        if due and self.screen is not None and not self.screen.closed:
            self.screen.show(self.render())


def _make(task: Task, disturbance: Disturbance) -> gym.Env[Any, Any]:
    """The environment of a task, which renders."""
    try:
        return disturbance.making(task)(render_mode="rgb_array")
    except Exception as error:  # simulators' graphics libraries fail in many ways at import
        if _about_graphics(error):
            raise BenchmarkError(_no_graphics(task.id, error)) from error
        if isinstance(error, (ImportError, ValueError, gym.error.Error)):
            raise BenchmarkError(f"{task.id}: {error}") from error
        raise


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
