"""The KL penalty on text a model really sampled: nothing at the start, for every estimator."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.sampler import complete
from rlhf_gym.core.scoring import token_log_distributions
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.rewards import KLPenalty

RULES = TokenRules(vocab_size=11, pad_id=0, stop_ids=(1,), temperature=0.7, banned_ids=(2,))


def make_model(seed):
    torch.manual_seed(seed)
    config = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=11, n_positions=16)
    return GPT2LMHeadModel(config)


@pytest.fixture(scope="module")
def policy():
    return make_model(0)


@pytest.fixture(scope="module")
def episodes(policy):
    prompts = torch.tensor([[0, 0, 3], [4, 5, 6]]).repeat(200, 1)
    mask = prompts != 0
    written = complete(policy, prompts, mask, RULES, 6, torch.Generator().manual_seed(0))
    ids = torch.cat([prompts, written.response_ids], 1)
    episodes = Episodes(
        input_ids=ids,
        attention_mask=torch.cat([mask, written.mask], 1),
        prompt_width=3,
        stopped=written.stopped,
        rules=RULES,
        tokenizer=None,
        prompts=[""] * len(ids),
        log_probs=written.log_probs,
    )
    episodes.log_distributions = token_log_distributions(
        policy, ids, episodes.attention_mask, 3, RULES
    )
    return episodes


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "exact"])
def test_policy_equal_to_reference_pays_nothing(policy, episodes, estimator):
    paid = KLPenalty(policy, 1.0, estimator=estimator).token_rewards(episodes)
    torch.testing.assert_close(paid, torch.zeros_like(paid), rtol=0, atol=1e-5)


def test_estimators_agree_on_average_with_the_exact_kl(episodes):
    reference = make_model(1)
    with torch.no_grad():
        reference.lm_head.weight.mul_(4.0)  # tied to the embeddings: clearly another model
    mean = {
        estimator: KLPenalty(reference, 1.0, estimator=estimator).token_rewards(episodes).sum(-1)
        for estimator in ("k1", "k3", "exact")
    }
    assert mean["exact"].mean() > 0.1
    for estimator in ("k1", "k3"):
        error = mean[estimator] - mean["exact"]
        # within four standard errors of nothing
        assert error.mean().abs() < 4 * error.std() / len(error) ** 0.5
