"""Robustness: the conditions are what their names say, and the table is right."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import run
from benchmarks.store.run_store import read_run
from benchmarks.studies import robustness
from benchmarks.studies.robustness import TASKS, apart, conditions, main, played_under, verdicts
from benchmarks.studies.scoring import bench, shown, suite_means
from gato_gym.commands.common import CommandFailed
from gato_gym.tasks import get_task
from policies.experts import has_expert

PAGE = "before\n<!-- robustness: begin -->\nold\n<!-- robustness: end -->\nafter\n"


def line(name: str, **suites: tuple[float, float] | None) -> dict[str, Any]:
    values: dict[str, Any] = {"condition": name, "what": name}
    for suite, interval in suites.items():
        low, high = interval or (None, None)
        values |= {suite: 0.5, f"{suite}_low": low, f"{suite}_high": high}
    return values


def test_intervals_that_do_not_overlap_are_named() -> None:
    lines = [
        line("seed-0", babyai=(0.1, 0.2), mujoco=(0.0, 1.0)),
        line("seed-1", babyai=(0.2, 0.3), mujoco=(0.9, 1.1)),
        line("seed-2", babyai=(0.3, 0.4), mujoco=None),
        line("greedy", babyai=(0.25, 0.5), mujoco=(1.05, 1.1)),
    ]
    pairs = [("seed-0", "seed-1"), ("seed-0", "seed-2"), ("seed-1", "seed-2")]
    assert apart(lines, ["babyai", "mujoco"], pairs) == [("babyai", "seed-0", "seed-2")]
    seeds, greedy = conditions(3)[:3], conditions(3)[3]
    assert verdicts(lines, ["babyai", "mujoco"], [*seeds, greedy]) == [
        "Pairs of two seeds whose 95 % intervals do not overlap: babyai: seed-0 and seed-2.",
        "Pairs of seed-0 and another condition whose 95 % intervals do not overlap: babyai: seed-0 "
        "and greedy; mujoco: seed-0 and greedy.",
    ]
    agreeing = verdicts(lines[:2], ["mujoco"], seeds[:2])
    assert [each.rpartition(": ")[2] for each in agreeing] == ["none.", "none."]
    assert "no intervals" in verdicts([line("seed-0", mujoco=None)], ["mujoco"], seeds[:1])[0]


def test_the_default_tasks_are_six_of_each_suite_and_have_experts() -> None:
    suites = [get_task(name).suite for name in TASKS]
    assert {suite: suites.count(suite) for suite in suites} == dict.fromkeys(
        ("atari", "babyai", "dm_control", "metaworld", "mujoco"), 6
    )
    assert all(map(has_expert, TASKS))
    assert len(set(TASKS)) == len(TASKS)


def test_noise_is_measured_where_there_are_numbers() -> None:
    tasks = [get_task(name) for name in ("babyai-open", "mujoco-reacher")]
    noisy = next(each for each in conditions(1) if each.name == "noisy")
    assert [task.id for task in played_under(noisy, tasks)] == ["mujoco-reacher"]
    assert played_under(conditions(1)[0], tasks) == tasks


def test_a_run_is_resumed_and_a_failure_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, status = [], 0

    def play(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        assert not check
        given.append(command[1:])
        (tmp_path / "run").mkdir(exist_ok=True)
        summary = {"suites": {"babyai": {"normalised mean": {"value": 0.25, "low": 0, "high": 1}}}}
        (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(subprocess, "run", play)
    summary = bench(tmp_path / "run", "--suite", "babyai")
    means = suite_means(summary, ["babyai", "mujoco"])
    assert (shown(means, "babyai"), shown(means, "mujoco")) == ("0.25 (0.00 to 1.00)", "-")
    status = 1
    with pytest.raises(CommandFailed, match=r"ended with status 1 in .*the study's command again"):
        bench(tmp_path / "run", "--suite", "babyai")
    output = ["--output", str(tmp_path / "run")]
    first = ["-m", "benchmarks.run", "--suite", "babyai", *output]
    assert given == [first, [*first, "--resume"]]


def test_the_command_plays_each_condition_and_writes_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_this_process(output: Path, *flags: str) -> dict[str, Any]:
        resume = ["--resume"] if output.exists() else []
        assert run.main([*flags, "--output", str(output), *resume]) == 0
        summary: dict[str, Any] = json.loads((output / "summary.json").read_text())
        return summary

    monkeypatch.setattr(robustness, "bench", in_this_process)
    page, table, work = tmp_path / "page.md", tmp_path / "table.csv", tmp_path / "runs"
    page.write_text(PAGE)
    asked: dict[str, Any] = {
        "policy": "random", "tasks": "babyai-open-door,mujoco-reacher", "episodes": 5, "seeds": 2,
        "workers": 1, "work": work, "csv": table, "page": page,
    }  # fmt: skip
    main(**asked)
    runs = {folder.name: read_run(folder) for folder in sorted(work.iterdir())}
    assert list(runs) == ["delayed", "greedy", "noisy", "seed-0", "seed-1"]
    how = {
        name: (each.header.protocol.seed, each.header.policy["deterministic"])
        for name, each in runs.items()
    }
    assert how == {"seed-0": (0, False), "seed-1": (1, False), "greedy": (0, True)} | dict.fromkeys(
        ("delayed", "noisy"), (0, False)
    )
    disturbed = {
        name: next(iter(each.header.protocol.tasks.values())).disturbance.values()
        for name, each in runs.items()
    }
    assert disturbed["seed-0"] == disturbed["greedy"] == {}
    assert disturbed["delayed"] == {"action_delay": 1}
    assert disturbed["noisy"] == {"observation_noise": 0.01}
    assert runs["seed-0"].results.keys() == runs["delayed"].results.keys()
    assert not runs["seed-0"].results.keys() & runs["seed-1"].results.keys()
    with table.open() as file:
        rows = {row["condition"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["seed-0", "seed-1", "greedy", "delayed", "noisy"]
    assert (rows["noisy"]["babyai"], rows["noisy"]["tasks"]) == ("", "1")
    assert rows["noisy"]["mujoco"] == rows["seed-0"]["mujoco"], "random play sees no noise"
    assert rows["delayed"]["mujoco"] != rows["seed-0"]["mujoco"]
    text = page.read_text()
    assert text.startswith("before\n<!-- robustness: begin -->\n`random`, 5 episodes of each task.")
    assert "\n| condition | babyai | mujoco |\n| --- | --- | --- |\n| sampled, seed 0 | " in text
    assert "Pairs of two seeds whose 95 % intervals do not overlap: " in text
    assert "Tasks: `babyai-open-door`, `mujoco-reacher`." in text
    before = (work / "greedy" / "results.jsonl").read_bytes()
    main(**asked)
    assert (work / "greedy" / "results.jsonl").read_bytes() == before
    assert page.read_text() == text


def test_no_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--seeds is 0, expected 1 or more"):
        main(seeds=0, work=tmp_path)
