"""The reward of `rlhf_gym/Exact-v0`: bait that pays at once, and a ladder that pays at the end."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.tokens import last_token_index
from rlhf_gym.envs.exact.babbler import BAIT_ID, VOCABULARY
from rlhf_gym.rewards.base import RewardTerm, TokenStep

BAIT_PAYS = 0.5
BAIT_COSTS = 1.0
"""What each bait costs when the response ends: twice what it paid."""
CLIMB_PAYS = (0.4, 0.3, 0.6, 1.2, 2.0)
"""What the response pays at its end, by the number of its climbs; more pay as the last entry."""
UNFINISHED = 0.5
"""Share of it that is paid when the response does not end with a stop token."""

_NOBODY = -1
# b c d e b ...: the letter one rung above each token; PAD, stop and bait are on no rung.
_NEXT_RUNG = torch.tensor([_NOBODY, _NOBODY, _NOBODY, 4, 5, 6, 3])
assert len(_NEXT_RUNG) == len(VOCABULARY)


class LadderReward(RewardTerm):
    """Bait pays at once and costs more in the end; climbing pays only in the end.

    A token climbs if it is the letter behind the one before it, in the circle b c d e; the prompt's
    last letter is where the ladder begins.

    - every `a` pays 0.5 at once;
    - the last token pays 0.4, 0.3, 0.6, 1.2 or 2.0 for 0, 1, 2, 3 or more climbs, half of it if the
      response ran to the limit, minus 1 for every `a`.

    So each greed has its trap. Who looks at the next reward alone takes the bait. Who looks ahead
    but trusts the reference to go on stops at once for a sure 0.4: the first climb pays nothing,
    and the reference seldom makes a second.

    Args:
        horizon: the environment's `max_response_tokens`.
        name: tag of the term.
    """

    def __init__(self, horizon: int, name: str = "ladder") -> None:
        self.horizon = horizon
        self.name = name

    def token_rewards(self, episodes: Episodes) -> Tensor:
        """Bait where it is, the rest at the last token, shape (batch, time)."""
        sequence = episodes.input_ids[:, episodes.prompt_width - 1 :].cpu()
        final = _final(sequence, episodes.stopped.cpu())
        return _bait(sequence[:, 1:]) + episodes.at_last_token(final)

    def step_rewards(self, step: TokenStep) -> Tensor:
        """What each action earns in its own step, shape (n,)."""
        first = step.input_ids.shape[1] - self.horizon  # of the response
        sequence = step.input_ids[:, first - 1 :].cpu().clone()
        actions = step.actions.cpu()
        column = last_token_index(step.attention_mask.cpu()[:, first - 1 :]) + 1
        sequence[torch.arange(len(actions)), column] = actions
        stopped = _NEXT_RUNG.new_tensor(VOCABULARY.index("<stop>")) == actions
        return _bait(actions) + step.ended.cpu() * _final(sequence, stopped)

    def of_last_token(self, sequence: Tensor, *, ends: bool, stopped: bool) -> Tensor:
        """What the last token of each response, or of its beginning, earns.

        Args:
            sequence: the prompt's last letter and the tokens emitted, shape (n, 1 + tokens).
            ends: the last token ends the response,
            stopped: and does so as a stop token.

        Returns:
            Shape (n,).
        """
        rewards = _bait(sequence[:, -1])
        if ends:
            rewards = rewards + _final(sequence, torch.full((len(sequence),), stopped))
        return rewards


def _bait(tokens: Tensor) -> Tensor:
    return BAIT_PAYS * (tokens == BAIT_ID).float()


def _final(sequence: Tensor, stopped: Tensor) -> Tensor:
    """What is paid at the end, shape (batch,).

    Args:
        sequence: the prompt's last letter and the whole response, PAD behind it, shape (batch, 1 +
            time).
        stopped: the response ended with a stop token, shape (batch,).
    """
    climbs = (sequence[:, 1:] == _NEXT_RUNG[sequence[:, :-1]]).sum(-1)
    pays = torch.tensor(CLIMB_PAYS)[climbs.clamp_max(len(CLIMB_PAYS) - 1)]
    baits = (sequence[:, 1:] == BAIT_ID).sum(-1)
    return pays * torch.where(stopped, 1.0, UNFINISHED) - BAIT_COSTS * baits
