"""The networks of a learned reward: what they read of clips, and what they make of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.preferences.learner_config import HIDDEN as HIDDEN
from rlhf_gym.core.preferences.outcomes import Outcomes
from rlhf_gym.core.preferences.soft_bins import SoftBins
from rlhf_gym.core.preferences.stacked_layers import StackedEyes, StackedLinear


class Clips(NamedTuple):
    """What a reward ensemble reads of n clips, all that no parameter of it changes.

    Attributes:
        shown: to the layers: of each step, or of both ends where the reward is a change; images as
            they are kept; shape (n, places, ...).
        beside: the pairs of seen and done of a whole clip, shape (n, pairs), or the outcome of each
            step, or beside images what was done, shape (n, places, width); else empty.
    """

    shown: Tensor
    beside: Tensor

    def take(self, rows: Tensor) -> Clips:
        """Some of them, by number, shape (m,)."""
        return Clips(self.shown[rows], self.beside[rows])


class RewardMembers(nn.Module):
    """Reward networks that differ in their beginnings, stacked: what they read, what they answer.

    Each is an MLP over observation and action, for pixels behind convolutions. Where the encoding
    keeps both ends of a step it is a potential instead, and a step's reward is how much it raised
    that: phi(after) - phi(before). A clip is then judged by its two ends, and going round in
    circles earns nothing (Ng et al. 1999; the second term of Fu et al. 2018, AIRL). Parameters are
    stacked along a first axis, the member, and all members are evaluated in one batched
    computation.

    Args:
        encoding: of the environment's spaces.
        members: how many networks; disagreement needs two or more.
        hidden: widths of their hidden layers.
        bins: soft bins of each observed number (`SoftBins`); 0 shows plain numbers. Images are
            never binned.
        judges_acts: beside a potential, a bilinear term of what was seen before a step and what was
            done, for what the change does not show, such as the order in which things were done.
        judges_outcomes: no potential, though both ends are kept: each step by itself, by what is
            seen after it, how that changed (`Outcomes`) and what was done.
        seed: of their beginnings.

    Raises:
        InvalidArgument: no members, no width, or images too small for the convolutions.
    """

    def __init__(
        self,
        encoding: Encoding,
        members: int = 3,
        hidden: Sequence[int] = HIDDEN,
        bins: int = 0,
        *,
        judges_acts: bool = False,
        judges_outcomes: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if members < 1:
            raise InvalidArgument("members", members, "no network", "Give 1 or more")
        if any(width < 1 for width in hidden):
            raise InvalidArgument("hidden", hidden, "a layer without units", "Give 1 or more each")
        self.encoding = encoding
        self.members = members
        self.hidden = tuple(hidden)
        if bins < 0 or bins == 1:
            raise InvalidArgument("bins", bins, "not so many bins", "Give 2 or more, or 0 for none")
        self.bins = 0 if encoding.is_image else bins
        generator = torch.Generator().manual_seed(seed)
        self.eyes: StackedEyes | None = None
        self.numbers = SoftBins(encoding.observation_features, self.bins)
        seen = self.numbers.width
        if encoding.is_image:
            if sorted(encoding.observation_shape)[-2] < StackedEyes.SMALLEST:
                raise InvalidArgument(
                    "observation_space",
                    encoding.observation_shape,
                    f"images of less than {StackedEyes.SMALLEST} pixels a side are too small",
                    "Enlarge them, or flatten them into a vector",
                )
            self.eyes = StackedEyes(members, encoding.channels, generator)
            seen = StackedEyes.FEATURES
        self.outcomes: Outcomes | None = None
        if judges_outcomes:
            if not encoding.both_ends or judges_acts:
                raise InvalidArgument(
                    "judges_outcomes", True, "steps by themselves", "Keep both ends, and no acts"
                )
            self.outcomes = Outcomes(encoding, members, generator)
        self.judges_change = encoding.both_ends and not judges_outcomes
        beside = self.outcomes.width if self.outcomes else encoding.action_features
        widths = [seen + (0 if self.judges_change else beside), *hidden, 1]
        self.layers = nn.ModuleList(
            StackedLinear(members, inputs, outputs, generator)
            for inputs, outputs in pairwise(widths)
        )
        self.acts: nn.Parameter | None = None
        if judges_acts:
            if not self.judges_change:
                raise InvalidArgument(
                    "judges_acts", True, "the network reads actions already", "Keep both ends"
                )
            pairs = (encoding.observation_features + 1) * encoding.action_features
            self.acts = nn.Parameter(torch.zeros(members, pairs))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Rewards of every member as it gives them, shape (members, n).

        Args:
            observations: from `Encoding.tensors`, shape (n, ...).
            actions: from `Encoding.tensors`, shape (n, features).
        """
        if self.eyes is None:
            return self.sums(self._clips(observations[:, None], actions[:, None]))
        done = actions.expand(self.members, -1, -1)
        return self._evaluate(torch.cat([self.eyes(observations), done], -1))

    def read(self, observations: NDArray[Any], actions: NDArray[Any]) -> Clips:
        """What `sums` makes returns of; it holds until `cover` is called again.

        Args:
            observations: n segments of k steps, as `Encoding` keeps them, shape (n, k, ...).
            actions: of the same, shape (n, k, ...).
        """
        count, steps = actions.shape[:2]
        seen = observations.reshape(count * steps, *self.encoding.observation_shape)
        done = actions.reshape(count * steps, *self.encoding.action_shape)
        if self.eyes is not None:  # pixels as numbers would take four times the room
            _, acts = self.encoding.tensors(seen[:0], done)
            return Clips(torch.from_numpy(observations), acts.reshape(count, steps, -1))
        numbers, acts = self.encoding.tensors(seen, done)
        return self._clips(numbers.reshape(count, steps, -1), acts.reshape(count, steps, -1))

    def _clips(self, observations: Tensor, actions: Tensor) -> Clips:
        """Of numbers from `Encoding.tensors`, shapes (n, k, features)."""
        if not self.encoding.both_ends:
            return Clips(torch.cat([self.numbers(observations), actions], -1), actions[:, :0])
        before, after = observations.chunk(2, -1)
        if self.outcomes is not None:
            beside = self.outcomes(before, after, actions)
            return Clips(torch.cat([self.numbers(after), beside], -1), beside)
        # The potentials in between cancel out.
        ends = self.numbers(torch.stack([before[:, 0], after[:, -1]], 1))
        if self.acts is None:
            return Clips(ends, actions[:, :0])
        # And a 1: the mere act counts too, whatever was seen.
        place = self.numbers.place(before)
        seen = torch.cat([place, torch.ones_like(place[..., :1])], -1)
        # Linear in the pairs, so they can be summed before the weights: one product for a clip.
        return Clips(ends, torch.einsum("nsf,nsa->nfa", seen, actions).flatten(1))

    def sums(self, clips: Clips) -> Tensor:
        """Sums of the members' rewards over clips, with gradients, shape (members, n)."""
        count, places = clips.shown.shape[:2]
        shown = clips.shown.flatten(0, 1)
        if self.eyes is not None:
            rewards = self(self.encoding.pixels(shown), clips.beside.flatten(0, 1))
        else:
            rewards = self._evaluate(shown)
        if self.outcomes is not None:
            rewards = rewards + self.outcomes.straight(clips.beside.flatten(0, 1))
        values: Tensor = rewards.reshape(self.members, count, places)
        if not self.judges_change:
            return values.sum(-1)
        change = values[..., 1] - values[..., 0]
        return change if self.acts is None else change + self.acts @ clips.beside.T

    def _evaluate(self, inputs: Tensor) -> Tensor:
        """The members' MLPs, shape (n, width) or (members, n, width) to (members, n)."""
        for layer in self.layers[:-1]:
            inputs = functional.leaky_relu(layer(inputs))
        outputs: Tensor = self.layers[-1](inputs)
        return outputs.squeeze(-1)

    def returns(self, observations: NDArray[Any], actions: NDArray[Any]) -> Tensor:
        """Sums of the members' rewards over segments, with gradients, shape (members, n).

        Args:
            observations: n segments of k steps, as `Encoding` keeps them, shape (n, k, ...).
            actions: of the same, shape (n, k, ...).
        """
        return self.sums(self.read(observations, actions))

    @torch.no_grad()
    def cover(self, observations: NDArray[Any]) -> None:
        """Lay the soft bins over the range of some observations.

        Args:
            observations: as `Encoding` keeps them, shape (..., *observation_shape).
        """
        if self.outcomes is not None:
            both = torch.from_numpy(observations).reshape(-1, *self.encoding.observation_shape)
            self.outcomes.cover(*both.chunk(2, -1))
        if self.bins or self.acts is not None:
            numbers = torch.from_numpy(observations)
            self.numbers.cover(numbers.reshape(-1, self.encoding.observation_features))
