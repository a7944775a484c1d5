"""The same return at other tokens: lump, uniform, attention; and what may not be wrapped."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.rewards import (
    AttentionSpread,
    FunctionReward,
    KLPenalty,
    LengthPenalty,
    Lump,
    PartialScores,
    PotentialShaping,
    RewardModel,
    TokenHeads,
    UniformSpread,
)


def six_and_two(prompts, responses):
    return [6.0, -2.0]


def classifier(vocab_size=16):
    config = GPT2Config(
        vocab_size=vocab_size,
        n_layer=2,
        n_head=2,
        n_embd=8,
        n_positions=12,
        num_labels=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2ForSequenceClassification(config)
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def reward_model():
    return RewardModel(classifier())


def test_uniform_pays_every_token_the_same(write):
    episodes = write("a b <stop>", "a b c d")
    # 6 over three tokens, -2 over four
    expected = torch.tensor([[2.0, 2.0, 2.0, 0], [-0.5, -0.5, -0.5, -0.5]])
    torch.testing.assert_close(UniformSpread(six_and_two).token_rewards(episodes), expected)


def test_lump_gathers_at_the_last_token(write):
    episodes = write("a b <stop>", "a b c d")
    reward = Lump(FunctionReward(six_and_two) - LengthPenalty(0.5))
    # 6 - 3 * .5 and -2 - 4 * .5
    assert reward.token_rewards(episodes).tolist() == [[0, 0, 4.5, 0], [0, 0, 0, -4.0]]
    assert reward.terminal


def test_names_say_what_was_done():
    assert UniformSpread(six_and_two).name == "uniform_six_and_two"
    assert Lump(FunctionReward(six_and_two) - LengthPenalty()).name == "lump_reward"
    assert Lump(six_and_two, name="score").name == "score"


@pytest.mark.parametrize(
    "inner", [-1.0 * KLPenalty(nn.Identity(), 0.1), PotentialShaping(six_and_two)]
)
def test_penalty_and_shaping_stay_outside(inner):
    with pytest.raises(InvalidArgument, match="Add it outside"):
        Lump(six_and_two + inner)


def test_attention_of_the_last_token(write, reward_model):
    # With query and key weights of 0 the last token attends evenly to all it sees: prompt and
    # response; over the response alone that is 1/3 each, and 1/2 where two tokens were written.
    model = classifier()
    for block in model.transformer.h:
        nn.init.zeros_(block.attn.c_attn.weight[:, :16])
        nn.init.zeros_(block.attn.c_attn.bias[:16])
    episodes = write("a b <stop>", "a b", prompts=["one two", "three"])
    term = AttentionSpread(RewardModel(model), six_and_two)
    expected = torch.tensor([[2.0, 2.0, 2.0], [-1.0, -1.0, 0.0]])
    torch.testing.assert_close(term.token_rewards(episodes), expected)
    # half of it stays with the last token: 1, 1, 1 + 3 and -.5, -.5 - 1
    term = AttentionSpread(RewardModel(model), six_and_two, mix=0.5)
    expected = torch.tensor([[1.0, 1.0, 4.0], [-0.5, -1.5, 0.0]])
    torch.testing.assert_close(term.token_rewards(episodes), expected)


def test_attention_is_the_models_and_leaves_it_as_it_was(write, reward_model):
    episodes = write("a b <stop>", "b", prompts=["one two", "three"])
    term = AttentionSpread(reward_model)
    before = reward_model.scores(episodes)
    rewards = term.token_rewards(episodes)
    torch.testing.assert_close(rewards.sum(-1), before)
    assert torch.equal(reward_model.scores(episodes), before)
    assert reward_model.model.config._attn_implementation == "sdpa"
    # the row alone, unpadded: keys of the last query, the mean over two heads
    ids, width = episodes.input_ids[:1], episodes.prompt_width
    model = classifier().eval()
    model.set_attn_implementation("eager")
    weights = model.transformer(ids, output_attentions=True).attentions[-1][0, :, -1].mean(0)
    shares = weights[width:] / weights[width:].sum()
    torch.testing.assert_close(rewards[0], shares.detach() * before[0])
    assert rewards[1, 1:].tolist() == [0.0, 0.0]


def test_attention_arguments(reward_model):
    with pytest.raises(InvalidArgument, match="mix"):
        AttentionSpread(reward_model, mix=1.5)
    with pytest.raises(InvalidArgument, match="2 layers"):
        AttentionSpread(reward_model, layer=2)


class FixedScores(RewardModel):
    """Scores 5 for the prompt, then 1, 4, 2 as the response grows."""

    def __init__(self):
        super().__init__(classifier())

    def prefix_scores(self, episodes):
        scores = torch.tensor([[5.0, 1.0, 4.0, 2.0], [5.0, 1.0, 0.0, 0.0]])
        return scores[:, : 1 + episodes.mask.shape[1]]


def test_partial_scores_telescope(write):
    episodes = write("a b <stop>", "a")
    # 1, 4 - 1, 2 - 4: together the terminal score 2
    expected = [[1.0, 3.0, -2.0], [1.0, 0.0, 0.0]]
    assert PartialScores(FixedScores()).token_rewards(episodes).tolist() == expected
    # 1 - 5 first: together 2 - 5
    expected = [[-4.0, 3.0, -2.0], [-4.0, 0.0, 0.0]]
    term = PartialScores(FixedScores(), from_prompt=True)
    assert term.token_rewards(episodes).tolist() == expected


def test_partial_scores_of_a_real_model_end_at_its_score(write, reward_model):
    episodes = write("a b <stop>", "b", "b a", prompts=["one two", "three", "one"])
    torch.testing.assert_close(
        PartialScores(reward_model).token_rewards(episodes).sum(-1), reward_model.scores(episodes)
    )
    # the prompt's own score is that of the prompt alone
    alone = write("two <stop>", prompts=["one"])
    prompt = reward_model.prefix_scores(episodes)[0, 0]
    ids = episodes.input_ids[:1, :2]
    torch.testing.assert_close(prompt, classifier().eval()(ids).logits[0, 0].detach())
    assert reward_model.prefix_scores(alone).shape == (1, 3)


def test_token_heads_pay_what_they_say(write):
    episodes = write("a b <stop>", "a")
    assert TokenHeads(FixedScores()).token_rewards(episodes).tolist() == [[1, 4, 2], [1, 0, 0]]
    averaged = TokenHeads(FixedScores(), average=True).token_rewards(episodes)
    # over three tokens, and over one
    torch.testing.assert_close(averaged, torch.tensor([[1 / 3, 4 / 3, 2 / 3], [1.0, 0, 0]]))
