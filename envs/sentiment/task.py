"""`rlhf_gym/Sentiment-v0`: write film reviews that please a reward model, and stay fluent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from rlhf_gym.core.devices import Device
from rlhf_gym.core.models import load_causal_lm, load_tokenizer
from rlhf_gym.envs.penalised import penalised
from rlhf_gym.envs.sentiment import grammar
from rlhf_gym.envs.sentiment.oracle import gold_sentiment
from rlhf_gym.envs.text.prompts import PromptData
from rlhf_gym.envs.text.single import TextGenerationEnv
from rlhf_gym.envs.text.vector import TextGenerationVectorEnv
from rlhf_gym.rewards.base import RewardFunction, RewardTerm
from rlhf_gym.rewards.controllers import KLController
from rlhf_gym.rewards.kl import Estimator, Mode, Placement
from rlhf_gym.rewards.model import RewardModel

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "sentiment"
"""Package data, made by `rlhf-gym build-assets`."""
REFERENCE = ASSETS / "reference"
REWARD_MODEL = ASSETS / "reward_model"

PROMPT_COUNT = 1024
PROMPT_SEED = 0
"""Of the openings to train on; `grammar.prompts` with another seed gives others to judge by."""


class SentimentVectorEnv(TextGenerationVectorEnv):
    """Film reviews that should come out well.

    ## Description
    A small language model, pretrained and fine-tuned on reviews from a seeded generator of ours
    (about 470 words), continues the opening of a review. It writes as many pans as praises. A
    reward model, trained on the model's own samples ranked by an oracle, scores what was written;
    the oracle's own opinion is reported as gold. The reward model is imperfect: pressed hard, the
    two part.

    ## Action Space
    As `TextGenerationVectorEnv`: `Discrete(V)`, whole words with the space before them.

    ## Observation Space
    As `TextGenerationVectorEnv`.

    ## Starting State
    One of 1,024 openings, which give no opinion away: "this film is about a lonely sailor. the
    plot".

    ## Rewards
    `reward_model`, mean 0 and deviation 1 on the reference's own samples, at the last token; minus
    `kl_coef` times the KL to the reference, `kl`.

    ## Episode End
    `<eos>`, or 32 tokens.

    ## Information
    As `TextGenerationVectorEnv`; `gold_reward` is the oracle's sentiment in (-1, 1) of prompt and
    response together, which understands negation, contrast and comparison, and gives nothing for
    lists of praise.

    ## Arguments
    Args:
        num_envs: rows.
        kl_coef: reward per nat of KL, 0 or more, or a controller that moves it.
        kl_estimator: "k1", "k2", "k3" or "exact".
        kl_placement: "token" or "sequence".
        kl_target: steer the coefficient, which begins at `kl_coef`, towards so many nats a
            response.
        kl_mode: "sampled", or "soft" (reward + kl_coef * log pi_ref), see `KLPenalty`.
        reward: scores responses in place of the reward model; the KL penalty is subtracted unless
            it holds one.
        gold: judges them in place of the oracle.
        reference: the frozen LM in place of the packaged one: a directory (with its tokenizer) or a
            module (of the packaged tokenizer).
        prompts: openings in place of the generator's.
        max_response_tokens: T.
        device: where reference and reward model go; "auto" is a GPU if there is one.
        **options: other arguments of `TextGenerationVectorEnv`.

    ## References
    Ziegler et al. (2019), "Fine-Tuning Language Models from Human Preferences", section 3.1, whose
    task of continuing reviews with positive sentiment this is in small.

    ## Version History
    v0: first.
    """

    def __init__(
        self,
        *,
        num_envs: int = 1,
        kl_coef: float | KLController = 0.1,
        kl_estimator: Estimator = "k1",
        kl_placement: Placement = "token",
        kl_target: float | None = None,
        kl_mode: Mode = "sampled",
        reward: RewardTerm | RewardFunction | None = None,
        gold: RewardTerm | RewardFunction | None = gold_sentiment,
        reference: nn.Module | str | os.PathLike[str] = REFERENCE,
        prompts: PromptData | None = None,
        max_response_tokens: int = 32,
        device: Device = "auto",
        **options: Any,
    ) -> None:
        directory = REFERENCE if isinstance(reference, nn.Module) else Path(reference)
        if isinstance(reference, nn.Module):
            model = reference
        else:
            model = load_causal_lm(reference, device=device)
        super().__init__(
            grammar.prompts(PROMPT_COUNT, PROMPT_SEED) if prompts is None else prompts,
            load_tokenizer(directory),
            penalised(
                RewardModel(REWARD_MODEL, device=device) if reward is None else reward,
                model,
                kl_coef=kl_coef,
                kl_estimator=kl_estimator,
                kl_placement=kl_placement,
                kl_target=kl_target,
                kl_mode=kl_mode,
            ),
            num_envs=num_envs,
            reference=model,
            gold=gold,
            max_response_tokens=max_response_tokens,
            device=device,
            **options,
        )


class SentimentEnv(TextGenerationEnv):
    """`SentimentVectorEnv` with one row; its page describes the task.

    Args:
        **kwargs: as `SentimentVectorEnv`, without `num_envs`.
    """

    vector_class: ClassVar[type[TextGenerationVectorEnv]] = SentimentVectorEnv

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
