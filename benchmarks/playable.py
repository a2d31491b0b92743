"""Which tasks a policy can play.

* :func:`left_out` -- those that it cannot play, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.policies import PolicyChoice, demonstrations_for, folder_of, why_unreadable
from benchmarks.protocol import BenchmarkError
from policies.registry import PolicySpec

if TYPE_CHECKING:
    from gato_gym.tasks import Task


def left_out(
    choice: PolicyChoice, tasks: Sequence[Task], *, name: str | None = None
) -> dict[str, str]:
    """Tasks that a policy cannot play, and why; by task id.

    An expert plays the tasks that have one. A checkpoint plays the tasks that it was trained on,
    and others whose spaces are those of one of them alone, as :meth:`policies.GatoPolicy.load`
    decides. Where there are several suites, those whose simulator is not installed are left out.

    Args:
        choice: The policy; a factory is taken to play everything.
        tasks: What is asked for.
        name: What the policy is called in errors; None is the choice's own name.

    Returns:
        Not all of them: if what is left is not installed, it is left to fail with what is wrong.

    Raises:
        BenchmarkError: The checkpoint cannot be read, or plays none of the tasks.
    """
    unplayable = _unplayable(choice, tasks)
    if len(unplayable) == len(tasks):
        raise BenchmarkError(_plays_none(choice, name or choice.name, tasks, unplayable))
    if len({task.suite for task in tasks}) > 1:
        unplayable |= _not_installed([task for task in tasks if task.id not in unplayable])
    return {} if len(unplayable) == len(tasks) else dict(sorted(unplayable.items()))


def _unplayable(choice: PolicyChoice, tasks: Sequence[Task]) -> dict[str, str]:
    kind = PolicySpec.parse(choice.name).kind
    if kind in ("random", "factory"):
        return {}
    if kind == "retrieve":
        whys = {task.id: why_unreadable(demonstrations_for(choice, task.id)) for task in tasks}
        return {task: why for task, why in whys.items() if why is not None}
    if kind == "expert":
        from policies.experts import has_expert

        return {task.id: "it has no expert" for task in tasks if not has_expert(task.id)}
    from policies.gato.checkpoint import read_tasks
    from policies.gato.checkpoint_folder import family_of
    from policies.gato.task_specs import SpaceMismatchError, find_task
    from policies.gato.tensor_files import CheckpointError

    folder = folder_of(choice)
    try:
        if family_of(folder) == "jat":
            return _without_modality(folder, tasks)
        known = read_tasks(folder)
    except CheckpointError as error:
        raise BenchmarkError(str(error)) from error
    missing = {}
    for task in tasks:
        if task.id in known:
            continue
        try:
            with closing(task.make()) as env:
                find_task(known, env, None)
        except SpaceMismatchError:
            missing[task.id] = "the network was not trained on it, and its spaces identify no task"
        except Exception:
            continue  # a broken environment is reported where it is played
    return missing


def _without_modality(folder: Path, tasks: Sequence[Task]) -> dict[str, str]:
    """The tasks that a JAT checkpoint was not trained on, or has no modality for, and why.

    The published one names no task: what it has a modality for, it plays.
    """
    from policies.base import spaces_of
    from policies.jat.checkpoint import read_configuration, read_spaces
    from policies.jat.modalities import JatSpaceError, Modalities

    (config, tokenizer), known = read_configuration(folder), read_spaces(folder)
    missing = {}
    for task in tasks:
        if known and task.id not in known:
            missing[task.id] = "the network was not trained on it"
            continue
        try:
            with closing(task.make()) as env:
                Modalities.of(*spaces_of(env), config, tokenizer)
        except JatSpaceError as error:
            missing[task.id] = str(error)
        except Exception:
            continue  # a broken environment is reported where it is played
    return missing


def _plays_none(
    choice: PolicyChoice, name: str, tasks: Sequence[Task], unplayable: Mapping[str, str]
) -> str:
    """What is said of a policy that plays none of the tasks: what it does play, what else may."""
    from gato_gym.tasks import list_tasks
    from policies.experts import has_expert
    from policies.gato.checkpoint import read_tasks
    from policies.gato.checkpoint_folder import family_of
    from policies.jat.checkpoint import read_spaces

    if choice.name == "retrieve":
        first = sorted(unplayable)[0]
        return f"{name} plays none of what was asked for, such as {first}: {unplayable[first]}"
    every = {task.id: task.suite for task in list_tasks()}
    if choice.name == "expert":
        known, others = [task for task in every if has_expert(task)], ["random"]
    else:
        folder = folder_of(choice)
        reader = read_spaces if family_of(folder) == "jat" else read_tasks
        known = list(reader(folder))
        experts = any(has_expert(task.id) for task in tasks)
        others = ["random", "expert"] if experts else ["random"]
    suites = Counter(every[task] for task in known if task in every)
    plays = [f"{count} tasks of {suite}" for suite, count in suites.items()]
    plays += [task for task in known if task not in every][:8]
    first = sorted(unplayable)[0]
    what = f"task {first}" if len(tasks) == 1 else f"{len(tasks)} tasks, such as {first}"
    instead = "--suite or --tasks" if suites else "gato-gym score"
    return (
        f"{name} plays none of what was asked for, {what} ({unplayable[first]}): "
        f"it plays {', '.join(plays) or 'no task'}; choose these with {instead}, or pass "
        f"--policy {' or '.join(others)}, or a network trained on these tasks"
    )


def _not_installed(tasks: Sequence[Task]) -> dict[str, str]:
    from gato_gym.tasks import MissingPackageError

    missing: dict[str, str | None] = {}
    for task in tasks:
        if task.suite in missing:
            continue
        missing[task.suite] = None
        try:
            task.make().close()
        except MissingPackageError as error:
            missing[task.suite] = str(error)
        except Exception:
            continue
    return {task.id: why for task in tasks if (why := missing[task.suite]) is not None}
