"""Who is scored: what identifies a policy in a record.

:mod:`benchmarks.playable` has which tasks it can play.

* :class:`PolicyChoice` -- which policy plays, and how; :class:`PlayingOptions`, how alone.
* :func:`describe_policy` -- what a record says of it.
* :func:`is_network` -- whether a name is a checkpoint's.
* :func:`resolved` -- the same policy by the folder that its name stands for.
* :func:`folder_of` -- its checkpoint's folder.
* :func:`demonstrations_for`, :func:`why_unreadable` -- the dataset that ``retrieve`` plays from.
* :func:`slugs` -- names of policies as names of folders.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from benchmarks.protocol import BenchmarkError
from gato_gym.commands.flags import Numbers, flag
from gato_gym.files.bounded_io import read_bytes
from policies.registry import BUILT_IN, PolicySpec, find_factory, source_of

if TYPE_CHECKING:
    from gato_gym.episodes.episode import Episode


@dataclass(frozen=True, kw_only=True)
class PlayingOptions:
    """How a policy plays.

    Attributes:
        prompt: The demonstration that a network is shown: none, shipped, or the id, folder or file
            of a Minari dataset, '#3' at its end for episode 3.
        prompt_cut: Which part is shown of a demonstration that is too long, select for the steps
            that cover it best; by default it is refused.
        demonstrations: The Minari dataset that retrieve plays from, its id or path; {task} in it
            stands for the task's id.
        demonstration_episodes: How many of its episodes, the first ones; of several numbers, each
            is a policy of its own; by default all.
        device: Where a network computes.
        precision: Precision of a network's weights; by default float32 on a CPU, bfloat16 on a
            GPU.
        episode_timeout: Seconds after which an episode's environment has failed; by default none
            does.
    """

    prompt: Annotated[str, flag(metavar="none|shipped|PATH")] = "shipped"
    prompt_cut: Literal["end", "start", "select"] | None = None
    demonstrations: Annotated[str | None, flag(metavar="ID")] = None
    demonstration_episodes: Annotated[tuple[int, ...], Numbers] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    episode_timeout: Annotated[float | None, flag(metavar="SECONDS")] = None


@dataclass(frozen=True)
class PolicyChoice(PlayingOptions):
    """Which policy plays, and how.

    Attributes:
        name: ``random``, ``expert``, ``retrieve``, a shipped name, a checkpoint folder, a hub id,
            or ``module:factory`` (:mod:`policies.registry`).
        deterministic: The most likely action instead of a sample; None for an expert's own way,
            :attr:`policies.base.Policy.samples`.
        seed: Seed of the policy's own random numbers.
    """

    name: str
    deterministic: bool | None = False
    seed: int = 0

    @property
    def shown(self) -> int | None:
        """How many demonstrations ``retrieve`` plays from; None for all.

        Raises:
            BenchmarkError: There are several numbers.
        """
        numbers = self.demonstration_episodes
        if len(numbers) > 1 or any(number < 1 for number in numbers):
            raise BenchmarkError(
                f"--demonstration-episodes is {','.join(map(str, numbers))}, expected one number "
                "above 0; gato-gym bench and gato-gym score take several"
            )
        return numbers[0] if numbers else None


DEFAULT_POLICY = "gato-mini"


def describe_policy(choice: PolicyChoice, tasks: Iterable[str] = ()) -> dict[str, Any]:
    """What identifies a policy in a record.

    Args:
        choice: The policy.
        tasks: Task ids that it plays; the trained experts among theirs have weights.

    Returns:
        ``name``, ``prompt``, ``deterministic``, ``seed``, ``precision``; ``weights``, a hash of
        the checkpoint's files but its card, of the module's source where a factory makes the
        policy, or None; of a demonstration that was named ``prompt_hash``, a hash of what is in
        it, and ``prompt_cut``; and of a policy that plays from demonstrations ``demonstrations``
        and ``demonstration_episodes``, and as ``weights`` a hash of what is in them.

    Raises:
        BenchmarkError: There is no policy of that name, or no such demonstration.
    """
    described = {
        "name": choice.name,
        "weights": _weights(choice, tasks),
        "prompt": choice.prompt,
        "deterministic": choice.deterministic,
        "seed": choice.seed,
        "precision": choice.precision,
    }
    if choice.name == "retrieve":
        described |= {
            "demonstrations": choice.demonstrations,
            "demonstration_episodes": choice.shown,
        }
    if choice.prompt not in ("shipped", "none"):
        described |= {"prompt_hash": _prompt_hash(choice), "prompt_cut": choice.prompt_cut}
    return described


def _weights(choice: PolicyChoice, tasks: Iterable[str]) -> str | None:
    kind = PolicySpec.parse(choice.name).kind
    if (choice.demonstrations is None) == (kind == "retrieve"):
        raise BenchmarkError(
            f"--policy {choice.name} --demonstrations {choice.demonstrations}: expected "
            "--policy retrieve with the id or path of a Minari dataset; others play without"
        )
    if kind == "random":
        return None
    if kind == "retrieve":
        return _demonstrations_hash(choice, tasks)
    if kind == "expert":
        from policies.experts.store import shipped_folder

        return _folder_hash(*(shipped_folder(task) for task in sorted(tasks)))
    if kind == "factory":
        try:
            source = source_of(find_factory(choice.name))
        except (ImportError, ValueError) as error:
            raise BenchmarkError(str(error)) from error
        return None if source is None else hashlib.sha256(read_bytes(source)).hexdigest()[:16]
    return _folder_hash(folder_of(choice))


def is_network(name: str) -> bool:
    """Whether a name is a checkpoint's: it has a precision, and may be shown a demonstration."""
    return PolicySpec.parse(name).kind not in (*BUILT_IN, "factory")


def resolved(choice: PolicyChoice) -> PolicyChoice:
    """The choice with the folder of its checkpoint for its name, so that no process looks again.

    Raises:
        BenchmarkError: There is no policy of that name.
    """
    if not is_network(choice.name):
        return choice
    return replace(choice, name=str(folder_of(choice)))


def folder_of(choice: PolicyChoice) -> Path:
    """The checkpoint's folder, fetched if need be.

    Raises:
        BenchmarkError: There is no policy of that name.
    """
    from policies.gato.checkpoint_folder import locate_checkpoint, shipped_names
    from policies.gato.tensor_files import CheckpointError

    name = choice.name
    try:
        folder = locate_checkpoint(name)
    except CheckpointError as error:
        if "/" in name or Path(name).exists():
            raise BenchmarkError(f"no policy {name!r}: {error}") from error
        known = [*BUILT_IN, *shipped_names()]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "give one of these, or its path"
        raise BenchmarkError(
            f"no policy {name!r}, expected {', '.join(known)}, a checkpoint folder, a hub id "
            f"owner/name or module:factory: {hint}"
        ) from error
    if not (folder / "config.json").is_file():
        raise BenchmarkError(
            f"no policy in {folder}: expected a checkpoint folder, which has a config.json"
        )
    return folder


def _folder_hash(*folders: Path) -> str | None:
    """A hash of everything in checkpoints that decides an action; None where there is nothing."""
    digest = hashlib.sha256()
    any_file = False
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix not in (".csv", ".md"):
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256")
                name = path.relative_to(folder).as_posix()
                digest.update(f"{name}\n".encode() + content.digest())
                any_file = True
    return digest.hexdigest()[:16] if any_file else None


def _prompt_hash(choice: PolicyChoice) -> str:
    from policies.gato.prompts import demonstration

    if not is_network(choice.name):
        raise BenchmarkError(
            f"--prompt {choice.prompt}: policy {choice.name} takes no demonstration, expected a "
            "checkpoint; leave --prompt out"
        )
    try:
        return _episode_hash(demonstration(choice.prompt))
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise BenchmarkError(
            f"--prompt {choice.prompt} cannot be read ({error}): expected shipped, none, or a "
            "Minari dataset's id or path, '#3' at its end for episode 3"
        ) from error


def _demonstrations_hash(choice: PolicyChoice, tasks: Iterable[str]) -> str | None:
    """A hash of what ``retrieve`` plays from in the tasks that it has demonstrations of."""
    from policies.retrieval.policy import demonstrations_of

    digest = hashlib.sha256()
    for name in sorted({demonstrations_for(choice, task) for task in tasks}):
        if why_unreadable(name) is None:
            for episode in islice(demonstrations_of(name), choice.shown):
                digest.update(_episode_hash(episode).encode())
    return digest.hexdigest()[:16]


def demonstrations_for(choice: PolicyChoice, task: str) -> str:
    """The dataset that ``retrieve`` plays a task from."""
    return (choice.demonstrations or "").replace("{task}", task)


def why_unreadable(demonstrations: str) -> str | None:
    """Why a dataset cannot be read; None where it can."""
    from gato_gym.episodes.minari_datasets import find_minari

    try:
        find_minari(demonstrations)
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _episode_hash(episode: Episode) -> str:
    """A hash of what a demonstration shows: its observations and actions."""
    digest = hashlib.sha256()

    def add(part: Any, path: str) -> None:
        if isinstance(part, dict):
            for key in sorted(part, key=str):
                add(part[key], f"{path}/{key}")
        elif isinstance(part, (tuple, list)):
            for index, each in enumerate(part):
                add(each, f"{path}/{index}")
        else:
            array = np.asarray(part)
            digest.update(f"{path} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())

    add(episode.observations, "observations")
    add(episode.actions, "actions")
    return digest.hexdigest()[:16]


def slugs(choices: Sequence[PolicyChoice]) -> list[str]:
    """Names of policies as names of folders, no two alike.

    Example:
        >>> slugs([PolicyChoice("runs/a"), PolicyChoice("expert"), PolicyChoice("old/a")])
        ['a', 'expert', 'a-2']
    """
    names: list[str] = []
    for choice in choices:
        name = Path(choice.name).name.replace(":", "-") or "policy"
        name = "-".join([name, *map(str, choice.demonstration_episodes)])
        candidates = [name, *(f"{name}-{number}" for number in range(2, len(choices) + 1))]
        names.append(next(each for each in candidates if each not in names))
    return names
