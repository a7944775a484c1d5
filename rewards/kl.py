"""The KL penalty: what it costs to leave the reference, as a reward term that is subtracted."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint, InvalidReward
from rlhf_gym.rewards.base import SignedTerm, TokenStep
from rlhf_gym.rewards.controllers import KLController, as_controller
from rlhf_gym.rewards.kl_estimators import kl_exact, kl_k1, kl_k2, kl_k3

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Estimator = Literal["k1", "k2", "k3", "exact"]
Placement = Literal["token", "sequence"]
Mode = Literal["sampled", "soft"]

UNKNOWN_TOKENS_TOLERATED = 256
"""Tokens without log-probabilities before a warning: fewer come from a hand or from `check_env`."""

_SAMPLED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


class KnownKL(NamedTuple):
    """KL where it is known.

    Attributes:
        nats: 0 where it is not known.
        known: True where the policy wrote the log-probabilities it needs; shape as `nats`.
    """

    nats: Tensor
    known: Tensor


def sampled_kl(episodes: Episodes, reference: nn.Module) -> KnownKL:
    """KL of each response as the sum of log pi - log pi_ref over its tokens, for metrics.

    Args:
        episodes: finished episodes; tokens whose log pi is unknown count 0.
        reference: the frozen LM.

    Returns:
        `nats` and `known`, both of shape (batch,); known if every response token is.
    """
    if episodes.log_probs is None:
        zeros = torch.zeros(len(episodes))
        return KnownKL(zeros, torch.zeros(len(episodes), dtype=torch.bool))
    mask = episodes.mask.cpu()
    estimate = kl_k1(
        episodes.log_probs.float().cpu(), episodes.reference_log_probs(reference).float().cpu()
    )
    known = ~estimate.isnan() | ~mask
    return KnownKL(estimate.masked_fill(~(mask & known), 0.0).sum(-1), known.all(-1))


class KLPenalty(SignedTerm):
    """`coef` times the KL to the reference, a penalty: subtract it.

        reward = score - KLPenalty(reference, 0.05)

    Per token the term is `coef` * estimate, the estimate being one of `kl_estimators`. Placement
    moves the term, not its sum: "sequence" pays the sum of the estimates with the last token.

    `mode="soft"` leaves the policy's half to the agent: the term is -coef * log pi_ref, so that
    reward + coef * log pi_ref remains. With an entropy bonus of the same coefficient that is the
    KL-regularised objective, but only for agents whose value contains future entropy; with the
    entropy bonus of Stable-Baselines3 it is biased. It needs nothing from the policy.

    Where the policy did not write its log-probabilities the term is 0. If that goes on for more
    than a few episodes, one warning says so.

    Args:
        reference: the frozen causal LM, or a directory or hub name to load it from.
        coef: reward per nat, 0 or more, or a controller that moves it.
        estimator: "k1", "k2", "k3", or "exact" (the whole distributions). Only k1 has, as a reward,
            the gradient of the KL: the others' dependence on the policy is not differentiated
            (`rlhf-gym study kl` prints by how much they miss it).
        placement: "token", or "sequence" for all of it at the last token.
        mode: "sampled", or "soft" (see above).
        name: tag of the term.

    Attributes:
        reference: the frozen causal LM.
        controller: owns the coefficient.

    Raises:
        InvalidArgument: a coefficient below 0; an unknown estimator, placement or mode; an
            estimator with mode="soft", which has none.

    Source: Ziegler et al. (2019), equation 2; Stiennon et al. (2020), section 3.4.
    """

    def __init__(
        self,
        reference: nn.Module | str | Path,
        coef: float | KLController = 0.05,
        *,
        estimator: Estimator = "k1",
        placement: Placement = "token",
        mode: Mode = "sampled",
        name: str = "kl",
    ) -> None:
        self.controller = as_controller(coef)
        self.estimator = _check_choice("estimator", estimator, get_args(Estimator))
        self.placement = _check_choice("placement", placement, get_args(Placement))
        self.mode = _check_choice("mode", mode, get_args(Mode))
        if mode == "soft" and estimator != "k1":
            raise InvalidArgument(
                "estimator",
                estimator,
                "mode='soft' adds log pi_ref and estimates no KL",
                "Leave the estimator out, or use mode='sampled'",
            )
        self.name = name
        self.terminal = placement == "sequence"
        self.reference = _load(reference) if isinstance(reference, str | Path) else reference
        self._unknown_tokens = 0

    @property
    def coef(self) -> float:
        """The coefficient in force, reward per nat."""
        return self.controller.coef

    @property
    def wants_distribution(self) -> bool:
        """True if the policy must write its whole distribution."""
        return self.estimator == "exact" and self.mode == "sampled"

    def check_weight(self, weight: float) -> None:
        """Refuse a penalty that was added."""
        if weight > 0:
            raise InvalidArgument(
                self.name,
                weight,
                "the KL penalty is added, which would pay the policy for leaving the reference",
                "Subtract it: reward - KLPenalty(reference, 0.05)",
            )

    def token_kl(self, episodes: Episodes) -> KnownKL:
        """The estimate at each response token, coefficient and placement left out.

        Args:
            episodes: finished episodes with the policy's log-probabilities.

        Returns:
            `nats` and `known` of shape (batch, time): 0 and True off the mask. In "soft" mode
            -log pi_ref, always known.

        Raises:
            InvalidReward: infinite; the reference excludes a token that the policy emitted.
        """
        mask = episodes.mask.cpu()
        if self.mode == "soft":
            estimate = -episodes.reference_log_probs(self.reference).float().cpu()
        elif self.estimator == "exact":
            if episodes.log_distributions is None:
                return _unknown(mask)
            reference = episodes.reference_log_distributions(self.reference)
            estimate = kl_exact(episodes.log_distributions.to(reference), reference).float().cpu()
        else:
            if episodes.log_probs is None:
                return _unknown(mask)
            estimate = _SAMPLED[self.estimator](
                episodes.log_probs.float().cpu(),
                episodes.reference_log_probs(self.reference).float().cpu(),
            )
        return self._known(estimate, mask)

    def token_rewards(self, episodes: Episodes) -> Tensor:
        """The penalty at each response token, shape (batch, time): subtract it."""
        kl = self.token_kl(episodes)
        self._warn_if_unknown(kl.known)
        if self.placement == "sequence":
            return episodes.at_last_token(self.coef * kl.nats.sum(-1))
        return self.coef * kl.nats

    def step_rewards(self, step: TokenStep) -> Tensor:
        """The penalty of one step, shape (n,): subtract it."""
        everywhere = torch.ones(len(step.actions), dtype=torch.bool)
        kl = self._known(self._step_estimate(step), everywhere)
        self._warn_if_unknown(kl.known)
        return self.coef * kl.nats

    def sequence_kl(self, episodes: Episodes) -> KnownKL:
        """`sampled_kl` to this reference, whatever the estimator: one number to compare runs by."""
        return sampled_kl(episodes, self.reference)

    def state_dict(self) -> dict[str, Any]:
        """The controller's state."""
        return {"controller": self.controller.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        if "controller" not in state:
            raise InvalidCheckpoint(
                self.name,
                sorted(state),
                "the saved state of the KL penalty has no controller",
                "Resume from a checkpoint of the same configuration",
            )
        self.controller.load_state_dict(state["controller"])

    def _step_estimate(self, step: TokenStep) -> Tensor:
        """The estimate of one step, shape (n,), NaN where unknown."""
        if step.reference_log_distribution is None:
            raise InvalidArgument(
                "reference_log_distribution",
                None,
                f"the term {self.name!r} is paid token by token and reads it",
                "Fill it in TokenStep, or use reward_timing='end'",
            )
        reference = step.reference_log_distribution.float().cpu()
        unknown = torch.full((len(step.actions),), torch.nan)
        if self.wants_distribution:
            if step.log_distribution is None:
                return unknown
            return kl_exact(step.log_distribution.float().cpu(), reference)
        chosen = reference.gather(-1, step.actions.long().cpu().unsqueeze(-1)).squeeze(-1)
        if self.mode == "soft":
            return -chosen
        if step.log_probs is None:
            return unknown
        return _SAMPLED[self.estimator](step.log_probs.float().cpu(), chosen)

    def _known(self, estimate: Tensor, mask: Tensor) -> KnownKL:
        """Set unknown tokens to 0 and refuse infinite ones; all shapes alike."""
        known = ~estimate.isnan() | ~mask
        nats = estimate.masked_fill(~(mask & known), 0.0)
        if nats.isinf().any():
            raise InvalidReward(
                self.name,
                torch.inf,
                "the policy emitted a token that the reference excludes, so the KL is infinite",
                "Sample from legal_logits with env.action_masks(), or drop the mask that excludes "
                "it (top_k, top_p, banned_token_ids, min_response_tokens)",
            )
        return KnownKL(nats, known)

    def _warn_if_unknown(self, known: Tensor) -> None:
        before = self._unknown_tokens
        self._unknown_tokens += int((~known).sum())
        if not before <= UNKNOWN_TOKENS_TOLERATED < self._unknown_tokens:
            return
        needed = "its whole distribution" if self.wants_distribution else "its log-probabilities"
        warnings.warn(
            f"the policy did not write {needed} to env.unwrapped.channel, so the KL penalty "
            f"{self.name!r} is 0 for its tokens and info['kl_known'] is False. Write them while "
            "sampling (LogProbChannel.write), or use KLPenalty(..., mode='soft').",
            UserWarning,
            stacklevel=3,
        )


def adapter_off_reference(policy: PeftModel) -> PreTrainedModel:
    """The model under a LoRA policy's adapter, as a reference that costs no memory.

    The returned model shares the policy's frozen weights and nothing else: training the adapter
    does not move it, and a decoder sees a plain model: no adapter is ever switched on and off.

    Args:
        policy: a peft model whose trained parameters are all adapters.

    Raises:
        InvalidArgument: the policy also trains base weights, or its adapter is merged into them, so
            the weights below the adapter are not the reference.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in policy.modules() if isinstance(module, BaseTunerLayer)]
    if not layers or any(layer.merged for layer in layers):
        raise InvalidArgument(
            "policy",
            type(policy).__name__,
            "it has no adapter, or its adapter is merged into its weights",
            "Pass a peft model with an adapter that is not merged",
        )
    shared = {id(tensor): tensor for tensor in [*policy.parameters(), *policy.buffers()]}
    # deepcopy takes what stands in its memo as copied already: modules are new, weights are shared.
    plain = copy.deepcopy(policy, memo=dict(shared))
    reference: PreTrainedModel = plain.unload()
    trained = [name for name, weight in reference.named_parameters() if weight.requires_grad]
    if trained:
        raise InvalidArgument(
            "policy",
            trained[0],
            "this weight below the adapter is trained too, so it is no fixed reference",
            "Freeze it (no bias or modules_to_save in the adapter), or use a frozen copy instead",
        )
    reference.train(False)
    return reference


def _unknown(mask: Tensor) -> KnownKL:
    return KnownKL(torch.zeros(mask.shape), ~mask)


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise InvalidArgument(
            field, value, "no such choice", f"Choose one of {', '.join(map(repr, choices))}"
        )
    return value


def _load(source: str | Path) -> nn.Module:
    from rlhf_gym.core.models import load_causal_lm

    model: nn.Module = load_causal_lm(str(source))
    return model
