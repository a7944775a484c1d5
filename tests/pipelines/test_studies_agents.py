"""The study of agents: each policy judged as what it is, and a matrix that resumes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlhf_gym.agents.registry import AGENTS
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.exact import ExactVectorEnv
from rlhf_gym.envs.sb3 import make_sb3_env
from rlhf_gym.pipelines.studies import StudyConfig, agent_cells, agents
from rlhf_gym.pipelines.studies.agent_cells import (
    acts_greedily,
    best_deterministic,
    exact_cell,
    gold_scores,
    judged_policy,
    make_agent,
    sentiment_cell,
)
from rlhf_gym.pipelines.studies.agent_settings import EXACT, SENTIMENT, SOFT, Setup
from rlhf_gym.pipelines.studies.soft_form import stationary_policy, stop_or_go_on

SMALL = Setup(rows=8, tokens=40)


def untrained(name: str) -> tuple[Any, ExactVectorEnv]:
    env = make_sb3_env("rlhf_gym/Exact-v0", num_envs=4, kl_mode=EXACT[name].kl_mode)
    task = env.get_attr("unwrapped")[0]
    return judged_policy(name, make_agent(name, env, {}, seed=0)), task


def test_every_agent_has_a_setup_on_both_tasks() -> None:
    assert set(EXACT) == set(SENTIMENT) == set(AGENTS)
    for name in AGENTS:
        assert (EXACT[name].kl_mode == "soft") == acts_greedily(name)


@pytest.mark.parametrize("name", AGENTS)
def test_before_training_each_stands_where_the_reference_does(name: str) -> None:
    policy, task = untrained(name)
    if not acts_greedily(name):
        assert task.share_of_the_way(policy) == pytest.approx(0.0, abs=1e-5)
        return
    judged = task.judge.table(policy)
    for certain, reference in zip(judged, task.judge.reference, strict=True):
        assert torch.equal(certain.argmax(-1), reference.argmax(-1))
        assert (certain.exp().sum(-1) == 1).all()


def test_a_recurrent_policy_is_asked_with_the_state_it_would_have() -> None:
    """The table equals what the policy says while it writes, LSTM included."""
    env = make_sb3_env("rlhf_gym/Exact-v0", num_envs=16)
    agent: Any = make_agent("contrib.recurrent_ppo", env, {}, seed=0)
    with torch.no_grad():
        agent.policy.actor_residual.weight.normal_(generator=torch.Generator().manual_seed(0))
    task = env.get_attr("unwrapped")[0]
    table = task.judge.table(judged_policy("contrib.recurrent_ppo", agent))
    assert not torch.allclose(table[0], task.judge.reference[0], atol=0.1)
    observation, state, starts = env.reset(), None, np.ones(16, dtype=bool)
    path: list[list[int]] = [[] for _ in range(16)]
    compared = 0
    for depth in range(3):
        if depth == 0:
            index = [agent_prompt(observation, row) for row in range(16)]
        actions, state = agent.predict(observation, state, starts)
        channel = task.channel
        log_probs = channel._record.log_probs
        for row in range(16):
            if len(path[row]) == depth:
                node = task.judge.tree.node(path[row])
                expected = table[depth][index[row], node, actions[row]]
                assert float(log_probs[row]) == pytest.approx(float(expected), abs=1e-4)
                compared += 1
        observation, _, starts, _ = env.step(actions)
        for row in np.flatnonzero(~starts):
            if len(path[row]) == depth:
                path[row].append(int(actions[row]))
    assert compared > 20


def agent_prompt(observation: dict[str, np.ndarray], row: int) -> int:
    """Exact-v0's prompts have one, two and three letters."""
    return int(observation["attention_mask"][row, :3].sum()) - 1


def test_the_best_deterministic_policy_by_hand() -> None:
    env = ExactVectorEnv(max_response_tokens=1)
    # One token: `a` pays 0.5 - 1, others 0.4 (0.3 if they climb), half of it without a stop. So
    # `<stop>` pays 0.4, a climb 0.15, other letters 0.2, each plus 0.1 log pi_ref.
    reference = env.judge.reference[0][:, 0]
    best = []
    for prompt, climb in zip(range(3), ("c", "e", "d"), strict=True):
        token = 2 + "abcde".index(climb)
        paid = torch.tensor([-torch.inf, 0.4, -0.5, 0.2, 0.2, 0.2, 0.2], dtype=torch.float64)
        paid[token] = 0.15
        best.append(float((paid + 0.1 * reference[prompt]).max()))
    optimum = env.optimum()
    gained = float(np.mean(best)) - optimum.reference_value
    share = gained / (optimum.value - optimum.reference_value)
    assert best_deterministic(env.judge, 0.1) == pytest.approx(share)
    assert share < 1


def test_what_the_soft_form_optimises() -> None:
    # With one token there is no entropy to come, so nothing is left out.
    single = ExactVectorEnv(max_response_tokens=1)
    assert single.share_of_the_way(stationary_policy(single.judge, 0.1, 0.1)) == pytest.approx(1.0)
    task = ExactVectorEnv(max_response_tokens=3)
    policy = stationary_policy(task.judge, 0.1, 0.1)
    assert 0.5 < task.share_of_the_way(policy) < 1 - 1e-6
    # Hardly any bonus leaves the best response and nothing else.
    certain = stationary_policy(task.judge, 0.1, 1e-4)
    assert task.share_of_the_way(certain) == pytest.approx(best_deterministic(task.judge, 0.1))


def test_what_stopping_and_going_on_earn_by_hand() -> None:
    task = ExactVectorEnv(max_response_tokens=1)
    # One token: `<stop>` pays 0.4, others half of what they are worth at the end of the budget:
    # 0.2, a climb 0.15, and `a` 0.5 - 1 + 0.2 as it does not climb.
    reference = task.judge.reference[0][:, 0].exp()
    paid = torch.tensor([0, 0.4, -0.3, 0.2, 0.2, 0.2, 0.2], dtype=torch.float64).repeat(3, 1)
    for prompt, climb in zip(range(3), ("c", "e", "d"), strict=True):
        paid[prompt, 2 + "abcde".index(climb)] = 0.15
    others = reference.clone()
    others[:, 1] = 0
    expected = ((others * paid).sum(-1) / others.sum(-1)).mean()
    assert stop_or_go_on(task.judge, 0.0) == pytest.approx((0.4, float(expected)))
    charged = (0.4 + 0.1 * reference[:, 1].log()).mean()
    assert stop_or_go_on(task.judge, 0.1)[0] == pytest.approx(float(charged))


def test_gold_scores_are_of_the_same_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_cells, "EPISODES", 6)
    agent = make_agent("rloo", make_sb3_env("rlhf_gym/Sentiment-v0", num_envs=4), {}, seed=0)
    first, second, other = (gold_scores(agent, seed, deterministic=True) for seed in (7, 7, 8))
    assert first.shape == (6,)
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    assert (np.abs(first) <= 1).all()


def test_cells_say_what_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_cells, "EPISODES", 6)
    exact = exact_cell("sb3.a2c", SMALL, seed=0)
    assert exact["tokens"] >= 40
    assert exact["tokens_per_second"] == pytest.approx(exact["tokens"] / exact["seconds"])
    sentiment = sentiment_cell("sb3.a2c", replace(SMALL, rows=2), seed=0)
    assert sentiment["gain"] == pytest.approx(sentiment["gold"] - sentiment["reference"])


def test_the_matrix_is_printed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def cell(name: str, setup: Setup, seed: int) -> dict[str, Any]:
        trained.append((name, seed))
        cost = {"tokens": 100, "seconds": 2.0, "tokens_per_second": 50.0}
        return {"share": 0.5, "gain": {10: 0.2, 11: 0.4, 12: 0.6}.get(seed), **cost}

    def sentiment(name: str, setup: Setup, seed: int) -> dict[str, Any]:
        return cell(name, setup, seed)

    monkeypatch.setattr(agents, "exact_cell", cell)
    monkeypatch.setattr(agents, "sentiment_cell", sentiment)
    config = StudyConfig("agents", seeds=2, agents=("rloo", "sb3.a2c"), output=tmp_path)
    agents.run(config)
    # Two agents and two seeds on both tasks, two seeds for each soft form.
    assert len(trained) == 2 * 2 * 2 + 2 * len(SOFT)
    # Of two seeds, the mean of two draws is one of the two or between them.
    assert "+0.300 [+0.200, +0.400]" in (tmp_path / "agents" / "report.md").read_text()
    agents.run(config)
    assert len(trained) == 14
    # A fourth seed is for Exact-v0 alone.
    agents.run(replace(config, seeds=4))
    assert len(trained) == 14 + 2 * (2 + 1) + 2 * len(SOFT)
    # Settings were tried out on other seeds.
    assert {seed for _, seed in trained} == {10, 11, 12, 13}


def test_a_matrix_that_was_stopped_has_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cell(name: str, setup: Setup, seed: int) -> dict[str, Any]:
        if name == "sb3.a2c" and seed == 11:
            raise KeyboardInterrupt
        return {"share": 0.5, "tokens": 100, "seconds": 2.0, "tokens_per_second": 50.0}

    monkeypatch.setattr(agents, "exact_cell", cell)
    config = StudyConfig("agents", seeds=2, agents=("rloo", "sb3.a2c"), output=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        agents.run(config)
    rows = (tmp_path / "agents" / "report.md").read_text().splitlines()
    assert "| rloo | 0.500 [0.500, 0.500] | 2 | 100 | 2 | 50 | - | 0 | - | - | - |" in rows
    assert "| sb3.a2c | 0.500 | 1 | 100 | 2 | 50 | - | 0 | - | - | - |" in rows


def test_an_agent_that_is_not_in_the_matrix() -> None:
    with pytest.raises(InvalidArgument, match=r"agents='ppoo'"):
        agents.chosen_agents(["ppoo"])
