"""Checkpoints to a hub: safetensors, JSON, a model card and a video, and nothing that can run code.

* :func:`hub_files` -- what a checkpoint's repository holds; refuses whatever does not belong there.
* :func:`push_files` -- uploads it.
* :func:`model_card` -- ``README.md``: metadata with a result for each task, and the description.

An evaluation is the JSON object that ``gato-gym submit`` and ``push`` make of a run: its schema is
in ``docs/benchmark.md``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gato_gym.files.atomic_io import inside
from gato_gym.files.bounded_io import read_bytes
from policies.gato.checkpoint import read_sizes
from policies.gato.checkpoint_folder import (
    FILES,
    LARGEST_CONFIG,
    family_of,
    locate_checkpoint,
)
from policies.gato.hub import LARGEST_FETCHED, HubError
from policies.gato.tensor_files import CheckpointError, read_tensors, stored_shapes

CARD, EVALUATIONS, VIDEO = "README.md", "evaluations.json", "replay.mp4"
LARGEST_VIDEO = 64 * 2**20
TITLES = {"gato": "Gato", "jat": "JAT", "dt": "DT", "tt": "TT"}
"""Families as a card names them; that of ``XPolicy`` is ``X`` in title case."""
LIBRARY, PIPELINE = "gato-gym", "reinforcement-learning"

Files = Mapping[str, Path | bytes]
"""A repository's files by name: where each is, or its content."""


def hub_files(
    name: str,
    checkpoint: str | Path,
    *,
    evaluations: Sequence[Mapping[str, Any]] = (),
    video: Path | None = None,
) -> Files:
    """The files of a checkpoint's repository.

    Args:
        name: The repository, ``owner/name``.
        checkpoint: As in :func:`policies.gato.checkpoint.load_checkpoint`.
        evaluations: What ``evaluations.json`` holds and the card shows.
        video: An episode, ``.mp4``.

    Raises:
        HubError: The name is no repository's; the folder is no checkpoint, or holds something else
            too, such as a pickle, or a link to another folder; or a file is too large.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name):
        raise HubError(f"hub name is {name!r}, expected owner/name")
    try:
        folder = locate_checkpoint(checkpoint)
        files: dict[str, Path | bytes] = dict(_checked(folder))
        if family_of(folder) == "gato":
            read_sizes(folder)
        read_tensors(folder / "model.safetensors", stored_shapes)
    except CheckpointError as error:
        raise HubError(f"{checkpoint} cannot be pushed: {error}") from error
    described = folder / "card.md"
    text = ""
    if described.exists():
        text = read_bytes(described, largest=LARGEST_CONFIG, error=HubError).decode("utf-8")
    if video is not None:
        if video.suffix != ".mp4" or not video.is_file():
            raise HubError(f"the video is {video}, expected an .mp4 file")
        files[VIDEO] = _of_size(video, LARGEST_VIDEO)
    if evaluations:
        files[EVALUATIONS] = (json.dumps(list(evaluations), indent=1) + "\n").encode()
    family = TITLES[family_of(folder)]
    card = model_card(name, text, evaluations, family=family, video=video is not None)
    return dict(sorted({**files, CARD: card.encode()}.items()))


def _checked(folder: Path) -> Mapping[str, Path]:
    """The files of a checkpoint's folder, each of them one that belongs there.

    Raises:
        HubError: One does not.
    """
    expected = FILES[family_of(folder)]
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name not in expected:
            raise HubError(
                f"{path} is no part of a checkpoint, expected {', '.join(expected)} alone (a "
                "pickle, or another program's file, can run code where it is read): move it away"
            )
        cached = folder.parents[1] if folder.parent.name == "snapshots" else folder
        if path.is_symlink() and inside(cached, str(path.relative_to(cached))) is None:
            raise HubError(f"{path} is a link to another folder, expected the file itself: copy it")
        if not path.is_file():
            raise HubError(f"{path} is a folder, expected a checkpoint's file: move it away")
        files[path.name] = _of_size(path, LARGEST_FETCHED.get(path.name, LARGEST_CONFIG))
    return files


def _of_size(path: Path, largest: int) -> Path:
    size = path.stat().st_size
    if size > largest:
        raise HubError(f"{path} has {size} bytes, expected at most {largest}: make it smaller")
    return path


def size_of(file: Path | bytes) -> int:
    """Bytes of a file."""
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def push_files(name: str, files: Files, *, private: bool = False, repo_type: str = "model") -> str:
    """Upload the files of a repository, which is made if there is none, in one commit.

    Args:
        name: The repository, ``owner/name``.
        files: From :func:`hub_files`, or :func:`gato_gym.episodes.hub.dataset_files`.
        private: Whether a repository that is made is private.
        repo_type: "model" or "dataset".

    Returns:
        Its address.

    Raises:
        HubError: The hub refuses, or is out of reach.
    """
    api = _client().HfApi()
    add = _client().CommitOperationAdd
    try:
        url = api.create_repo(name, private=private, repo_type=repo_type, exist_ok=True)
        api.create_commit(
            name,
            operations=[add(path, file) for path, file in files.items()],
            commit_message=f"{repo_type.capitalize()} of gato-gym",
            repo_type=repo_type,
        )
    except Exception as error:  # of the network, the hub, the disk: from several libraries
        why = " ".join(str(error).split()) or type(error).__name__
        raise HubError(
            f"{name} could not be pushed ({why[:300]}): check the name and the network, and log "
            "in with hf auth login, or set HF_TOKEN"
        ) from error
    return str(url)


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise HubError('pushing needs huggingface_hub: run pip install "gato-gym[hub]"') from error
    return huggingface_hub


def model_card(
    name: str,
    text: str,
    evaluations: Sequence[Mapping[str, Any]],
    *,
    family: str = "Gato",
    video: bool = False,
) -> str:
    """``README.md`` of a repository.

    Args:
        name: The repository, ``owner/name``.
        text: The description, Markdown.
        evaluations: Scores; each task is a result of the metadata's ``model-index``.
        family: One of the values of :data:`TITLES`.
        video: Whether the repository has one.

    Raises:
        HubError: An evaluation has not the form that ``gato-gym submit`` writes.
    """
    client = _client()
    title = name.partition("/")[2]
    try:
        results = [
            result
            for evaluation in evaluations
            for task, figures in evaluation["tasks"].items()
            for result in _results(client, task, figures, evaluation["protocol_hash"])
        ]
        scores = [line for evaluation in evaluations for line in _averages(evaluation)]
    except (KeyError, TypeError, AttributeError) as error:
        raise HubError(
            f"an evaluation has not the expected form ({error!r}): make it with gato-gym submit, "
            "or pass --results to gato-gym push"
        ) from error
    data = client.ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=PIPELINE,
        tags=[PIPELINE, family.lower(), "gymnasium"],
        model_name=title,
        eval_results=results or None,
    )
    parts = [text.strip() or f"# {title}\n\nA {family} checkpoint."]
    if video:
        parts.append(f"An episode that it played is in [{VIDEO}]({VIDEO}).")
    if scores:
        head = ["| suite | average | value | 95 % interval | tasks | episodes a task | protocol |"]
        head += ["|---|---|---|---|---|---|---|"]
        parts += [f"## Scores\n\nEvery task is in `{EVALUATIONS}`.", "\n".join([*head, *scores])]
    policy = f"{family.title()}Policy"
    parts.append(
        f"## Use\n\n```python\nimport gymnasium as gym\nfrom policies import {policy}\n\n"
        'env = gym.make("Gato/…")  # one of its tasks\n'
        f'policy = {policy}.load("{name}", env=env)\n```'
    )
    return f"---\n{data.to_yaml().strip()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _results(client: Any, task: str, figures: Mapping[str, Any], protocol: str) -> list[Any]:
    """A task's metrics: its return, its normalised score with the interval, its success."""
    metrics = [("mean_reward", "mean return", f"{figures['mean']:.2f} +/- {figures['std']:.2f}")]
    score, low, high = (figures[part] for part in ("normalised", "low", "high"))
    if score is not None:
        ends = "" if low is None else f", 95 % interval {low:.3f} to {high:.3f}"
        metrics.append(("normalised_score", f"normalised score{ends}", round(score, 4)))
    if figures["success"] is not None:
        metrics.append(("success_rate", "success rate", round(figures["success"], 4)))
    return [
        client.EvalResult(
            task_type=PIPELINE,
            task_name=PIPELINE,
            dataset_type=task,
            dataset_name=task,
            metric_type=kind,
            metric_name=said,
            metric_value=value,
            metric_args={"protocol": protocol, "episodes": figures["episodes"]},
        )
        for kind, said, value in metrics
    ]


def _averages(evaluation: Mapping[str, Any]) -> list[str]:
    """Lines of a table: a suite's averages."""
    episodes = evaluation["protocol"]["episodes"]
    lines = []
    for suite, averages in evaluation["suites"].items():
        for average, of in averages.items():
            ends = "–" if of["low"] is None else f"{of['low']:.3f} to {of['high']:.3f}"
            cells = (suite, average, f"{of['value']:.3f}", ends, str(of["tasks"]), str(episodes))
            lines.append(f"| {' | '.join(cells)} | `{evaluation['protocol_hash']}` |")
    return lines
