"""``python -m benchmarks.watch``: what is shown, where, and what it says when it cannot."""

from __future__ import annotations

import io
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import av
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import HumanRendering
from numpy.typing import NDArray
from PIL import ImageColor
from rich.console import Console

from benchmarks.policies import PolicyChoice
from benchmarks.protocol import BenchmarkError
from benchmarks.run import RunSettings, run_benchmark
from benchmarks.video import screens
from benchmarks.video import viewer as playing
from benchmarks.video.frame import (
    Chip,
    Scene,
    TokenRow,
    action_names,
    instruction_of,
    token_row,
)
from benchmarks.video.overlay import HEIGHT, LEFT, MARGIN, RIGHT, SIDE, WIDTH, arrange, draw
from benchmarks.video.viewer import Spectator, WatchSettings, watch
from benchmarks.watch import main
from gato_gym import Vocabulary, compile_plan
from gato_gym.picture import COLOURS
from gato_gym.spaces import Plan, PlanOptions
from gato_gym.tasks import Task, get_task
from policies.random_policy import RandomPolicy
from policies.rollout.outcomes import EpisodeResult

TASK = "babyai-go-to-obj"


@pytest.fixture(autouse=True)
def headless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No display, a folder of its own, and a variable that the command may set and is put back."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.chdir(tmp_path)


class Memory:
    """A screen that remembers what it was shown; closes itself after ``most`` pictures."""

    def __init__(self, most: int | None = None) -> None:
        self.shown: list[NDArray[np.uint8]] = []
        self.most, self.closed = most, False

    def show(self, picture: NDArray[np.uint8], *, seconds: float = 0.0) -> None:
        self.shown.append(picture)
        self.closed = len(self.shown) == self.most

    def close(self) -> None:
        self.closed = True


def plan_of(space: gym.Space[Any], **how: Any) -> Plan:
    return compile_plan(spaces.Discrete(2), space, **how)


def remember_scenes(monkeypatch: pytest.MonkeyPatch) -> list[Scene]:
    """The scenes to be shown from now on, which are not drawn."""
    scenes: list[Scene] = []
    blank = np.zeros((2, 2, 3), np.uint8)
    monkeypatch.setattr(playing, "draw", lambda scene: scenes.append(scene) or blank)
    return scenes


def played(policy: str, episodes: int = 2, seed: int = 5, task: str = TASK) -> list[EpisodeResult]:
    settings = WatchSettings(task, PolicyChoice(policy, seed=seed), episodes, seed)
    return watch(settings, lambda fps: Memory())


def read_back(path: Path) -> tuple[list[NDArray[Any]], float]:
    with av.open(str(path)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        return frames, float(video.streams.video[0].average_rate or 0)


# --- tokens


@pytest.mark.parametrize(
    ("space", "action", "expected"),
    [
        (spaces.Discrete(7), 2, [(33026, "discrete", "2")]),
        (spaces.Discrete(3, start=5), 7, [(33026, "discrete", "7")]),
        # 1024 bins from the lowest number to the highest: half way down is bin 256
        (spaces.Box(-1, 1, (2,)), [-0.5, 1.0], [(32256, "-0.50"), (33023, "+1.00")]),
        (spaces.Box(-0.4, 0.4, (1,)), [-0.4], [(32000, "-0.40")]),
        (spaces.MultiDiscrete([3, 4]), [2, 3], [(33026, "2"), (33027, "3")]),
        (
            spaces.Dict(turn=spaces.Box(-1, 1, (1,)), brake=spaces.Discrete(2)),
            {"turn": np.array([1.0], np.float32), "brake": 1},
            [(33025, "1"), (33023, "+1.00")],
        ),
        # the number of elements, then room for two: offsets from the lowest id
        (spaces.Sequence(spaces.Discrete(3)), (2,), [(33025, "1"), (33026, "2"), (33024, "0")]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, gym.Space) else "",
)
def test_chips_are_the_tokens_of_the_action(space: Any, action: Any, expected: list[Any]) -> None:
    if isinstance(space, (spaces.Box, spaces.MultiDiscrete)):
        action = np.asarray(action, space.dtype)
    plan = plan_of(space, options=PlanOptions(sequence_length=2))
    row = token_row(plan, action, step=4)
    assert row.step == 4
    assert [(chip.token, chip.label) for chip in row.chips] == [(e[0], e[-1]) for e in expected]
    continuous = [32000 <= e[0] < 33024 for e in expected]
    assert [chip.kind == "continuous" for chip in row.chips] == continuous


def test_chips_follow_the_vocabulary_of_the_plan() -> None:
    (chip,) = token_row(plan_of(spaces.Discrete(7), vocabulary=Vocabulary.paper()), 2).chips
    assert (chip.token, chip.kind) == (2, "discrete")


def test_actions_have_the_names_that_the_environment_gives_them() -> None:
    env = get_task(TASK).make()
    names = action_names(env)
    assert names == ("left", "right", "forward", "pickup", "drop", "toggle", "done")
    plan = plan_of(env.action_space)
    assert token_row(plan, np.int64(2), names=names).chips == (Chip(33026, "discrete", "forward"),)
    assert action_names(gym.make("CartPole-v1")) is None
    assert action_names(gym.make("Pendulum-v1")) is None


def test_the_instruction_is_found_in_the_observation() -> None:
    observation, _ = get_task(TASK).make().reset(seed=0)
    assert instruction_of(observation) == observation["mission"]
    assert instruction_of((np.zeros(2), {"b": "two", "a": "one"})) == "one\ntwo"
    assert instruction_of(np.zeros(3)) == ""


# --- the picture


@pytest.mark.parametrize("labels", ["+0.50", "-123.45", "3", "forward"])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 8, 9, 21, 38, 200])
def test_chips_have_room_for_their_text_and_lie_side_by_side(count: int, labels: str) -> None:
    from benchmarks.video import overlay as drawing

    chips = (Chip(32771, "continuous", labels),) * count
    arrangement = arrange(chips)
    assert (
        arrangement.columns * (arrangement.width + arrangement.gap) - arrangement.gap
        <= RIGHT - LEFT - drawing.GUTTER
    )
    small, large = (17, 17) if not arrangement.stacked else (12, 16) if count <= 8 else (11, 14)
    label = drawing._mono(large, bold=True).getlength(labels)
    number = drawing._mono(small).getlength("32771")
    assert (max(label, number) if arrangement.stacked else label + number + 24) < arrangement.width
    corners = {drawing._corner(arrangement, index, 300) for index in range(count)}
    assert len(corners) == count
    assert arrangement.lines(count) * arrangement.columns >= count


def test_a_picture_has_the_frame_and_the_newest_tokens_in_their_colours() -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0, 1], frame[1, 0], frame[1, 1] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    kinds = {"continuous": COLOURS["value"], "discrete": COLOURS["discrete"]}
    bare = Scene(frame, "a-task", "random", 1, 1, 0)
    before = draw(bare)
    assert before.shape == (HEIGHT, WIDTH, 3)
    assert before.dtype == np.uint8
    square = before[MARGIN : MARGIN + SIDE, MARGIN : MARGIN + SIDE]
    assert np.array_equal(square, np.kron(frame, np.ones((SIDE // 2, SIDE // 2, 1), np.uint8)))
    for kind, colour in kinds.items():
        row = TokenRow(1, (Chip(32771, kind, "+0.50"),) * 4)  # type: ignore[arg-type]
        after = draw(Scene(frame, "a-task", "random", 1, 1, 0, rows=(row,)))
        full = (after == ImageColor.getrgb(colour)).all(axis=-1)
        arrangement = arrange(row.chips)
        assert full.sum() > 0.6 * 4 * arrangement.width * arrangement.height
        assert not full[:, : LEFT - 20].any()


@pytest.mark.parametrize("size", [(480, 480), (210, 160), (64, 900), (1, 1), (1500, 1500)])
def test_frames_of_any_size_fit(size: tuple[int, int]) -> None:
    picture = draw(Scene(np.full((*size, 3), 200, np.uint8), "a-task", "random", 1, 1, 0))
    rows, columns = np.nonzero((picture[:, : LEFT - 20] == 200).all(axis=-1))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert max(height, width) == SIDE
    assert width / height == pytest.approx(size[1] / size[0], rel=0.02)


def test_texts_of_any_length_stay_on_the_picture() -> None:
    row = TokenRow(123_456, (Chip(32771, "continuous", "+0.50"),) * 300)
    scene = Scene(
        np.zeros((9, 9, 3), np.uint8), "task-" * 40, "policy" * 40, 1, 100, 10**6,
        instruction="go to the red ball and " * 60, step=10**9, total_return=-1e12, rows=(row,) * 9,
    )  # fmt: skip
    picture = draw(scene)
    for edge in (picture[:, RIGHT + 1 :], picture[: MARGIN - 1], picture[HEIGHT - MARGIN + 1 :]):
        assert (edge == picture[0, 0]).all()


# --- what is played


def test_the_tokens_shown_play_the_episode_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = remember_scenes(monkeypatch)
    (result,) = played("random", episodes=1)
    *steps, last = scenes
    assert [scene.step for scene in steps] == [*range(result.length + 1)]
    assert last.ended
    assert not any(scene.ended for scene in steps)

    env = get_task(TASK).make(render_mode="rgb_array")
    plan = compile_plan(env.observation_space, env.action_space, get_task(TASK).options)
    observation, _ = env.reset(seed=result.key.seed)
    total, over = 0.0, False
    assert np.array_equal(np.asarray(env.render()), steps[0].frame)
    for scene in steps[1:]:
        assert not over
        action = plan.decode([chip.token for chip in scene.rows[0].chips])
        observation, reward, terminated, truncated, info = env.step(action)
        total, over = total + float(reward), terminated or truncated
        assert np.array_equal(np.asarray(env.render()), scene.frame)
        assert (scene.total_return, scene.success) == (total, info["success"])
        assert scene.instruction == observation["mission"]
    assert over
    for older, newer in itertools.pairwise(steps):
        assert newer.rows[1:] == older.rows[: playing.HISTORY - 1]


@pytest.mark.parametrize("policy", ["random", "expert", "gato-mini"])
def test_a_seed_means_the_episodes_that_the_benchmark_plays(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"tasks": TASK, "policy": PolicyChoice(policy, seed=5)}
    settings = RunSettings("babyai", tmp_path / "run", workers=1, episodes=3, seed=5, **arguments)
    run_benchmark(settings, console=Console(file=io.StringIO()))
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    recorded = [EpisodeResult.from_json(json.loads(line)) for line in lines]
    expected = {r.key.seed: (r.total_return, r.length, r.success) for r in recorded}

    scenes = remember_scenes(monkeypatch)
    played(policy, episodes=3)
    shown = {s.seed: (s.total_return, s.step, s.success) for s in scenes if s.ended}
    assert shown == expected
    assert len(shown) == 3


def test_closing_the_screen_ends_the_show() -> None:
    screen = Memory(most=4)
    assert watch(WatchSettings(TASK, PolicyChoice("random")), lambda fps: screen) == []
    assert len(screen.shown) == 4


# --- the file


def test_a_video_holds_every_timestep(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--task", TASK, "--policy", "expert", "--episodes", "2", "--seed", "5"]
    assert main([*command, "--output", "some/where.mp4", "--fps", "7"]) == 0
    frames, rate = read_back(Path("some/where.mp4"))
    lengths = [result.length for result in played("expert")]
    assert len(frames) == sum(1 + length + 7 for length in lengths)
    assert rate == 7
    assert {frame.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    assert f"{len(frames)} frames are in some/where.mp4" in capsys.readouterr().out

    screen = Memory()
    watch(WatchSettings(TASK, PolicyChoice("expert"), 2, 5), lambda fps: screen)
    # lossy: small letters lose colour, large areas do not
    difference = np.abs(frames[0].astype(int) - screen.shown[0].astype(int))
    assert difference.mean() < 2


def test_without_a_display_the_video_is_named_by_what_it_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["--task", f"Gato/{TASK}", "--policy", "expert", "--seed", "3"]
    path = Path("watch") / f"{TASK}-expert-seed3.mp4"
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"recording {path}, 10 frames a second" in said
    assert [*Path("watch").iterdir()] == [path]

    first = path.read_bytes()
    assert main(command) == 2
    assert "pass --overwrite, or another --output" in capsys.readouterr().err
    assert path.read_bytes() == first
    assert main([*command, "--fps", "5", "--overwrite"]) == 0
    assert read_back(path)[1] == 5


def test_ctrl_c_leaves_what_was_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predict, calls = RandomPolicy._predict_batch, 0

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return predict(*args)

    monkeypatch.setattr(RandomPolicy, "_predict_batch", interrupted)
    assert main(["--task", TASK, "--policy", "random", "--output", "a.mp4"]) == 130
    assert "the 6 frames shown so far are in a.mp4" in capsys.readouterr().err
    assert len(read_back(Path("a.mp4"))[0]) == 6
    assert [*Path().iterdir()] == [Path("a.mp4")]


# --- the window


def test_keys_of_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    import pygame

    def press(key: int) -> None:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))

    picture = np.zeros((20, 30, 3), np.uint8)
    window = screens.Window("a title", fps=200)
    window.show(picture)
    assert pygame.display.get_caption()[0] == "a title"
    ticks, pressed = 0, {3: pygame.K_RIGHT, 6: pygame.K_SPACE}
    flip = pygame.display.flip

    def counted() -> None:
        nonlocal ticks
        ticks += 1
        if ticks in pressed:
            press(pressed[ticks])
        flip()

    monkeypatch.setattr(pygame.display, "flip", counted)
    press(pygame.K_SPACE)
    window.show(picture)  # paused until the arrow at the third tick
    assert ticks == 3
    assert "paused" in pygame.display.get_caption()[0]
    window.show(picture)  # still paused, until space at the sixth
    assert ticks == 6
    window.show(picture, seconds=0.02)
    assert ticks == 10
    press(pygame.K_q)
    window.show(picture)
    assert window.closed
    window.show(picture)
    assert ticks == 11
    window.close()


@pytest.mark.parametrize("how", ["escape", "button"])
def test_other_ways_to_close_the_window(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    import pygame

    window = screens.Window("a title", fps=200)
    window.show(np.zeros((20, 30, 3), np.uint8))
    if how == "button":
        pygame.event.post(pygame.event.Event(pygame.QUIT))
    else:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE))
    window.show(np.zeros((20, 30, 3), np.uint8))
    assert window.closed
    window.close()


def test_with_a_display_there_is_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.commands import watch as command

    monkeypatch.setenv("DISPLAY", ":0")
    opened: list[Any] = []

    def window(title: str, fps: int) -> Memory:
        opened.append((title, fps))
        return Memory(most=3)

    monkeypatch.setattr(command, "Window", window)
    assert main(["--task", TASK, "--policy", "random"]) == 0
    assert opened == [(f"{TASK} – random", 10)]
    assert [*Path().iterdir()] == []


def test_gymnasiums_own_window_shows_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    import pygame

    task = get_task(TASK)
    spectator = Spectator(task.make(render_mode="rgb_array"), task, policy="me")
    env = HumanRendering(spectator)
    env.reset(seed=3)
    env.step(2)
    assert [chip.label for chip in spectator.scene.rows[0].chips] == ["forward"]
    assert (spectator.scene.episode, spectator.scene.seed) == (1, 3)
    window: Any = env.window
    assert np.array_equal(pygame.surfarray.array3d(window).swapaxes(0, 1), draw(spectator.scene))
    env.close()


# --- mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "babyai-goto-obj"], "did you mean babyai-go-to-obj"),
        (["--policy", "exprt"], "did you mean expert?"),
        (["--episodes", "0"], "--episodes is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--fps", "0"], "--fps is 0"),
        (["--output", "video.gif"], "ends in .mp4"),
        (["--output", "."], "expected a file"),
    ],
)
def test_mistakes_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["--task", TASK, "--policy", "random", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert [*Path().iterdir()] == []


def test_a_renderer_that_fails_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(self: Any) -> None:
        raise RuntimeError("no OpenGL context\ncould be made")

    monkeypatch.setattr("minigrid.minigrid_env.MiniGridEnv.render", fails)
    assert main(["--task", TASK, "--policy", "random"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {TASK} cannot be rendered (MUJOCO_GL is egl; no OpenGL")
    assert "apt-get install libegl1" in error
    assert "MUJOCO_GL=osmesa" in error
    assert error.count("\n") == 1
    assert not Path("watch").exists()


def test_graphics_that_cannot_be_imported_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(self: Task, *, render_mode: str | None = None) -> Any:
        raise AttributeError("OpenGL: 'NoneType' object has no attribute 'glGetError'")

    monkeypatch.setattr(Task, "make", fails)
    assert main(["--task", TASK, "--policy", "random"]) == 2
    assert "apt-get install libegl1" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["av", "PIL"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["--task", TASK, "--policy", "random"]) == 2
    assert 'pip install "gato-gym[watch]"' in capsys.readouterr().err


def test_a_window_that_cannot_be_opened_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    window = screens.Window("a title", fps=10)
    with pytest.raises(BenchmarkError, match=r"--output FILE\.mp4"):
        window.show(np.zeros((2, 2, 3), np.uint8))
