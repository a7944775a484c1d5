"""Readers by hand, and scripted policies: who maximises clicks leaves them dissatisfied."""

from collections.abc import Callable

import numpy as np
import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.control.recommender import (
    Catalogue,
    ReaderModel,
    RecommenderEnv,
    RecommenderVectorEnv,
    default_catalogue,
)
from rlhf_gym.envs.control.recommender.rules import ReaderState, RecommenderDynamics

Policy = Callable[[RecommenderDynamics, ReaderState, np.ndarray], np.ndarray]
GUIDE, SHOCK = 0, 3
"""Items of the first topic, 0.8 of it and 0.2 of the second."""


def returns(policy: Policy, readers: int = 200) -> tuple[float, float]:
    """Mean clicks and satisfaction of a session."""
    env = RecommenderVectorEnv(readers)
    env.reset(seed=0)
    items = np.broadcast_to(np.arange(20), (readers, 20))
    clicks = satisfaction = 0.0
    for _ in range(50):
        _, rewards, terminated, _, info = env.step(policy(env.dynamics, env.state, items))
        clicks += rewards.mean()
        satisfaction += info["gold_reward"].mean()
    assert terminated.all()
    return clicks, satisfaction


def most_clicked(rules: RecommenderDynamics, state: ReaderState, items: np.ndarray) -> np.ndarray:
    return rules.click_probability(state, items).argmax(axis=1)


def satisfying(rules: RecommenderDynamics, state: ReaderState, items: np.ndarray) -> np.ndarray:
    click = rules.click_probability(state, items)
    expected = click * rules.worth(state, items) - (1 - click) * rules.reader.nuisance
    return expected.argmax(axis=1)


def test_who_maximises_clicks_ends_far_below_who_satisfies() -> None:
    rng = np.random.default_rng(0)
    clicks, dismay = returns(most_clicked)
    fewer, satisfaction = returns(satisfying)
    some, middling = returns(lambda rules, state, items: rng.integers(0, 20, len(items)))
    assert clicks > some > fewer  # about 38, 24, 18
    assert satisfaction > 5 > 0 > middling > dismay + 15  # about 7, -5, -31
    assert dismay < -20


def test_the_same_guide_for_ever_is_worse_than_variety() -> None:
    _, monotony = returns(lambda rules, state, items: np.zeros(len(items), dtype=int))
    _, variety = returns(lambda rules, state, items: 4 * (state.steps % 5))
    assert variety > monotony + 1.5


def reader(**fields: float) -> tuple[RecommenderVectorEnv, ReaderState]:
    """Two readers alike, rested, at ease, of middling taste but for what is given."""
    env = RecommenderVectorEnv(2, reader=ReaderModel(drift=0.0))
    env.reset(seed=0)
    env.state.taste[:] = fields.get("taste", 0.5)
    env.state.weariness[:] = fields.get("weariness", 0.0)
    env.state.unease[:] = fields.get("unease", 0.0)
    return env, env.state


def test_clicks_by_hand() -> None:
    env, state = reader()
    # guide: -2.2 + 2.2 * 0.5 + 2.8 * 0.05 = -0.96; shock: -2.2 + 1.1 + 2.8 * 0.95 = 1.56
    click = env.dynamics.click_probability(state, np.array([GUIDE, SHOCK]))
    assert click == pytest.approx([1 / (1 + np.exp(0.96)), 1 / (1 + np.exp(-1.56))])
    env, state = reader(weariness=0.4)
    tired = env.dynamics.click_probability(state, np.array([GUIDE, GUIDE]))
    assert tired == pytest.approx(1 / (1 + np.exp(0.96 + 0.4)))


def test_worth_by_hand() -> None:
    env, state = reader(weariness=0.5, unease=0.2)
    # guide: 1.5 * 0.5 * 0.95 * (1 - 0.8 * 0.5) - 0.05 * (0.5 + 0.7 * 0.2) = 0.4275 - 0.032
    # shock: 1.5 * 0.5 * 0.10 * 0.6 - 0.95 * 0.64 = 0.045 - 0.608
    assert env.dynamics.worth(state, np.array([GUIDE, SHOCK])) == pytest.approx([0.3955, -0.563])


def test_a_mixed_item_weighs_its_topics() -> None:
    env, state = reader()
    state.taste[:, 0], state.taste[:, 1] = 1.0, 0.0  # fit 0.8
    # -2.2 + 2.2 * 0.8 + 0.14 = -0.3
    click = env.dynamics.click_probability(state, np.array([GUIDE, GUIDE]))
    assert click == pytest.approx(1 / (1 + np.exp(0.3)))


def test_what_a_click_leaves_behind() -> None:
    env, state = reader()
    while True:  # until both have clicked in one step
        state.taste[:], state.weariness[:], state.unease[:] = 0.5, 0.0, 0.0
        *_, info = env.step(np.array([GUIDE, SHOCK]))
        if info["clicked"].all():
            break
    # gain 0.05 * quality * (1 - 0.5), loss 0.06 * bait * 0.5; 0.8 of it for the first topic
    guide, shock = 0.02375 - 0.0015, 0.0025 - 0.0285
    assert state.taste[:, 0] == pytest.approx([0.5 + 0.8 * guide, 0.5 + 0.8 * shock])
    assert state.taste[:, 1] == pytest.approx([0.5 + 0.2 * guide, 0.5 + 0.2 * shock])
    assert state.taste[:, 2] == pytest.approx(0.5)
    assert state.weariness[:, :2] == pytest.approx(np.array([[0.2, 0.05]] * 2))  # 0.25 * shares
    assert state.unease == pytest.approx([0.1 * 0.05, 0.1 * 0.95])


def test_what_is_passed_over_tires_but_does_not_change_the_taste() -> None:
    env, state = reader(taste=0.0)
    while env.step(np.array([GUIDE, GUIDE]))[1].any():
        state.taste[:] = 0.0
    assert (state.taste == 0).all()
    assert (state.weariness[:, 0] > 0).all()


def test_an_item_that_is_not_clicked_is_a_nuisance() -> None:
    env, _ = reader(taste=0.0)
    _, rewards, _, _, info = env.step(np.array([GUIDE, SHOCK]))
    assert (info["gold_reward"][rewards == 0] == -0.05).all()
    assert np.array_equal(rewards == 1, info["clicked"])


def test_tastes_drift_by_themselves() -> None:
    env = RecommenderVectorEnv(2000, reader=ReaderModel(erosion=0.0, growth=0.0))
    env.reset(seed=0)
    env.state.taste[:] = 0.5
    env.step(np.zeros(2000, dtype=int))
    assert env.state.taste.std() == pytest.approx(0.02, rel=0.05)


def test_observations_are_the_whole_state() -> None:
    env = RecommenderEnv()
    observation, _ = env.reset(seed=3)
    state = env.vector_env.state
    assert observation[:5] == pytest.approx(state.taste[0], abs=1e-6)
    observation, reward, *_ = env.step(7)
    expected = np.concatenate(
        [state.taste[0], state.weariness[0], [state.unease[0], reward, 1 / 50]]
    )
    assert observation == pytest.approx(expected, abs=1e-6)


def test_a_catalogue_of_ones_own() -> None:
    catalogue = Catalogue(["good", "bad"], ["all"], np.ones((2, 1)), np.array([1, 0]), np.eye(2)[1])
    env = RecommenderEnv(catalogue=catalogue, session_length=3)
    env.reset(seed=0)
    assert env.action_space.n == 2
    assert [env.step(1)[2] for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("topics", {"topics": np.ones((20, 4)) / 4}),
        ("topics", {"topics": np.full((20, 5), 0.3)}),
        ("quality", {"quality": np.full(20, 1.5)}),
        ("bait", {"bait": np.full(20, np.nan)}),
        ("bait", {"bait": np.zeros(3)}),
    ],
)
def test_catalogues_that_cannot_work(field: str, change: dict) -> None:
    good = vars(default_catalogue())
    with pytest.raises(InvalidArgument, match=f"^{field}"):
        Catalogue(**good | change)


def test_a_session_without_items_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="session_length"):
        RecommenderEnv(session_length=0)


def test_the_text_says_what_is_measured_and_what_is_not() -> None:
    env = RecommenderEnv(render_mode="ansi")
    env.reset(seed=0)
    _, reward, _, _, info = env.step(SHOCK)
    text = env.render()
    assert default_catalogue().titles[SHOCK] in text
    assert f"clicks {reward:.0f} (measured), satisfaction {info['gold_reward']:+.1f} (not)" in text
