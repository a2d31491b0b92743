"""Ratios are of what was timed, and the batched ways do what the single ways do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.speed import acting, predicting, retrieving, scheduling, training
from benchmarks.speed.__main__ import main
from benchmarks.speed.comparison import Comparison, compare, compare_percentile
from benchmarks.speed.tokenising import copying, stepping, tokenising
from policies.jat.config import preset as jat_preset
from policies.model.config import PRESETS, NetworkConfig
from policies.rollout.timing import TimeSpent


class Clock:
    """Time that passes only in the calls of `lasting`, which it remembers the names of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.calls = 0.0, ""
        monkeypatch.setattr("benchmarks.speed.comparison.time.perf_counter", lambda: self.now)

    def lasting(self, duration: float, name: str = "") -> Callable[[], None]:
        def call() -> None:
            self.now += duration
            self.calls += name

        return call


def test_ratio_is_of_work_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    lasting = Clock(monkeypatch).lasting
    comparison = compare(
        "work", ("long", lasting(0.5)), ("short", lasting(0.125)), items=3, seconds=1.0, rounds=3
    )
    assert (comparison.slow_rate, comparison.fast_rate) == (6.0, 24.0)
    assert comparison.low == comparison.ratio == comparison.high == 4.0


def test_both_ways_make_as_many_calls_and_take_turns_at_being_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    ways = ("long", clock.lasting(0.5, "l")), ("short", clock.lasting(0.125, "s"))
    compare("work", *ways, items=1, seconds=0.6, rounds=2)
    warming, a_round = "lsls", "lssl"
    assert clock.calls == warming + 2 * a_round


def test_tokenising_a_batch_of_vectors_is_faster_than_its_rows() -> None:
    ratios = {each.name: each.ratio for each in tokenising(seconds=0.01, rows=16)}
    assert len(ratios) == 4
    assert ratios["tokenise 39 numbers, lean"] > 2.0


def test_wrapped_and_bare_environments_step_side_by_side() -> None:
    comparisons = {each.name: each for each in stepping(seconds=0.01, num_envs=2)}
    assert "step 2 of CartPole-v1" in comparisons
    assert all(each.slow_rate > 0 and each.fast_rate > 0 for each in comparisons.values())


def test_encoding_is_compared_with_a_copy_of_the_same_numbers() -> None:
    assert [each.slow for each in copying(seconds=0.01, rows=4, numbers=8)] == ["numpy.copyto"] * 2


def test_a_step_of_retrieval_is_compared_with_the_time_it_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrieving, "LIMIT", 0.002)
    (comparison,) = retrieving.from_many_steps(seconds=0.001, steps=40)
    assert comparison.name == "retrieve from 40 steps of 39 numbers, one row, without faiss"
    assert 0 < comparison.slow_rate < 510
    assert comparison.fast_rate > 0
    assert comparison.limit == "at least 1"


def test_a_percentile_is_of_single_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns = Clock(monkeypatch), 0

    def again() -> None:
        nonlocal turns
        turns += 1

    durations = iter([0.5, 0.5, 0.5, 4.5] * 4)
    slow = ("late", lambda: clock.lasting(next(durations))())
    comparison = compare_percentile(
        "step", slow, ("early", clock.lasting(0.5)), percentile=100, before=again,
        calls=4, turns=2, rounds=2, limit="at most 1.10",
    )  # fmt: skip
    assert (comparison.ratio, comparison.limit, turns) == (9.0, "at most 1.10", 4)


CPU = torch.device("cpu")


def test_forwards_are_made_again_without_the_rest() -> None:
    player = predicting.Stepper(predicting.make_policy("mini", device=CPU), 2)
    calls = []
    original = player.policy.network.backbone.step

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(len(arguments[1]))
        return original(*arguments, **named)

    player.policy.network.backbone.step = counted  # type: ignore[method-assign]
    again = predicting._recorded(player.policy.network, player.step)
    assert player.policy.network.forwards is None
    recorded, calls[:] = list(calls), []
    again()
    assert calls == recorded == [4, 2, 2, 2, 2, 2]


def test_every_speed_of_a_policy_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    small = NetworkConfig(width=32, layers=1, heads=2, head_size=16, feed_forward=32, text_rank=8)
    monkeypatch.setattr(predicting, "preset", lambda name: small)
    monkeypatch.setattr(predicting, "CONTEXT", 64)
    comparisons = list(predicting.mini_network("mini", device=CPU, seconds=0.001, late=120))
    assert [each.limit for each in comparisons] == [
        "at least 10", "at least 50", "at most 1.25", "at most 1.10", "at most 1.3", "at most 1.3",
        "at least 8", "", "", "at most 1.05",
    ]  # fmt: skip
    assert all(each.slow_rate > 0 and each.fast_rate > 0 for each in comparisons)
    assert [each.fast for each in comparisons].count("together") == 1


def test_the_shipped_network_is_measured_as_it_acts() -> None:
    sizes = dataclasses.replace(jat_preset("tiny"), window_size=6, max_position_embeddings=32)
    comparisons = list(acting.as_shipped(device=CPU, seconds=0.001, config=sizes, window=12))
    assert [each.limit for each in comparisons] == [
        "at most 3", "at least 16", "at most 1.3", "at most 1.3", "at least 30", "at least 500",
    ]  # fmt: skip
    assert all(each.slow_rate > 0 and each.fast_rate > 0 for each in comparisons)
    # a block: 192^2 from values out, 3 x 192 x 384 feed-forward and two norms; the vector's
    # two maps from 64 numbers over 384 to 192; the action's map and number; the last norm
    blocks = 4 * (192**2 + 3 * 192 * 384 + 4 * 192)
    vector, action = 64 * 384 + 384 + 384 * 192 + 192, 192**2 + 192 + 193
    size = 4 * (blocks + vector + action + 2 * 192)
    assert f"{size / 1e6:.1f} MB of weights" in comparisons[0].name


def test_fresh_processes_say_what_they_cost_more(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"import torch": 1.5, "import gymnasium": 0.25, "import policies": 0.5}
    monkeypatch.setattr(acting, "_cpu_seconds", lambda code: seconds.get(code, 2.75))
    names = [each.name for each in acting.fresh_processes(rounds=1)]
    assert names == [
        "first action in a fresh process: 1.25 s more",
        "import policies in a fresh process: 0.25 s more",
    ]


def test_a_forward_is_compared_with_reading_its_weights() -> None:
    exact, short = (
        predicting.reading("mini", device=CPU, precision=precision, limit="", seconds=0.001)
        for precision in ("float32", "int8")
    )
    assert "11 MB of weights" in exact.name  # 4 x 10 x 256^2 + 256^2, 4 bytes each
    assert "3 MB of weights" in short.name


def test_a_run_is_compared_with_its_work() -> None:
    comparison = scheduling.overhead("random", "babyai", "go-to-obj", episodes=3, rounds=1)
    assert comparison.limit == "at most 1.25"
    assert comparison.fast_rate > comparison.slow_rate > 0
    assert "1 tasks of babyai with random, 3 episodes each" in comparison.name


def test_one_process_and_two_take_turns_at_being_first(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    def played(pending: Any, choice: Any, *, workers: int) -> tuple[float, TimeSpent]:
        order.append(workers)
        return 6.0 / workers, TimeSpent()

    monkeypatch.setattr(scheduling, "_played", played)
    comparison = scheduling.speedup("random", "babyai", "go-to-obj,open", episodes=3, rounds=2)
    assert order == [1, 2, 2, 1]
    assert (comparison.slow_rate, comparison.fast_rate, comparison.ratio) == (1.0, 2.0, 2.0)


def test_the_trainer_is_compared_with_its_network_and_its_batches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = NetworkConfig(width=32, layers=1, heads=2, head_size=16, feed_forward=32, text_rank=8)
    monkeypatch.setattr(training, "preset", lambda name: small)
    monkeypatch.setitem(training.BATCHES["cpu"], "mini", (2, 64))
    monkeypatch.setitem(training.SIZES, "cpu", 512)
    comparisons = list(
        training.trainer_and_loader("mini", tmp_path, device=CPU, seconds=0.01, rounds=1)
    )
    assert [each.limit for each in comparisons] == ["at least 0.95", "at least 5"]
    assert "train on 2 x 64 tokens" in comparisons[0].name
    assert (tmp_path / "run" / "config.json").exists(), "a run like any other"
    assert not (tmp_path / "bare").exists()
    share = training.share_of_peak("mini", tmp_path, device=CPU, seconds=0.01)
    assert share.slow == "a product of 512 x 512"
    assert 0 < share.ratio < 2, "a step does no more than products"


def test_training_of_the_shipped_shape_is_compared_with_a_product(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(training.SIZES, "cpu", 512)
    monkeypatch.setitem(training.SHIPPED_BATCHES, "cpu", ((2, 32),))
    (share,) = training.shipped_shape(tmp_path, device=CPU, seconds=0.01)
    assert (share.name, share.limit) == ("gato-mini: operations for 2 x 32 tokens", "at least 0.40")
    assert 0 < share.ratio < 2


def test_a_size_that_a_cpu_is_too_slow_for_is_left_out() -> None:
    assert training.sizes(CPU, every=False) == [name for name in PRESETS if name != "1.18b"]
    assert training.sizes(CPU, every=True)[-1] == "1.18b"
    assert "1.18b is left out" in training.left_out("1.18b", CPU)
    assert not training.left_out("1.18b", torch.device("cuda"))


def test_what_cannot_be_measured_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["predict", "--device", "quantum"]) == 2
    assert "device 'quantum' cannot be used" in capsys.readouterr().err
    assert main(["--threads", "0"]) == 2
    assert "threads is 0: expected 1 to 1024" in capsys.readouterr().err
    done = Comparison.of("work", "long", "short", [(1.0, 3.0)], "at least 2")

    def stopped(seconds: float) -> Iterator[Comparison]:
        yield done
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.speed.__main__.token_space", stopped)
    assert main(["tokenise", "--output", str(tmp_path / "speed.json")]) == 130
    printed = capsys.readouterr().out
    assert "at least 2" in printed
    assert "3.000" in printed
    assert json.loads((tmp_path / "speed.json").read_text())["comparisons"] == [asdict(done)]
