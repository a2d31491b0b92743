"""``gato-gym inspect``: its table, its tokens, its picture, and what it says when it cannot."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from gato_gym.__main__ import main
from gato_gym.inspection import Inspection, Token, inspect_environment
from gato_gym.spaces import PlanOptions, compile_plan


def rows(printed: str) -> dict[str, list[str]]:
    """The table's rows by the part's kind and path."""
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in printed.splitlines()]
    return {f"{row[1]} {row[0]}": row[2:] for row in cells if len(row) == 5}


def test_a_level_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "Gato/babyai-go-to-local", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    table = rows(printed)
    assert table["discrete direction"][:2] == ["shared", "[33024, 33028)"]
    assert table["grid image"] == ["shared", "-", "7×7×3 of cells and symbols"]
    assert table["text mission"][2].startswith("_go _to")
    assert table["action -"][:2] == ["1", "[33024, 33031)"]
    assert "2 tokens a timestep (1 body + 1 action); 512 timesteps in a window of 1,024" in printed


def test_the_paper_layout_counts_its_text_at_every_timestep() -> None:
    inspection = inspect_environment("Gato/babyai-go-to-local", layout="paper")
    text = len(inspection.step.text)
    each = text + 149 + 1
    assert inspection.summary(1024).startswith(
        f"{each} tokens a timestep ({text} text + 149 body + 1 action); {1024 // each} timesteps"
    )
    assert len(inspection.tokens()) == each


@pytest.mark.parametrize("layout", ["paper", "lean"])
def test_tokens_say_what_they_are_made_of(layout: str) -> None:
    space = spaces.Dict(
        camera=spaces.Box(0, 255, (32, 48, 3), np.uint8),
        gear=spaces.Discrete(5),
        seen=spaces.Sequence(spaces.Discrete(3)),
        speed=spaces.Box(-1, 1, (70,)),
        word=spaces.Text(5, charset="ab"),
    )
    plan = compile_plan(space, spaces.Box(-1, 1, (2,)), PlanOptions(layout, sequence_length=2))
    space.seed(1)
    step = plan.encode(space.sample() | {"seen": (np.int64(2),)})
    inspection = Inspection("mixed", plan, step, np.array([32000, 33023], np.int32))
    tokens = inspection.tokens()
    assert len(tokens) == len(step.text) + plan.num_tokens + 2
    kinds = Counter(kind for token in tokens for kind in token.kinds)
    vectors = {"vector": 2} if layout == "lean" else {"value": 70, "separator": 1}
    assert kinds == {
        "text": len(step.text), "image": 6, "discrete": 1, "sequence": 3, "action": 2, **vectors,
    }  # fmt: skip
    assert [t.patch is not None for t in tokens].count(True) == 6
    by_kind = {field.kind: example for field, example in inspection.examples()}
    assert by_kind["sequence"] == "33025 33026 33024"
    assert by_kind["action"] == "32000 33023"
    assert by_kind["discrete"] == str(step.ids[0])
    shared = [token for token in tokens if len(token.kinds) > 1]
    assert len(shared) == (0 if layout == "paper" else 1)
    assert tokens[-1] == Token(("action",), "33023")


@pytest.mark.parametrize("name", ["Gato/babyai-go-to-local", "ale_py:ALE/Pong-v5", "CartPole-v1"])
def test_a_picture(name: str, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib.image")
    if name.startswith("ale_py"):
        pytest.importorskip("ale_py")
    image = tmp_path / "tokens.png"
    inspection = inspect_environment(name, render=not name.startswith("CartPole"))
    assert (inspection.frame is None) == name.startswith("CartPole")
    from gato_gym.picture import draw

    draw(inspection, image)
    pixels = matplotlib.imread(image)
    assert pixels.shape[0] > 200
    # the colour of an action token, #fc8d62, is on it
    action = np.array([0xFC, 0x8D, 0x62]) / 255
    assert (np.abs(pixels[..., :3] - action).max(axis=-1) < 0.01).sum() > 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope-v1"], "nope"),
        (["no_such_module:Pong"], "no_such_module"),
        (["CartPole-v1", "--image", "{tmp}/tokens.qqq"], "qqq"),
        (["CartPole-v1", "--image", "{tmp}/missing/tokens.png"], "missing/tokens.png"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("gato_gym.inspection._rendered", lambda env: None)
    assert main(["inspect", *(a.format(tmp=tmp_path) for a in arguments)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_a_renderer_that_fails_costs_the_frame_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from gymnasium.envs.classic_control import CartPoleEnv

    def fail(self: CartPoleEnv) -> None:
        raise RuntimeError("no display")

    monkeypatch.setattr(CartPoleEnv, "render", fail)
    with pytest.warns(UserWarning, match="CartPole-v1 is drawn without its frame.*no display"):
        assert inspect_environment("CartPole-v1", render=True).frame is None
