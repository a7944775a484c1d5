"""Prompts in every form a user may have them."""

import json

import datasets
import numpy as np
import pytest

from rlhf_gym.core.errors import InvalidArgument, InvalidData, InvalidPrompt
from rlhf_gym.envs.text.prompts import PromptOrder, load_prompts

A, B, C = 4, 5, 6
TEMPLATE = (
    "{% for m in messages %}{{ '<bos> ' if m.role == 'user' else '' }}{{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<unk>{% endif %}"
)


def ids_of(prompts):
    return [row.tolist() for row in np.split(prompts.tokens, prompts.ends)[:-1]]


def test_texts_rows_and_data_sets(tokenizer):
    rows = [{"prompt": "a b", "answer": 1}, {"prompt": "c", "answer": 2}]
    for given in (["a b", "c"], rows, iter(rows), datasets.Dataset.from_list(rows)):
        loaded = load_prompts(given, tokenizer)
        assert list(loaded.texts) == ["a b", "c"]
        assert ids_of(loaded) == [[A, B], [C]]
    assert loaded.rows[1]["answer"] == 2


def test_files(tokenizer, tmp_path):
    (tmp_path / "prompts.txt").write_text("a b\nc\n")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a b", "answer": 1}\n{"prompt": "c"}\n')
    for name in ("prompts.txt", "prompts.jsonl"):
        loaded = load_prompts(tmp_path / name, tokenizer)
        assert ids_of(loaded) == [[A, B], [C]]
    assert load_prompts(str(tmp_path / "prompts.jsonl"), tokenizer).rows[0]["answer"] == 1


def test_padded_on_the_left(tokenizer):
    loaded = load_prompts(["a b", "c", "a b c"], tokenizer)
    ids, mask = loaded.padded(np.array([1, 2, 0]), 4, pad_id=0)
    np.testing.assert_array_equal(ids, [[0, 0, 0, C], [0, A, B, C], [0, 0, A, B]])
    np.testing.assert_array_equal(mask, [[0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 1, 1]])


def test_chat_messages(tokenizer):
    tokenizer.chat_template = TEMPLATE
    chat = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    given = [chat, {"prompt": [{"role": "user", "content": "b"}]}, "c"]
    loaded = load_prompts(given, tokenizer, chat_template=True)
    assert ids_of(loaded) == [[1, A, B, 1, C, 3], [1, B, 3], [1, C, 3]]
    assert loaded.texts[1] == "<bos> b <unk>"
    assert loaded.rows[1] is given[1]


def test_special_tokens_of_the_tokenizer(tokenizer):
    """BOS in front stays; EOS behind would end what is to be continued."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    assert ids_of(load_prompts(["a b", ""], tokenizer)) == [[1, A, B], [1]]


@pytest.mark.parametrize(
    ("prompts", "error", "words"),
    [
        ([], InvalidPrompt, "no prompt"),
        (["a", ""], InvalidPrompt, r"prompts\[1\]=''.*no tokens.*BOS"),
        (["a", 3], InvalidPrompt, r"prompts\[1\]=3: not a text"),
        ([{"text": "a"}], InvalidData, r"prompts\[0\]=\['text'\].*'prompt'"),
        ([{"prompt": None}], InvalidData, r"prompts\[0\].*nothing in it"),
        ([[{"role": "user", "content": "a"}]], InvalidPrompt, "chat_template=True"),
        ({"train": ["a"]}, InvalidPrompt, "one split"),
        (5, InvalidPrompt, "prompts=5"),
    ],
)
def test_bad_prompts(tokenizer, prompts, error, words):
    with pytest.raises(error, match=words):
        load_prompts(prompts, tokenizer)


def test_bad_files(tokenizer, tmp_path):
    empty, column = tmp_path / "empty.txt", tmp_path / "column.jsonl"
    empty.write_text("\n")
    column.write_text(json.dumps({"question": "a"}) + "\n")
    with pytest.raises(InvalidData, match="no record"):
        load_prompts(empty, tokenizer)
    with pytest.raises(InvalidData, match=r"'prompt'.*question"):
        load_prompts(column, tokenizer)
    with pytest.raises(InvalidData, match="no such file"):
        load_prompts(tmp_path / "none.txt", tokenizer)


def test_bad_chats(tokenizer):
    with pytest.raises(InvalidArgument, match="no chat template"):
        load_prompts(["a"], tokenizer, chat_template=True)
    tokenizer.chat_template = TEMPLATE
    with pytest.raises(InvalidPrompt, match=r"prompts\[0\].*not a list of chat messages"):
        load_prompts([[{"content": "a"}]], tokenizer, chat_template=True)


def test_order_resumes_in_the_middle_of_a_round():
    order, rng = PromptOrder(5, "shuffle"), np.random.default_rng(0)
    order.draw(7, rng)
    twin, twin_rng = PromptOrder(5, "shuffle"), np.random.default_rng()
    twin.load_state_dict(order.state_dict())
    twin_rng.bit_generator.state = rng.bit_generator.state
    np.testing.assert_array_equal(order.draw(23, rng), twin.draw(23, twin_rng))


def test_more_rows_than_prompts_go_round():
    assert PromptOrder(2, "sequential").draw(5, np.random.default_rng()).tolist() == [0, 1, 0, 1, 0]


def test_a_beginning_token_that_is_the_end_token_too_takes_nothing_off(tokenizer):
    """As in llama2.c's models, where <s> stands before a document and closes it."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.eos_token = "<bos>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    assert ids_of(load_prompts(["a b", "c"], tokenizer)) == [[1, A, B], [1, C]]
