"""What all actor-critic policies on text have in common, whichever of SB3's classes they extend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from rlhf_gym.agents.sb3.distributions import Channel, RecordedCategorical, TokenLogits
from rlhf_gym.agents.sb3.features import LMFeatures
from rlhf_gym.agents.sb3.starting_model import StartingModel
from rlhf_gym.core.decoding import Backend
from rlhf_gym.core.errors import InvalidArgument, TokenizerMismatch
from rlhf_gym.core.tokens import TokenRules

# One of SB3's actor-critic policies stands behind it in every class that uses it.
if TYPE_CHECKING:
    _Policy = BasePolicy
else:
    _Policy = object


class TextActor(_Policy):
    """Puts a language model where SB3's policies have networks of their own.

    The features extractor is the trunk, the action net its head, the value net a linear layer that
    starts at 0. Nothing is initialised anew: the first action distribution is the pretrained one.

    Args:
        observation_space: of a text environment, a Dict of ids and mask.
        action_space: the vocabulary.
        lr_schedule: SB3's learning rate.
        model: what to start from: a directory, a hub name, or `StartingModel`.
        rules: which tokens are legal, and the temperature.
        prompt_width: column at which responses begin.
        channel: where log-probabilities of what was drawn are written.
        uses_action_masks: whether the environment allows other tokens in other states.
        backend: how tokens are decoded, see `rlhf_gym.core.decoding.make_decoder`.
        lora_rank: above 0, the language model is frozen and adapters of this rank are trained.
        **sb3: further arguments of SB3's policy, such as `optimizer_kwargs` or
            `share_features_extractor=False`, which gives the values a trunk of their own.

    Raises:
        InvalidArgument: spaces of something else than a text environment, or masks that this policy
            would ignore.
        TokenizerMismatch: another vocabulary.
    """

    applies_masks: ClassVar[bool] = False

    action_net: nn.Module
    value_net: nn.Linear
    mlp_extractor: Any
    pi_features_extractor: BaseFeaturesExtractor

    if TYPE_CHECKING:

        def _build_mlp_extractor(self) -> None: ...

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        model: StartingModel | str | None = None,
        rules: TokenRules | None = None,
        prompt_width: int = 0,
        channel: Channel | None = None,
        uses_action_masks: bool = False,
        backend: Backend = "auto",
        lora_rank: int = 0,
        **sb3: Any,
    ) -> None:
        if model is None or rules is None:
            raise without_text(type(self), "policy_kwargs=lm_policy_kwargs(env)")
        check_spaces(observation_space, action_space, rules, prompt_width)
        if uses_action_masks and not self.applies_masks:
            raise InvalidArgument(
                "env",
                {"uses_action_masks": True},
                f"{type(self).__name__} would ignore the environment's action masks, and KL would "
                "be that of another policy",
                "Use sb3-contrib's MaskablePPO with LMMaskableActorCriticPolicy, or make the "
                "environment without top_k, top_p and min_response_tokens",
            )
        self.model = model
        self.rules = rules
        self.prompt_width = prompt_width
        self.channel = channel
        self.uses_action_masks = uses_action_masks
        self.backend: Backend = backend
        self.lora_rank = lora_rank
        self._sb3 = sb3
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            ortho_init=False,
            **self._features(),
            **sb3,
        )

    def _features(self) -> dict[str, Any]:
        """The features extractor, as arguments of SB3's policy."""
        kwargs = {
            "model": self.model,
            "rules": self.rules,
            "prompt_width": self.prompt_width,
            "backend": self.backend,
            "lora_rank": self.lora_rank,
        }
        return {"features_extractor_class": LMFeatures, "features_extractor_kwargs": kwargs}

    def _make_distribution(self) -> Distribution:
        return RecordedCategorical(self.rules.vocab_size, self.channel)

    def _make_action_net(self) -> nn.Module:
        assert isinstance(self.pi_features_extractor, LMFeatures)
        return TokenLogits(self.pi_features_extractor.lm)

    def _build(self, lr_schedule: Schedule) -> None:
        """SB3's place for making the networks behind the features, and the optimiser."""
        self._build_mlp_extractor()
        self.action_dist = self._make_distribution()
        self.action_net = self._make_action_net()
        # At 0 the first updates follow the rewards alone, and the trunk it shares is left in peace.
        self.value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, 1)
        nn.init.zeros_(self.value_net.weight)
        nn.init.zeros_(self.value_net.bias)
        arguments = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class(self.parameters(), **arguments)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        """What `policy.save` stores to make the policy again before its weights are loaded."""
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "model": self.model,
            "rules": self.rules,
            "prompt_width": self.prompt_width,
            "channel": self.channel,
            "uses_action_masks": self.uses_action_masks,
            "backend": self.backend,
            "lora_rank": self.lora_rank,
            **self._sb3,
        }


def without_text(policy: type, arguments: str) -> InvalidArgument:
    """What to say of a policy that was not told what to write with.

    Args:
        policy: its class.
        arguments: those of the algorithm that tell it.
    """
    return InvalidArgument(
        "policy_kwargs",
        None,
        f"{policy.__name__} needs the environment's model and rules of tokens",
        f"Give the algorithm {arguments}, from rlhf_gym.agents.sb3",
    )


def check_spaces(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    rules: TokenRules,
    prompt_width: int,
) -> None:
    """Refuse the spaces of something else than a text environment.

    Raises:
        InvalidArgument: no Dict of ids and mask, or actions that are no tokens.
        TokenizerMismatch: another vocabulary.
    """
    keys = {"input_ids", "attention_mask"}
    if not isinstance(observation_space, spaces.Dict) or not keys <= {*observation_space.spaces}:
        raise InvalidArgument(
            "observation_space",
            observation_space,
            "a policy reads input_ids and attention_mask: without the mask nobody knows where a "
            "text begins and ends",
            'Make the environment with observation="dict", and keep wrappers from changing it',
        )
    width = observation_space["input_ids"].shape
    if width is None or len(width) != 1 or not 0 < prompt_width < width[0]:
        raise InvalidArgument(
            "prompt_width",
            prompt_width,
            f"there is no such column in observations of shape {width}",
            "Take policy_kwargs from lm_policy_kwargs(env) of this environment",
        )
    if not isinstance(action_space, spaces.Discrete):
        raise InvalidArgument(
            "action_space",
            action_space,
            "a language model chooses one token per step",
            "Use an environment whose actions are Discrete(vocab_size)",
        )
    if action_space.n != rules.vocab_size:
        raise TokenizerMismatch(
            "action_space",
            int(action_space.n),
            f"the policy was made for a vocabulary of {rules.vocab_size} tokens",
            "Take policy_kwargs from lm_policy_kwargs(env) of this environment",
        )
