"""The reference of `rlhf_gym/Exact-v0`: a real Hugging Face causal LM, fixed once and for all.

A GPT-2 of two layers x 32 with random weights, large enough that it has habits of its own. The
weights come from NumPy's generator and not from torch's, whose normal numbers depend on the
processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from rlhf_gym.core.errors import InvalidArgument

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = ("<pad>", "<stop>", "a", "b", "c", "d", "e")
PAD_ID, STOP_ID, BAIT_ID = 0, 1, 2
LONGEST_RESPONSE = 8
"""With longer ones the prefixes would be too many to visit them all."""
_CONTEXT = 16
# Chosen among some thousand seeds, so that no prompt is out of reach: bait has a probability near
# 0.2 as first token, and the best response to each prompt one near 1e-5, with no step below 0.05.
_SEED = 1688


def check_horizon(max_response_tokens: int) -> None:
    """Refuse responses longer than can be enumerated."""
    if not 1 <= max_response_tokens <= LONGEST_RESPONSE:
        raise InvalidArgument(
            "max_response_tokens",
            max_response_tokens,
            "an exact optimum visits every prefix",
            f"Give 1 to {LONGEST_RESPONSE}",
        )


def babbler() -> PreTrainedModel:
    """The reference LM, float32, in eval mode."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(VOCABULARY),
        n_positions=_CONTEXT,
        n_embd=32,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=STOP_ID,
    )
    with torch.random.fork_rng(devices=[]):  # Hugging Face initialises from the global generator
        model = GPT2LMHeadModel(config)
    rng = np.random.default_rng(_SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:  # biases stay 0, layer norms 1
                spread = 0.22 if "wte" in name else 0.25
                weights = spread * rng.standard_normal(tuple(parameter.shape))
                parameter.copy_(torch.from_numpy(weights))
    model.train(False)
    return model


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """Letters with spaces between them, `<pad>` and `<stop>`; nothing is put in front of a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<stop>", padding_side="left"
    )
