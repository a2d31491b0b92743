"""``gato-gym tasks``: every task, its expert, and who knows it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gato_gym.__main__ import main
from gato_gym.listing import task_rows
from gato_gym.tasks import list_tasks
from policies.experts.store import SHIPPED


def test_rows() -> None:
    rows = {row.id: row for row in task_rows()}
    assert list(rows) == [task.id for task in list_tasks()]
    assert all(row.observation and row.action for row in rows.values())
    reach = rows["metaworld-reach"]
    assert (reach.observation, reach.action, reach.steps) == ("39 numbers", "4 numbers", 500)
    networks = ("gato-mini", "jat-mini")
    assert (reach.expert, reach.networks) == ("script", networks)
    assert (rows["babyai-unlock"].expert, rows["babyai-unlock"].steps) == ("bot", None)
    assert (rows["mujoco-reacher"].expert, rows["mujoco-reacher"].networks) == ("ppo", networks)
    trained = {task for task, row in rows.items() if row.expert in ("ppo", "sac")}
    assert trained == {path.parent.name for path in SHIPPED.glob("*/config.json")}


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "--suite", "mujoco", "re*,pend*"]) == 0
    said = capsys.readouterr().out
    assert "mujoco-reacher" in said
    assert "2 tasks" in said
    assert main(["tasks", "mujoco-hoper"]) == 2
    assert "did you mean mujoco-hopper" in capsys.readouterr().err


def test_neither_simulators_nor_networks_are_imported() -> None:
    code = (
        "import sys; from gato_gym.__main__ import main; main(['tasks', 'mujoco-*']); "
        "print([name for name in ('torch', 'policies', 'mujoco') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
