"""A learned reward: a Hugging Face sequence classifier with one output, as a term."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rlhf_gym.core.decoding import make_decoder
from rlhf_gym.core.decoding.base import evaluation_mode, left_justified
from rlhf_gym.core.devices import Device, choose_device
from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument, InvalidPrompt, TokenizerMismatch
from rlhf_gym.core.models import context_length, load_reward_model, load_tokenizer
from rlhf_gym.core.reward_head import (
    fold_normalisation,
    per_token_scores,
    reward_head,
    reward_mean,
    score_ids,
)
from rlhf_gym.core.scoring import length_buckets
from rlhf_gym.core.tokens import last_token_index
from rlhf_gym.rewards.base import ScoreTerm

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

AsText = Callable[[str, str], str]
"""`(prompt, response) -> text`, for a model that reads some other form than both joined."""


class Scale(NamedTuple):
    """Mean and standard deviation that scores had before they were normalised."""

    mean: float
    std: float


class RewardModel(ScoreTerm):
    """The score of prompt and response together, read at the last real token.

    When the model's tokenizer is the policy's it reads the very ids that were emitted, so that
    nothing is decoded and tokenised again; otherwise it reads the text. Scores come out as it was
    normalised: the gain is part of its head, the mean is `config.reward_mean`. Dropout is off
    whatever mode the model is in.

    Args:
        model: a sequence classifier with one output, or a directory or hub name to load it from.
        tokenizer: the model's; found beside a model that is loaded. None for a module says that it
            shares the policy's.
        batch_size: most sequences scored at once.
        name: tag of the term.
        device: where the model goes; None leaves a module where it is, and loads to a GPU if there
            is one.
        as_text: how prompt and response become the text that the model reads, for models that want
            something special; implies that it reads text.

    Attributes:
        model: the classifier.
        tokenizer: its tokenizer, or None if it shares the policy's.

    Raises:
        InvalidCheckpoint: no complete classifier with one output at that place.
        InvalidArgument: a batch size below 1, or `as_text` without a tokenizer.
    """

    def __init__(
        self,
        model: PreTrainedModel | str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        batch_size: int = 64,
        name: str = "reward_model",
        device: Device | None = None,
        as_text: AsText | None = None,
    ) -> None:
        if batch_size < 1:
            raise InvalidArgument("batch_size", batch_size, "no batch", "Give 1 or more")
        if isinstance(model, str | Path):
            source = model
            model = load_reward_model(source, device="auto" if device is None else device)
            tokenizer = tokenizer or load_tokenizer(source)
        if as_text is not None and tokenizer is None:
            raise InvalidArgument(
                "tokenizer", None, "as_text makes texts, and nothing reads them", "Pass a tokenizer"
            )
        reward_head(model)  # raises if there is no single score
        if device is not None:
            nn.Module.to(model, choose_device(device))
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.name = name
        self.as_text = as_text
        self._reads_ids_of: tuple[object, bool] | None = None

    def scores(self, episodes: Episodes) -> Tensor:
        """Normalised score of each episode, float32, shape (batch,).

        Raises:
            TokenizerMismatch: the policy's tokens are not the model's, and it has no tokenizer to
                read text with.
            InvalidPrompt: the environment's sequences are longer than the model reads.
        """
        ids, mask = self._encode(episodes)
        scores = torch.empty(len(ids))
        for similar in length_buckets(mask, self.model.device):
            for rows in torch.split(similar, self.batch_size):
                scores[rows] = self._score(ids[rows], mask[rows]).cpu()
        return scores

    def token_scores(self, episodes: Episodes) -> Tensor:
        """Score of the response up to each token, float32, shape (batch, time), 0 off the mask.

        The last token's is the episode's score. Errors as of `prefix_scores`.
        """
        return self.prefix_scores(episodes)[:, 1:]

    def prefix_scores(self, episodes: Episodes) -> Tensor:
        """Score of the prompt with the response's first t tokens, shape (batch, 1 + time).

        Entry 0 is the prompt's own. 0 behind the response.

        Raises:
            TokenizerMismatch: the model reads text, whose tokens are not the policy's.
            InvalidArgument: an encoder, which has no scores for prefixes.
        """
        ids, mask = self.shared_ids(episodes)
        size = self.batch_size
        batches = zip(torch.split(ids, size), torch.split(mask, size), strict=True)
        device = self.model.device
        with torch.no_grad(), evaluation_mode(self.model):
            scores = [per_token_scores(self.model, i.to(device), m.to(device)) for i, m in batches]
        return torch.cat(scores)[:, episodes.prompt_width - 1 :].cpu()

    def shared_ids(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """The policy's own ids and their mask, on the CPU, both of shape (batch, width).

        Raises:
            TokenizerMismatch: they mean something else to the model.
        """
        if not self._reads_ids(episodes):
            raise TokenizerMismatch(
                "tokenizer",
                type(self.tokenizer).__name__,
                "a model that reads text has no score for each of the policy's tokens",
                "Use a reward model that was trained with the policy's tokenizer",
            )
        return self._encode(episodes)

    def normalise(self, episodes: Episodes) -> Scale:
        """Give scores mean 0 and deviation 1 on these episodes, the reference policy's own samples.

        The model is changed in place; saving it keeps the scale.

        Returns:
            The mean and (population) standard deviation that the scores had.

        Raises:
            InvalidArgument: all scores are equal.
        """
        scores = self.scores(episodes).double()
        scale = Scale(scores.mean().item(), scores.std(correction=0).item())
        fold_normalisation(self.model, *scale)
        return scale

    @torch.no_grad()
    def _score(self, ids: Tensor, mask: Tensor) -> Tensor:
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        if not _is_causal(self.model):
            ids, _ = left_justified(ids, mask)
            real = torch.arange(ids.shape[1], device=ids.device) < mask.sum(-1, keepdim=True)
            with evaluation_mode(self.model):
                return score_ids(self.model, ids, real)
        decoder = make_decoder(self.model)
        columns = torch.arange(mask.shape[1], device=mask.device)
        is_last = columns == last_token_index(mask).unsqueeze(-1)
        hidden = decoder.hidden_at(ids, mask, is_last)
        return decoder.logits(hidden)[:, 0].float() - reward_mean(self.model.config)

    def _encode(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Ids and mask as the model reads them, on the CPU, both of shape (batch, width)."""
        limit = context_length(self.model.config)
        if not self._reads_ids(episodes):
            sequences = self._encode_texts(episodes)
            rows = [torch.tensor(_cut(ids, limit, self.tokenizer)) for ids in sequences]
            ids = pad_sequence(rows, batch_first=True)
            lengths = torch.tensor([len(row) for row in rows])
            return ids, torch.arange(ids.shape[1]) < lengths.unsqueeze(-1)
        self._check_ids(episodes, limit)
        return self._with_own_end(episodes), episodes.attention_mask.bool().cpu()

    def _with_own_end(self, episodes: Episodes) -> Tensor:
        """The policy's ids on the CPU, EOS in place of every other token that ends a response.

        Chat models have several, and a reward model is trained on responses that EOS ends.
        """
        ids, stops = episodes.input_ids.cpu(), episodes.rules.stop_ids
        end = None if self.tokenizer is None else self.tokenizer.eos_token_id
        if end not in stops or len(stops) == 1:
            return ids
        responses = ids[:, episodes.prompt_width :]
        ended = torch.isin(responses, torch.tensor(stops))
        return torch.cat([ids[:, : episodes.prompt_width], responses.masked_fill(ended, end)], 1)

    def _encode_texts(self, episodes: Episodes) -> list[list[int]]:
        """Token ids of each prompt and response under the model's own tokenizer."""
        assert self.tokenizer is not None
        pairs = list(zip(episodes.prompts, episodes.responses, strict=True))
        if self.as_text is not None or not _is_causal(self.model):
            join = self.as_text or str.__add__
            encoded: list[list[int]] = self.tokenizer([join(*pair) for pair in pairs])["input_ids"]
            return encoded
        from rlhf_gym.core.supervised.preference_data import encode_prompts, encode_responses

        # As the model was trained: apart, and EOS only behind a response that was ended.
        prompts = encode_prompts([prompt for prompt, _ in pairs], self.tokenizer)
        responses = encode_responses([response for _, response in pairs], self.tokenizer)
        return [
            prompt + (response if stopped or len(response) == 1 else response[:-1])
            for prompt, response, stopped in zip(
                prompts, responses, episodes.stopped.tolist(), strict=True
            )
        ]

    def _reads_ids(self, episodes: Episodes) -> bool:
        """True if the policy's ids mean the same to the model; compared once per tokenizer."""
        if self.tokenizer is None:
            return True
        if self._reads_ids_of is None or self._reads_ids_of[0] is not episodes.tokenizer:
            same = self.as_text is None and _same_ids(self.tokenizer, episodes.tokenizer)
            self._reads_ids_of = (episodes.tokenizer, same)
        return self._reads_ids_of[1]

    def _check_ids(self, episodes: Episodes, limit: int | None) -> None:
        known: int = self.model.config.get_text_config().vocab_size
        if episodes.rules.vocab_size > known:
            raise TokenizerMismatch(
                self.name,
                episodes.rules.vocab_size,
                f"the environment has more tokens than the {known} that the reward model knows",
                "Pass the reward model's own tokenizer: RewardModel(model, tokenizer)",
            )
        width = episodes.input_ids.shape[1]
        if limit is not None and width > limit:
            raise InvalidPrompt(
                self.name,
                width,
                f"prompt and response do not fit into the {limit} tokens that it reads",
                "Shorten max_prompt_tokens or max_response_tokens, or take another reward model",
            )


def _is_causal(model: PreTrainedModel) -> bool:
    """True for a decoder-only classifier: transformers calls its head `score`."""
    return "score" in dict(model.named_children())


def _cut(ids: list[int], limit: int | None, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """Drop what is too long behind a leading special token: the score is read from the end."""
    if limit is None or len(ids) <= limit:
        return ids
    start = 1 if tokenizer is not None and ids[0] in tokenizer.all_special_ids else 0
    return ids[:start] + ids[len(ids) - limit + start :]


def _same_ids(ours: PreTrainedTokenizerBase, theirs: object) -> bool:
    """True if each id is the same token in both."""
    from transformers import PreTrainedTokenizerBase

    if ours is theirs:
        return True
    return isinstance(theirs, PreTrainedTokenizerBase) and ours.get_vocab() == theirs.get_vocab()
