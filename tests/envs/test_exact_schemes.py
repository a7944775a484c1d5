"""Which schemes move the optimum of Exact-v0: every response is written and paid."""

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.reward_head import reward_model_from_lm
from rlhf_gym.envs.exact import ExactVectorEnv, LadderReward
from rlhf_gym.envs.exact.babbler import babbler
from rlhf_gym.envs.exact.schemes import (
    every_response,
    node_rewards,
    optimal_responses,
    optimum_moved,
    token_rewards,
)
from rlhf_gym.envs.exact.solver import solve
from rlhf_gym.rewards import (
    AttentionSpread,
    Centred,
    Clipped,
    EnsembleReward,
    KeywordReward,
    LengthPenalty,
    Lump,
    Margin,
    MissingStopPenalty,
    PartialScores,
    PotentialShaping,
    RepetitionPenalty,
    RewardModel,
    SoftOverlongPenalty,
    TargetLengthPenalty,
    TokenHeads,
    UniformSpread,
)

HORIZON, BETA = 4, 0.2
LADDER = LadderReward(HORIZON)


@pytest.fixture(scope="module")
def env():
    return ExactVectorEnv(max_response_tokens=HORIZON)


@pytest.fixture(scope="module")
def model():
    """A reward model with opinions of its own, and scores for every prefix."""
    head = reward_model_from_lm(babbler(), torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.score.weight.mul_(3.0)
    return RewardModel(head, batch_size=4096)


def letters(prompts, begun):
    return [float(len(text)) for text in begun]


def stop_at_once(prompts):
    return ["" for _ in prompts]


# Each: the scheme, and the reward it stands for.
STAY = {
    "shaping by a reward model": lambda m: (LADDER + PotentialShaping(m), LADDER),
    "shaping by a function": lambda m: (LADDER + 3 * PotentialShaping(letters), LADDER),
    "lump": lambda m: (Lump(LADDER), LADDER),
    "uniform": lambda m: (UniformSpread(LADDER), LADDER),
    "attention": lambda m: (AttentionSpread(m, mix=0.7), m),
    "dense": lambda m: (PartialScores(m), m),
    "dense from the prompt": lambda m: (PartialScores(m, from_prompt=True), m),
    "centred": lambda m: (Centred(LADDER, 0.7), LADDER),
    "margin": lambda m: (Margin(LADDER, stop_at_once), LADDER),
}
MOVE = {
    "scaled": lambda m: (0.5 * LADDER, LADDER),
    "clipped": lambda m: (Clipped(LADDER, -1, 1), LADDER),
    "length": lambda m: (LADDER - LengthPenalty(0.1), LADDER),
    "target length": lambda m: (LADDER - TargetLengthPenalty(2, 0.1), LADDER),
    "overlong": lambda m: (LADDER - SoftOverlongPenalty(2, coef=0.5), LADDER),
    "missing stop": lambda m: (LADDER - MissingStopPenalty(0.5), LADDER),
    "repetition": lambda m: (LADDER - RepetitionPenalty(1), LADDER),
    "keywords": lambda m: (LADDER + KeywordReward(["c"]), LADDER),
    "token heads": lambda m: (TokenHeads(m), m),
    "ensemble": lambda m: (EnsembleReward([LADDER, m], "minimum"), LADDER),
}


@pytest.mark.parametrize("name", STAY)
def test_schemes_that_leave_the_optimum(env, model, name):
    scheme, goal = STAY[name](model)
    assert optimum_moved(env, scheme, goal, BETA) < 1e-4
    # and yet they pay the tokens otherwise
    assert not torch.allclose(token_rewards(env, scheme), token_rewards(env, goal), atol=0.1)


@pytest.mark.parametrize("name", MOVE)
def test_schemes_that_move_it(env, model, name):
    scheme, goal = MOVE[name](model)
    assert optimum_moved(env, scheme, goal, BETA) > 0.01


def test_every_response_is_paid_as_the_judge_says(env):
    ours = torch.stack([t.sum(-1) for t in token_rewards(env, LADDER)])
    torch.testing.assert_close(ours, env.judge.tree.along(env.judge.rewards))
    episodes = every_response(env, 1)
    assert set(episodes.prompts) == {"a d"}
    assert episodes.lengths.max() == HORIZON


def test_the_optimum_is_the_judges(env):
    best = env.optimum(BETA)
    along = env.judge.tree.along(best.log_probs).exp()
    torch.testing.assert_close(optimal_responses(env, LADDER, BETA), along)
    table = node_rewards(env, LADDER)
    for ours, theirs in zip(table, env.judge.rewards, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_shaping_leaves_the_optimal_policy_at_every_prefix(env, model):
    tree, reference = env.judge.tree, env.judge.reference
    plain = solve(tree, reference, node_rewards(env, LADDER), BETA)
    shaped = solve(tree, reference, node_rewards(env, LADDER + PotentialShaping(model)), BETA)
    for ours, theirs in zip(shaped.log_probs, plain.log_probs, strict=True):
        torch.testing.assert_close(ours.exp(), theirs.exp(), atol=1e-4, rtol=0)
    # V' = V - Phi: values move by the potential of the prefix, the empty one's included
    prompt = model.prefix_scores(every_response(env, 0))[0, 0].item()
    moved = shaped.values[0][0, 0] - plain.values[0][0, 0]
    assert moved.item() == pytest.approx(-prompt, abs=1e-4)
    assert abs(prompt) > 0.1


def test_shaping_by_the_value_model_of_an_agent(env, tmp_path):
    from rlhf_gym.agents import PPO

    task = ExactVectorEnv(num_envs=32, max_response_tokens=HORIZON, ends="together")
    settings = {"policy_kwargs": {"value_model": "separate"}, "learning_rate": 1e-2}
    agent = PPO("LMPolicy", task, seed=0, device="cpu", **settings).learn(300)
    agent.policy.save_pretrained(tmp_path, task.tokenizer)
    shaping = PotentialShaping(tmp_path / "value_model")
    tree, reference = env.judge.tree, env.judge.reference
    plain = solve(tree, reference, node_rewards(env, LADDER), BETA)
    shaped = solve(tree, reference, node_rewards(env, LADDER + shaping), BETA)
    for ours, theirs in zip(shaped.log_probs, plain.log_probs, strict=True):
        torch.testing.assert_close(ours.exp(), theirs.exp(), atol=1e-4, rtol=0)
    moved = shaped.values[0] - plain.values[0]  # by minus what it expects of each prompt
    assert moved.abs().max() > 0.01


def best_actions(env, reward, gamma):
    """Where each prefix's best tokens are, by dynamic programming without a KL penalty."""
    tree, later, best = env.judge.tree, None, []
    legal = torch.zeros(tree.rules.vocab_size, dtype=torch.bool)
    legal[[*tree.stops, *tree.letters]] = True
    for rewards in reversed(node_rewards(env, reward)):
        q = rewards.clone()
        if later is not None:
            q[..., list(tree.letters)] += gamma * later.reshape(*q.shape[:2], -1)
        q[..., ~legal] = -torch.inf
        later = q.amax(-1)
        best.insert(0, q >= later.unsqueeze(-1) - 1e-4)
    return best


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_shaping_leaves_the_best_actions_for_its_own_discount_only(env, model, gamma):
    plain = best_actions(env, LADDER, gamma)
    shaped = LADDER + 2 * PotentialShaping(model, gamma)
    assert same(best_actions(env, shaped, gamma), plain)
    other = 1.8 - gamma  # the shaping of the one discount under the other
    assert not same(best_actions(env, shaped, other), best_actions(env, LADDER, other))


def test_partial_scores_are_right_without_a_discount_only(env, model):
    lump = best_actions(env, model, 1.0)
    assert same(best_actions(env, PartialScores(model), 1.0), lump)
    assert not same(best_actions(env, PartialScores(model), 0.8), best_actions(env, model, 0.8))


def test_credit_that_looks_ahead_is_no_table(env):
    with pytest.raises(InvalidArgument, match="depends on what is written later"):
        node_rewards(env, UniformSpread(LADDER))
