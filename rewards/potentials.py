"""Potentials: how promising a response is while it is being written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument, InvalidReward
from rlhf_gym.rewards.base import RewardFunction, RewardTerm, as_weighted, check_scores
from rlhf_gym.rewards.model import RewardModel
from rlhf_gym.rewards.prefixes import cut
from rlhf_gym.rewards.wrapping import depends_on_others

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TextPotentialFunction = Callable[[list[str], list[str]], Sequence[float]]
"""`(prompts, responses so far) -> one number each`, the same for the same text at any time."""


class Potential(ABC):
    """A number for every state: a prompt, and what has been written of the response.

    It must not change while an agent learns: shaping by a moving potential moves the optimum.
    """

    @abstractmethod
    def values(self, episodes: Episodes) -> Tensor:
        """The potential of the prompt with the response's first t tokens, shape (batch, 1 + time).

        What it says of the finished response and behind it does not matter: shaping takes 0 there.
        """

    @abstractmethod
    def current(self, episodes: Episodes) -> Tensor:
        """The potential of each text as it stands, for unfinished episodes, shape (batch,)."""


class ModelPotential(Potential):
    """The score of a reward model, or the value of a value model, at every prefix.

    Args:
        model: a reward model, or a sequence classifier with one output (a value model is one) as a
            module, directory or hub name; causal, with the policy's tokenizer.
    """

    def __init__(self, model: RewardModel | PreTrainedModel | str | Path) -> None:
        self.model = model if isinstance(model, RewardModel) else RewardModel(model)

    def values(self, episodes: Episodes) -> Tensor:
        """Its output at every prefix, shape (batch, 1 + time)."""
        return self.model.prefix_scores(episodes)

    def current(self, episodes: Episodes) -> Tensor:
        """Its output at the last token so far, shape (batch,)."""
        scores = self.model.prefix_scores(episodes)
        return scores.gather(1, episodes.lengths.cpu().unsqueeze(-1)).squeeze(-1)


class TextPotential(Potential):
    """Any function of texts.

    Args:
        function: see `TextPotentialFunction`; it is asked once about all prefixes of a batch, each
            different (prompt, beginning) once.
    """

    def __init__(self, function: TextPotentialFunction) -> None:
        self.function = function

    def values(self, episodes: Episodes) -> Tensor:
        """What the function says of every prefix, 0 behind the response, shape (batch, 1 + time).

        Raises:
            InvalidReward: not one finite number per text.
        """
        ids, lengths = episodes.response_ids.tolist(), episodes.lengths.tolist()
        begun = [row[:t] for row, length in zip(ids, lengths, strict=True) for t in range(length)]
        texts = episodes.tokenizer.batch_decode(begun, skip_special_tokens=True)
        prompts = [
            prompt for prompt, n in zip(episodes.prompts, lengths, strict=True) for _ in range(n)
        ]
        states = list(zip(prompts, texts, strict=True))
        different = list(dict.fromkeys(states))
        said = self.function([prompt for prompt, _ in different], [text for _, text in different])
        known = dict(
            zip(different, check_scores(said, len(different), "potential").tolist(), strict=True)
        )
        values = torch.zeros(len(ids), 1 + episodes.mask.shape[1])
        running = torch.arange(values.shape[1]) < episodes.lengths.cpu().unsqueeze(-1)
        values[running] = torch.tensor([known[state] for state in states])
        return values

    def current(self, episodes: Episodes) -> Tensor:
        """What the function says of each text, shape (batch,)."""
        said = self.function(list(episodes.prompts), list(episodes.responses))
        return check_scores(said, len(episodes), "potential")


class RewardPotential(Potential):
    """What a reward says of the text so far, as if it had been cut there; 0 while it is empty.

    For rewards that are no models: the reward is asked once for every length of response.

    Args:
        reward: a term, a sum of terms or a function; what it says of a text must not depend on
            other texts or on the past.

    Raises:
        InvalidArgument: it does.
    """

    def __init__(self, reward: RewardTerm | RewardFunction) -> None:
        self.reward = as_weighted(reward)
        if depends_on_others(self.reward):
            raise InvalidArgument(
                "potential",
                [term.name for _, term in self.reward.parts],
                "what it says of a text changes with other texts",
                "Give the reward that it normalises",
            )

    def prefix_scores(self, episodes: Episodes) -> Tensor:
        """Score of the response's first t tokens, shape (batch, 1 + time); 0 behind its end."""
        lengths = episodes.lengths.cpu()
        scores = torch.zeros(len(episodes), 1 + episodes.mask.shape[1])
        for length in range(1, int(lengths.max()) + 1):
            rows = (lengths >= length).nonzero().squeeze(-1)
            scores[rows, length] = self._of(cut(episodes, rows, length))
        return scores

    def values(self, episodes: Episodes) -> Tensor:
        """`prefix_scores`."""
        return self.prefix_scores(episodes)

    def current(self, episodes: Episodes) -> Tensor:
        """What it says of each text, 0 of an empty one, shape (batch,)."""
        scores = torch.zeros(len(episodes))
        rows = episodes.lengths.cpu().nonzero().squeeze(-1)
        if len(rows):
            scores[rows] = self._of(cut(episodes, rows, episodes.mask.shape[1]))
        return scores

    def _of(self, episodes: Episodes) -> Tensor:
        return self.reward.token_rewards(episodes).float().cpu().sum(-1)


def as_potential(
    source: Potential | RewardModel | PreTrainedModel | str | Path | TextPotentialFunction,
) -> Potential:
    """A potential as it is; a model as a `ModelPotential`; any other callable of texts.

    Raises:
        InvalidArgument: none of them.
    """
    from transformers import PreTrainedModel

    if isinstance(source, Potential):
        return source
    if isinstance(source, RewardModel | PreTrainedModel | str | Path):
        return ModelPotential(source)
    if callable(source) and not isinstance(source, nn.Module):
        return TextPotential(source)
    raise InvalidArgument(
        "potential",
        source,
        "neither a model nor a function",
        "Give a RewardModel, a value model, or a function (prompts, responses so far) -> numbers",
    )


def check_potential(values: Tensor, episodes: Episodes, name: str) -> Tensor:
    """Refuse values of the wrong shape, and what is not finite.

    Args:
        values: what a potential said.
        episodes: of which episodes.
        name: of the term, for the message.

    Raises:
        InvalidReward: see above.
    """
    expected = (len(episodes), 1 + episodes.mask.shape[1])
    if values.shape != expected or not torch.isfinite(values).all():
        raise InvalidReward(
            name,
            tuple(values.shape),
            f"the potential is not finite, or not of shape {expected}",
            "Return one finite number for the prompt and each prefix",
        )
    return values
