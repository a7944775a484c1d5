"""Collecting whole episodes: one token per step for all rows, until every row finished once.

Rows that finish leave the sampler; the environment, which knows nothing of waves, gets a filler
token for them. An episode is never cut: cutting at a window of steps would favour short responses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_gym.agents.lm_policy import LMPolicy
from rlhf_gym.agents.stepping import Info, Step, TextStepper
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.sampler import Draw
from rlhf_gym.rewards.credit import credit_by_token

Observation = Mapping[str, NDArray[Any]]
OnStep = Callable[[Step, int], bool]
"""Called after every step with what ended in it and how many rows wrote; False stops."""


class RolloutBatch(NamedTuple):
    """Finished episodes, prompts left padded, responses right padded; 0 off the mask.

    Attributes:
        input_ids: prompt and response, int64, shape (batch, prompt_width + time).
        attention_mask: True at real tokens, shape (batch, prompt_width + time).
        mask: True at response tokens, the stop token included, shape (batch, time).
        log_probs: of each token under the policy that sampled it, nats, shape (batch, time).
        token_rewards: what `step` paid, addressed to tokens, shape (batch, time).
        stopped: True where a stop token ended the response, shape (batch,).
        prompt_index: which prompt was answered, shape (batch,).
        values: of the state before each token while sampling, shape (batch, time), or None.
        action_masks: True where an action was allowed, shape (batch, time, vocab), or None.
        reference_log_probs: of each token under the reference, nats, shape (batch, time), or None.
        advantages: shape (batch, time), or (batch,) where a response is one action; None before
            they are computed.
        returns: targets of the values, shape (batch, time), or None.
    """

    input_ids: Tensor
    attention_mask: Tensor
    mask: Tensor
    log_probs: Tensor
    token_rewards: Tensor
    stopped: Tensor
    prompt_index: Tensor
    values: Tensor | None = None
    action_masks: Tensor | None = None
    reference_log_probs: Tensor | None = None
    advantages: Tensor | None = None
    returns: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """Response lengths in tokens, shape (batch,)."""
        return self.mask.sum(-1)

    def select(self, rows: Tensor) -> RolloutBatch:
        """Some episodes, in the order given, shape (k,)."""
        return self._each(lambda field: field[rows])

    def trimmed(self) -> RolloutBatch:
        """The same episodes without the last columns, if they hold padding in every row."""
        spare = self.mask.shape[1] - max(1, int(self.lengths.max()))
        if not spare:
            return self

        return self._each(lambda field: field if field.ndim == 1 else field[:, :-spare])

    def to(self, device: torch.device) -> RolloutBatch:
        """The same batch on another device."""
        return self._each(lambda field: field.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> RolloutBatch:
        fields = self._asdict().items()
        return self._replace(**{name: change(field) for name, field in fields if field is not None})


def concatenate(batches: Sequence[RolloutBatch]) -> RolloutBatch:
    """One batch of several that have the same fields."""
    if len(batches) == 1:
        return batches[0]
    columns = zip(RolloutBatch._fields, zip(*batches, strict=True), strict=True)
    return batches[0]._replace(
        **{name: torch.cat(column) for name, column in columns if column[0] is not None}
    )


def collect_wave(
    stepper: TextStepper,
    policy: LMPolicy,
    observation: Observation,
    generator: torch.Generator,
    on_step: OnStep,
) -> RolloutBatch | None:
    """Let every row write one response.

    Args:
        stepper: the environments, just reset.
        policy: samples, and gives values if it has them on its trunk.
        observation: what the reset returned.
        generator: source of the sampling.
        on_step: called after every step.

    Returns:
        One episode per row, on the CPU; None if `on_step` returned False.

    Raises:
        RewardWasWrapped: a wrapper changed the rewards, so tokens cannot be credited.
    """
    wave = _Wave(stepper, observation, has_values=policy.value_head is not None)
    sampler = policy.make_sampler(generator, with_distribution=stepper.wants_distribution)
    prompts = wave.prompt_ids.to(policy.device), wave.prompt_mask.to(policy.device)
    sampler.prefill(*prompts, stepper.max_response_tokens)
    alive = torch.arange(stepper.num_envs)
    while True:
        allowed = torch.from_numpy(stepper.action_masks()) if stepper.uses_action_masks else None
        draw = sampler.draw(None if allowed is None else allowed[alive].to(policy.device))
        with torch.no_grad():
            values = policy.trunk_values(sampler.hidden)
        wave.record(alive, draw, values, allowed)
        stepper.write(*wave.everyones(alive, draw))
        step = stepper.step(wave.actions.numpy())
        goes_on = wave.pay(alive, step)
        if not on_step(step._replace(ended=wave.just_ended), len(alive)):
            return None
        if not goes_on.any():
            return wave.finish()
        tokens = draw.tokens
        if not goes_on.all():
            sampler.keep(goes_on.to(policy.device))
            alive, tokens = alive[goes_on], tokens[goes_on.to(policy.device)]
        sampler.advance(tokens)


class _Wave:
    """What is written down while every row writes one response.

    Args:
        stepper: the environments, just reset.
        observation: what the reset returned.
        has_values: whether values come with the draws.

    Attributes:
        actions: what all rows are given next, shape (num_envs,).
        just_ended: True where a row's one episode ended in the last step, shape (num_envs,).
    """

    def __init__(self, stepper: TextStepper, observation: Observation, has_values: bool) -> None:
        rows, time, width = stepper.num_envs, stepper.max_response_tokens, stepper.prompt_width
        self.prompt_ids = torch.as_tensor(observation["input_ids"][:, :width])
        self.prompt_mask = torch.as_tensor(observation["attention_mask"][:, :width]).bool()
        self._stepper = stepper
        self._time = 0
        self._ids = torch.full((rows, time), stepper.rules.pad_id)
        self._mask = torch.zeros(rows, time, dtype=torch.bool)
        self._log_probs = torch.zeros(rows, time)
        self._values = torch.zeros(rows, time) if has_values else None
        self._step_rewards = torch.zeros(rows, time)
        self._action_masks: Tensor | None = None
        if stepper.uses_action_masks:
            self._action_masks = torch.ones(rows, time, stepper.rules.vocab_size, dtype=torch.bool)
        self._endings: list[Info] = [{}] * rows
        # Column of each row's latest token; and True until its one episode has ended.
        self._last = torch.zeros(rows, dtype=torch.long)
        self._unpaid = torch.ones(rows, dtype=torch.bool)
        self._is_stop = torch.zeros(stepper.rules.vocab_size, dtype=torch.bool)
        self._is_stop[list(stepper.rules.stop_ids)] = True
        self._legal = ~self._is_stop
        self._legal[list(stepper.rules.illegal_ids)] = False
        self._filler = self._legal.int().argmax().expand(rows)
        self.actions = torch.zeros(rows, dtype=torch.long)
        self.just_ended = np.zeros(rows, dtype=np.bool_)

    def record(
        self, alive: Tensor, draw: Draw, values: Tensor | None, allowed: Tensor | None
    ) -> None:
        """Note what the rows that still write have drawn, and choose a filler for the others.

        Args:
            alive: numbers of the rows that still write, shape (n,).
            draw: their tokens.
            values: of the states they were drawn in, shape (n,), or None.
            allowed: action masks of all rows, shape (num_envs, vocab), or None.
        """
        time = self._time
        tokens = draw.tokens.cpu()
        self._last[alive] = time
        self._ids[alive, time] = tokens
        self._mask[alive, time] = True
        self._log_probs[alive, time] = draw.log_probs.cpu()
        if self._values is not None and values is not None:
            self._values[alive, time] = values.float().cpu()
        if self._action_masks is not None and allowed is not None:
            self._action_masks[alive, time] = allowed[alive]
        self.actions = self._fillers(allowed)
        self.actions[alive] = tokens

    def everyones(self, alive: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor | None]:
        """Actions of all rows and how they were drawn: a filler with certainty, at 0 nats.

        Args:
            alive: numbers of the rows that still write, shape (n,).
            draw: their tokens.

        Returns:
            Actions and log-probabilities, each of shape (num_envs,), and distributions, shape
            (num_envs, vocab), or None.
        """
        rows = self._stepper.num_envs
        if len(alive) == rows:
            return self.actions, draw.log_probs, draw.log_distribution
        log_probs = torch.zeros(rows)
        log_probs[alive] = draw.log_probs.cpu()
        distribution = None
        if draw.log_distribution is not None:
            distribution = torch.full((rows, draw.log_distribution.shape[-1]), -torch.inf)
            distribution[torch.arange(rows), self.actions] = 0.0
            distribution[alive] = draw.log_distribution.cpu()
        return self.actions, log_probs, distribution

    def pay(self, alive: Tensor, step: Step) -> Tensor:
        """Note rewards and endings; True at the rows of `alive` that go on, shape (n,)."""
        # A row that waited for the others is paid in their last step, for its own last token.
        due = torch.as_tensor(step.rewards).float() * self._unpaid
        self._step_rewards.scatter_add_(1, self._last.unsqueeze(-1), due.unsqueeze(-1))
        self._time += 1
        self.just_ended = step.ended & self._unpaid.numpy()
        self._unpaid &= torch.from_numpy(~step.ended)
        for row in np.flatnonzero(self.just_ended).tolist():
            _check_ended_by_itself(step.infos[row])
            self._endings[row] = step.infos[row]
        return torch.from_numpy(step.writing)[alive]

    def finish(self) -> RolloutBatch:
        """The wave as a batch."""
        token_rewards = self._step_rewards
        if self._stepper.reward_timing == "end":
            addressed = np.stack([ending["token_rewards"] for ending in self._endings])
            token_rewards = credit_by_token(
                self._step_rewards, torch.as_tensor(addressed), self._mask
            )
        return RolloutBatch(
            input_ids=torch.cat([self.prompt_ids, self._ids], dim=1),
            attention_mask=torch.cat([self.prompt_mask, self._mask], dim=1),
            mask=self._mask,
            log_probs=self._log_probs,
            token_rewards=token_rewards,
            stopped=torch.tensor([end["finish_reason"] == "stop" for end in self._endings]),
            prompt_index=torch.tensor([int(end["prompt_index"]) for end in self._endings]),
            values=self._values,
            action_masks=self._action_masks,
        )

    def _fillers(self, allowed: Tensor | None) -> Tensor:
        """For each row a legal token that ends nothing, if there is one, shape (num_envs,)."""
        if allowed is None:
            return self._filler.clone()
        going_on = self._legal & allowed
        legal = torch.where(going_on.any(-1, keepdim=True), going_on, allowed)
        return legal.int().argmax(-1)


def _check_ended_by_itself(info: Info) -> None:
    """Refuse an episode that a wrapper cut off, such as `TimeLimit`: nobody has scored it."""
    if "token_rewards" not in info:
        raise InvalidArgument(
            "env",
            sorted(info),
            "a wrapper ended an episode that the environment had not, so its reward is not known",
            "Leave TimeLimit out and make the environment with max_response_tokens, and "
            'length_limit="truncate" if that is no end of the task',
        )
