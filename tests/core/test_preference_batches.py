"""Batches are flat, and the likelihoods pick the right rows of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlhf_gym.core.supervised.preference_batches import (
    FeedbackCollator,
    Targets,
    cut_responses,
    judgement_log_probs,
    make_targets,
    targets_of,
)
from rlhf_gym.core.supervised.preference_data import Example, Judgement

PAD = 0


def pair(*, tie: bool = False) -> Judgement:
    return Judgement("comparison", "p", ("a", "b"), tie=tie)


def ranking(count: int) -> Judgement:
    return Judgement("comparison", "p", tuple("abcdef"[:count]))


def thumb(label: float) -> Judgement:
    return Judgement("thumbs", "", ("a",), label)


def rating(value: float) -> Judgement:
    return Judgement("rating", "", ("a",), value)


def example(judgement: Judgement, *sequences: list[int]) -> Example:
    return Example(judgement, sequences, tuple(1 for _ in sequences))


def log_probs(scores: list[float], *judgements: Judgement, noise: float = 0.0) -> list[float]:
    values: list[float] = judgement_log_probs(
        torch.tensor(scores, dtype=torch.float32), make_targets(judgements), noise
    ).tolist()
    return values


def test_pairs_become_one_flat_batch_as_wide_as_the_longest() -> None:
    batch = FeedbackCollator(PAD)(
        [example(pair(), [3, 6, 2], [3, 8, 7, 2]), example(pair(), [4, 2], [5, 2])]
    )
    assert batch["input_ids"].tolist() == [
        [3, 6, 2, PAD],
        [3, 8, 7, 2],
        [4, 2, PAD, PAD],
        [5, 2, PAD, PAD],
    ]
    assert batch["attention_mask"].tolist() == [
        [1, 1, 1, 0],
        [1, 1, 1, 1],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
    ]
    targets = targets_of(batch)
    assert targets.rankings.tolist() == [[0, 1], [2, 3]]
    assert len(targets.thumbs) == len(targets.rated) == 0


def test_kinds_mix_and_index_their_own_responses() -> None:
    targets = make_targets([thumb(0.0), ranking(3), rating(2.5), pair(tie=True), thumb(1.0)])
    assert targets.rankings.tolist() == [[1, 2, 3], [5, 6, -1]]
    assert targets.ties.tolist() == [False, True]
    assert targets.thumbs.tolist() == [0, 7]
    assert targets.labels.tolist() == [0.0, 1.0]
    assert targets.rated.tolist() == [4]
    assert targets.ratings.tolist() == [2.5]


def test_without_comparisons_the_table_is_empty() -> None:
    targets = make_targets([thumb(1.0)])
    assert targets.rankings.shape == (0, 0)
    assert targets.rankings.dtype == torch.long


def test_log_probabilities_by_hand() -> None:
    # pair: sigmoid(1 - 0) = .731059; ranking 2, 1, 0: e^2/(e^2+e+1) * e/(e+1) = .665241 * .731059
    # thumb down at 1: sigmoid(-1) = .268941; rating 2 at score 1: exp(-1/2) / sqrt(2 pi) = .241971
    found = log_probs([1, 0, 2, 1, 0, 1, 1], pair(), ranking(3), thumb(0.0), rating(2.0))
    expected = [0.731059, 0.665241 * 0.731059, 0.268941, 0.241971]
    assert found == pytest.approx([math.log(p) for p in expected], abs=1e-5)


def test_a_tie_is_half_of_each_order() -> None:
    # (log sigmoid(2) + log sigmoid(-2)) / 2 = (-.126928 - 2.126928) / 2
    assert log_probs([2, 0], pair(tie=True)) == pytest.approx([-1.126928], abs=1e-6)


def test_a_wrong_label_costs_less_among_noisy_raters() -> None:
    # .9 sigmoid(-20) + .1 / 2 = .05
    assert log_probs([-20, 0], pair(), noise=0.1) == pytest.approx([math.log(0.05)], abs=1e-4)


def test_short_rankings_do_not_feel_their_padding() -> None:
    alone = log_probs([1, 0], pair())
    beside = log_probs([1, 0, 3, 2, 1, 0], pair(), ranking(4))
    assert beside[0] == pytest.approx(alone[0])


def test_gradients_reach_every_score_and_are_finite() -> None:
    targets = make_targets([ranking(4), pair(), pair(tie=True), thumb(1.0), rating(0.5)])
    scores: Tensor = torch.randn(10, generator=torch.Generator().manual_seed(0)).requires_grad_()
    judgement_log_probs(scores, targets).mean().backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad != 0).all()


def test_a_large_batch_is_the_mean_of_its_halves() -> None:
    scores = torch.randn(8, generator=torch.Generator().manual_seed(1))
    whole = judgement_log_probs(scores, make_targets([pair()] * 4))
    first = judgement_log_probs(scores[:4], make_targets([pair()] * 2))
    second = judgement_log_probs(scores[4:], make_targets([pair()] * 2))
    torch.testing.assert_close(whole, torch.cat([first, second]))


def test_targets_name_their_tensors_as_the_batch_does() -> None:
    batch = FeedbackCollator(PAD)([example(thumb(1.0), [5, 2])])
    assert set(batch) == {"input_ids", "attention_mask", "response_mask", *Targets._fields}


def test_responses_are_told_from_prompts_and_padding() -> None:
    examples = [
        Example(pair(), ([3, 6, 7, 2], [3, 8, 2]), (3, 2)),
        Example(thumb(1.0), ([4, 4, 4, 4, 2],), (1,)),
    ]
    assert FeedbackCollator(PAD)(examples)["response_mask"].int().tolist() == [
        [0, 1, 1, 1, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1],
    ]


def test_cutting_drops_the_same_share_of_both_sides_and_every_eos() -> None:
    long = Example(pair(), ([9, 3, 4, 5, 6, 2], [9, 7, 8, 2]), (5, 3))
    cut = cut_responses([long] * 200, share=1.0, seed=0)
    for example in cut:
        (better, worse), (kept_better, kept_worse) = example.sequences, example.response_lengths
        assert better == [9, 3, 4, 5, 6][: 1 + kept_better]
        assert worse == [9, 7, 8][: 1 + kept_worse]
        # of 4 and 2 tokens before the EOS, the same fraction, rounded up
        assert kept_worse == math.ceil(kept_better / 2)
    assert {example.response_lengths[0] for example in cut} == {1, 2, 3, 4}


def test_cutting_spares_a_share_and_follows_its_seed() -> None:
    many = [Example(thumb(1.0), ([9, 3, 4, 5, 6, 2],), (5,))] * 400
    cut = cut_responses(many, share=0.25, seed=1)
    assert sum(example is not same for example, same in zip(cut, many, strict=True)) == (
        pytest.approx(100, abs=30)
    )
    assert cut == cut_responses(many, share=0.25, seed=1)
    assert cut_responses(many, share=0.0, seed=1) == many


def test_a_lone_eos_is_never_cut() -> None:
    only_eos = Example(thumb(1.0), ([9, 2],), (1,))
    assert cut_responses([only_eos], share=1.0, seed=0)[0].sequences == ([9, 2],)
