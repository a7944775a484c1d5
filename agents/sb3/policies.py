"""Language models as the policies of stock Stable-Baselines3 and sb3-contrib algorithms.

```python
env = make_sb3_env("rlhf_gym/Sentiment-v0", num_envs=16)
A2C(LMActorCriticPolicy, env, policy_kwargs=lm_policy_kwargs(env), gamma=1.0).learn(50_000)
```

SB3 reads a transition at a time; the trunk reads every text once (`SharedPrefixes`). So large
minibatches are cheap here: with `batch_size = n_steps * num_envs` an episode is one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from rlhf_gym.agents.sb3.distributions import FreshTokenLogits, RecordedMaskableCategorical
from rlhf_gym.agents.sb3.features import LastToken, LMFeatures
from rlhf_gym.agents.sb3.text_actor import TextActor


class LMActorCriticPolicy(TextActor, ActorCriticPolicy):
    """For PPO, A2C and TRPO; arguments as `TextActor`."""

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """What is trained, with names by which TRPO tells the policy's from the critic's.

        It leaves those with `value` in their name to the critic. A language model may have such
        names too (GPT-NeoX's `query_key_value`): here they lose that word. Files have them as ever.
        Nor can it take what is frozen beside adapters, for which there is no gradient to ask.
        """
        for name, parameter in super().named_parameters(prefix, recurse, remove_duplicate):
            is_lm = "features_extractor." in name
            if parameter.requires_grad:
                yield (name.replace("value", "val") if is_lm else name), parameter

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """The distribution of the next token, shape (batch, vocab).

        With gradients this is TRPO asking, whose conjugate gradients differentiate them once more.
        """
        assert isinstance(self.pi_features_extractor, LMFeatures)
        is_trpo = torch.is_grad_enabled()
        kernels = self.pi_features_extractor.twice_differentiable() if is_trpo else nullcontext()
        with kernels:
            return super().get_distribution(obs)


class LMMaskableActorCriticPolicy(TextActor, MaskableActorCriticPolicy):  # type: ignore[misc]
    """For MaskablePPO; arguments as `TextActor`.

    The log-probabilities it writes are those under the mask. `PackedMaskBuffer` keeps the masks in
    a thirty-second of the memory.
    """

    applies_masks: ClassVar[bool] = True

    def _make_distribution(self) -> Distribution:
        return RecordedMaskableCategorical(self.rules.vocab_size, self.channel)


class LMRecurrentActorCriticPolicy(TextActor, RecurrentActorCriticPolicy):
    """For RecurrentPPO: the trunk reads the whole text, and the LSTM is added to what it says.

        latent = hidden + W lstm(hidden),  W = 0 at the start

    So the first distribution is the pretrained one, and the recurrent state is learned on top.
    Arguments as `TextActor`, and SB3's `lstm_hidden_size`, `n_lstm_layers`, `shared_lstm`,
    `enable_critic_lstm` and `lstm_kwargs`.
    """

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = MlpExtractor(
            self.features_dim, net_arch=[], activation_fn=self.activation_fn, device=self.device
        )

    def _build(self, lr_schedule: Schedule) -> None:
        # Before SB3's own, which may not know of them: the optimiser is made after the LSTMs.
        self.actor_residual = _zero_map(self.lstm_output_dim, self.features_dim)
        self.value_residual = _zero_map(self.lstm_output_dim, self.features_dim)
        super()._build(lr_schedule)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.critic is not None:
            # Without an LSTM for the critic SB3 maps the features to the LSTM's size; here the
            # value net reads the features themselves.
            self.critic = nn.Identity()  # type: ignore[assignment]

    def _process_sequence(  # type: ignore[override]  # static there
        self,
        features: Tensor,
        lstm_states: tuple[Tensor, Tensor],
        episode_starts: Tensor,
        lstm: nn.LSTM,
    ) -> tuple[Tensor, Tensor]:
        """SB3's pass through the LSTM, added to the features; shape (batch, hidden) and states."""
        output, states = RecurrentActorCriticPolicy._process_sequence(
            features, lstm_states, episode_starts, lstm
        )
        residual = self.value_residual if lstm is self.lstm_critic else self.actor_residual
        return features + residual(output), states


class LastTokenRecurrentPolicy(TextActor, RecurrentActorCriticPolicy):
    """For RecurrentPPO, without a language model: an LSTM that sees the last token alone.

    It starts from nothing, as recurrent policies do elsewhere; of a prompt it knows the last token.
    Arguments as `TextActor`, of which `model` is not used, and SB3's for its LSTM.
    """

    def _features(self) -> dict[str, Any]:
        kwargs = {"vocab_size": self.rules.vocab_size}
        return {"features_extractor_class": LastToken, "features_extractor_kwargs": kwargs}

    def _make_action_net(self) -> nn.Module:
        return FreshTokenLogits(self.mlp_extractor.latent_dim_pi, self.rules)


def _zero_map(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
