"""The KL penalty: signs, placement, unknown log-probabilities, and the reference under LoRA."""

import copy
import math
import pickle
import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint, InvalidReward
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.rewards.base import FunctionReward, TokenStep
from rlhf_gym.rewards.controllers import AdaptiveKL
from rlhf_gym.rewards.kl import KLPenalty, adapter_off_reference, sampled_kl

REFERENCE = nn.Identity()
LN2 = math.log(2)

# Two responses, of 3 and 2 tokens; the numbers behind them must never count.
LOG_PI = torch.tensor([[-1.0, -2.0, -0.5, 9.0], [-1.5, -0.25, torch.nan, 9.0]])
LOG_REF = torch.tensor([[-1.5, -1.0, -0.5, 0.0], [-3.5, -0.75, 0.0, 0.0]])
MASK = torch.tensor([[True, True, True, False], [True, True, False, False]])
# log pi - log pi_ref, by hand
K1 = torch.tensor([[0.5, -1.0, 0.0, 0.0], [2.0, 0.5, 0.0, 0.0]])


@dataclass
class ScoredEpisodes(Episodes):
    """Episodes whose reference has been asked already."""

    given: torch.Tensor | None = None
    given_distributions: torch.Tensor | None = None

    def reference_log_probs(self, reference):
        assert reference is REFERENCE
        return self.given

    def reference_log_distributions(self, reference):
        assert reference is REFERENCE
        return self.given_distributions


def make_episodes(log_probs=LOG_PI, reference=LOG_REF, policy_all=None, reference_all=None):
    mask = torch.cat([torch.ones(2, 1, dtype=torch.bool), MASK], 1)
    return ScoredEpisodes(
        input_ids=mask.long() * 2,
        attention_mask=mask,
        prompt_width=1,
        stopped=torch.tensor([True, False]),
        rules=TokenRules(vocab_size=3, pad_id=0, stop_ids=(1,)),
        tokenizer=None,
        prompts=["a", "b"],
        log_probs=log_probs,
        log_distributions=policy_all,
        given=reference,
        given_distributions=reference_all,
    )


def make_step(**fields):
    ids = torch.ones(2, 3, dtype=torch.long)
    ended = torch.tensor([False, True])
    return TokenStep(torch.arange(2), ids, ids, torch.tensor([2, 1]), ended, **fields)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("k1", [[0.05, -0.1, 0, 0], [0.2, 0.05, 0, 0]]),
        # lr^2 / 2: .125, .5, 0; 2, .125
        ("k2", [[0.0125, 0.05, 0, 0], [0.2, 0.0125, 0, 0]]),
        # e^-.5 - 1 + .5 = .106531; e^1 - 1 - 1 = .718282; 0; e^-2 - 1 + 2 = 1.135335; .106531
        ("k3", [[0.0106531, 0.0718282, 0, 0], [0.1135335, 0.0106531, 0, 0]]),
    ],
)
def test_the_penalty_of_each_token_is_coef_times_the_estimate(estimator, expected):
    penalty = KLPenalty(REFERENCE, 0.1, estimator=estimator)
    assert not penalty.terminal
    assert not penalty.wants_distribution
    rewards = penalty.token_rewards(make_episodes())
    torch.testing.assert_close(rewards, torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_sequence_penalty_is_the_same_sum_on_the_last_token(estimator):
    by_token = KLPenalty(REFERENCE, 0.1, estimator=estimator).token_rewards(make_episodes())
    penalty = KLPenalty(REFERENCE, 0.1, estimator=estimator, placement="sequence")
    assert penalty.terminal
    rewards = penalty.token_rewards(make_episodes())
    torch.testing.assert_close(rewards.sum(-1), by_token.sum(-1))
    assert (rewards != 0).nonzero()[:, 1].tolist() == [2, 1]


def test_subtracted_it_lowers_the_reward_of_leaving_the_reference():
    score = FunctionReward(lambda prompts, responses: [1.0, -0.5])
    reward = score - KLPenalty(REFERENCE, 0.1)
    episodes = make_episodes()
    episodes.responses = ["", ""]
    # score at the last token, -.1 (log pi - log pi_ref) at each: 1 - .1 * 0 and -.5 - .1 * .5
    expected = torch.tensor([[-0.05, 0.1, 1.0, 0.0], [-0.2, -0.55, 0.0, 0.0]])
    torch.testing.assert_close(reward.token_rewards(episodes), expected)
    torch.testing.assert_close(
        reward.token_rewards(episodes).sum(-1),
        torch.tensor([1.0, -0.5]) - 0.1 * sampled_kl(episodes, REFERENCE).nats,
    )


def test_soft_mode_leaves_coef_times_log_pi_ref():
    reward = FunctionReward(lambda prompts, responses: [0.0, 0.0]) - KLPenalty(
        REFERENCE, 0.1, mode="soft"
    )
    episodes = make_episodes(log_probs=None)
    episodes.responses = ["", ""]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(reward.token_rewards(episodes), 0.1 * LOG_REF * MASK)


def test_exact_penalty_sums_over_the_vocabulary():
    never = -torch.inf
    # token 0 is illegal; pi = (1/2, 1/2), pi_ref = (1/4, 3/4): .5 ln 2 + .5 ln(2/3) = .143841
    policy = torch.tensor([never, math.log(0.5), math.log(0.5)]).expand(2, 4, 3)
    reference = torch.tensor([never, math.log(0.25), math.log(0.75)]).expand(2, 4, 3)
    episodes = make_episodes(policy_all=policy, reference_all=reference)
    penalty = KLPenalty(REFERENCE, 1.0, estimator="exact")
    assert penalty.wants_distribution
    torch.testing.assert_close(penalty.token_rewards(episodes), 0.143841 * MASK, rtol=0, atol=1e-6)
    # metrics stay the sampled ones: rows .5 - 1 + 0 and 2 + .5
    assert penalty.sequence_kl(episodes).nats.tolist() == [-0.5, 2.5]


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "exact"])
def test_policy_equal_to_reference_costs_exactly_nothing(estimator):
    same = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    same[..., 0] = -torch.inf
    episodes = make_episodes(LOG_REF, LOG_REF, same, same)
    penalty = KLPenalty(REFERENCE, 5.0, estimator=estimator)
    assert torch.equal(penalty.token_rewards(episodes), torch.zeros(2, 4))


@pytest.fixture
def _impatient(monkeypatch):
    monkeypatch.setattr("rlhf_gym.rewards.kl.UNKNOWN_TOKENS_TOLERATED", 0)


def test_a_few_tokens_from_nobody_are_no_reason_to_warn():
    # Five response tokens a batch: 51 batches are 255 tokens, the 52nd passes 256.
    penalty = KLPenalty(REFERENCE, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(51):
            penalty.token_rewards(make_episodes(log_probs=None))
    with pytest.warns(UserWarning, match="did not write its log-probabilities"):
        penalty.token_rewards(make_episodes(log_probs=None))


@pytest.mark.usefixtures("_impatient")
def test_unknown_log_probs_cost_nothing_and_one_warning_says_so():
    unknown = LOG_PI.clone()
    unknown[0, 1] = torch.nan
    episodes = make_episodes(log_probs=unknown)
    penalty = KLPenalty(REFERENCE, 0.1)
    with pytest.warns(UserWarning, match="did not write its log-probabilities"):
        rewards = penalty.token_rewards(episodes)
    torch.testing.assert_close(rewards, torch.tensor([[0.05, 0, 0, 0], [0.2, 0.05, 0, 0]]))
    kl = penalty.sequence_kl(episodes)
    # NaN behind the second response does not count: .5 + 0 known in part, 2.5 known
    assert kl.nats.tolist() == [0.5, 2.5]
    assert kl.known.tolist() == [False, True]
    assert penalty.token_kl(episodes).known.tolist() == [[True, False, True, True], [True] * 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        penalty.token_rewards(episodes)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("estimator", ["k1", "exact"])
def test_a_policy_that_wrote_nothing(estimator):
    episodes = make_episodes(log_probs=None)
    penalty = KLPenalty(REFERENCE, 0.1, estimator=estimator)
    with pytest.warns(UserWarning, match="is 0 for its tokens"):
        assert torch.equal(penalty.token_rewards(episodes), torch.zeros(2, 4))
    assert penalty.sequence_kl(episodes).nats.tolist() == [0.0, 0.0]
    assert penalty.sequence_kl(episodes).known.tolist() == [False, False]


def test_a_token_that_the_reference_excludes_is_an_error_not_an_infinite_reward():
    reference = LOG_REF.clone()
    reference[1, 0] = -torch.inf
    with pytest.raises(InvalidReward, match="reference excludes"):
        KLPenalty(REFERENCE, 0.1).token_rewards(make_episodes(reference=reference))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # row 0 drew token 2, row 1 token 1; pi = (1/2, 1/4, 1/4), pi_ref = (1/4, 1/4, 1/2)
        ({}, [-LN2, 0.0]),
        ({"estimator": "k2"}, [LN2 * LN2 / 2, 0.0]),
        ({"estimator": "k3"}, [1 - LN2, 0.0]),
        ({"estimator": "exact"}, [LN2 / 4, LN2 / 4]),
        # -log pi_ref = ln 2 and ln 4
        ({"mode": "soft"}, [LN2, 2 * LN2]),
    ],
)
def test_the_penalty_of_one_step(options, expected):
    step = make_step(
        log_probs=torch.tensor([0.25, 0.25]).log(),
        log_distribution=torch.tensor([0.5, 0.25, 0.25]).log().expand(2, 3),
        reference_log_distribution=torch.tensor([0.25, 0.25, 0.5]).log().expand(2, 3),
    )
    rewards = KLPenalty(REFERENCE, 2.0, **options).step_rewards(step)
    torch.testing.assert_close(rewards, 2.0 * torch.tensor(expected))


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("estimator", ["k1", "exact"])
def test_one_step_of_an_unknown_policy(estimator):
    step = make_step(reference_log_distribution=torch.zeros(2, 3).log_softmax(-1))
    penalty = KLPenalty(REFERENCE, 2.0, estimator=estimator)
    with pytest.warns(UserWarning, match="is 0 for its tokens"):
        assert penalty.step_rewards(step).tolist() == [0.0, 0.0]


def test_one_step_without_the_reference_is_refused():
    with pytest.raises(InvalidArgument, match="reference_log_distribution"):
        KLPenalty(REFERENCE).step_rewards(make_step())


def test_adding_it_is_an_error():
    score = FunctionReward(lambda prompts, responses: [])
    with pytest.raises(InvalidArgument, match="Subtract it"):
        score + KLPenalty(REFERENCE)
    assert (score - 0.5 * KLPenalty(REFERENCE)).parts[1][0] == -0.5
    assert (score - 0 * KLPenalty(REFERENCE)).parts[1][0] == 0.0


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"coef": -0.1}, "coef=-0.1"),
        ({"estimator": "k4"}, "estimator='k4'"),
        ({"placement": "end"}, "placement='end'"),
        ({"mode": "hard"}, "mode='hard'"),
        ({"mode": "soft", "estimator": "exact"}, "estimator='exact'"),
    ],
)
def test_bad_arguments(arguments, field):
    with pytest.raises(InvalidArgument, match=field):
        KLPenalty(REFERENCE, **arguments)


def test_the_controller_moves_the_coefficient_and_its_state_survives():
    penalty = KLPenalty(REFERENCE, AdaptiveKL(0.15))
    penalty.controller.update(12.0, 512)
    # .15 * (1 + .2 * .0512), see test_controllers
    assert penalty.coef == pytest.approx(0.151536)
    torch.testing.assert_close(penalty.token_rewards(make_episodes()), 0.151536 * K1)
    resumed = KLPenalty(REFERENCE, AdaptiveKL(0.15))
    resumed.load_state_dict(penalty.state_dict())
    assert resumed.coef == penalty.coef
    assert pickle.loads(pickle.dumps(penalty)).coef == penalty.coef
    with pytest.raises(InvalidCheckpoint, match="no controller"):
        resumed.load_state_dict({})


@pytest.fixture(scope="module")
def lora_policy():
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=16,
        vocab_size=12,
        n_positions=16,
        bos_token_id=1,
        eos_token_id=1,
    )
    base = GPT2LMHeadModel(config).eval()
    return get_peft_model(
        base,
        LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False),
    )


def test_the_reference_under_an_adapter(lora_policy):
    reference = adapter_off_reference(lora_policy)
    ids = torch.arange(2, 10).unsqueeze(0)
    with torch.no_grad():
        with lora_policy.disable_adapter():
            expected = lora_policy(ids).logits
        assert torch.equal(reference(ids).logits, expected)
        assert not torch.allclose(lora_policy(ids).logits, expected, atol=1e-3)
    assert type(reference).__name__ == "GPT2LMHeadModel"
    weights = {weight.data_ptr() for weight in lora_policy.parameters()}
    assert {weight.data_ptr() for weight in reference.parameters()} <= weights
    assert not any("lora" in name for name, _ in reference.named_modules())


def test_training_the_adapter_does_not_move_the_reference(lora_policy):
    policy = copy.deepcopy(lora_policy).train()
    reference = adapter_off_reference(policy)
    assert not reference.training
    assert policy.training
    ids = torch.arange(2, 10).unsqueeze(0)
    before = reference(ids).logits
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    policy(ids, labels=ids).loss.backward()
    optimizer.step()
    assert torch.equal(reference(ids).logits, before)
    assert any("lora" in name for name, _ in policy.named_modules())


def test_a_policy_that_is_no_reference_is_refused(lora_policy):
    with pytest.raises(InvalidArgument, match="no adapter"):
        adapter_off_reference(lora_policy.get_base_model().transformer.wte)
    unfrozen = copy.deepcopy(lora_policy)
    unfrozen.get_base_model().transformer.ln_f.weight.requires_grad_(True)
    with pytest.raises(InvalidArgument, match=r"ln_f.weight"):
        adapter_off_reference(unfrozen)
    merged = copy.deepcopy(lora_policy)
    merged.merge_adapter()
    with pytest.raises(InvalidArgument, match="merged"):
        adapter_off_reference(merged)
