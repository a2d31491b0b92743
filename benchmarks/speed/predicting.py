"""Speeds of a network policy, each against another way or a limit, in one run.

* :func:`mini_network`, :func:`large_network` -- against computing the whole window again, what
  ``predict`` adds to the forwards in it, an episode's start, a late step, a larger batch; on a
  GPU also what compiling gives.
* :func:`rows_together`, :func:`starts`, :func:`compiled_steps` -- what larger batches give, an
  episode's start costs, and compiling gives.
* :func:`reading` -- a forward against reading the weights once from memory.

The task has 17 numbers to see and 6 to choose, as HalfCheetah's; every token is remembered, in a
context of 1024 tokens. Attention goes over all of it at every step, seen or not yet there, so a
step costs the same from an episode's second on; :func:`late_steps` checks that.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.speed.comparison import Comparison, compare, compare_percentile
from gato_gym.options import PlanOptions
from gato_gym.spaces import compile_plan
from policies.base import Policy
from policies.gato.checkpoint import load_checkpoint
from policies.gato.policy import GatoPolicy
from policies.model.config import preset
from policies.model.kv_cache import RingCache
from policies.model.network import GatoNetwork, inference
from policies.model.quantization import choose_precision, with_precision

StepWay = Literal["plain", "recorded", "compiled"]

CONTEXT = 1024
SEEN = spaces.Box(-np.inf, np.inf, (17,), np.float64)


class RecordingNetwork(GatoNetwork):
    """A network that can record its forwards, so that they can be repeated on their own.

    Attributes:
        forwards: The forwards since it was set to a list; None records nothing.
    """

    forwards: list[Callable[[], Tensor]] | None = None

    def step(
        self,
        x_ND: Tensor,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        cache: RingCache,
        *,
        wanted: bool = True,
    ) -> Tensor:
        """As :meth:`GatoNetwork.step`."""
        step = functools.partial(super().step, x_ND, rows, positions, cache, wanted=wanted)
        return self._forward(step)

    def symbol_logits(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        """As :meth:`GatoNetwork.symbol_logits`."""
        return self._forward(functools.partial(super().symbol_logits, hidden, start, stop))

    def _forward(self, forward: Callable[[], Tensor]) -> Tensor:
        if self.forwards is not None:
            self.forwards.append(forward)
        return forward()


def make_policy(
    name: str,
    *,
    device: torch.device,
    precision: str = "float32",
    chosen: int = 6,
    way: StepWay | None = None,
) -> GatoPolicy:
    """A policy for the task that is timed.

    Args:
        name: A shipped checkpoint, or a preset, whose weights are random.
        device: Where it acts.
        precision: As in :meth:`policies.gato.policy.GatoPolicy.load`.
        chosen: Numbers of an action.
        way: How steps are done that come again: "plain" launches each operation; "recorded" has a
            GPU record them; "compiled" compiles them, too. None compiles on a GPU alone.
    """
    torch.manual_seed(0)
    if name == "gato-mini":
        trained = load_checkpoint(name).network
        network = RecordingNetwork(dataclasses.replace(trained.config, window=CONTEXT))
        network.load_state_dict(trained.state_dict())
    else:
        network = RecordingNetwork(dataclasses.replace(preset(name), window=CONTEXT))
    with_precision(inference(network), precision).to(device)
    way = way or ("plain" if device.type == "cpu" else "compiled")
    network.backbone.recorded, network.backbone.compiled = way == "recorded", way == "compiled"
    action_space = spaces.Box(-1.0, 1.0, (chosen,), np.float32)
    return GatoPolicy(network, compile_plan(SEEN, action_space, PlanOptions(memory="all")))


class Stepper:
    """A batch of endless episodes.

    Args:
        policy: Who acts.
        rows: How many.
        steps: Steps that are played at once.
    """

    def __init__(self, policy: Policy, rows: int, *, steps: int = 3) -> None:
        self.policy, self.rows = policy, rows
        self._generator = np.random.default_rng(0)
        self.state: Any = None
        for _ in range(steps):
            self.step()

    def step(self, starts: Any = None) -> None:
        """One call of ``predict``; what it returns is on the host, so the device has finished."""
        observation = self._generator.normal(size=(self.rows, 17))
        _, self.state = self.policy.predict(
            observation, self.state, episode_start=starts, deterministic=True
        )

    def start(self) -> None:
        """A step at which every row starts an episode."""
        self.step(np.ones(self.rows, np.bool_))


def mini_network(
    name: str, *, device: torch.device, seconds: float, late: int = 10_000
) -> Iterator[Comparison]:
    """Every comparison for a network of some million weights with memory, in float32 on a CPU.

    Args:
        name: As in :func:`make_policy`.
        device: Where it acts.
        seconds: As in :func:`benchmarks.speed.comparison.compare`.
        late: As in :func:`late_steps`.
    """
    policy = make_policy(name, device=device, precision=_exact(device))
    for rows in (1, 32):
        yield _against_recomputing(name, policy, rows, seconds=seconds)
    for rows in (1, 64):
        yield _against_its_forwards(name, policy, rows, seconds=seconds)
    for rows in (1, 64):
        yield starts(name, policy, rows, seconds=seconds)
    yield rows_together(name, policy, 64, seconds=seconds, limit="at least 8")
    for rows in (1, 8):
        yield _narrow(name, rows, device=device, seconds=seconds)
    if device.type != "cpu":
        yield from compiled_steps(name, device=device, seconds=seconds)
    yield late_steps(name, device=device, precision=_exact(device), late=late)


def large_network(name: str, *, device: torch.device, seconds: float) -> Iterator[Comparison]:
    """Those for a network of a hundred million weights; late steps in bfloat16, to reach them.

    Arguments as in :func:`mini_network`.
    """
    policy = make_policy(name, device=device, precision=_exact(device))
    for rows in (1, 32):
        yield _against_recomputing(name, policy, rows, seconds=seconds)
        yield starts(name, policy, rows, seconds=seconds)
    if device.type != "cpu":
        yield from compiled_steps(name, device=device, seconds=seconds)
    yield late_steps(name, device=device, precision="bfloat16")


def _exact(device: torch.device) -> str:
    return choose_precision("auto", device)


def starts(name: str, policy: GatoPolicy, rows: int, *, seconds: float) -> Comparison:
    """An episode's start against an ordinary step; arguments as in :func:`rows_together`."""
    player = Stepper(policy, rows)
    return compare(
        f"{name}: an episode's start, rows: {rows}",
        ("start", player.start),
        ("ordinary step", player.step),
        items=rows,
        seconds=seconds,
        limit="at most 1.3",
    )


def _narrow(name: str, rows: int, *, device: torch.device, seconds: float) -> Comparison:
    """Steps with weights of 16 bits against steps with those of 32."""
    wide, narrow = (
        make_policy(name, device=device, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    ways = {"float32": wide, "bfloat16": narrow}
    return _beside(f"{name}: steps in bfloat16", ways, rows, seconds=seconds)


def rows_together(
    name: str, policy: GatoPolicy, rows: int, *, seconds: float, limit: str = ""
) -> Comparison:
    """Steps a second of many rows against those of one; arguments as in :func:`make_policy`."""
    return compare(
        f"{name}: steps of {rows} rows",
        ("one by one", Stepper(policy, 1).step),
        ("together", Stepper(policy, rows).step),
        items=rows,
        slow_items=1,
        seconds=seconds,
        limit=limit,
    )


def compiled_steps(
    name: str, *, device: torch.device, seconds: float, batches: tuple[int, ...] = (1, 64)
) -> Iterator[Comparison]:
    """Compiled and recorded steps against those that are done as they come, by rows of a batch."""
    ways: tuple[StepWay, ...] = ("plain", "recorded", "compiled")
    for rows in batches:
        plain, *others = (
            (way, make_policy(name, device=device, precision=_exact(device), way=way))
            for way in ways[:: 1 if device.type == "cuda" else 2]
        )
        for way, policy in others:
            title = f"{name}: {way} steps"
            yield _beside(title, dict([plain, (way, policy)]), rows, seconds=seconds)


def _beside(title: str, ways: dict[str, GatoPolicy], rows: int, *, seconds: float) -> Comparison:
    """Steps of two policies, the one that should be slower first."""
    slow, fast = ((way, Stepper(policy, rows).step) for way, policy in ways.items())
    return compare(f"{title}, rows: {rows}", slow, fast, items=rows, seconds=seconds)


def _against_recomputing(name: str, policy: GatoPolicy, rows: int, *, seconds: float) -> Comparison:
    """Action tokens a second with the cache, all of ``predict``, and without, forwards alone.

    Windows are computed up to four at a time on a CPU, which more of them do not make faster, and
    all at once elsewhere.
    """
    network, chosen = policy.network, policy.plan.num_actions
    like = network.head.weight
    size = min(rows, 4) if like.device.type == "cpu" else rows
    x_BTD = torch.zeros(size, CONTEXT, network.config.width, dtype=like.dtype, device=like.device)
    positions_BT = torch.arange(CONTEXT, device=like.device).expand(size, -1)
    causal = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool, device=like.device).tril()[None, None]
    start, stop = policy.plan.action_ranges[0].tolist()

    @torch.inference_mode()
    def recomputed() -> None:
        hidden_BTD = network.backbone(x_BTD, positions_BT, causal)
        network.symbol_logits(hidden_BTD[:, -1], start, stop).argmax(1).cpu()

    return compare(
        f"{name}: action tokens, rows: {rows}",
        ("the whole window for each", recomputed),
        ("cached", Stepper(policy, rows).step),
        items=rows * chosen,
        slow_items=size,
        seconds=seconds,
        rounds=3,
        limit="at least 10" if rows == 1 else "at least 50",
    )


def _against_its_forwards(
    name: str, policy: GatoPolicy, rows: int, *, seconds: float
) -> Comparison:
    """All of ``predict`` against the forwards in it, from embeddings to logits, over again."""
    player = Stepper(policy, rows)
    bare = _recorded(policy.network, player.step)
    return compare(
        f"{name}: what predict adds, rows: {rows}",
        ("predict", player.step),
        ("its forwards alone", bare),
        items=rows,
        seconds=seconds,
        rounds=9,
        limit="at most 1.25" if rows == 1 else "at most 1.10",
    )


def _recorded(network: GatoNetwork, call: Callable[[], None]) -> Callable[[], None]:
    """A call that repeats the forwards of ``call``."""
    assert isinstance(network, RecordingNetwork)
    forwards: list[Callable[[], Tensor]] = []
    network.forwards = forwards
    call()
    network.forwards = None

    @torch.inference_mode()
    def again() -> None:
        for forward in forwards:
            output = forward()
        output[:1].cpu()

    return again


def late_steps(
    name: str, *, device: torch.device, precision: str, early: int = 100, late: int = 10_000
) -> Comparison:
    """The 99th percentile of a step's time late in an episode against early in it.

    The action has one number here, so that the late step is reached in time.

    Args:
        name: As in :func:`make_policy`.
        device: Where it acts.
        precision: As in :func:`make_policy`.
        early: A step.
        late: A later one.
    """
    # a state that is copied has no recordings: both ways are measured without
    policy = make_policy(name, device=device, precision=precision, chosen=1, way="plain")
    young = Stepper(policy, 1, steps=early)
    old = copy.copy(young)
    old.state = copy.deepcopy(young.state)
    for _ in range(late - early):
        old.step()
    begun = copy.deepcopy(young.state)

    def again() -> None:
        young.state = copy.deepcopy(begun)

    return compare_percentile(
        f"{name}: 99th percentile of a step",
        (f"at step {late:,}", old.step),
        (f"at step {early}", young.step),
        percentile=99,
        before=again,
        limit="at most 1.05",
    )


def reading(
    name: str, *, device: torch.device, precision: str = "bfloat16", limit: str, seconds: float
) -> Comparison:
    """A forward of one row against reading its weights once.

    How fast memory is read is measured by a copy, which reads a byte for each that it writes: the
    weights are read in the time in which half of their bytes are copied.

    Args:
        name: As in :func:`make_policy`.
        device: The device that computes.
        precision: Precision of the weights.
        limit: What the ratio should be, in words.
        seconds: As in :func:`benchmarks.speed.comparison.compare`.
    """
    policy = make_policy(name, device=device, precision=precision)
    player = Stepper(policy, 1)
    forwards = _recorded(policy.network, player.step)
    network, chosen = policy.network, policy.plan.num_actions
    weights = [*network.backbone.state_dict().values(), *network.head.state_dict().values()]
    size = sum(weight.nbytes for weight in weights)
    source, target = (torch.ones(size // 2, dtype=torch.uint8, device=device) for _ in range(2))

    def read() -> None:
        for _ in range(chosen):
            target.copy_(source)
        target[:1].cpu()

    return compare(
        f"{name} in {precision}: a forward of one row, {size / 1e6:.0f} MB of weights",
        ("forward", forwards),
        ("reading the weights", read),
        items=chosen,
        seconds=seconds,
        rounds=9,
        limit=limit,
    )
