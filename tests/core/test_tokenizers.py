"""Tokenizers: special tokens of their own, nothing lost, and no mismatch goes unnoticed."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from rlhf_gym.core.errors import InvalidArgument, TokenizerMismatch
from rlhf_gym.core.models import load_tokenizer
from rlhf_gym.core.tokenizers import (
    check_tokenizer,
    encode_beginnings,
    end_token_ids,
    ensure_pad_token,
    set_end_token,
    train_tokenizer,
)

TEXTS = ["The film wasn't bad -- it was  great!\n\tÜber-gut, 10/10.", "The film was bad."] * 3


def model_for(vocab_size, tied=True):
    if tied:
        config = GPT2Config(vocab_size=vocab_size, n_positions=16, n_layer=1, n_head=1, n_embd=4)
        return GPT2LMHeadModel(config).eval()
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=4,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize(("kind", "size"), [("bpe", 280), ("word", 60), ("char", 60)])
def test_special_tokens_come_first_and_decoding_loses_nothing(tmp_path, kind, size):
    tokenizer = train_tokenizer(TEXTS, kind, size, context=32)
    assert tokenizer.convert_ids_to_tokens(range(4)) == ["<pad>", "<bos>", "<eos>", "<unk>"]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.unk_token_id == 3
    assert len(tokenizer) <= size
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == 1
        assert not set(ids[1:]) & {0, 1, 2, 3}
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        # A prompt and what follows, tokenised apart, are the text again.
        rest = tokenizer(text[8:], add_special_tokens=False)["input_ids"]
        apart = tokenizer(text[:8])["input_ids"] + rest
        assert tokenizer.decode(apart, skip_special_tokens=True) == text
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert (loaded.padding_side, loaded.model_max_length) == ("left", 32)


def test_words_take_their_space_with_them():
    tokenizer = train_tokenizer(["a good film, a good one"], "word", 20, min_frequency=1)
    assert tokenizer.tokenize("a good film, one") == ["a", " good", " film", ",", " one"]
    assert tokenizer.tokenize("a bad film") == ["a", "<unk>", " film"]


def test_the_same_corpus_gives_the_same_tokenizer():
    first, second = (train_tokenizer(TEXTS, "bpe", 280) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()


def test_settings_that_cannot_work():
    with pytest.raises(InvalidArgument, match=r"vocab_size=100.*Give 260 or more"):
        train_tokenizer(TEXTS, "bpe", 100)
    with pytest.raises(InvalidArgument, match="kind='wordpiece'"):
        train_tokenizer(TEXTS, "wordpiece", 300)


def test_a_tokenizer_must_fit_its_model():
    tokenizer = train_tokenizer(TEXTS, "char", 60)
    check_tokenizer(model_for(len(tokenizer)), tokenizer)
    check_tokenizer(model_for(len(tokenizer) + 5), tokenizer)  # padded embeddings are common
    with pytest.raises(TokenizerMismatch, match="the model embeds 10"):
        check_tokenizer(model_for(10), tokenizer)
    tokenizer.pad_token = "<eos>"
    with pytest.raises(TokenizerMismatch, match=r"never learn to stop.*ensure_pad_token"):
        check_tokenizer(model_for(60), tokenizer)
    tokenizer.pad_token = None
    with pytest.raises(TokenizerMismatch, match="no PAD token"):
        check_tokenizer(model_for(60), tokenizer)


def hub_tokenizer(*extra, pad=None, bos=None, closes=False):
    """As GPT-2's: `<end>` ends a text, and nothing pads."""
    words = ["<end>", "<unk>", *"abcdefg", *extra]
    model = WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        unk_token="<unk>",
        pad_token=pad,
        bos_token=bos,
        add_bos_token=bos is not None,
        add_eos_token=closes,
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("pad", [None, "<end>"])
def test_a_pad_token_is_added_with_a_row_for_it(pad, tied):
    tokenizer, model = hub_tokenizer(pad=pad), model_for(9, tied)
    ids = torch.tensor([[2, 3, 4]])
    before = model(ids).logits
    state = torch.get_rng_state()
    assert ensure_pad_token(tokenizer, model)
    assert torch.equal(torch.get_rng_state(), state)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", 9)
    assert (model.config.pad_token_id, model.generation_config.pad_token_id) == (9, 9)
    assert torch.equal(model(ids).logits[..., :9], before)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        torch.testing.assert_close(table.weight[9], table.weight[:9].mean(0))
    check_tokenizer(model, tokenizer)
    assert not ensure_pad_token(tokenizer, model)  # once is enough


def test_a_pad_token_that_is_already_there_is_taken():
    tokenizer, model = hub_tokenizer("<|finetune_right_pad_id|>"), model_for(10)
    assert ensure_pad_token(tokenizer, model)
    assert tokenizer.pad_token == "<|finetune_right_pad_id|>"
    assert model.get_input_embeddings().num_embeddings == 10


def test_spare_rows_are_used_before_new_ones():
    tokenizer, model = hub_tokenizer(), model_for(16)
    assert ensure_pad_token(tokenizer, model)
    assert model.get_input_embeddings().num_embeddings == 16
    assert ensure_pad_token(hub_tokenizer(), None)


def test_the_token_that_ends_a_text():
    tokenizer, model = hub_tokenizer(), model_for(9)
    assert set_end_token(tokenizer, model, None) == 0
    assert set_end_token(tokenizer, model, "g") == tokenizer.eos_token_id == 8
    assert model.config.eos_token_id == model.generation_config.eos_token_id == 8
    with pytest.raises(TokenizerMismatch, match=r"end_token='<\|im_end\|>'.*not in the vocabulary"):
        set_end_token(tokenizer, model, "<|im_end|>")
    tokenizer.eos_token = None
    with pytest.raises(TokenizerMismatch, match="no text would ever end"):
        set_end_token(tokenizer, model, None)


def test_chat_models_have_several_end_tokens():
    tokenizer, model = hub_tokenizer(), model_for(9)
    ensure_pad_token(tokenizer, model)
    assert end_token_ids(tokenizer, None) == end_token_ids(tokenizer, model) == (0,)
    model.generation_config.eos_token_id = [8, 0, tokenizer.pad_token_id, 99]
    assert end_token_ids(tokenizer, model) == (0, 8)  # PAD is never written, 99 is no token
    model.generation_config.eos_token_id = [8, 7]  # EOS is not in it: set by somebody else
    assert end_token_ids(tokenizer, model) == (0,)
    model.generation_config.eos_token_id = [8, 0]
    set_end_token(tokenizer, model, "f")
    assert end_token_ids(tokenizer, model) == (tokenizer.eos_token_id,)


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize(("bos", "front"), [(None, []), ("<end>", [0])])
def test_a_beginning_is_never_closed(closes, bos, front):
    tokenizer = hub_tokenizer(bos=bos, closes=closes)
    assert encode_beginnings(tokenizer, ["a b", "c"]) == [[*front, 2, 3], [*front, 4]]
    assert encode_beginnings(tokenizer, []) == []
