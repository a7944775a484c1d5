"""Shaping and partial scores are paid in each step what they are paid at the end."""

import numpy as np
import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.reward_head import reward_model_from_lm
from rlhf_gym.envs.exact import ExactVectorEnv, LadderReward
from rlhf_gym.envs.exact.babbler import babbler
from rlhf_gym.envs.exact.schemes import every_response
from rlhf_gym.rewards import (
    PartialScores,
    PotentialShaping,
    RewardModel,
    RunningNormalised,
    TokenStep,
    UniformSpread,
)


@pytest.fixture(scope="module")
def model():
    return RewardModel(reward_model_from_lm(babbler(), torch.Generator().manual_seed(0)))


def letters(prompts, begun):
    return [float(len(text)) + len(prompt) for prompt, text in zip(prompts, begun, strict=True)]


SCHEMES = {
    "model": lambda model: LadderReward(5) + PotentialShaping(model, 0.9),
    "function": lambda model: LadderReward(5) + 2 * PotentialShaping(letters, 0.5),
    "dense": PartialScores,
    "dense from the prompt": lambda model: PartialScores(model, from_prompt=True),
}


def play(reward, timing):
    """Steps' rewards (steps, rows), and token rewards of the episodes that ended."""
    env = ExactVectorEnv(num_envs=4, kl_coef=0.0, reward=reward, reward_timing=timing)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    steps, tokens = [], []
    for _ in range(12):
        _, rewards, terminated, _, info = env.step(rng.integers(1, 7, 4))
        steps.append(rewards)
        if terminated.any():
            tokens.append(info["token_rewards"][terminated])
    return np.array(steps), np.concatenate(tokens)


@pytest.mark.parametrize("name", SCHEMES)
def test_each_step_pays_its_tokens_share(model, name):
    at_end, expected = play(SCHEMES[name](model), "end")
    by_step, tokens = play(SCHEMES[name](model), "step")
    np.testing.assert_allclose(tokens, expected, atol=1e-5)
    # row 0, response by response: what step paid is what its tokens earned
    assert np.count_nonzero(by_step) > np.count_nonzero(at_end)
    assert by_step[0] == pytest.approx(_first_tokens(model, name), abs=1e-5)


def _first_tokens(model, name):
    """What the first token of each row's first response earns, as scored at the end."""
    env = ExactVectorEnv(num_envs=4, kl_coef=0.0, reward=SCHEMES[name](model), ends="together")
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    terminated = np.zeros(4, dtype=bool)
    while not terminated.any():
        _, _, terminated, _, info = env.step(rng.integers(1, 7, 4))
    return info["token_rewards"][:, 0]


def test_a_value_model_is_a_potential_as_it_stands(model):
    env = ExactVectorEnv(max_response_tokens=3)
    episodes = every_response(env, 0)
    ours = PotentialShaping(model.model).token_rewards(episodes)  # the bare classifier
    torch.testing.assert_close(ours, PotentialShaping(model).token_rewards(episodes))
    assert ours.abs().max() > 0.01


def test_running_moments_are_part_of_the_environments_state():
    def make():
        reward = RunningNormalised(LadderReward(5), keep_mean=True) + PotentialShaping(letters)
        return ExactVectorEnv(num_envs=4, kl_coef=0.0, reward=reward)

    first, again = make(), make()
    first.reset(seed=0)
    again.reset(seed=1)
    rng = np.random.default_rng(0)
    actions = rng.integers(1, 7, (24, 4))
    for row in actions[:12]:
        first.step(row)
    again.load_state_dict(first.state_dict())
    for row in actions[12:]:
        assert np.array_equal(first.step(row)[1], again.step(row)[1])
    moments = [dict(env.reward.parts[0][1].state_dict()) for env in (first, again)]
    assert moments[0] == moments[1]
    assert moments[0]["count"] == first.episodes_seen > 8


def test_a_step_by_hand_knows_no_texts():
    ids = torch.ones(2, 3, dtype=torch.long)
    step = TokenStep(torch.arange(2), ids, ids, ids[:, 0], torch.zeros(2, dtype=torch.bool))
    with pytest.raises(InvalidArgument, match="reads the texts so far"):
        PotentialShaping(letters).step_rewards(step)


def test_credit_that_looks_ahead_cannot_be_paid_by_step():
    with pytest.raises(InvalidArgument, match="cannot be paid token by token"):
        ExactVectorEnv(reward=UniformSpread(LadderReward(5)), reward_timing="step")
