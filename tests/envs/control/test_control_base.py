"""What every control task has from `ControlVectorEnv` and `ControlEnv`, on a task of ten lines."""

import copy
import pickle
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from rlhf_gym.core.errors import EpisodeEnded, InvalidAction, InvalidArgument, InvalidCheckpoint
from rlhf_gym.envs.control import ControlEnv, ControlVectorEnv, Draws, Dynamics, Outcome, State

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


@dataclass
class Walk(State):
    place: np.ndarray
    steps: np.ndarray


class RandomWalk(Dynamics[Walk]):
    """Starts at 0 to 9, moves by the action and noise; ends below 0, is cut off after 5 steps."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Discrete(3, start=-1)

    def __init__(self, noise: float = 1.0) -> None:
        self.noise = noise
        self.settings = {"noise": noise}

    def begin(self, draws: Draws) -> Walk:
        return Walk(draws.integers(0, 10).astype(np.float64), np.zeros(draws.count, np.int64))

    def advance(self, state: Walk, actions: np.ndarray, draws: Draws) -> Outcome:
        state.place += actions + self.noise * draws.normal()
        state.steps += 1
        return Outcome(
            reward=state.place.copy(),
            gold_reward=-state.place,
            terminated=state.place < 0,
            truncated=state.steps >= 5,
            info={"steps": state.steps.copy()},
        )

    def observe(self, state: Walk) -> np.ndarray:
        return np.stack([state.place, state.steps], axis=-1)

    def image(self, state: Walk) -> np.ndarray:
        return np.full((4, 6, 3), int(state.steps[0]), np.uint8)

    def text(self, state: Walk) -> str:
        return f"at {state.place[0]:.1f}"


class WalkVectorEnv(ControlVectorEnv[Walk]):
    def __init__(self, *, noise: float = 1.0, **kwargs: object) -> None:
        super().__init__(RandomWalk(noise), **kwargs)


class WalkEnv(ControlEnv):
    vector_class = WalkVectorEnv


def single_episodes(seed: int, count: int, action: int = 0) -> list[list[tuple]]:
    """The first episodes of a single environment: lists of (observation, reward, gold)."""
    env = WalkEnv()
    episodes = []
    for at in range(count):
        observation, _ = env.reset(seed=seed if at == 0 else None)
        episodes.append([(tuple(observation), None, None)])
        over = False
        while not over:
            observation, reward, terminated, truncated, info = env.step(action)
            over = terminated or truncated
            episodes[-1].append((tuple(observation), reward, info["gold_reward"]))
    return episodes


@pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
def test_row_i_lives_through_the_episodes_of_a_single_env_with_seed_plus_i(mode) -> None:
    env = WalkVectorEnv(num_envs=6, autoreset_mode=mode)
    observations, _ = env.reset(seed=40)
    rows = [[[(tuple(o), None, None)]] for o in observations]
    begins = np.zeros(6, dtype=bool)
    for _ in range(30):
        observations, rewards, terminated, truncated, info = env.step(np.zeros(6, np.int64))
        over = terminated | truncated
        for row in range(6):
            if begins[row] and mode is NEXT:
                assert rewards[row] == 0
                assert not info["_gold_reward"][row]
                rows[row].append([(tuple(observations[row]), None, None)])
                continue
            last = info["final_obs"][row] if over[row] and mode is SAME else observations[row]
            rows[row][-1].append((tuple(last), rewards[row], info["gold_reward"][row]))
            if over[row] and mode is SAME:
                assert info["final_info"]["gold_reward"][row] == info["gold_reward"][row]
                rows[row].append([(tuple(observations[row]), None, None)])
        begins = over if mode is NEXT else begins
        if mode is DISABLED and over.any():
            observations, _ = env.reset(options={"reset_mask": over})
            for row in np.flatnonzero(over):
                rows[row].append([(tuple(observations[row]), None, None)])
    for row in range(6):
        assert len(rows[row]) > 5
        finished = rows[row][:-1]
        assert finished == single_episodes(40 + row, len(finished))


def test_final_info_speaks_of_ended_rows_alone() -> None:
    env = WalkVectorEnv(num_envs=64)
    env.reset(seed=0)
    *_, terminated, _, info = env.step(np.full(64, -1))
    assert 0 < terminated.sum() < 64
    for name in ("_final_obs", "_final_info"):
        assert (info[name] == terminated).all()
    assert (info["final_info"]["_gold_reward"] == terminated).all()
    assert info["_gold_reward"].all()
    assert [o is not None for o in info["final_obs"]] == terminated.tolist()
    assert all(info["final_obs"][row][0] < 0 for row in np.flatnonzero(terminated))


def test_seeds_by_row_and_a_mask_that_reseeds_some() -> None:
    env = WalkVectorEnv(num_envs=3)
    by_row, _ = env.reset(seed=[9, 4, 7])
    for row, seed in enumerate([9, 4, 7]):
        assert (WalkEnv().reset(seed=seed)[0] == by_row[row]).all()
    mask = np.array([False, True, False])
    env.step(np.zeros(3, np.int64))
    before = env.state.place.copy()
    observations, _ = env.reset(seed=20, options={"reset_mask": mask})
    assert (observations[1] == WalkEnv().reset(seed=21)[0]).all()
    assert (env.state.place[~mask] == before[~mask]).all()


def test_without_a_seed_every_environment_is_another() -> None:
    first, second = (WalkVectorEnv(num_envs=50).reset()[0] for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize("seed", [[1, 2], -1, [3, -4, 5]])
def test_seeds_that_are_refused(seed) -> None:
    with pytest.raises(InvalidArgument, match="seed"):
        WalkVectorEnv(num_envs=3).reset(seed=seed)


@pytest.mark.parametrize(
    ("actions", "problem"),
    [
        ([0, 2], r"actions\[1\]=2: not a number from -1 to 1"),
        ([0, -2], r"actions\[1\]=-2"),
        ([0, 2**40], r"actions\[1\]"),
        ([0.0, 1.0], "float64 of shape .2,., not integers"),
        ([0, 0, 0], r"not integers of shape \(2,\)"),
        ([[0, 0]], "shape"),
        (None, "object"),
        (["a", "b"], "integers"),
    ],
)
def test_actions_refused_before_anything_changes(actions, problem) -> None:
    env = WalkVectorEnv(num_envs=2)
    env.reset(seed=0)
    before = pickle.dumps(env.state_dict())
    with pytest.raises(InvalidAction, match=problem):
        env.step(actions)
    assert pickle.dumps(env.state_dict()) == before


def test_steps_at_the_wrong_time() -> None:
    env = WalkEnv()
    with pytest.raises(EpisodeEnded, match=r"before the first reset\(\)"):
        env.step(0)
    env.reset(seed=0)
    for _ in range(5):
        *_, terminated, truncated, _ = env.step(1)
    assert truncated
    assert not terminated
    with pytest.raises(EpisodeEnded, match="has ended in rows"):
        env.step(0)
    vector = WalkVectorEnv(num_envs=2, autoreset_mode=DISABLED)
    with pytest.raises(EpisodeEnded, match="reset all rows once"):
        vector.reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.parametrize(
    "kwargs", [{"num_envs": 0}, {"autoreset_mode": "Never"}, {"render_mode": "human"}]
)
def test_arguments_that_are_refused(kwargs) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(kwargs))):
        WalkVectorEnv(**kwargs)


def test_an_action_space_that_cannot_be_checked() -> None:
    class Unbounded(RandomWalk):
        action_space = gym.spaces.Box(-np.inf, np.inf, (1,))

    with pytest.raises(InvalidArgument, match="action_space"):
        ControlVectorEnv(Unbounded())


@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_a_resumed_run_is_the_same_run(mode) -> None:
    env = WalkVectorEnv(num_envs=8, autoreset_mode=mode)
    env.reset(seed=3)
    actions = np.random.default_rng(0).integers(-1, 2, (20, 8))
    for row in actions[:7]:
        env.step(row)
    state = pickle.loads(pickle.dumps(env.state_dict()))
    resumed = WalkVectorEnv(num_envs=8, autoreset_mode=mode)
    resumed.load_state_dict(state)
    assert resumed.np_random_seed == env.np_random_seed == 3
    for row in actions[7:]:
        there, here = env.step(row), resumed.step(row)
        for old, new in zip(there[:4], here[:4], strict=True):
            assert (old == new).all()
    assert state["state"]["steps"].max() <= 5  # what was saved is not what is stepped on


def test_states_that_are_refused() -> None:
    state = WalkVectorEnv(num_envs=2).state_dict()
    with pytest.raises(InvalidCheckpoint, match="noise"):
        WalkVectorEnv(num_envs=2, noise=0.5).load_state_dict(state)
    with pytest.raises(InvalidCheckpoint, match="num_envs"):
        WalkVectorEnv(num_envs=3).load_state_dict(state)
    with pytest.raises(InvalidCheckpoint, match="incomplete"):
        WalkVectorEnv(num_envs=2).load_state_dict({"fingerprint": state["fingerprint"]})


def test_copies_go_their_own_way() -> None:
    env = WalkEnv()
    env.reset(seed=5)
    twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    expected = [env.step(1)[1] for _ in range(3)]
    for twin in twins:
        assert [twin.step(1)[1] for _ in range(3)] == expected


def test_rendering_and_masks() -> None:
    assert WalkVectorEnv(num_envs=2).render() is None
    env = WalkVectorEnv(num_envs=2, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.array([1, 1]))
    frames = env.render()
    assert [frame.shape for frame in frames] == [(4, 6, 3)] * 2
    assert frames[0].max() == 1
    text = WalkEnv(render_mode="ansi")
    text.reset(seed=0)
    assert text.render().startswith("at ")
    assert env.action_masks().shape == (2, 3)
    assert text.action_masks().all()


def test_setting_np_random_seeds_an_environment_that_has_none() -> None:
    first, second = WalkEnv(), WalkEnv()
    for env in (first, second):
        env.np_random = np.random.default_rng(6)
    assert (first.reset()[0] == second.reset()[0]).all()
