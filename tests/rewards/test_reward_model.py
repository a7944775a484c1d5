"""The reward model as a term: ids or text, the last real token, its scale, no dropout."""

import copy
import dataclasses

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import (
    InvalidArgument,
    InvalidCheckpoint,
    InvalidPrompt,
    TokenizerMismatch,
)
from rlhf_gym.core.models import save_model
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.rewards import RewardModel

WORDS = ["<pad>", "<eos>", "<unk>", "a", "fine", "film", "not", "dull", "plot"]
PAD, EOS = 0, 1


def word_tokenizer(words):
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(WORDS)


@pytest.fixture(scope="module")
def other_tokenizer():
    return word_tokenizer(WORDS[:3] + WORDS[:2:-1])


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def classifier(request):
    torch.manual_seed(0)
    shared = {"vocab_size": len(WORDS), "num_labels": 1, "pad_token_id": PAD}
    if request.param == "gpt2":
        # transformers' default dropout of .1 stays on, and so does train mode
        config = GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=12, **shared)
        model = GPT2ForSequenceClassification(config)
    else:
        config = LlamaConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=12,
            **shared,
        )
        model = LlamaForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight)
    return model.train()


def make_episodes(tokenizer, prompts=("a film", "plot"), responses=("fine <eos>", "not dull a")):
    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    width = max(len(ids(p)) for p in prompts)
    time = max(len(ids(r)) for r in responses)
    rows = []
    for prompt, response in zip(map(ids, prompts), map(ids, responses), strict=True):
        left, right = width - len(prompt), time - len(response)
        rows.append([PAD] * left + prompt + response + [PAD] * right)
    input_ids = torch.tensor(rows)
    return Episodes(
        input_ids=input_ids,
        attention_mask=input_ids != PAD,
        prompt_width=width,
        stopped=torch.tensor([EOS in row for row in rows]),
        rules=TokenRules(vocab_size=len(tokenizer), pad_id=PAD, stop_ids=(EOS,)),
        tokenizer=tokenizer,
        prompts=list(prompts),
    )


def own_score(model, ids):
    """What transformers' forward says of one unpadded sequence, dropout off."""
    with torch.no_grad():
        return copy.deepcopy(model).eval()(input_ids=torch.tensor([ids])).logits[0, 0].item()


def test_scores_are_the_models_own_at_the_last_real_token(classifier, tokenizer):
    # "a film" + "fine <eos>" and "plot" + "not dull a"
    expected = [own_score(classifier, [3, 5, 4, EOS]), own_score(classifier, [8, 6, 7, 3])]
    term = RewardModel(classifier)
    episodes = make_episodes(tokenizer)
    torch.testing.assert_close(term.scores(episodes), torch.tensor(expected))
    # credited to the stop token and to the last token, never to PAD
    assert (term.token_rewards(episodes) != 0).nonzero().tolist() == [[0, 1], [1, 2]]


def test_every_end_of_a_response_is_read_as_the_one_it_was_trained_with(classifier, tokenizer):
    several = TokenRules(vocab_size=len(tokenizer), pad_id=PAD, stop_ids=(EOS, 7))
    ended_by_another = make_episodes(tokenizer, ["dull film", "plot"], ["fine dull", "not <eos>"])
    assert ended_by_another.input_ids[0].tolist()[-1] == 7
    episodes = dataclasses.replace(ended_by_another, rules=several)
    # "dull" within the prompt stays what it is.
    expected = [own_score(classifier, [7, 5, 4, EOS]), own_score(classifier, [8, 6, EOS])]
    scores = RewardModel(classifier, tokenizer).scores(episodes)
    torch.testing.assert_close(scores, torch.tensor(expected))


def test_dropout_is_off_and_the_mode_stays(classifier, tokenizer):
    term = RewardModel(classifier)
    episodes = make_episodes(tokenizer)
    assert torch.equal(term.scores(episodes), term.scores(episodes))
    assert torch.equal(term.token_scores(episodes), term.token_scores(episodes))
    assert classifier.training


def test_batches_and_padding_change_nothing(classifier, tokenizer):
    prompts = ["a", "a film", "plot not dull a film", "fine plot", "a"]
    responses = ["fine <eos>", "<eos>", "film", "a a a a a", "dull plot <eos>"]
    together = RewardModel(classifier).scores(make_episodes(tokenizer, prompts, responses))
    by_two = RewardModel(classifier, batch_size=2)
    torch.testing.assert_close(
        by_two.scores(make_episodes(tokenizer, prompts, responses)), together
    )
    for i, pair in enumerate(zip(prompts, responses, strict=True)):
        alone = RewardModel(classifier).scores(make_episodes(tokenizer, *([text] for text in pair)))
        torch.testing.assert_close(alone[0], together[i])


def test_equal_tokenizers_read_ids_and_never_tokenise(classifier, tokenizer):
    class Silent(PreTrainedTokenizerFast):
        def __call__(self, *args, **kwargs):
            raise AssertionError("ids were at hand")

    ours = Silent(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", eos_token="<eos>"
    )
    episodes = make_episodes(tokenizer)
    expected = RewardModel(classifier).scores(episodes)
    assert torch.equal(RewardModel(classifier, ours).scores(episodes), expected)


def test_another_tokenizer_reads_the_text(classifier, tokenizer, other_tokenizer):
    term = RewardModel(classifier, other_tokenizer)
    # Its words from id 3 on are in reverse order: id i here is id 11 - i there. EOS only behind the
    # response that was ended with it.
    expected = [own_score(classifier, [8, 6, 7, EOS]), own_score(classifier, [3, 5, 4, 8])]
    torch.testing.assert_close(term.scores(make_episodes(tokenizer)), torch.tensor(expected))
    with pytest.raises(TokenizerMismatch, match="reads text"):
        term.token_scores(make_episodes(tokenizer))


def test_a_text_of_another_form(classifier, tokenizer):
    term = RewardModel(classifier, tokenizer, as_text=lambda prompt, response: f"{response} a")
    expected = [own_score(classifier, [4, 3]), own_score(classifier, [6, 7, 3, 3])]
    torch.testing.assert_close(term.scores(make_episodes(tokenizer)), torch.tensor(expected))


def test_a_text_too_long_for_the_model_loses_its_beginning(classifier, tokenizer, other_tokenizer):
    episodes = make_episodes(tokenizer, ["a film " * 10], ["fine <eos>"])
    # the last 12 of 22: five times "a film", "fine", EOS
    expected = own_score(classifier, [8, 6] * 5 + [7, EOS])
    scores = RewardModel(classifier, other_tokenizer).scores(episodes)
    assert scores.item() == pytest.approx(expected, abs=1e-5)


def test_an_encoder_reads_text_or_ids(tokenizer):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=PAD,
    )
    model = BertForSequenceClassification(config).train()
    expected = torch.tensor([own_score(model, [3, 5, 4, EOS]), own_score(model, [8, 6, 7, 3])])
    episodes = make_episodes(tokenizer)
    term = RewardModel(model)
    torch.testing.assert_close(term.scores(episodes), expected)
    with pytest.raises(InvalidArgument, match="encoder"):
        term.token_scores(episodes)
    as_text = RewardModel(model, tokenizer, as_text=lambda prompt, response: "fine")
    assert as_text.scores(episodes)[0].item() == pytest.approx(own_score(model, [4]), abs=1e-5)


def test_token_scores_are_scores_of_prefixes(classifier, tokenizer):
    scores = RewardModel(classifier).token_scores(make_episodes(tokenizer))
    expected = [
        [own_score(classifier, [3, 5, 4]), own_score(classifier, [3, 5, 4, EOS]), 0.0],
        [own_score(classifier, [8, 6, 7, 3][:n]) for n in (2, 3, 4)],
    ]
    torch.testing.assert_close(scores, torch.tensor(expected))


def test_normalised_scores_have_mean_0_and_deviation_1_and_survive_saving(
    classifier, tokenizer, tmp_path
):
    term = RewardModel(copy.deepcopy(classifier))
    episodes = make_episodes(
        tokenizer, ["a"] * 4, ["fine <eos>", "dull <eos>", "plot a", "not fine film"]
    )
    before = term.scores(episodes)
    scale = term.normalise(episodes)
    after = term.scores(episodes)
    torch.testing.assert_close(after, (before - scale.mean) / scale.std)
    assert after.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert after.std(correction=0).item() == pytest.approx(1.0, abs=1e-6)
    # twice is once
    assert term.normalise(episodes) == pytest.approx((0.0, 1.0), abs=1e-6)

    save_model(term.model, tokenizer, tmp_path)
    loaded = RewardModel(tmp_path, name="judge")
    assert loaded.name == "judge"
    torch.testing.assert_close(loaded.scores(episodes), after)


def test_bad_arguments(classifier, tokenizer, tmp_path):
    with pytest.raises(InvalidArgument, match="batch_size=0"):
        RewardModel(classifier, batch_size=0)
    with pytest.raises(InvalidArgument, match="as_text"):
        RewardModel(classifier, as_text=str.__add__)
    with pytest.raises(InvalidCheckpoint):
        RewardModel(tmp_path / "nowhere")
    two = copy.deepcopy(classifier)
    two.score = torch.nn.Linear(16, 2)
    with pytest.raises(InvalidCheckpoint, match="one output"):
        RewardModel(two)


def test_what_does_not_fit_the_model_is_refused(classifier, tokenizer):
    with pytest.raises(InvalidPrompt, match="12 tokens"):
        RewardModel(classifier).scores(make_episodes(tokenizer, ["a film " * 6], ["fine"]))
    larger = word_tokenizer([*WORDS, "more"])
    with pytest.raises(TokenizerMismatch, match="the 9 that"):
        RewardModel(classifier).scores(make_episodes(larger))
