import copy
import functools
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import gato_gym
from gato_gym import GatoTokenize, GatoTokenizeVector, PlanOptions
from gato_gym.tasks import UnknownTaskError
from gato_gym.text import default_tokenizer
from gato_gym.wrappers import token_space


class Courier(gym.Env):
    """Every kind of space at once; the reward and the next observation follow from the action."""

    observation_space = spaces.Dict(
        note=spaces.Text(30, charset="abcdefghijklmnopqrstuvwxyz 0123456789"),
        pose=spaces.Tuple([spaces.Box(-2, 2, (3,)), spaces.Discrete(5, start=2)]),
        map=spaces.Box(0, 9, (4, 4, 2), np.uint8),
        camera=spaces.Box(0, 255, (20, 16, 3), np.uint8),
    )
    action_space = spaces.Dict(
        move=spaces.Box(-2, 2, (2,)), say=spaces.Text(3, charset="ab"), lift=spaces.MultiBinary(2)
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.time += 1
        reward = float(action["move"].sum() + len(action["say"]) + action["lift"].sum())
        return self._observe(), reward, self.time == 4, False, {"said": action["say"]}

    def _observe(self):
        return {
            "note": f"parcel {self.np_random.integers(9)}",
            "pose": (
                self.np_random.uniform(-2, 2, 3).astype(np.float32),
                np.int64(self.np_random.integers(2, 7)),
            ),
            "map": self.np_random.integers(0, 10, (4, 4, 2), np.uint8),
            "camera": self.np_random.integers(0, 256, (20, 16, 3), np.uint8),
        }


OPTIONS = PlanOptions(grids=("map",))
gym.register("Courier-v0", entry_point=Courier, max_episode_steps=9)


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(np.all(np.asarray(a) == np.asarray(b)))


def as_tokens(wrapped, observation):
    step = wrapped.plan.encode(observation)
    tokens = {name: getattr(step, name) for name in wrapped.observation_space if name != "text"}
    if wrapped.plan.has_text:
        text = np.full(wrapped.text_length, -1)
        text[: len(step.text)] = step.text
        tokens["text"] = text
    return tokens


def assert_steps_like_bare(wrapped, bare, steps=30):
    wrapped.action_space.seed(5)
    seed = 3
    observation, _ = wrapped.reset(seed=seed)
    assert same(observation, as_tokens(wrapped, bare.reset(seed=seed)[0]))
    for _ in range(steps):
        tokens = wrapped.action_space.sample()
        got = wrapped.step(tokens)
        expected = bare.step(wrapped.plan.decode(tokens))
        assert wrapped.observation_space.contains(got[0])
        assert same(got[0], as_tokens(wrapped, expected[0]))
        assert got[1:4] == expected[1:4]
        assert same(got[4], expected[4])
        if got[2] or got[3]:
            seed += 1
            observation, _ = wrapped.reset(seed=seed)
            assert same(observation, as_tokens(wrapped, bare.reset(seed=seed)[0]))


@pytest.mark.parametrize(
    "id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Taxi-v4", "Courier-v0"]
)
@pytest.mark.parametrize("layout", ["paper", "lean"])
def test_tokens_step_the_env_as_the_decoded_action_does(id, layout):
    wrapped = gato_gym.make(
        id, wrappers=[functools.partial(GatoTokenize, options=PlanOptions(layout=layout))]
    )
    assert_steps_like_bare(wrapped, gym.make(id))


def test_make_applies_wrappers_in_order():
    env = gato_gym.make(
        "CartPole-v1", wrappers=[gym.wrappers.RecordEpisodeStatistics, GatoTokenize]
    )
    assert isinstance(env, GatoTokenize)
    assert isinstance(env.env, gym.wrappers.RecordEpisodeStatistics)


def test_make_takes_a_tasks_id():
    env = gato_gym.make("babyai-go-to-local", wrappers=[GatoTokenize])
    assert env.spec.id == "Gato/babyai-go-to-local"
    with pytest.raises(UnknownTaskError, match=r"did you mean babyai-go-to-local"):
        gato_gym.make("babyai-go-to-locla")


def test_make_takes_an_id_that_was_registered_whatever_its_name(monkeypatch):
    spec = gym.spec("CartPole-v1")
    monkeypatch.setitem(gym.registry, "atari-like-v0", spec)
    assert gato_gym.make("atari-like-v0").observation_space.shape == (4,)


def test_make_passes_gymnasiums_own_arguments_on():
    env = gato_gym.make(
        "CartPole-v1", wrappers=[GatoTokenize], max_episode_steps=3, sutton_barto_reward=True
    )
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(3)] == [False, False, True]


def test_spaces_are_fixed_boxes_and_legal_ids():
    env = GatoTokenize(Courier(), OPTIONS, text_length=16)
    assert {name: (box.shape, box.dtype.name) for name, box in env.observation_space.items()} == {
        "text": ((16,), "int32"),
        "ids": ((1,), "int32"),
        "vectors": ((1, 64), "float32"),
        "images": ((2, 16, 16, 3), "uint8"),
        "grids": ((1, 4, 4, 2), "uint8"),
    }
    # keys sorted: lift (2 bits), move (2 numbers), say (3 characters, the first is required)
    D, C = 33024, 32000
    assert env.action_space == spaces.MultiDiscrete(
        [2, 2, 1024, 1024, 2, 3, 3], start=[D, D, C, C, D, D, D]
    )


def test_text_is_padded_with_no_token():
    env = GatoTokenize(Courier(), OPTIONS)
    observation, _ = env.reset(seed=0)
    words = observation["text"][observation["text"] >= 0]
    assert default_tokenizer().decode(words).startswith("parcel ")
    assert (observation["text"][len(words) :] == -1).all()


def test_text_without_room_is_refused():
    with pytest.raises(ValueError, match=r"expected at most 1; .*text_length="):
        GatoTokenize(Courier(), text_length=1).reset()


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1", "Courier-v0"])
@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version.*:UserWarning")
def test_gymnasiums_checker_passes(id):
    check_env(gato_gym.make(id, wrappers=[GatoTokenize]), skip_render_check=True)


def test_the_spec_rebuilds_the_wrapped_env():
    env = gato_gym.make(
        "Courier-v0", wrappers=[functools.partial(GatoTokenize, options=OPTIONS, text_length=20)]
    )
    again = gym.make(env.spec)
    assert isinstance(again, GatoTokenize)
    assert again.plan.options == OPTIONS
    assert again.observation_space == env.observation_space
    assert again.action_space == env.action_space
    assert same(again.reset(seed=4)[0], env.reset(seed=4)[0])
    assert gym.make(env.spec).spec == env.spec


def test_the_spec_travels_as_json():
    env = gato_gym.make("Pendulum-v1", wrappers=[functools.partial(GatoTokenize, text_length=9)])
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, GatoTokenize)
    assert again.text_length == 9
    assert again.plan.options == env.plan.options


def assert_vector_steps_like_bare(wrapped, bare, steps=40):
    plan = wrapped.plan if isinstance(wrapped, GatoTokenizeVector) else wrapped.envs[0].plan
    wrapped.action_space.seed(2)
    observations, _ = wrapped.reset(seed=7)
    expected_observations, _ = bare.reset(seed=7)
    ends = 0
    for _ in range(steps):
        batch = plan.encode_batch(expected_observations)
        for name in ("ids", "vectors", "images", "grids"):
            if name in observations:
                assert (observations[name] == getattr(batch, name)).all()
        assert wrapped.observation_space.contains(observations)
        tokens = wrapped.action_space.sample()
        observations, *outcome, _ = wrapped.step(tokens)
        expected_observations, *expected, _ = bare.step(plan.decode_batch(tokens))
        assert all(same(a, b) for a, b in zip(outcome, expected, strict=True))
        ends += int(expected[1].sum() + expected[2].sum())
    return ends


def test_make_vec_wraps_an_env_that_has_its_own_vector_implementation():
    wrapped = gym.make_vec("CartPole-v1", num_envs=4, wrappers=[GatoTokenize])
    assert isinstance(wrapped, SyncVectorEnv)
    assert all(isinstance(env, GatoTokenize) for env in wrapped.envs)
    assert wrapped.single_action_space == spaces.MultiDiscrete([2], start=[33024])
    bare = gym.make_vec("CartPole-v1", num_envs=4, vectorization_mode="sync")
    assert assert_vector_steps_like_bare(wrapped, bare) > 0


def test_make_vec_keeps_the_mode_asked_for():
    with pytest.raises(gym.error.Error, match="vector_entry_point"):
        gym.make_vec(
            "CartPole-v1", 2, vectorization_mode="vector_entry_point", wrappers=[GatoTokenize]
        )
    with pytest.raises(gym.error.Error, match="vector_entry_point"):
        gym.make_vec("CartPole-v1", 2, wrappers=[gym.wrappers.RecordEpisodeStatistics])
    assert not isinstance(gym.make_vec("CartPole-v1", 2), SyncVectorEnv)


def test_make_vec_takes_wrappers_with_arguments():
    tokenize = functools.partial(GatoTokenize, options=PlanOptions(layout="paper"))
    envs = gym.make_vec("CartPole-v1", num_envs=2, wrappers=[tokenize])
    assert envs.envs[0].plan.options.layout == "paper"


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1", "Courier-v0"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_vector_twin_steps_like_the_bare_vector_env(id, mode):
    envs, bare = (
        gym.make_vec(id, 3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})
        for _ in range(2)
    )
    ends = assert_vector_steps_like_bare(GatoTokenizeVector(envs), bare)
    assert ends > 0 or id == "Pendulum-v1"


def test_vector_twin_wraps_a_vector_implementation():
    wrapped = GatoTokenizeVector(gym.make_vec("CartPole-v1", num_envs=4))
    assert assert_vector_steps_like_bare(wrapped, gym.make_vec("CartPole-v1", num_envs=4)) > 0


def test_vector_twin_gives_the_same_tokens_as_single_wrappers():
    single = gym.make_vec("Courier-v0", num_envs=3, wrappers=[GatoTokenize])
    twin = GatoTokenizeVector(gym.make_vec("Courier-v0", num_envs=3))
    assert twin.observation_space == single.observation_space
    assert twin.action_space == single.action_space
    assert same(twin.reset(seed=1)[0], single.reset(seed=1)[0])
    for _ in range(12):
        tokens = twin.action_space.sample()
        assert same(twin.step(tokens)[0], single.step(tokens)[0])


def test_final_observations_are_tokens_too():
    envs = GatoTokenizeVector(
        gym.make_vec("Courier-v0", 2, vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP}),
        OPTIONS,
    )
    envs.reset(seed=0)
    for _ in range(4):
        _, _, terminations, _, infos = envs.step(envs.action_space.sample())
    assert terminations.all()
    for final in infos["final_obs"]:
        assert token_space(envs.plan).contains(final)


def test_another_process_gives_the_same_tokens():
    make_env = functools.partial(gato_gym.make, "CartPole-v1", wrappers=[GatoTokenize])
    envs = AsyncVectorEnv([make_env] * 2)
    try:
        observations, _ = envs.reset(seed=3)
        expected, _ = SyncVectorEnv([make_env] * 2).reset(seed=3)
        assert same(observations, expected)
    finally:
        envs.close()


def test_an_illegal_token_is_refused_and_the_env_left_alone():
    env = gato_gym.make("CartPole-v1", wrappers=[GatoTokenize])
    env.reset(seed=0)
    before = np.array(env.unwrapped.state)
    with pytest.raises(ValueError, match="action token 5 at position 0 is outside its range"):
        env.step([5])
    assert (np.array(env.unwrapped.state) == before).all()


def test_options_of_a_task_are_its_own():
    pytest.importorskip("minigrid")
    env = gym.make("Gato/babyai-go-to-local", wrappers=[GatoTokenize])
    tokenize = env.env
    assert isinstance(tokenize, GatoTokenize)
    assert tokenize.plan.options == gato_gym.get_task("babyai-go-to-local").options
    observation, _ = env.reset(seed=0)
    assert observation["grids"].shape == (1, 7, 7, 3)
    assert_steps_like_bare(tokenize, gym.make("Gato/babyai-go-to-local"), steps=40)
    again = gym.make(env.spec)
    assert again.observation_space == env.observation_space
    assert same(again.reset(seed=0)[0], observation)


def test_other_forms_take_a_tasks_options_too():
    pytest.importorskip("minigrid")
    id, options = "Gato/babyai-go-to-obj", gato_gym.get_task("babyai-go-to-obj").options
    assert gato_gym.make(id, wrappers=[GatoTokenize]).plan.options == options
    assert gym.make_vec(id, 2, wrappers=[GatoTokenize]).envs[0].plan.options == options
    assert GatoTokenizeVector(gym.make_vec(id, 2)).plan.options == options


def test_tokenized_envs_travel_between_processes():
    env = gato_gym.make("Courier-v0", wrappers=[GatoTokenize])
    twin = pickle.loads(pickle.dumps(env))
    assert same(twin.reset(seed=2)[0], env.reset(seed=2)[0])


def test_rendering_and_info_pass_through():
    bare, wrapped = (
        gym.make("CartPole-v1", render_mode="rgb_array"),
        gato_gym.make("CartPole-v1", wrappers=[GatoTokenize], render_mode="rgb_array"),
    )
    bare.reset(seed=3)
    wrapped.reset(seed=3)
    assert wrapped.render_mode == "rgb_array"
    assert (bare.render() == wrapped.render()).all()
    courier = GatoTokenize(Courier())
    courier.reset(seed=0)
    said = courier.env.action_space.sample() | {"say": "ba"}
    *_, info = courier.step(courier.plan.encode_action(said))
    assert info == {"said": "ba"}
    bare.close()
    wrapped.close()


@pytest.mark.parametrize("options", [OPTIONS, PlanOptions("paper")])
def test_observations_that_were_kept_are_not_written_to_again(options):
    # the bare environments write each step's observations to the same arrays
    envs = GatoTokenizeVector(SyncVectorEnv([Courier] * 3, copy=False), options)
    envs.action_space.seed(0)
    kept = [envs.reset(seed=0)[0]]
    copies = [{name: part.copy() for name, part in kept[0].items()}]
    for _ in range(6):
        kept.append(envs.step(envs.action_space.sample())[0])
        copies.append({name: part.copy() for name, part in kept[-1].items()})
    assert not same(kept[1], kept[2])
    assert all(same(now, then) for now, then in zip(kept, copies, strict=True))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_observations_that_are_encoded_are_not_copied_before(mode, monkeypatch):
    copied = []
    module = {"sync": gym.vector.sync_vector_env, "async": gym.vector.async_vector_env}[mode]
    monkeypatch.setattr(module, "deepcopy", lambda part: copied.append(part) or copy.deepcopy(part))
    bare = gym.make_vec("Courier-v0", num_envs=2, vectorization_mode=mode)
    envs = GatoTokenizeVector(bare)
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    assert (copied, bare.copy) == ([], True)
    bare.reset(seed=0)
    assert len(copied) == 1  # of the environments themselves
    envs.close()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (64,)),
        spaces.Box(-np.inf, np.inf, (64,)),
        spaces.Box(0, 255, (16, 16, 3), np.uint8),
        spaces.MultiDiscrete([3, 4]),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "options", [PlanOptions(), PlanOptions("paper"), PlanOptions(image_size=16)]
)
def test_encoded_observations_share_no_memory_with_what_was_encoded(space, options):
    plan = gato_gym.compile_plan(space, spaces.Discrete(2), options)
    observations = np.stack([space.sample() for _ in range(3)])
    batch = plan.encode_batch(observations)
    for part in (batch.ids, batch.vectors, batch.images, batch.grids):
        assert not np.shares_memory(part, observations)
