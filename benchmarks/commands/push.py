"""``gato-gym push``: a checkpoint, its scores and a video, or a dataset, to a hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from gato_gym.commands.common import Command, Invocation
from gato_gym.episodes.hub import SCHEME

if TYPE_CHECKING:
    from policies.gato.publishing import Files


@dataclass(frozen=True)
class Push(Command):
    """Push a checkpoint to a hub: safetensors and JSON, a card with scores, and a video. Or push a
    dataset, in Minari's format.

    Attributes:
        folder: A checkpoint's or run's folder, or the name of a shipped one; or a dataset, by its
            id or folder.
        name: The repository, such as me/name, which is made if there is none; of a dataset the
            account alone, such as hf://me.
        results: Folders of its runs of gato-gym bench, whose scores the card shows. The first video
            of a run that --record made goes along.
        private: Make a private repository.
        dry_run: Show the files and the card, and push nothing.
    """

    folder: Positional[Path]
    name: Positional[str]
    results: tuple[Path, ...] = ()
    private: bool = False
    dry_run: bool = False

    def run(self, call: Invocation) -> None:
        from policies.gato.publishing import CARD, push_files, size_of

        is_dataset = self.name.startswith(SCHEME)
        repository, files = self._dataset() if is_dataset else (self.name, self._files())
        for name, file in files.items():
            call.console.print(f"{size_of(file):>12,} bytes  {name}", markup=False, highlight=False)
        if self.dry_run:
            card = files[CARD]
            assert isinstance(card, bytes)
            call.console.print(f"\n{card.decode()}", markup=False, highlight=False)
            return
        repo_type = "dataset" if is_dataset else "model"
        url = push_files(repository, files, private=self.private, repo_type=repo_type)
        call.console.print(f"pushed to {url}", markup=False, highlight=False)

    def _dataset(self) -> tuple[str, Files]:
        from benchmarks.protocol import BenchmarkError
        from gato_gym.episodes.hub import dataset_files
        from gato_gym.episodes.minari_datasets import find_minari

        if self.results:
            raise BenchmarkError("--results is given with a dataset, expected none: leave it out")
        return dataset_files(find_minari(self.folder), self.name.removeprefix(SCHEME))

    def _files(self) -> Files:
        from benchmarks.policies import PolicyChoice, describe_policy
        from benchmarks.protocol import BenchmarkError
        from benchmarks.store.clips import read_clips
        from benchmarks.submission import evaluation_of
        from policies.gato.publishing import hub_files

        evaluations = [evaluation_of(folder) for folder in self.results]
        if evaluations:
            weights = describe_policy(PolicyChoice(str(self.folder)))["weights"]
            for folder, evaluation in zip(self.results, evaluations, strict=True):
                if evaluation["policy"].get("weights") != weights:
                    raise BenchmarkError(
                        f"{folder} has scores of {evaluation['policy']['name']}, which has other "
                        f"weights than {self.folder}: expected runs of this checkpoint"
                    )
        clips = [folder / clip.file for folder in self.results for clip in read_clips(folder)]
        video = clips[0] if clips else None
        return hub_files(self.name, self.folder, evaluations=evaluations, video=video)
