"""Judgements become token ids as a policy would meet them."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from rlhf_gym.core.errors import InvalidArgument, TokenizerMismatch
from rlhf_gym.core.supervised.preference_data import (
    Judgement,
    encode,
    encode_prompts,
    encode_responses,
)

WORDS = ["<pad>", "<bos>", "<eos>", "the", "film", "was", "good", "bad", "very"]
PAD, BOS, EOS, THE, FILM, WAS, GOOD, BAD, VERY = range(len(WORDS))


def word_tokenizer(
    template: str = "<bos> $A", eos: str | None = "<eos>"
) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [(w, i) for i, w in enumerate(WORDS[:3])]
    core.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token=eos
    )


def pair(prompt: str = "the film was", chosen: str = "good", rejected: str = "bad") -> Judgement:
    return Judgement("comparison", prompt, (chosen, rejected))


def thumb(text: str, label: float) -> Judgement:
    return Judgement("thumbs", "", (text,), label)


def test_prompt_and_response_are_tokenised_apart_and_end_with_eos() -> None:
    (example,) = encode([pair()], word_tokenizer(), max_tokens=None)
    assert example.sequences == ([BOS, THE, FILM, WAS, GOOD, EOS], [BOS, THE, FILM, WAS, BAD, EOS])
    assert example.response_lengths == (2, 2)
    assert example.width == 6


def test_a_tokenizer_that_closes_texts_does_not_end_the_prompt() -> None:
    tokenizer = word_tokenizer("<bos> $A <eos>")
    assert encode_prompts(["the film", ""], tokenizer) == [[BOS, THE, FILM], [BOS]]
    assert encode_responses(["good", "good <eos>", ""], tokenizer) == [[GOOD, EOS]] * 2 + [[EOS]]


def test_too_long_sequences_keep_their_beginning_token_and_their_end() -> None:
    examples = encode([pair(chosen="very very very good")], word_tokenizer(), max_tokens=5)
    assert examples[0].sequences[0] == [BOS, VERY, VERY, GOOD, EOS]
    assert examples[0].response_lengths == (4, 2)
    without_bos = encode([pair()], word_tokenizer("$A"), max_tokens=3)
    assert without_bos[0].sequences[0] == [WAS, GOOD, EOS]


def test_a_long_prompt_is_cut_alike_for_all_responses() -> None:
    (example,) = encode([pair(chosen="very very good")], word_tokenizer(), max_tokens=7)
    # the longest response has 4 tokens: of the prompt, <bos> and the last two have room
    assert example.sequences[0] == [BOS, FILM, WAS, VERY, VERY, GOOD, EOS]
    assert example.sequences[1] == [BOS, FILM, WAS, BAD, EOS]
    assert example.response_lengths == (4, 2)


def test_encode_refuses_what_cannot_work() -> None:
    with pytest.raises(TokenizerMismatch, match="no EOS"):
        encode([pair()], word_tokenizer(eos=None), max_tokens=None)
    with pytest.raises(InvalidArgument, match="max_tokens=1"):
        encode([pair()], word_tokenizer(), max_tokens=1)


def test_a_response_that_was_cut_off_has_no_eos() -> None:
    judged = Judgement("comparison", "the", ("good", "bad"), stopped=(False, True))
    (example,) = encode([judged], word_tokenizer())
    assert example.sequences == ([BOS, THE, GOOD], [BOS, THE, BAD, EOS])
    assert example.response_lengths == (1, 2)
    empty = Judgement("thumbs", "the", ("",), 1.0, stopped=(False,))
    assert encode([empty], word_tokenizer())[0].sequences == ([BOS, THE, EOS],)


def test_nothing_to_encode() -> None:
    assert encode([], word_tokenizer()) == []
