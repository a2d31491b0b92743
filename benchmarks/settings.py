"""The arguments of ``python -m benchmarks.run``.

* :class:`RunSettings` -- of one policy's run.
* :func:`read_settings` -- from what was typed, one for each policy.
* :func:`add_acting`, :func:`acting` -- whether policies sample; :func:`add_protocol`.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.policies import DEFAULT_POLICY, PolicyChoice, is_network, slugs
from benchmarks.protocol import PROTOCOLS, STANDARD, BenchmarkError
from benchmarks.workers.common import Workers, available_cores


@dataclass(frozen=True)
class RunSettings:
    """The arguments of a run.

    Attributes:
        suite: Suite name, or ``all``.
        output: Folder for ``run.json``, ``results.jsonl``, ``summary.json`` and ``report.html``.
        tasks: Task ids or patterns with ``*``, separated by commas, with or without the suite's
            prefix; None means all of the suite.
        policy: Who plays, and how.
        episodes: Episodes of each task.
        num_envs: Environments that a process plays at a time; None chooses.
        seed: What the episodes' seeds are derived from.
        protocol: Its name, one of :data:`benchmarks.protocol.PROTOCOLS`.
        workers: Processes, or "ray" for those of a Ray cluster.
        record: Episodes of each task to make videos of, the first ones.
        resume: Take up what ``output`` holds.
        command: What was typed, for the record.
    """

    suite: str
    output: Path
    tasks: str | None = None
    policy: PolicyChoice = field(default_factory=lambda: PolicyChoice(DEFAULT_POLICY))
    episodes: int = 20
    num_envs: int | None = None
    seed: int = 0
    protocol: str = STANDARD
    workers: Workers = field(default_factory=available_cores)
    record: int = 0
    resume: bool = False
    command: str | None = None


def read_settings(arguments: Sequence[str]) -> tuple[Path, tuple[RunSettings, ...]]:
    """What was asked for.

    Args:
        arguments: As typed, after the command's name.

    Returns:
        The output folder, and a run for each policy: in this folder, or, of several, in one of
        its own below it.

    Raises:
        BenchmarkError: They do not go together.
    """
    options = _parser().parse_args(arguments)
    if options.resume and options.output is None:
        raise BenchmarkError(
            "--resume without --output, expected the folder to resume: pass --output"
        )
    names = options.policy or [DEFAULT_POLICY]
    if len(set(names)) < len(names):
        raise BenchmarkError(f"--policy names one twice ({', '.join(names)}): leave one out")
    choices = [_choice(name, options, alone=len(names) == 1) for name in names]
    folders = slugs(choices)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    output = options.output or Path("results") / "-".join([options.suite, *folders, stamp])
    return output, tuple(
        RunSettings(
            suite=options.suite,
            output=output if len(names) == 1 else output / folder,
            tasks=options.tasks,
            policy=choice,
            episodes=options.episodes,
            num_envs=options.num_envs,
            seed=options.seed,
            protocol=options.protocol,
            workers=_default_workers(choice) if options.workers is None else options.workers,
            record=options.record,
            resume=options.resume,
            command=shlex.join(["python", "-m", "benchmarks.run", *arguments]),
        )
        for choice, folder in zip(choices, folders, strict=True)
    )


def _choice(name: str, options: argparse.Namespace, *, alone: bool) -> PolicyChoice:
    # Beside a network that is shown a demonstration, the others play as they do.
    prompted = alone or is_network(name)
    return PolicyChoice(
        name,
        prompt=options.prompt if prompted else "shipped",
        prompt_cut=options.prompt_cut if prompted else None,
        deterministic=acting(name, options.deterministic),
        seed=options.seed,
        device=options.device,
        precision=options.precision,
        episode_timeout=options.episode_timeout,
    )


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """``--protocol``."""
    parser.add_argument(
        "--protocol",
        choices=tuple(PROTOCOLS),
        default=STANDARD,
        help="atari-sticky: each frame of a game repeats the action before it with probability "
        "0.25 (default: %(default)s, in which none does)",
    )


def add_acting(parser: argparse.ArgumentParser) -> None:
    """``--deterministic`` and ``--sample``, of which :func:`acting` makes a choice."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--deterministic",
        action="store_true",
        default=None,
        help="the most likely action (default of experts, but of some games)",
    )
    group.add_argument(
        "--sample",
        dest="deterministic",
        action="store_false",
        help="sampled actions (default of all others)",
    )


def acting(name: str, asked: bool | None) -> bool | None:
    """How a policy acts (:attr:`PolicyChoice.deterministic`), asked for or, None, by default.

    Example:
        >>> acting("expert", None), acting("gato-mini", None), acting("expert", False)
        (None, False, False)
    """
    if asked is not None:
        return asked
    return None if name == "expert" else False


def check_time_limit(seconds: float | None) -> None:
    """Refuse a time limit that makes no sense, or that nothing here can keep.

    Raises:
        BenchmarkError: It is not positive, or the system has no interval timers (Windows).
    """
    if seconds is None:
        return
    if not seconds > 0.0:
        raise BenchmarkError(
            f"--episode-timeout is {seconds:g}, expected seconds above 0: pass --episode-timeout 60"
        )
    if not hasattr(signal, "setitimer"):
        raise BenchmarkError(
            "--episode-timeout needs interval timers, which this system does not have: leave it out"
        )


def _default_workers(choice: PolicyChoice) -> int:
    """One for a network on a GPU, which would be held by each; else as many as there are cores."""
    if choice.device == "cpu" or not is_network(choice.name):
        return available_cores()
    on_gpu = choice.device == "cuda"
    if not on_gpu and shutil.which("nvidia-smi"):  # without one, torch need not be loaded to ask
        from policies.model.quantization import choose_device

        on_gpu = choose_device("auto").type == "cuda"
    return 1 if on_gpu else available_cores()


def _workers(text: str) -> Workers:
    if text == "ray":
        return "ray"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a number of processes, or ray"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Score a policy on a suite of tasks, beside random actions and the expert.",
    )
    add = parser.add_argument
    add("--suite", required=True, help="atari, babyai, dm_control, metaworld, mujoco or all")
    add("--tasks", metavar="PATTERN", help="task ids or patterns, separated by commas: 'go-*,open'")
    add(
        "--policy",
        action="append",
        metavar="NAME|FOLDER|HUB-ID|MODULE:FACTORY",
        help="a shipped checkpoint, a checkpoint folder, a hub id owner/name, expert, random, or "
        "a function that takes the vector environment and returns anything with "
        "Stable-Baselines3's predict; several times: side by side "
        f"(default: {DEFAULT_POLICY})",
    )
    add("--episodes", type=int, default=20, metavar="N", help="of each task (default: %(default)s)")
    add("--num-envs", type=int, metavar="N", help="played at a time; changes speed, not results")
    add("--seed", type=int, default=0, metavar="S", help="chooses the episodes (default: 0)")
    add_protocol(parser)
    add(
        "--prompt",
        default="shipped",
        metavar="none|shipped|PATH",
        help="the demonstration that a network is shown; PATH is a Minari dataset's id, folder or "
        "file, '#3' at its end for episode 3 (default: %(default)s)",
    )
    add(
        "--prompt-cut",
        choices=("end", "start"),
        help="which part of a demonstration that is too long is shown (default: it is refused)",
    )
    add_acting(parser)
    add(
        "--workers",
        type=_workers,
        metavar="N|ray",
        help="processes; ray: the cores of the cluster at RAY_ADDRESS, or of this machine "
        f"(default: {available_cores()}; for a network on a GPU one, whose forwards serve all)",
    )
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: %(default)s")
    add(
        "--precision",
        default="auto",
        choices=("auto", "float32", "bfloat16", "int8"),
        help="of the weights; with bfloat16 and int8 the episodes are played in float32 too, and "
        "the difference is told (default: float32 on a CPU, bfloat16 on a GPU)",
    )
    add(
        "--episode-timeout",
        type=float,
        metavar="SECONDS",
        help="an episode whose environment takes longer has failed (default: none does)",
    )
    add(
        "--record",
        type=int,
        default=0,
        metavar="K",
        help="make videos of the first K episodes of each task (default: none)",
    )
    add("--output", type=Path, metavar="DIR", help="default: results/SUITE-POLICY-TIME")
    add("--resume", action="store_true", help="take up the run that --output holds")
    return parser
