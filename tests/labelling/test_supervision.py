"""An agent that is rewarded and punished: what is kept, what it learns, who else may use it."""

import gymnasium as gym
import numpy as np
import pytest

from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.feedback import ControlSegment
from rlhf_gym.core.labels import Rating
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.taught import TaughtVecEnv
from rlhf_gym.pipelines.labelling import supervision as module
from rlhf_gym.pipelines.labelling.supervision import Supervision
from rlhf_gym.pipelines.labelling.tamer import TamerAgent, agent_from_ratings, step_ratings

PIZZA = "rlhf_gym/Pizza-v0"
ANNA = {"rater": "anna"}


@pytest.fixture
def supervision(store):
    opened = Supervision(store.path, PIZZA)
    yield opened
    opened.close()


def test_it_does_what_it_was_praised_for():
    spaces = gym.spaces.Box(-1.0, 1.0, (2,)), gym.spaces.Discrete(4)
    agent = TamerAgent(Encoding(*spaces), exploration=0.0)
    rng = np.random.default_rng(0)
    # Praised for action 1 where the first number is positive, for action 3 elsewhere.
    for _ in range(100):
        seen = rng.uniform(-1, 1, 2).astype(np.float32)
        action = agent.act(seen, None) if rng.random() < 0.7 else rng.integers(4)
        right = 1 if seen[0] > 0 else 3
        agent.learn(seen[None], np.array([action]), [1.0 if action == right else -1.0], steps=6)
    probes = rng.uniform(-1, 1, (200, 2)).astype(np.float32)
    probes = probes[np.abs(probes[:, 0]) > 0.1]
    acted = np.array([agent.act(seen, None) for seen in probes])
    # By chance a quarter.
    assert (acted == np.where(probes[:, 0] > 0, 1, 3)).mean() > 0.9
    # What is not allowed is not done, however well it was spoken of.
    allowed = np.array([True, False, False, True])
    assert agent.act(np.array([0.9, 0.0], np.float32), allowed) in (0, 3)


def test_a_continuous_action_moves_towards_praise():
    spaces = gym.spaces.Box(-1.0, 1.0, (1,)), gym.spaces.Box(-1.0, 1.0, (1,))
    agent = TamerAgent(Encoding(*spaces), exploration=0.0)
    actions = np.linspace(-1, 1, 100, dtype=np.float32)[:, None]
    seen = np.zeros_like(actions)
    agent.learn(seen, actions, (1 - np.abs(actions - 0.5)).ravel().tolist(), steps=300)
    assert abs(float(agent.act(seen[0], None)[0]) - 0.5) < 0.2


def test_signals_are_kept_and_taken_up_again(store, supervision):
    first = supervision.step(ANNA)
    assert first["step"] == 1
    assert first["picture"].startswith("data:image/webp;base64,UklGR")
    second = supervision.step(ANNA)
    kept = supervision.reward({**ANNA, "step": 1, "value": 1, "ticket": "a"})
    assert kept == {"label": 1, "signals": 1}
    # The same request again is the same label; another one about the step replaces it.
    supervision.reward({**ANNA, "step": second["step"], "value": -1, "ticket": "b"})
    again = supervision.reward({**ANNA, "step": second["step"], "value": 1, "ticket": "c"})
    assert again["signals"] == 2
    ratings = step_ratings(store, PIZZA)
    assert [value for _, value in ratings] == [1.0, 1.0]
    segment = ratings[0][0]
    assert isinstance(segment, ControlSegment)
    assert segment.frames.shape == (1, 320, 480, 3)
    assert [given.label for given in store.feedback()] == [Rating(1.0), Rating(1.0)]
    assert store.feedback()[0].provenance["step"] == 1
    # Another rater has an agent of their own; whoever comes back finds theirs taught.
    assert supervision.step({"rater": "bob"})["signals"] == 0
    again = Supervision(store.path, PIZZA)
    assert again.step(ANNA)["signals"] == 2
    again.close()


def test_episodes_end_and_begin_anew(supervision, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 8)
    steps = [supervision.step(ANNA)]
    while not steps[-1]["ended"]:
        assert steps[-1]["episode"] == 0
        steps.append(supervision.step(ANNA))
    assert len(steps) == 28  # the rounds of a pizza
    assert supervision.step(ANNA)["episode"] == 1
    with pytest.raises(InvalidData, match="Within 8 steps"):
        supervision.reward({**ANNA, "step": 1, "value": 1, "ticket": "a"})


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        ({"step": 1, "value": 2, "ticket": "a"}, "no signal"),
        ({"step": 1, "value": None, "ticket": "a"}, "no signal"),
        ({"step": "1", "value": 1, "ticket": "a"}, "step="),
        ({"step": 1, "value": 1}, "ticket="),
    ],
)
def test_bad_signals(supervision, request_, match):
    supervision.step(ANNA)
    with pytest.raises(InvalidData, match=match):
        supervision.reward({**ANNA, **request_})


def test_a_task_that_cannot_be_shown(store):
    for env_id in ("rlhf_gym/Nothing-v0", "rlhf_gym/Sentiment-v0"):
        with pytest.raises(InvalidArgument, match="supervise="):
            Supervision(store.path, env_id)


def test_what_was_taught_pays_any_other_agent(store, supervision):
    from rlhf_gym.rewards.learned import LearnedReward

    env = gym.make(PIZZA)
    with pytest.raises(InvalidData, match="no step of"):
        agent_from_ratings(store, env, PIZZA)
    supervision._lesson("anna").agent.exploration = 1.0  # to see many actions in few steps
    for number in range(12):
        said = {**ANNA, "step": supervision.step(ANNA)["step"]}
        supervision.reward({**said, "value": 1, "ticket": f"{number} first"})
        # The second thought, which counts, depends on the action.
        action = step_ratings(store, PIZZA)[-1][0].actions[0]
        value = 1 if action % 2 else -1
        supervision.reward({**said, "value": value, "ticket": f"{number} second"})
    agent = agent_from_ratings(store, env, PIZZA, steps=400)
    ratings = step_ratings(store, PIZZA)
    paid = agent.model.rewards(
        np.concatenate([segment.observations for segment, _ in ratings]),
        np.concatenate([segment.actions for segment, _ in ratings]),
    )
    assert np.corrcoef(paid, [value for _, value in ratings])[0, 1] > 0.8
    taught = TaughtVecEnv(GymnasiumVecEnv(gym.make_vec(PIZZA, 2)), LearnedReward(agent.model))
    taught.reset()
    _, rewards, _, infos = taught.step(np.array([0, 1]))
    assert rewards == pytest.approx([info["learned_reward"] for info in infos])


def test_reward_and_punishment_keys(store, serve, sit):
    with serve(supervised=PIZZA) as address:
        rater = sit(address)
        rater.page.goto(f"{address}/supervise")
        rater.sees("supervise")
        rater.press(" ")
        rater.page.wait_for_selector("main[data-step='1']")
        rater.press(" ")
        rater.press("ArrowUp")
        rater.page.wait_for_selector("main[data-kept='1']")
        assert [value for _, value in step_ratings(store, PIZZA)] == [1.0]
        rater.click("Punish")
        rater.page.wait_for_selector("main[data-kept='2']")
        assert [value for _, value in step_ratings(store, PIZZA)] == [-1.0]
        assert "1 reward and 1 punishment" in rater.page.inner_text(".tally")
        rater.page.goto(address)
        rater.sees("empty")
        assert rater.errors == []
