"""What steps pay and which token earned it, worked out by hand."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from rlhf_gym.core.errors import EpisodeEnded, InvalidArgument, InvalidReward
from rlhf_gym.rewards.base import FunctionReward, RewardTerm, ScoreTerm
from rlhf_gym.rewards.controllers import AdaptiveKL
from rlhf_gym.rewards.credit import credit_by_token
from rlhf_gym.rewards.kl import KLPenalty

PAD, EOS = 0, 2
A, B, C, D, E, F = range(4, 10)
TIMINGS = ["end", "step"]

# Row 0 writes "d e" and stops, row 1 writes "a a a a" up to the limit.
COLUMNS = [[D, A], [E, A], [EOS, A], [F, A]]
LOG_PROBS = [[-0.5, -2.0], [-1.0, -2.0], [-0.25, -2.0], [np.nan, -2.0]]
# The reference is uniform over 11 tokens: log pi_ref = -ln 11 = -2.39789527.
# k1 = log pi - log pi_ref, row 0: 1.89789527, 1.39789527, 2.14789527; row 1: 0.39789527 each.
# Reward 0.1 apart from the score, which is 2 and 4 words, at the last token of each:
TOKEN_REWARDS = [
    [-0.189789527, -0.139789527, 2 - 0.214789527, 0],
    [-0.039789527, -0.039789527, -0.039789527, 4 - 0.039789527],
]
KL = [5.44368581, 1.59158108]


def played(make_env, play, reward, log_probs=LOG_PROBS, **settings):
    env = make_env(reward, autoreset_mode=AutoresetMode.DISABLED, **settings)
    env.reset()
    steps = play(env, COLUMNS, log_probs)
    rewards = np.stack([step[1] for step in steps])
    return env, rewards, steps[2][-1], steps[3][-1]


@pytest.mark.parametrize("timing", TIMINGS)
def test_reward_vector_by_hand(make_env, play, word_count, uniform_reference, timing):
    reward = FunctionReward(word_count, "words") - KLPenalty(uniform_reference, 0.1)
    _, rewards, row_0, row_1 = played(make_env, play, reward, reward_timing=timing)
    for row, info in enumerate((row_0, row_1)):
        np.testing.assert_allclose(info["token_rewards"][row], TOKEN_REWARDS[row], atol=1e-6)
        np.testing.assert_allclose(info["kl"][row], KL[row], atol=1e-5)
        assert info["kl_known"][row]
        assert info["score"][row] == info["reward_terms"]["words"][row] == (2, 4)[row]
        np.testing.assert_allclose(info["reward_terms"]["kl"][row], -0.1 * KL[row], atol=1e-6)
    # 2 - 0.544368581 in the third step, 4 - 0.159158108 in the fourth; or token by token.
    at_end = np.zeros((4, 2))
    at_end[2, 0], at_end[3, 1] = 1.455631419, 3.840841892
    expected = np.array(TOKEN_REWARDS).T if timing == "step" else at_end
    np.testing.assert_allclose(rewards, expected, atol=1e-6)


@pytest.mark.parametrize("timing", TIMINGS)
def test_agents_can_credit_by_token(make_env, play, word_count, uniform_reference, timing):
    reward = FunctionReward(word_count) - KLPenalty(uniform_reference, 0.1)
    _, rewards, row_0, row_1 = played(make_env, play, reward, reward_timing=timing)
    tokens = np.stack([row_0["token_rewards"][0], row_1["token_rewards"][1]])
    mask = torch.tensor([[True, True, True, False], [True] * 4])
    credit = credit_by_token(torch.from_numpy(rewards.T), torch.from_numpy(tokens), mask)
    np.testing.assert_allclose(credit, TOKEN_REWARDS, atol=1e-6)


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("placement", ["token", "sequence"])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "exact"])
def test_timing_moves_rewards_and_changes_no_sum(
    make_env, play, reference, word_count, timing, placement, estimator
):
    """Return = score - coefficient * KL, and token rewards sum to what was paid."""

    def run(reward_timing):
        penalty = KLPenalty(reference, 0.3, estimator=estimator, placement=placement)
        env = make_env(
            FunctionReward(word_count, "words") - 0.5 * penalty,
            autoreset_mode=AutoresetMode.DISABLED,
            reward_timing=reward_timing,
        )
        assert env.channel.wants_distribution == (estimator == "exact")
        env.reset()
        rng = torch.Generator().manual_seed(0)
        rewards, endings = np.zeros(2), {}
        for column in COLUMNS:
            logits = torch.randn(2, 12, generator=rng)
            logits[:, 0] = -torch.inf
            distribution = logits.log_softmax(-1)
            chosen = distribution[[0, 1], column]
            env.channel.write(np.array(column), chosen, distribution)
            _, paid, terminated, _, info = env.step(column)
            rewards += paid
            endings |= dict.fromkeys(np.flatnonzero(terminated), info)
        return rewards, endings

    rewards, endings = run(timing)
    other, others = run("end" if timing == "step" else "step")
    np.testing.assert_allclose(rewards, other, atol=1e-5)
    for row, info in endings.items():
        tokens = info["token_rewards"][row]
        np.testing.assert_allclose(tokens, others[row]["token_rewards"][row], atol=1e-5)
        np.testing.assert_allclose(tokens.sum(), rewards[row], atol=1e-5)
        assert info["kl_known"][row]
        np.testing.assert_allclose(info["kl"][row], others[row]["kl"][row], atol=1e-5)
        if estimator == "k1":
            expected = info["score"][row] - 0.15 * info["kl"][row]
            np.testing.assert_allclose(rewards[row], expected, atol=1e-5)


@pytest.mark.parametrize("timing", TIMINGS)
def test_soft_mode_needs_nothing_from_the_policy(make_env, play, uniform_reference, timing):
    reward = -KLPenalty(uniform_reference, 0.1, mode="soft")
    _, rewards, *_ = played(make_env, play, reward, None, reward_timing=timing)
    # 0.1 * log pi_ref = -0.239789527 per token, three tokens and four.
    np.testing.assert_allclose(rewards.sum(0), [-0.71936858, -0.95915811], atol=1e-6)


@pytest.mark.parametrize("timing", TIMINGS)
def test_unknown_log_probs_pay_no_kl_and_say_so_once(
    make_env, play, uniform_reference, word_count, timing, monkeypatch
):
    monkeypatch.setattr("rlhf_gym.rewards.kl.UNKNOWN_TOKENS_TOLERATED", 0)
    reward = FunctionReward(word_count) - KLPenalty(uniform_reference, 0.1)
    with pytest.warns(UserWarning, match="did not write") as warned:
        _, rewards, row_0, row_1 = played(make_env, play, reward, None, reward_timing=timing)
    assert len(warned) == 1
    np.testing.assert_allclose(rewards.sum(0), [2, 4])
    for row, info in enumerate((row_0, row_1)):
        assert info["_kl_known"][row]
        assert not info["kl_known"][row]
        assert not info["_kl"][row]  # no number for what is not known


def test_a_record_about_other_actions_is_not_taken(make_env, uniform_reference):
    env = make_env(None, reference=uniform_reference, num_envs=1)
    env.reset()
    env.channel.write(np.array([D]), np.array([-1.0]))
    *_, info = env.step([EOS])
    assert not info["kl_known"][0]


def test_kl_is_reported_without_a_penalty_too(make_env, play, uniform_reference):
    env, rewards, row_0, row_1 = played(make_env, play, None, reference=uniform_reference)
    np.testing.assert_allclose([row_0["kl"][0], row_1["kl"][1]], KL, atol=1e-5)
    np.testing.assert_array_equal(rewards, 0)
    assert env.kl_coef is None
    assert env.update_kl() is None
    assert row_0["reward_terms"] == {}


def test_gold_is_reported_and_never_paid(make_env, play, word_count):
    gold = FunctionReward(lambda p, r: [10.0] * len(r), "gold") + word_count
    _, rewards, row_0, row_1 = played(make_env, play, word_count, gold=gold)
    assert [row_0["gold_reward"][0], row_1["gold_reward"][1]] == [12, 14]
    np.testing.assert_array_equal(rewards.sum(0), [2, 4])


def test_rewards_see_prompts_rows_and_text(make_env, play):
    seen = []

    class Judge(ScoreTerm):
        name = "judge"

        def scores(self, episodes):
            seen.append((list(episodes.prompts), list(episodes.rows), episodes.responses))
            return torch.tensor([float(row["answer"]) for row in episodes.rows])

    rows = [{"prompt": "a b", "answer": 3}, {"prompt": "c", "answer": 5}]
    _, rewards, *_ = played(make_env, play, Judge(), prompts=rows)
    assert seen == [(["a b"], [rows[0]], ["d e"]), (["c"], [rows[1]], ["a a a a"])]
    np.testing.assert_array_equal(rewards.sum(0), [3, 5])


def test_rows_that_end_together_are_scored_once(make_env, play):
    calls = []

    def counting(prompts, responses):
        calls.append(len(responses))
        return [0.0] * len(responses)

    env = make_env(counting, num_envs=2, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset()
    play(env, [[D, D], [EOS, EOS], [D, EOS]])
    assert calls == [2, 1]


def test_reference_is_read_once_per_ending(make_env, play, reference, monkeypatch):
    from rlhf_gym.core import scoring

    passes = []
    plain, whole = scoring.token_log_probs, scoring.token_log_distributions
    monkeypatch.setattr(
        scoring, "token_log_probs", lambda *a, **k: passes.append("tokens") or plain(*a, **k)
    )
    monkeypatch.setattr(
        scoring, "token_log_distributions", lambda *a, **k: passes.append("all") or whole(*a, **k)
    )
    env = make_env(-KLPenalty(reference, 0.1))
    env.reset()
    play(env, [[EOS, EOS]], [[-1.0, -1.0]])
    assert passes == ["tokens"]  # for the penalty, and for the KL that is reported
    env = make_env(-KLPenalty(reference, 0.1, estimator="exact"))
    env.reset()
    legal = torch.full((2, 12), -np.log(11))
    legal[:, PAD] = -torch.inf
    env.channel.write(np.array([EOS, EOS]), legal[:, EOS], legal)
    env.step([EOS, EOS])
    assert passes == ["tokens", "all"]


class TestController:
    def test_moves_once_per_update_and_sees_the_mean_kl(
        self, make_env, play, uniform_reference, word_count
    ):
        controller = AdaptiveKL(initial=0.2, target=3.0, horizon=10)
        reward = FunctionReward(word_count) - KLPenalty(uniform_reference, controller)
        env, *_ = played(make_env, play, reward)
        assert env.kl_coef == 0.2
        # mean KL (5.44368581 + 1.59158108) / 2 = 3.51763345 over 2 episodes:
        # error = 3.51763345 / 3 - 1 = 0.17254448; 0.2 * (1 + 0.17254448 * 2 / 10) = 0.20690178
        assert env.update_kl() == pytest.approx(0.20690178, abs=1e-6)
        assert env.update_kl() == pytest.approx(0.20690178, abs=1e-6)  # nothing new

    def test_prompt_tokens_do_not_count(self, make_env, play, uniform_reference):
        reward = -KLPenalty(uniform_reference, 0.1)
        _, _, row_0, _ = played(make_env, play, reward, prompts=["a b c d e f", "c"])
        np.testing.assert_allclose(row_0["kl"][0], KL[0], atol=1e-5)

    def test_weight_of_the_term_is_part_of_the_coefficient(self, make_env, uniform_reference):
        env = make_env(-0.5 * KLPenalty(uniform_reference, 0.1))
        assert env.kl_coef == pytest.approx(0.05)

    def test_episodes_with_unknown_kl_do_not_move_it(self, make_env, play, uniform_reference):
        controller = AdaptiveKL(initial=0.2)
        env, *_ = played(make_env, play, -KLPenalty(uniform_reference, controller), None)
        assert env.update_kl() == 0.2


class TestRefused:
    @pytest.mark.parametrize(
        ("returned", "problem"),
        [
            ([1.0], "shape"),
            ([1.0, float("nan")], "finite"),
            (["good", "bad"], "numbers"),
            (None, "shape|numbers"),
        ],
    )
    def test_rewards_that_are_none(self, make_env, returned, problem):
        env = make_env(lambda prompts, responses: returned)
        env.reset()
        with pytest.raises(InvalidReward, match=f"score.*({problem})"):
            env.step([EOS, EOS])

    def test_infinite_token_rewards_and_rewards_behind_the_end(self, make_env):
        class Bad(RewardTerm):
            name = "bad"
            value = torch.inf

            def token_rewards(self, episodes):
                return torch.full(episodes.response_ids.shape, self.value)

        term = Bad()
        env = make_env(term)
        env.reset()
        with pytest.raises(InvalidReward, match=r"bad.*finite"):
            env.step([EOS, EOS])
        term.value = 1.0
        env.reset()
        with pytest.raises(InvalidReward, match="behind the end"):
            env.step([EOS, EOS])

    def test_terms_that_cannot_be_paid_by_step(self, make_env):
        class Dense(RewardTerm):
            name = "dense"

            def token_rewards(self, episodes):
                return episodes.mask.float()

        with pytest.raises(InvalidArgument, match=r"reward_timing='step'.*'dense'"):
            make_env(Dense(), reward_timing="step")

    def test_two_penalties(self, make_env, reference):
        reward = -KLPenalty(reference, 0.1) - KLPenalty(reference, 0.1, name="other")
        with pytest.raises(InvalidArgument, match="two KL penalties"):
            make_env(reward)

    def test_penalty_that_is_added(self, make_env, reference):
        with pytest.raises(InvalidArgument, match="Subtract"):
            make_env(KLPenalty(reference, 0.1))

    def test_more_distributions_than_the_limit(self, make_env, reference):
        # 2 rows x 4 tokens x 12 words x 4 bytes = 384 bytes.
        exact = -KLPenalty(reference, 0.1, estimator="exact")
        with pytest.raises(InvalidArgument, match=r"max_distribution_bytes=383.*'step'"):
            make_env(exact, max_distribution_bytes=383)
        make_env(exact, max_distribution_bytes=384)
        make_env(exact, max_distribution_bytes=0, reward_timing="step")

    @pytest.mark.parametrize(
        ("log_probs", "distribution", "field"),
        [(np.zeros(3), None, "log_probs"), (np.zeros(2), torch.zeros(2, 5), "log_distribution")],
    )
    def test_records_of_another_shape(self, make_env, log_probs, distribution, field):
        env = make_env()
        env.reset()
        env.channel.write(np.array([D, D]), log_probs, distribution)
        with pytest.raises(InvalidArgument, match=field):
            env.step([D, D])


@pytest.mark.parametrize("estimator", ["k1", "exact"])
@pytest.mark.parametrize("timing", TIMINGS)
def test_nothing_of_the_last_episode_is_left_in_a_row(
    make_env, uniform_reference, timing, estimator
):
    env = make_env(
        -KLPenalty(uniform_reference, 0.1, estimator=estimator),
        autoreset_mode=AutoresetMode.SAME_STEP,
        reward_timing=timing,
    )
    env.reset()
    distribution = torch.full((2, 12), -torch.inf)
    distribution[:, D] = 0.0  # the policy is sure: KL ln 11 per token
    for _ in range(4):
        env.channel.write(np.array([D, D]), np.zeros(2), distribution)
        *_, info = env.step([D, D])
    assert info["kl_known"].all()
    np.testing.assert_allclose(info["token_rewards"], -0.239789527, atol=1e-6)
    _, rewards, *_, info = env.step([EOS, EOS])  # nobody wrote about this one
    assert not info["kl_known"].any()
    np.testing.assert_array_equal(rewards, 0)
    np.testing.assert_array_equal(info["token_rewards"], 0)
    assert info["reward_terms"]["kl"].tolist() == [0, 0]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_reward_that_raises_leaves_the_environment_usable(make_env, play, mode):
    class Moody(ScoreTerm):
        name = "moody"
        broken = True

        def scores(self, episodes):
            if self.broken:
                raise RuntimeError("out of order")
            return torch.ones(len(episodes))

    term = Moody()
    env = make_env(term, autoreset_mode=mode, max_response_tokens=2)
    observation, _ = env.reset()
    play(env, [[D, D]])
    with pytest.raises(RuntimeError, match="out of order"):
        env.step([D, D])
    term.broken = False
    if mode is not AutoresetMode.NEXT_STEP:  # that one would begin anew by itself
        with pytest.raises(EpisodeEnded, match="call reset"):
            env.step([D, D])
    again, _ = env.reset()
    np.testing.assert_array_equal(again["input_ids"], observation["input_ids"])
    np.testing.assert_array_equal(play(env, [[D, D], [D, D]])[-1][1], [1, 1])
