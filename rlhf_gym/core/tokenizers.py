"""Training tokenizers, and refusing those that do not fit a model; light to import."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint, TokenizerMismatch

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

TokenizerKind = Literal["bpe", "word", "char"]

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNK)

# What a model may already call its padding: Llama 3, Qwen, T5, BERT.
_KNOWN_PADS = (PAD, "<|finetune_right_pad_id|>", "<|pad|>", "[PAD]", "<PAD>", "<|endoftext|>")

# A word takes the space before it with it, so that decoding is plain concatenation.
_PIECE = {"word": r" ?[\p{L}\p{M}\p{N}'_]+| ?[^\s\p{L}\p{M}\p{N}'_]|\s", "char": r"[\s\S]"}


def train_tokenizer(
    texts: Iterable[str],
    kind: TokenizerKind = "bpe",
    vocab_size: int = 4096,
    *,
    min_frequency: int = 2,
    context: int | None = None,
) -> PreTrainedTokenizerFast:
    """Learn a tokenizer with `<pad>`, `<bos>`, `<eos>`, `<unk>` as ids 0 to 3.

    Decoding gives the text back to the letter (but for words that are `<unk>`). `<bos>` is put in
    front when special tokens are asked for; `<eos>` is left to whoever knows that a text is over.

    Args:
        texts: the corpus.
        kind: `bpe` merges bytes and knows every text; `word` has whole words, a leading space being
            part of them; `char` has single characters.
        vocab_size: tokens at most, the special ones included.
        min_frequency: how often a pair or word must occur to become a token.
        context: recorded as the longest input, in tokens.

    Raises:
        InvalidArgument: an unknown kind, or a vocabulary too small for it.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    smallest = len(SPECIAL_TOKENS) + (256 if kind == "bpe" else 1)
    if vocab_size < smallest:
        raise InvalidArgument(
            "vocab_size", vocab_size, f"too small for kind={kind}", f"Give {smallest} or more"
        )
    trainer: trainers.Trainer
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif kind in _PIECE:
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE[kind]), "isolated")
        tokenizer.decoder = decoders.Fuse()
        trainer = trainers.WordLevelTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=list(SPECIAL_TOKENS),
            show_progress=False,
        )
    else:
        raise InvalidArgument("kind", kind, "no such tokenizer", "Give bpe, word or char")
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        add_bos_token=True,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **({} if context is None else {"model_max_length": context}),
    )


def check_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that a model cannot be trained with.

    Raises:
        TokenizerMismatch: more tokens than the model embeds, no PAD, or PAD equal to EOS.
    """
    embedded = _embedded_tokens(model)
    if len(tokenizer) > embedded:
        raise TokenizerMismatch(
            "tokenizer",
            tokenizer.name_or_path,
            f"it has {len(tokenizer)} tokens, the model embeds {embedded}",
            "Use the tokenizer that the model was trained with",
        )
    if tokenizer.pad_token_id is None:
        raise TokenizerMismatch(
            "pad_token",
            None,
            "the tokenizer has no PAD token",
            "Call rlhf_gym.core.tokenizers.ensure_pad_token(tokenizer, model)",
        )
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise TokenizerMismatch(
            "pad_token",
            tokenizer.pad_token,
            "PAD is also the end token, so a model could never learn to stop",
            "Call rlhf_gym.core.tokenizers.ensure_pad_token(tokenizer, model)",
        )


def check_same_tokens(
    field: str,
    source: str,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel | None = None,
) -> None:
    """Refuse a model whose token ids mean something else than an environment's.

    One without a tokenizer of its own, such as a folder of adapters, cannot be compared.

    Args:
        field: what the model was given as.
        source: directory or hub name of the model.
        tokenizer: of the environment.
        model: what was loaded from there, if it was; given a row for PAD where it has none.

    Raises:
        TokenizerMismatch: the vocabularies differ.
    """
    from rlhf_gym.core.models import load_tokenizer, quiet_transformers

    try:
        own = load_tokenizer(source)
    except InvalidCheckpoint:
        if model is not None:
            check_tokenizer(model, tokenizer)
        return
    with quiet_transformers():
        ensure_pad_token(own, model)  # as the environment's was given one
    if own.get_vocab() != tokenizer.get_vocab():
        raise TokenizerMismatch(
            field,
            source,
            f"its {len(own)} tokens are not the {len(tokenizer)} that the environment speaks",
            "Give one that was trained from the environment's model",
        )


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None) -> bool:
    """Give a tokenizer a PAD token of its own, as hub models such as GPT-2 lack one.

    A token that the vocabulary already has for it is taken; otherwise `<pad>` is added, and the
    model gets a row for it (the mean of the others, drawn from no generator) unless its embeddings
    have one to spare.

    Args:
        tokenizer: changed in place.
        model: changed in place; None changes the tokenizer alone.

    Returns:
        True if anything was changed.
    """
    if tokenizer.pad_token_id not in (None, tokenizer.eos_token_id):
        return False
    vocabulary = tokenizer.get_vocab()
    taken = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token}
    known = (pad for pad in _KNOWN_PADS if pad in vocabulary and pad not in taken)
    tokenizer.add_special_tokens({"pad_token": next(known, PAD)})
    if model is not None:
        _resize(model, len(tokenizer))
        for config in (model.config.get_text_config(), model.generation_config):
            if config is not None:
                config.pad_token_id = tokenizer.pad_token_id
    return True


def set_end_token(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, end_token: str | None
) -> int:
    """Make a token of the vocabulary the one that ends a text, for tokenizer and model alike.

    Args:
        tokenizer: changed in place.
        model: changed in place.
        end_token: the token; None keeps the tokenizer's EOS.

    Returns:
        Its id.

    Raises:
        TokenizerMismatch: no such token, or no EOS to keep.
    """
    if end_token is None:
        if tokenizer.eos_token_id is None:
            raise TokenizerMismatch(
                "end_token",
                None,
                "the tokenizer has no EOS token, so no text would ever end",
                "Name the token that ends a text with end_token",
            )
        return int(tokenizer.eos_token_id)
    if end_token not in tokenizer.get_vocab():
        raise TokenizerMismatch(
            "end_token", end_token, "it is not in the vocabulary", "Give a token of the tokenizer"
        )
    tokenizer.eos_token = end_token
    for config in (model.config.get_text_config(), model.generation_config):
        if config is not None:
            config.eos_token_id = tokenizer.eos_token_id
    return int(tokenizer.eos_token_id)


def end_token_ids(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None
) -> tuple[int, ...]:
    """Ids of the tokens that end a text: the tokenizer's EOS first.

    Chat models have several, in a list of their generation settings; it is followed where EOS is in
    it, without PAD and without ids that the tokenizer does not have.

    Args:
        tokenizer: has an EOS.
        model: None for the tokenizer's EOS alone.
    """
    end = int(tokenizer.eos_token_id)
    settings = None if model is None else model.generation_config
    listed = None if settings is None else settings.eos_token_id
    if not isinstance(listed, list) or end not in listed:
        return (end,)
    others = (int(i) for i in listed if i != tokenizer.pad_token_id and i < len(tokenizer))
    return tuple(dict.fromkeys((end, *others)))


def encode_beginnings(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts that something follows: what the tokenizer puts in front, nothing behind.

    Args:
        tokenizer: may close every text with EOS, which is taken off again.
        texts: of any length; nothing is cut.
    """
    from rlhf_gym.core.models import quiet_transformers

    if not texts:
        return []
    with quiet_transformers():  # it warns of texts longer than the model; callers deal with them
        ids: list[list[int]] = tokenizer(list(texts), return_attention_mask=False)["input_ids"]
        # Not the empty text: where BOS and EOS are one token, it cannot tell front from behind.
        closes = tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    return [row[:-1] for row in ids] if closes else ids


def _resize(model: PreTrainedModel, vocab_size: int) -> None:
    import torch

    old = _embedded_tokens(model)
    if vocab_size <= old:
        return
    with torch.random.fork_rng(devices=[]):  # it draws new rows, which are replaced below
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    tables: list[nn.Module | None] = [model.get_input_embeddings(), head]
    with torch.no_grad():
        for table in tables:
            if table is not None:
                weight = table.get_parameter("weight")
                weight[old:] = weight[:old].mean(0)


def _embedded_tokens(model: PreTrainedModel) -> int:
    return model.get_input_embeddings().get_parameter("weight").shape[0]
