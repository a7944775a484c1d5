"""Scores against a baseline: a constant, a reference answer, the reference's own answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.rewards.base import RewardFunction, RewardTerm, check_scores
from rlhf_gym.rewards.transforms import Affine, TransformedReward

Answers = Callable[[list[str]], Sequence[str]]
"""`prompts -> one answer each`, for example what the reference writes."""


class Centred(TransformedReward):
    """score - baseline, a constant.

    Args:
        reward: a term, a sum of terms or a function.
        baseline: in the reward's unit, for example the mean score of the reference.
        name: tag of the term.

    Raises:
        InvalidArgument: a baseline that is not finite.
    """

    prefix = "centred"

    def __init__(
        self, reward: RewardTerm | RewardFunction, baseline: float, name: str | None = None
    ) -> None:
        super().__init__(reward, name)
        if not abs(baseline) < float("inf"):
            raise InvalidArgument("baseline", baseline, "not a finite number", "Give a number")
        self.baseline = float(baseline)

    def transform(self, scores: Tensor, episodes: Episodes) -> Affine:
        """score - baseline."""
        return Affine(torch.ones_like(scores), torch.full_like(scores, -self.baseline))


class Margin(TransformedReward):
    """score(response) - score(another answer to the same prompt), both by the inner reward.

    The baseline depends on the prompt alone, so that no policy's advantage and no optimum moves;
    what it takes away is how much easier some prompts are than others. Each different prompt's
    baseline is scored once and kept.

    Args:
        reward: a term, a sum of terms or a function; without a state that moves.
        answers: the column of the data rows that holds the answer, or a function of prompts, such
            as one that lets the reference answer. The function is asked once per prompt.
        name: tag of the term.

    Source: Ouyang et al. (2022), "Training language models to follow instructions with human
    feedback", section 3.5, where the labelers' demonstrations get the mean score 0.
    """

    prefix = "margin"

    def __init__(
        self,
        reward: RewardTerm | RewardFunction,
        answers: str | Answers,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name)
        if not (isinstance(answers, str) or callable(answers)):
            raise InvalidArgument(
                "answers",
                answers,
                "neither a column nor a function",
                "Give the name of a column of the data, or a function prompts -> answers",
            )
        self.answers = answers
        self._known: dict[tuple[int, ...], float] = {}

    def transform(self, scores: Tensor, episodes: Episodes) -> Affine:
        """score - score of the other answer."""
        width = episodes.prompt_width
        masked = episodes.input_ids[:, :width].cpu() * episodes.attention_mask[:, :width].cpu()
        prompts = [tuple(row) for row in masked.tolist()]
        new = {prompt: i for i, prompt in enumerate(prompts) if prompt not in self._known}
        if new:
            rows = list(new.values())
            answered = answered_by(episodes, rows, self._answers(episodes, rows))
            totals = self.reward.token_rewards(answered).sum(-1)
            self._known |= zip(
                new, check_scores(totals, len(rows), self.name).tolist(), strict=True
            )
        baseline = torch.tensor([self._known[prompt] for prompt in prompts], dtype=scores.dtype)
        return Affine(torch.ones_like(scores), -baseline)

    def _answers(self, episodes: Episodes, rows: list[int]) -> list[str]:
        if not isinstance(self.answers, str):
            answers = list(self.answers([episodes.prompts[i] for i in rows]))
        else:
            data = [dict(episodes.rows[i]) if episodes.rows else {} for i in rows]
            if any(self.answers not in row for row in data):
                raise InvalidData(
                    self.answers, self.name, "a prompt's row has no such column", "Add the answers"
                )
            answers = [row[self.answers] for row in data]
        if len(answers) != len(rows) or not all(isinstance(answer, str) for answer in answers):
            raise InvalidData(
                "answers", answers, f"not {len(rows)} texts", "Give one answer per prompt"
            )
        return answers


def answered_by(episodes: Episodes, rows: list[int], answers: Sequence[str]) -> Episodes:
    """The prompts of some episodes with other responses, each ended by a stop token.

    Args:
        episodes: where the prompts come from.
        rows: which of them.
        answers: one text for each; cut at the response budget, and then without a stop token.

    Returns:
        Episodes without log-probabilities, of the same widths.
    """
    time, width, rules = episodes.mask.shape[1], episodes.prompt_width, episodes.rules
    encoded = episodes.tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    stop = rules.stop_ids[0]  # the tokenizer's EOS, of several
    written = [[*ids, stop][:time] for ids in encoded]
    lengths = torch.tensor([len(ids) for ids in written])
    tail = torch.tensor([ids + [rules.pad_id] * (time - len(ids)) for ids in written])
    which = torch.tensor(rows)
    prompt_ids = episodes.input_ids.cpu()[which, :width]
    prompt_mask = episodes.attention_mask.cpu()[which, :width].bool()
    device = episodes.input_ids.device
    return dataclasses.replace(
        episodes,
        input_ids=torch.cat([prompt_ids, tail], 1).to(device),
        attention_mask=torch.cat([prompt_mask, torch.arange(time) < lengths.unsqueeze(-1)], 1).to(
            device
        ),
        stopped=torch.tensor([ids[-1] == stop for ids in written]).to(device),
        prompts=[episodes.prompts[i] for i in rows],
        rows=[episodes.rows[i] for i in rows] if episodes.rows else (),
        log_probs=None,
        log_distributions=None,
        action_masks=None,
        _cache={},
    )
