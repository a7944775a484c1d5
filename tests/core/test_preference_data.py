"""Records become judgements, judgements become examples, examples become one flat batch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from rlhf_gym.core.errors import InvalidArgument, InvalidData, TokenizerMismatch
from rlhf_gym.core.supervised.preference_data import (
    Judgement,
    encode,
    encode_prompts,
    encode_responses,
    judgement,
    read_judgements,
    read_responses,
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


def test_the_columns_say_what_a_record_is(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "subset": "x"},
        {"prompt": "p", "ranking": ["a", "b", "c"]},
        {"prompt": "p", "completion": "a", "label": True},
        {"text": "a", "label": 0},
        {"completion": "a", "rating": 3},
        {"chosen": "a", "rejected": "b", "tie": True},
    ]
    file = tmp_path / "feedback.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    first, second, third, fourth, fifth, sixth = read_judgements(file)
    assert (first.kind, first.prompt, first.responses) == ("comparison", "p", ("a", "b"))
    assert not first.tie
    assert second.responses == ("a", "b", "c")
    assert (third.kind, third.prompt, third.value) == ("thumbs", "p", 1.0)
    assert (fourth.kind, fourth.responses, fourth.value) == ("thumbs", ("a",), 0.0)
    assert (fifth.kind, fifth.value) == ("rating", 3.0)
    assert sixth.tie


def test_columns_are_renamed(tmp_path: Path) -> None:
    file = tmp_path / "sst.tsv"
    file.write_text("sentence\tlabel\nvery good\t1\nvery bad\t0\n")
    good, bad = read_judgements(file, columns={"sentence": "text"})
    assert (good.responses, good.value) == (("very good",), 1.0)
    assert bad.value == 0.0
    assert good.group == "very good"
    assert pair().group == "the film was"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "p"}, "no judgement in it"),
        ({"prompt": "p", "chosen": "a"}, "rejected=None: here: not a text"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt=3: here: not a text"),
        ({"chosen": "a", "rejected": "a"}, "both sides are the same"),
        ({"ranking": ["a"]}, "not a list of two or more texts"),
        ({"ranking": "ab"}, "not a list of two or more texts"),
        ({"text": "a", "label": 2}, "Rename the column to 'rating'"),
        ({"text": "a", "rating": "high"}, "rating='high': here: no finite number"),
        ({"text": "a", "rating": math.nan}, "no finite number"),
        ({"label": 1}, "text=None: here: not a text"),
    ],
)
def test_bad_records_are_named(record: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidData) as caught:
        judgement(record, "here")
    assert message in str(caught.value)


def test_a_bad_record_is_named_by_number(tmp_path: Path) -> None:
    file = tmp_path / "thumbs.jsonl"
    file.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": "maybe"}\n')
    with pytest.raises(InvalidData, match="record 2"):
        read_judgements(file)


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
    examples = encode([pair(chosen="very very good")], word_tokenizer(), max_tokens=5)
    assert examples[0].sequences[0] == [BOS, VERY, VERY, GOOD, EOS]
    assert examples[0].sequences[1] == [BOS, FILM, WAS, BAD, EOS]
    assert examples[0].response_lengths == (4, 2)
    without_bos = encode([pair()], word_tokenizer("$A"), max_tokens=3)
    assert without_bos[0].sequences[0] == [WAS, GOOD, EOS]


def test_encode_refuses_what_cannot_work() -> None:
    with pytest.raises(TokenizerMismatch, match="no EOS"):
        encode([pair()], word_tokenizer(eos=None), max_tokens=None)
    with pytest.raises(InvalidArgument, match="max_tokens=1"):
        encode([pair()], word_tokenizer(), max_tokens=1)


def test_responses_without_judgement_are_read_too(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text('{"prompt": "the film", "completion": "was good"}\n{"text": "bad"}\n')
    first, second = read_responses(file)
    assert (first.prompt, first.responses) == ("the film", ("was good",))
    assert (second.prompt, second.responses) == ("", ("bad",))
    file.write_text('{"prompt": "the film"}\n')
    with pytest.raises(InvalidData, match="record 1"):
        read_responses(file)
