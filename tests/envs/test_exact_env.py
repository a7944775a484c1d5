"""Exact-v0: its rewards by hand, its judge against its own steps, and what greed comes to."""

import copy
import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlhf_gym.core.channel import LogProbChannel
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.tokens import next_token_logits
from rlhf_gym.envs.exact import ExactEnv, ExactVectorEnv, LadderReward
from rlhf_gym.envs.exact.babbler import babbler
from rlhf_gym.envs.exact.solver import evaluate, value_by_enumeration
from rlhf_gym.rewards.kl import KLPenalty

PAD, STOP, A, B, C, D, E = range(7)


@pytest.fixture(scope="module")
def env():
    return ExactEnv()


def play(env, actions, prompt=0):
    """Rewards of an episode, step by step; the policy leaves no log-probabilities, so no KL."""
    env.reset(options={"prompt_index": [prompt]})
    steps = [env.step(action) for action in actions]
    assert [step[2] for step in steps] == [False] * (len(steps) - 1) + [True]
    return [step[1] for step in steps], steps[-1][4]


# Prompts end with b, d and c. Climbs pay .4 .3 .6 1.2 2.0 at the end, half without a stop; bait
# pays .5 at once and costs 1 at the end.
EPISODES = [
    (0, [STOP], [0.4]),
    (0, [C, STOP], [0, 0.3]),
    (0, [C, D, STOP], [0, 0, 0.6]),
    (0, [C, D, E, STOP], [0, 0, 0, 1.2]),
    (0, [C, D, E, B, STOP], [0, 0, 0, 0, 2.0]),
    (0, [C, D, E, B, C], [0, 0, 0, 0, 1.0]),  # five climbs, half of 2.0
    (0, [A, STOP], [0.5, -0.6]),  # 0.4 - 1
    (0, [A, A, STOP], [0.5, 0.5, -1.6]),  # 0.4 - 2
    (0, [A, C, D, E, STOP], [0.5, 0, 0, 0, -0.4]),  # two climbs, 0.6 - 1
    (0, [C, C, C, C, A], [0, 0, 0, 0, -0.35]),  # 0.5 * 0.3 + 0.5 - 1
    (1, [E, STOP], [0, 0.3]),  # the prompt is "a d"
    (2, [D, E, B, C, STOP], [0, 0, 0, 0, 2.0]),  # the prompt is "e b c"
    (2, [C, D, STOP], [0, 0, 0.3]),  # only d follows c
]


@pytest.mark.parametrize("timing", ["end", "step"])
def test_rewards_by_hand(timing):
    env = ExactEnv(reward_timing=timing)
    for prompt, actions, expected in EPISODES:
        rewards, info = play(env, actions, prompt)
        tokens = info["token_rewards"].tolist()
        assert tokens == pytest.approx(expected + [0] * (5 - len(expected)), abs=1e-6)
        if timing == "step":
            assert rewards == pytest.approx(expected, abs=1e-6)
        else:
            assert rewards == pytest.approx([0] * (len(expected) - 1) + [sum(expected)], abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*log-probabilities")
def test_the_judge_pays_what_the_environment_pays(env):
    judge = env.judge
    rows, lengths = judge.tree.responses()
    totals = judge.tree.along(judge.rewards)
    for index in range(0, len(rows), 97):
        for prompt in range(3):
            rewards, _ = play(env, rows[index, : lengths[index]].tolist(), prompt)
            assert sum(rewards) == pytest.approx(totals[prompt, index].item(), abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_return_of_an_episode_is_reward_minus_kl(temperature):
    # A policy that says it drew every token with probability 1/2: KL = sum of log 1/2 - log pi_ref.
    channel = LogProbChannel()
    vector = ExactVectorEnv(
        num_envs=1,
        channel=channel,
        kl_coef=0.2,
        temperature=temperature,
        autoreset_mode="Disabled",
    )
    judge = vector.judge
    rows, lengths = judge.tree.responses()
    rewards, log_reference = judge.tree.along(judge.rewards), judge.tree.along(judge.reference)
    for index in (0, 3, 40, 800, 3000):
        vector.reset(options={"prompt_index": [1]})
        length = int(lengths[index])
        for token in rows[index, :length].tolist():
            channel.write(np.array([token]), np.log([0.5]))
            _, reward, _, _, info = vector.step(np.array([token]))
        kl = length * np.log(0.5) - log_reference[1, index].item()
        assert info["kl"][0] == pytest.approx(kl, abs=1e-4)
        assert reward[0] == pytest.approx(rewards[1, index].item() - 0.2 * kl, abs=1e-4)


def test_optimum_by_both_methods(env):
    judge = env.judge
    for kl_coef in (0.05, 0.1, 1.0):
        optimum = env.optimum(kl_coef)
        summed = value_by_enumeration(judge.tree, judge.reference, judge.rewards, kl_coef)
        assert optimum.value == pytest.approx(float(summed.mean()), abs=1e-9)
        backward = evaluate(judge.tree, optimum.log_probs, judge.reference, judge.rewards)
        assert env.objective(optimum.log_probs, kl_coef) == pytest.approx(optimum.value, abs=1e-9)
        assert backward.objective(kl_coef) == pytest.approx(optimum.value, abs=1e-9)
        assert optimum.reward - kl_coef * optimum.kl == pytest.approx(optimum.value, abs=1e-9)


def test_the_numbers_of_the_task(env):
    # Not worked out by hand: they change when the task does, and the version with them.
    optimum = env.optimum()
    assert optimum.kl_coef == 0.1
    assert optimum.value == pytest.approx(0.8565, abs=1e-4)
    assert optimum.reference_value == pytest.approx(-0.0894, abs=1e-4)
    assert optimum.kl == pytest.approx(11.141, abs=1e-3)


def test_the_ends_of_the_way(env):
    assert env.share_of_the_way(env.reference) == 0.0
    assert env.share_of_the_way(env.optimum().log_probs) == pytest.approx(1.0, abs=1e-9)
    assert env.objective(env.reference) == pytest.approx(env.optimum().reference_value, abs=1e-12)


def softmax_of(reference, q, kl_coef):
    """pi(a|s) proportional to pi_ref(a|s) exp(Q(s, a) / beta)."""
    tables = zip(reference, q, strict=True)
    return tuple((ref + entry / kl_coef).log_softmax(-1) for ref, entry in tables)


def test_greed_is_trapped(env):
    """Bait pays now: whoever maximises the next reward alone ends below the untrained reference.

    And one step of policy improvement on the reference's own values, which sees the end but trusts
    the reference to go on, comes a third of the way.
    """
    judge = env.judge
    now = softmax_of(judge.reference, judge.rewards, 0.1)
    assert env.share_of_the_way(now) < -1
    q, later = [], None
    for log_probs, rewards in zip(judge.reference[::-1], judge.rewards[::-1], strict=True):
        entry = rewards.clone()
        if later is not None:
            entry[..., list(judge.tree.letters)] += later.reshape(*rewards.shape[:2], 5)
        later = (log_probs.exp() * entry).sum(-1)
        q.insert(0, entry)
    one_step = softmax_of(judge.reference, q, 0.1)
    assert 0.3 < env.share_of_the_way(one_step) < 0.4
    # It stops at once for a sure 0.4, behind every prompt; the optimum hardly ever does.
    assert one_step[0][:, 0, STOP].exp().min() > 0.9
    assert env.optimum().log_probs[0][:, 0, STOP].exp().max() < 0.01


def test_policies_of_all_kinds_are_judged_alike(env):
    model = copy.deepcopy(env.reference)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(0)
            )
    by_model = env.objective(model)
    by_function = env.objective(lambda observation: next_token_logits(model, observation))
    by_table = env.objective(env.judge.table(model))
    assert by_model == pytest.approx(by_function, abs=1e-6)
    assert by_model == pytest.approx(by_table, abs=1e-12)
    assert by_model < env.optimum().value


def test_a_model_in_training_mode_is_judged_without_dropout(env):
    model = babbler()
    for block in model.transformer.h:
        block.mlp.dropout.p = 0.5
    model.train()
    assert env.share_of_the_way(model) == 0.0
    assert model.training


def test_observations_shown_to_a_function_are_the_environments(env):
    seen = []

    def uniform(observation):
        seen.append(observation)
        return torch.zeros(len(observation["input_ids"]), 7)

    env.objective(uniform)
    assert [len(o["input_ids"]) for o in seen] == [3 * 5**d for d in range(5)]
    for prompt, depth in itertools.product(range(3), range(3)):
        first, _ = env.reset(options={"prompt_index": [prompt]})
        for _ in range(depth):
            first, *_ = env.step(B)  # the letters b b ..: prefix number 1 * 5 + 1
        row = prompt * 5**depth + (0, 1, 6)[depth]
        for key, value in first.items():
            np.testing.assert_array_equal(seen[depth][key][row].numpy(), value)


def test_optimal_policy_is_asked_by_prefix(env):
    optimum = env.optimum()
    assert optimum.policy()[C] > 0.99  # behind the prompt "b"
    assert optimum.policy([C, D, E, B])[STOP] > 0.99
    assert optimum.policy((), prompt=1)[E] > 0.95
    assert optimum.policy()[PAD] == 0
    assert optimum.policy([C]).sum().item() == pytest.approx(1)
    with pytest.raises(InvalidArgument, match="no letter"):
        optimum.policy([STOP])
    with pytest.raises(InvalidArgument, match="ended after 5"):
        optimum.policy([B] * 5)
    with pytest.raises(InvalidArgument, match="3 prompts"):
        optimum.policy([], prompt=3)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.5}, {"banned_token_ids": [A]}, {"min_response_tokens": 3}, {"top_k": 3}],
)
def test_restrictions_hold_for_reference_and_optimum_alike(options):
    env = ExactEnv(**options)
    optimum = env.optimum()
    assert env.share_of_the_way(env.reference) == 0.0
    assert env.share_of_the_way(optimum.log_probs) == pytest.approx(1.0)
    probs = optimum.policy()
    if "banned_token_ids" in options:
        assert probs[A] == 0
    if "min_response_tokens" in options:
        assert probs[STOP] == 0
        assert optimum.policy([C, D, E])[STOP] > 0
    if "top_k" in options:
        assert (probs > 0).sum() == 3


def test_optimum_follows_the_environments_own_coefficient():
    assert ExactEnv(kl_coef=0.3).optimum().kl_coef == 0.3
    assert ExactEnv(kl_coef=0.3).optimum(0.1).value == pytest.approx(0.8565, abs=1e-4)
    with pytest.raises(InvalidArgument, match="kl_coef"):
        ExactEnv(kl_coef=0).optimum()


def bonus(prompts, responses):
    return [1.0] * len(prompts)


def test_shaping_does_not_move_the_judge():
    for reward in (LadderReward(5) + bonus, LadderReward(5) + bonus - KLPenalty(babbler(), 0.1)):
        env = ExactEnv(reward=reward)
        assert [term.name for _, term in env.reward.parts] == ["ladder", "bonus", "kl"]
        assert env.optimum().value == pytest.approx(0.8565, abs=1e-4)


def test_coefficient_can_be_steered():
    env = ExactEnv(kl_target=3.0, kl_coef=0.2)
    assert env.kl_coef == 0.2
    assert env.reward.parts[-1][1].controller.target == 3.0


def test_reference_is_the_same_everywhere():
    first, second = babbler(), babbler()
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    # Literals: no processor and no version of torch may change them.
    assert first.transformer.wte.weight[0, :3].tolist() == pytest.approx(FIRST_WEIGHTS, abs=1e-6)


FIRST_WEIGHTS = [0.445086, 0.346567, -0.319381]


def test_making_the_reference_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    babbler()
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"kl_coef": -0.1}, "coef"),
        ({"max_response_tokens": 0}, "max_response_tokens"),
        ({"max_response_tokens": 9}, "max_response_tokens"),
        ({"kl_estimator": "k9"}, "estimator"),
    ],
)
def test_bad_arguments_are_refused(options, field):
    with pytest.raises(InvalidArgument, match=field):
        ExactEnv(**options)


def test_logits_of_the_wrong_shape_are_refused(env):
    with pytest.raises(InvalidArgument, match="policy"):
        env.objective(lambda observation: torch.zeros(7))


def test_made_by_id():
    single = gym.make("rlhf_gym/Exact-v0")
    assert single.unwrapped.optimum().value == pytest.approx(0.8565, abs=1e-4)
    vector = gym.make_vec("rlhf_gym/Exact-v0", num_envs=3, kl_coef=0.2)
    assert isinstance(vector, ExactVectorEnv)
    assert vector.num_envs == 3
    assert vector.optimum().kl_coef == 0.2
