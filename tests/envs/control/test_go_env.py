"""Go as a task: results, illegal moves, masks, colours, limits."""

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import VectorEnv
from sb3_contrib import MaskablePPO

from rlhf_gym.core.errors import InvalidAction, InvalidArgument
from rlhf_gym.envs.control.go import Boards, GoEnv, GoVectorEnv
from rlhf_gym.envs.control.go.boards import OWN
from rlhf_gym.envs.sb3 import make_sb3_env

PASS = 25
SEKI = "XXXOO XX.OO XXXOO XX.OO XXXOO"


def set_up(env: GoVectorEnv, diagram: str) -> None:
    """Go on from a position, the agent to move."""
    env.reset(seed=0)
    boards = Boards.from_diagrams([diagram] * env.num_envs, env.dynamics.max_plies)
    for name, array in boards.arrays().items():
        getattr(env.state, name)[:] = array
    env.state.legal[:] = env.state.legal_points(OWN)


def random_legal(env: VectorEnv, rng: np.random.Generator) -> np.ndarray:
    masks = env.action_masks()
    return (rng.random(masks.shape) * masks * np.r_[np.ones(PASS), 0.2]).argmax(axis=1)


def test_to_pass_at_once_loses_by_komi() -> None:
    env = GoEnv()
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(PASS)
    assert (reward, terminated, truncated) == (-1.0, True, False)
    assert info["lead"] == -0.5  # no area, and White has komi
    assert info["gold_reward"] == -1.0  # a pass has no shape


@pytest.mark.parametrize(("komi", "result"), [(2.5, 1.0), (3.0, 0.0), (3.5, -1.0)])
def test_the_sign_of_the_lead_decides(komi: float, result: float) -> None:
    """In this seki Black, the agent, has 13 and White 10 points."""
    env = GoVectorEnv(2, komi=komi, autoreset_mode="Disabled")
    set_up(env, SEKI)
    env.state.passes[:] = 1  # the opponent has passed
    _, rewards, terminated, _, info = env.step(np.array([PASS, PASS]))
    assert terminated.all()
    assert rewards.tolist() == [result, result]
    assert info["lead"].tolist() == [3 - komi, 3 - komi]


def test_komi_is_the_agents_if_it_is_white() -> None:
    env = GoVectorEnv(1, komi=2.0, colour="white", autoreset_mode="Disabled")
    set_up(env, SEKI)
    env.state.passes[:] = 1
    *_, info = env.step(np.array([PASS]))
    assert info["lead"].tolist() == [5.0]


def test_an_illegal_move_loses() -> None:
    env = GoEnv(opponent="capturer")
    env.reset(seed=0)
    env.step(12)
    _, reward, terminated, _, info = env.step(12)
    assert (reward, terminated, info["illegal_move"]) == (-1.0, True, True)
    assert "Black forfeits" in env.vector_env.dynamics.text(env.vector_env.state)


def test_or_counts_as_a_pass() -> None:
    env = GoEnv(opponent="capturer", illegal_move="pass")
    env.reset(seed=0)
    env.step(12)
    before = env.vector_env.state.stones[0, OWN]
    _, reward, terminated, _, info = env.step(12)
    # Black's stone and White's first: nobody owns the rest, White leads by komi and passes too
    assert (reward, terminated, info["illegal_move"]) == (-1.0, True, True)
    assert env.vector_env.state.stones[0, OWN] == before


def test_masks_are_what_is_legal() -> None:
    env = GoEnv()
    env.reset(seed=0)
    assert env.action_masks().all()
    env.step(12)
    opponents = env.vector_env.state.last[0, 1]
    assert np.flatnonzero(~env.action_masks()).tolist() == sorted([12, opponents])


def test_who_keeps_to_the_masks_plays_no_illegal_move() -> None:
    env = GoVectorEnv(32, opponent="shape", colour="random")
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    games = 0
    for _ in range(60):
        observations, rewards, terminated, _, info = env.step(random_legal(env, rng))
        assert not info["illegal_move"].any()
        assert (rewards[~terminated] == 0).all()
        assert np.isin(rewards[terminated], (-1, 1)).all()  # half a point: no draws
        planes = observations[:, :100].reshape(32, 4, 25)
        assert (planes[:, :3].sum(axis=1) <= 1).all()  # own, other, playable: never two of them
        games += terminated.sum()
    assert games > 32


def test_ko_is_in_the_mask_and_in_the_observation() -> None:
    """The opponent is to move in a ko of its own: it takes C4, the agent may not retake B4."""
    env = GoVectorEnv(1, opponent="capturer")
    set_up(env, ".OX.. OX.X. .OX.. ..... .....")
    observations, *_, info = env.step(np.array([24]))
    assert env.state.last[0].tolist() == [24, 7]
    assert env.state.prisoners[0].tolist() == [0, 1]
    assert not info["illegal_move"][0]
    assert not env.action_masks()[0, 6]
    assert observations[0, 50:75].astype(bool).tolist() == env.action_masks()[0, :25].tolist()


def test_white_moves_second() -> None:
    env = GoVectorEnv(3, colour="white")
    observations, _ = env.reset(seed=0)
    assert observations[:, 25:50].sum(axis=1).tolist() == [1, 1, 1]
    assert observations[:, 100].tolist() == [1, 1, 1]
    both, _ = GoVectorEnv(200, colour="random").reset(seed=0)
    white = both[:, 100] == 1
    assert 70 < white.sum() < 130
    assert np.array_equal(both[:, 25:50].sum(axis=1), white)


def test_the_move_limit_ends_the_game_as_it_stands() -> None:
    env = GoEnv(max_plies=4)
    env.reset(seed=1)
    assert not env.step(12)[2]
    observation, reward, terminated, truncated, info = env.step(
        int(np.flatnonzero(env.action_masks())[0])
    )
    assert (terminated, truncated) == (True, False)
    assert observation[-1] == 1.0  # the clock
    assert reward == np.sign(info["lead"])


def test_gold_is_the_result_and_a_tenth_of_the_shape() -> None:
    env = GoVectorEnv(16, opponent="capturer")
    rng = np.random.default_rng(3)
    env.reset(seed=3)
    for _ in range(20):
        _, rewards, _, _, info = env.step(random_legal(env, rng))
        assert info["gold_reward"] == pytest.approx(rewards + 0.1 * info["shape"])


def test_with_all_options_a_row_is_still_the_single_game() -> None:
    kwargs: dict[str, Any] = {"size": 7, "opponent": "shape", "colour": "random"}
    many, one = GoVectorEnv(5, **kwargs), GoEnv(**kwargs)
    observations, _ = many.reset(seed=20)
    alone, _ = one.reset(seed=23)
    rng = np.random.default_rng(0)
    for _ in range(60):
        assert np.array_equal(observations[3], alone)
        masks = many.action_masks()
        assert np.array_equal(masks[3], one.action_masks())
        actions = (rng.random(masks.shape) * masks).argmax(axis=1)
        observations, *_ = many.step(actions)
        alone, _, over, _, _ = one.step(actions[3])
        if over:
            alone, _ = one.reset()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 9),
        ("opponent", "alphago"),
        ("colour", "red"),
        ("illegal_move", "resign"),
        ("komi", float("nan")),
        ("max_plies", 1),
    ],
)
def test_arguments_that_cannot_work(field: str, value: object) -> None:
    with pytest.raises(InvalidArgument, match=field):
        GoEnv(**{field: value})


def test_actions_off_the_board() -> None:
    env = GoEnv()
    env.reset(seed=0)
    for action in (-1, 26, 0.5, float("nan")):
        with pytest.raises(InvalidAction):
            env.step(action)


def test_the_text_names_what_happened() -> None:
    env = GoEnv(render_mode="ansi")
    env.reset(seed=0)
    env.step(12)
    text = env.render()
    assert text.splitlines()[3][6] == "●"  # the third line from the top, the middle
    assert "agent C3" in text
    assert text.count("○") == 1


def test_maskable_ppo_trains_on_it() -> None:
    """Without masks a random agent would lose nine games of ten by an illegal move."""
    env = make_sb3_env(GoVectorEnv(8))
    agent = MaskablePPO("MlpPolicy", env, n_steps=32, batch_size=128, n_epochs=1, seed=0)
    agent.learn(256)
    masks = np.stack(env.env_method("action_masks"))
    actions, _ = agent.predict(env.reset(), action_masks=masks)
    assert masks[np.arange(8), actions].all()
