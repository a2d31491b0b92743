"""One's own environment, from recording to a policy that acts, whatever its spaces and its id."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from gato_gym.commands.main import main
from gato_gym.episodes.minari_datasets import find_minari, read_minari
from policies import GatoPolicy
from policies.collection.record import record_episodes
from policies.registry import make_policy

DATASET = "my/own-v0"
SHORT = ["--preset", "tiny", "--rows", "2", "--length", "256", "--steps", "1"]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


class Sampled(gym.Env[Any, Any]):
    """Three steps of random observations."""

    def __init__(
        self, observed: gym.Space[Any] | None = None, acted: gym.Space[Any] | None = None
    ) -> None:
        self.observation_space = observed or spaces.Box(-1, 1, (2,))
        self.action_space = acted or spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.left = 3
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.left -= 1
        return self.observation_space.sample(), 1.0, not self.left, False, {}


def make_sampled(**kwargs: Any) -> Sampled:
    return Sampled(**kwargs)


@pytest.fixture
def registered() -> Iterator[None]:
    before = dict(gym.registry)
    yield
    gym.registry.clear()
    gym.registry.update(before)


def trained(env: gym.Env[Any, Any], dataset: str = DATASET, *more: str) -> GatoPolicy:
    """Record, train, load and act."""
    record_episodes(env, make_policy("random", env=env), 2, dataset)
    assert main(["train", "--dataset", dataset, "--output", "runs/own", *SHORT, *more]) == 0
    policy = GatoPolicy.load("runs/own", env=env)
    observation, _ = env.reset(seed=5)
    action, _ = policy.predict(observation)
    assert env.action_space.contains(action)
    alone = GatoPolicy.load("runs/own")
    assert repr(alone.predict(observation)[0]) == repr(action), "its spaces are in the checkpoint"
    return policy


class Bounded(spaces.Box):
    """A Box of one's own."""

    def __init__(self) -> None:
        super().__init__(-1, 1, (2,))


class Choice(spaces.Discrete):
    """A Discrete of one's own."""


class Items(spaces.Sequence):
    """A Sequence of one's own."""


EVERY_KIND = {
    "sequences, branches and graphs": (
        spaces.Dict(
            seen=spaces.Sequence(spaces.Dict(kind=spaces.Discrete(3), at=spaces.Box(-1, 1, (2,)))),
            stacked=spaces.Sequence(spaces.Box(-1, 1, (2,)), stack=True),
            held=spaces.OneOf([spaces.Discrete(2), spaces.Text(3, charset="ab")]),
            net=spaces.Graph(spaces.Box(-1, 1, (2,)), spaces.Discrete(3)),
        ),
        spaces.OneOf([spaces.Box(-1, 1, (2,)), spaces.Sequence(spaces.Discrete(4))]),
    ),
    "slashes in keys": (
        spaces.Dict(
            {
                "walker/joints": spaces.Box(-1, 1, (3,)),
                "walker/50%2F": spaces.Box(-1, 1, (1,)),
                ".": spaces.Discrete(3),
            }
        ),
        spaces.Dict({"arm/left": spaces.Box(-1, 1, (2,)), "arm": spaces.Discrete(2)}),
    ),
    "empty parts": (
        spaces.Dict(a=spaces.Dict(), b=spaces.Tuple([]), c=spaces.Box(-1, 1, (2,))),
        spaces.Dict(a=spaces.Dict(), b=spaces.Tuple([]), c=spaces.Discrete(3)),
    ),
    "subclasses": (spaces.Dict(box=Bounded(), items=Items(Choice(3))), Choice(3)),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_from_any_spaces_to_a_policy(kind: str) -> None:
    trained(Sampled(*EVERY_KIND[kind]))
    env = Sampled(*EVERY_KIND[kind])
    policy = make_policy("random", env=env)
    first, _ = env.reset(seed=1_000_000)
    seen = [first]
    state = policy.seed_episodes([1_000_000])
    played = []
    for _ in range(3):
        action, state = policy.predict(seen[-1], state)
        played.append(action)
        seen.append(env.step(action)[0])
    episode = next(iter(read_minari(DATASET)))
    for members, column in ((seen, episode.observations), (played, episode.actions)):
        for step, member in enumerate(members):
            assert same(member, at(column, step)), (member, at(column, step))


def at(column: Any, step: int) -> Any:
    """One step of an episode's observations or actions."""
    if isinstance(column, dict):
        return {key: at(part, step) for key, part in column.items()}
    return tuple(at(part, step) for part in column) if isinstance(column, tuple) else column[step]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(np.array_equal(a, b))


def test_a_plain_minigrid_id() -> None:
    pytest.importorskip("minigrid")
    with gym.make("MiniGrid-Empty-5x5-v0", max_steps=4) as env:
        policy = trained(env)
        assert policy.task == "MiniGrid-Empty-5x5-v0"
        (episode, _) = read_minari(DATASET)
        assert set(episode.observations["mission"]) == {"get to the green goal square"}


def test_a_batch_whose_texts_are_all_empty() -> None:
    words = spaces.Text(3, min_length=0, charset="ab")
    env = Sampled(spaces.Dict(x=spaces.Box(-1, 1, (2,)), words=words))
    env.observation_space.sample = lambda: {"x": np.zeros(2, np.float32), "words": ""}  # type: ignore[method-assign]
    policy = trained(env)
    observation = {"x": np.zeros((3, 2), np.float32), "words": ("", "", "")}
    actions, _ = policy.predict(observation)
    assert actions.shape == (3,)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("entry", "kwargs"),
    [(Sampled, {}), (make_sampled, {}), (lambda: Sampled(), {}), (Sampled, {"acted": Choice(2)})],
    ids=["class", "function", "lambda", "argument that is no JSON"],
)
def test_an_environment_registered_by_a_class_or_a_function(entry: Any, kwargs: Any) -> None:
    gym.register("Own-v0", entry_point=entry, kwargs=kwargs, max_episode_steps=9)
    with gym.make("Own-v0") as env:
        assert trained(env, DATASET, "--score-every", "1").task == "Own-v0"
    recovered = find_minari(DATASET).env_spec
    assert (recovered.id, recovered.max_episode_steps) == ("Own-v0", 9)
    if entry in (Sampled, make_sampled) and not kwargs:
        assert recovered.entry_point == f"{entry.__module__}:{entry.__name__}"


MODULE = """
import gymnasium as gym
from gymnasium import spaces
class Own(gym.Env):
    observation_space, action_space = spaces.Box(0, 1, (2,)), spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 3
        return self.np_random.uniform(size=2).astype("float32"), {}
    def step(self, action):
        self.left -= 1
        return self.np_random.uniform(size=2).astype("float32"), 1.0, not self.left, False, {}
if "FromModule-v0" not in gym.registry:
    gym.register("FromModule-v0", entry_point=Own)
"""


@pytest.mark.usefixtures("registered")
def test_a_module_is_named_wherever_its_environment_is(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forget() -> None:
        """As in another process."""
        sys.modules.pop("own_module", None)
        gym.registry.pop("FromModule-v0", None)

    (root / "own_module.py").write_text(MODULE)
    (root / "numpy.py").write_text("raise SystemError('shadows an installed module')")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(root))])
    name = "own_module:FromModule-v0"
    record = ["record", name, "--policy", "random", "--dataset", DATASET, "--episodes", "2"]
    assert main(record) == 0
    assert sys.path[-1] == str(root)
    forget()
    train = ["train", "--dataset", DATASET, "--output", "runs/own", *SHORT, "--score-every", "1"]
    assert main(train) == 2
    assert f"or import its module with --score-tasks {name}" in capsys.readouterr().err
    assert main([*train, "--score-tasks", name]) == 0
    said = capsys.readouterr().out
    assert "FromModule-v0 scores 3.00" in said
    assert f"gato-gym score {name} --policy runs/own" in said
    assert f'gato_gym.make("{name}")' in said
    for command in (["score", name, "--policy", "runs/own", "--episodes", "1"], ["inspect", name]):
        forget()
        assert main(command) == 0, capsys.readouterr().err
    forget()


@pytest.mark.parametrize("dataset", ["x/cart-v0", "my/two words-v0", "my/cart", "cart", ""])
def test_an_id_that_nothing_could_load_is_refused_before_anything_is_played(dataset: str) -> None:
    class Unplayed(Sampled):
        def reset(self, **_: Any) -> Any:
            raise AssertionError("it was played")

    env = Unplayed()
    with pytest.raises(ValueError, match=r"dataset id .*: expected names of letters, digits"):
        record_episodes(env, make_policy("random", env=env), 1, dataset)


def test_a_space_that_no_dataset_holds_is_refused_before_anything_is_played() -> None:
    class Unheard(gym.Space[Any]):
        """Of no kind."""

    env = Sampled(spaces.Dict(a=Unheard()))
    with pytest.raises(ValueError, match=r"kind that datasets do not hold \(Unheard\): expected"):
        record_episodes(env, make_policy("random", env=Sampled()), 1, DATASET)
