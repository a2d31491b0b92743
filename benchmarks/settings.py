"""The settings of runs, which the flags of ``gato-gym bench`` are too.

* :class:`RunSettings` -- of one policy's run; :class:`RunFlags`, what the runs of several share.
* :class:`BenchFlags` -- the command line: runs of one policy or several.
* :class:`Acting`, :func:`acting` -- whether policies sample.
* :func:`check_time_limit` -- refuses a time limit that makes no sense.
"""

from __future__ import annotations

import dataclasses
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction, create_mutex_group

from benchmarks.policies import DEFAULT_POLICY, PlayingOptions, PolicyChoice, is_network, slugs
from benchmarks.protocol import STANDARD, BenchmarkError
from benchmarks.workers.common import Workers
from gato_gym.commands.flags import flag
from policies.threads import available_cores

_ACTING = create_mutex_group(required=False, title="actions")


@dataclass(frozen=True)
class RunFlags:
    """What the runs of several policies share.

    Attributes:
        suite: Such as babyai; all for every suite. `gato-gym tasks` lists them.
        output: Folder for run.json, results.jsonl, summary.json and report.html; by default
            results/SUITE-POLICY-TIME.
        tasks: Task ids or patterns with *, separated by commas, with or without the suite's
            prefix, such as 'go-*,open'; by default all of the suite.
        episodes: Episodes of each task.
        num_envs: Environments that a process plays at a time; changes speed, not results.
        seed: Chooses the episodes.
        protocol: standard; atari-sticky, in which each frame of a game repeats the action before
            it with probability 0.25; delayed-actions, by one timestep; or noisy-observations, with
            noise of 1 % of each number's range.
        workers: Processes, or ray for the cores of the cluster at RAY_ADDRESS, or of this machine;
            by default one a core, and for a network on a GPU one, whose forwards serve all.
        record: Make videos of the first so many episodes of each task.
        resume: Take up the run that the output folder holds.
    """

    suite: str
    output: Path | None = None
    tasks: Annotated[str | None, flag(metavar="PATTERN")] = None
    episodes: int = 20
    num_envs: int | None = None
    seed: int = 0
    protocol: str = STANDARD
    workers: Workers | None = None
    record: int = 0
    resume: bool = False


@dataclass(frozen=True)
class RunSettings(RunFlags):
    """One policy's run.

    Attributes:
        policy: Who plays, and how.
        command: What was typed, for the record.
    """

    output: Path
    workers: Workers = field(default_factory=available_cores)
    policy: PolicyChoice = field(default_factory=lambda: PolicyChoice(DEFAULT_POLICY))
    command: str | None = None


@dataclass(frozen=True)
class Acting:
    """How policies choose actions; by default experts as they do, and all others sampled.

    Attributes:
        deterministic: The most likely action.
        sample: Sampled actions.
    """

    deterministic: Annotated[bool, _ACTING] = False
    sample: Annotated[bool, _ACTING] = False

    def of(self, policy: str) -> bool | None:
        """What :attr:`PolicyChoice.deterministic` is of a policy."""
        return acting(policy, self.deterministic if self.deterministic or self.sample else None)


@dataclass(frozen=True)
class BenchFlags(RunFlags):
    """Runs of one policy, or of several side by side.

    Attributes:
        policy: A shipped checkpoint, a checkpoint's folder, a hub id owner/name, expert, random,
            retrieve, or module:factory, a function that takes the vector environment and returns
            anything with Stable-Baselines3's predict; given several times, they are scored side by
            side; by default gato-mini.
    """

    policy: Annotated[UseAppendAction[tuple[str, ...]], flag(metavar="NAME")] = ()
    playing: PlayingOptions = field(default_factory=PlayingOptions)
    acting: Acting = field(default_factory=Acting)

    def runs(self, command: str | None = None) -> tuple[Path, tuple[RunSettings, ...]]:
        """What is asked for.

        Args:
            command: What was typed, for the record.

        Returns:
            The output folder, and a run for each policy: in this folder, or, of several, in one
            of its own below it.

        Raises:
            BenchmarkError: The flags do not go together.
        """
        if self.resume and self.output is None:
            raise BenchmarkError(
                "--resume without --output, expected the folder to resume: pass --output"
            )
        names = self.policy or (DEFAULT_POLICY,)
        if len(set(names)) < len(names):
            raise BenchmarkError(f"--policy names one twice ({', '.join(names)}): leave one out")
        choices = [each for name in names for each in self._choices(name, alone=len(names) == 1)]
        folders = slugs(choices)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        output = self.output or Path("results") / "-".join([self.suite, *folders, stamp])
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(RunFlags)}
        return output, tuple(
            RunSettings(
                **shared
                | {
                    "output": output if len(choices) == 1 else output / folder,
                    "workers": _default_workers(choice) if self.workers is None else self.workers,
                },
                policy=choice,
                command=command,
            )
            for choice, folder in zip(choices, folders, strict=True)
        )

    def _choices(self, name: str, *, alone: bool) -> list[PolicyChoice]:
        """The policy of a name; one for each number of demonstrations that it plays from."""
        how = dataclasses.asdict(self.playing)
        if not alone and not is_network(name):
            # Beside a network that is shown a demonstration, the others play as they do.
            how |= {"prompt": "shipped", "prompt_cut": None}
        if not alone and name != "retrieve":
            how |= {"demonstrations": None, "demonstration_episodes": ()}
        numbers: list[tuple[int, ...]] = [(each,) for each in how["demonstration_episodes"]]
        return [
            PolicyChoice(
                name,
                deterministic=self.acting.of(name),
                seed=self.seed,
                **how | {"demonstration_episodes": each},
            )
            for each in numbers or [()]
        ]


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
    if not 0.0 < seconds < float("inf"):
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
