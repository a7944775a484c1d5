"""The reward head: where it is read, how it starts, and that folding is the same as normalising."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
from rlhf_gym.core.reward_head import (
    fold_normalisation,
    init_reward_head,
    per_token_scores,
    reward_head,
    reward_mean,
    score_ids,
)

_SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 20,
}
CAUSAL: dict[str, PretrainedConfig] = {
    "gpt2": transformers.GPT2Config(
        n_embd=16,
        n_layer=2,
        n_head=2,
        vocab_size=20,
        n_positions=16,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "llama": transformers.LlamaConfig(**_SHAPE, intermediate_size=32),
    "gpt_neox": transformers.GPTNeoXConfig(**_SHAPE, intermediate_size=32, eos_token_id=2),
}
ENCODER = transformers.BertConfig(**_SHAPE, intermediate_size=32)

# Rows: left padded, right padded, padded on both sides; the last column is padding in all of them.
MASK = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0]])
IDS = torch.tensor([[0, 0, 5, 6, 7, 0], [5, 6, 7, 0, 0, 0], [0, 5, 6, 7, 0, 0]])


def classifier(config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    config = copy.deepcopy(config)
    config.num_labels, config.pad_token_id = 1, 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize("name", CAUSAL)
def test_padding_does_not_move_a_score(name: str) -> None:
    model = classifier(CAUSAL[name])
    with torch.no_grad():
        scores = score_ids(model, IDS, MASK)
        alone = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, 0]
    assert scores.shape == (3,)
    torch.testing.assert_close(scores, alone.expand(3), atol=1e-6, rtol=0)


def test_an_encoder_is_scored_through_its_own_head() -> None:
    model = classifier(ENCODER)
    with torch.no_grad():
        scores = score_ids(model, IDS[1:2], MASK[1:2])
        alone = model(input_ids=torch.tensor([[5, 6, 7]])).logits[:, 0]
    torch.testing.assert_close(scores, alone, atol=1e-6, rtol=0)
    with pytest.raises(InvalidArgument, match="encoder has no scores for prefixes"):
        per_token_scores(model, IDS, MASK)


@pytest.mark.parametrize("name", CAUSAL)
def test_per_token_scores_are_the_scores_of_prefixes(name: str) -> None:
    model = classifier(CAUSAL[name])
    model.config.reward_mean = 0.25
    with torch.no_grad():
        scores = per_token_scores(model, IDS, MASK)
        prefixes = [score_ids(model, *prefix(length)).item() for length in (1, 2, 3)]
    assert scores.shape == IDS.shape
    assert torch.equal(scores != 0, MASK.bool())
    torch.testing.assert_close(
        scores[MASK.bool()].reshape(3, 3), torch.tensor([prefixes] * 3), atol=1e-6, rtol=0
    )


def prefix(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    return IDS[1:2, :length], torch.ones(1, length, dtype=torch.long)


def test_head_starts_small_and_the_same_for_the_same_seed() -> None:
    config = transformers.GPT2Config(
        n_embd=255, n_layer=1, n_head=1, vocab_size=20, bos_token_id=1, eos_token_id=2
    )
    model = classifier(config)
    init_reward_head(model, torch.Generator().manual_seed(3))
    weight = reward_head(model).weight.detach().clone()
    # 255 draws of deviation 1 / sqrt(256) = .0625; their own deviation is within 20 % of it.
    assert weight.std().item() == pytest.approx(0.0625, rel=0.2)
    init_reward_head(model, torch.Generator().manual_seed(3))
    assert torch.equal(reward_head(model).weight, weight)


def test_head_bias_starts_at_zero() -> None:
    model = classifier(ENCODER)
    with torch.no_grad():
        reward_head(model).bias.fill_(7.0)
    init_reward_head(model, torch.Generator().manual_seed(0))
    assert reward_head(model).bias.item() == 0.0


@pytest.mark.parametrize("config", [CAUSAL["gpt2"], ENCODER], ids=["gpt2", "encoder"])
def test_folding_is_normalising_and_composes(config: PretrainedConfig) -> None:
    model = classifier(config)
    with torch.no_grad():
        raw = score_ids(model, IDS, MASK)
        fold_normalisation(model, mean=2.0, std=4.0)
        torch.testing.assert_close(score_ids(model, IDS, MASK), (raw - 2.0) / 4.0)
        fold_normalisation(model, mean=-1.0, std=0.5)
        torch.testing.assert_close(score_ids(model, IDS, MASK), ((raw - 2.0) / 4.0 + 1.0) / 0.5)
    # ((0 + 2) / 4 - 1) / .5 = -1
    assert reward_mean(model.config) == -1.0


def test_normalisation_survives_saving(tmp_path: Path) -> None:
    model = classifier(CAUSAL["gpt2"])
    fold_normalisation(model, mean=1.0, std=2.0)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(score_ids(again, IDS, MASK), score_ids(model, IDS, MASK))


@pytest.mark.parametrize(
    ("mean", "std", "field"), [(0.0, 0.0, "std"), (0.0, math.nan, "std"), (math.inf, 1.0, "mean")]
)
def test_folding_refuses_what_would_break_every_score(mean: float, std: float, field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{field}="):
        fold_normalisation(classifier(CAUSAL["gpt2"]), mean, std)


def test_a_model_without_one_score_is_refused() -> None:
    config = copy.deepcopy(CAUSAL["gpt2"])
    config.num_labels = 2
    with pytest.raises(InvalidCheckpoint, match="num_labels=1"):
        reward_head(AutoModelForSequenceClassification.from_config(config))
