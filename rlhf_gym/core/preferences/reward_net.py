"""The learned reward: an ensemble of small networks, evaluated as one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint, InvalidData
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.preferences.outcomes import Outcomes
from rlhf_gym.core.preferences.stacked_layers import StackedEyes, StackedLinear

HIDDEN = (64, 64)
"""Christiano et al. (2017), appendix A.1: two hidden layers of 64."""
CHUNK = 8192
"""Transitions of a forward pass without gradients; images count as 32 each."""


class RewardEnsemble(nn.Module):
    """Reward networks that differ in their beginnings and in the answers they saw.

    Each is an MLP over observation and action, for pixels behind convolutions. Where the encoding
    keeps both ends of a step it is a potential instead, and a step's reward is how much it raised
    that: phi(after) - phi(before). A clip is then judged by its two ends, and going round in
    circles earns nothing (Ng et al. 1999; the second term of Fu et al. 2018, AIRL). Parameters are
    stacked along a first axis, the member, and all members are evaluated in one batched
    computation.

    With `bins`, each observed number is shown as so many Gaussian bumps side by side over the range
    it has in the data (`cover`). From few labels a network then learns number by number how much
    is good, and says little where nobody was asked: beyond the range all bumps vanish, whereas a
    network of plain numbers goes on rising, and an agent follows it there.

    What an agent is paid is the mean of the members, each shifted and scaled to mean 0 and standard
    deviation 1 on the transitions `normalise` was given (Christiano et al. 2017, section 2.2.1).
    Comparisons of segments of equal length say nothing of the shift; in tasks whose episodes end
    early, remember that a mean of 0 is a choice. A potential is not shifted: no change is worth 0.

    Args:
        encoding: of the environment's spaces.
        members: how many networks; disagreement needs two or more.
        hidden: widths of their hidden layers.
        bins: soft bins of each number; 0 shows plain numbers. Images are never binned.
        judges_acts: beside a potential, a bilinear term of what was seen before a step and what was
            done, for what the change does not show, such as the order in which things were done.
        judges_outcomes: no potential, though both ends are kept: each step by itself, by what is
            seen after it, how that changed (`Outcomes`) and what was done.
        seed: of their beginnings.

    Attributes:
        low, high: range of each number of an observation, shape (features,).
        mean: of each member's rewards, shape (members,).
        std: of each member's rewards, shape (members,).
        l2: each member's weight of the l2 penalty, which `fit` moves; 0 before, shape (members,).

    Raises:
        InvalidArgument: no members, no width, or images too small for the convolutions.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    std: Tensor
    l2: Tensor

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
        seen = encoding.observation_features * max(1, self.bins)
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
        self.register_buffer("low", torch.zeros(encoding.observation_features))
        self.register_buffer("high", torch.ones(encoding.observation_features))
        self.register_buffer("mean", torch.zeros(members))
        self.register_buffer("std", torch.ones(members))
        self.register_buffer("l2", torch.zeros(members))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Rewards of every member as it gives them, shape (members, n).

        Args:
            observations: from `Encoding.tensors`, shape (n, ...).
            actions: from `Encoding.tensors`, shape (n, features).
        """
        if self.judges_change:
            before, after = observations.chunk(2, -1)
            change = self._evaluate(self._shown(after)) - self._evaluate(self._shown(before))
            return change + self._of_acts(before[:, None], actions[:, None])
        if self.outcomes is not None:
            before, after = observations.chunk(2, -1)
            beside = self.outcomes(before, after, actions)
            curved = self._evaluate(torch.cat([self._shown(after), beside], -1))
            return curved + self.outcomes.straight(beside)
        if self.eyes is None:
            inputs = torch.cat([self._shown(observations), actions], -1)
        else:
            shown = actions.expand(self.members, -1, -1)
            inputs = torch.cat([self.eyes(observations), shown], -1)
        return self._evaluate(inputs)

    def _shown(self, observations: Tensor) -> Tensor:
        """Numbers as soft bins, shape (n, features) to (n, features * bins)."""
        if not self.bins:
            return observations
        # Centres at 0 ... bins - 1, each bump as wide as the way to the next.
        place = (observations - self.low) / (self.high - self.low) * (self.bins - 1)
        distance = place[..., None] - torch.arange(self.bins)
        # In place: this is most of what a fit on bins does, and no gradient goes through it.
        return distance.square_().mul_(-0.5).exp_().flatten(-2)

    def _of_acts(self, before: Tensor, actions: Tensor) -> Tensor:
        """Bilinear terms summed over the steps of n clips, shape (members, n); 0 without them.

        Args:
            before: shape (n, steps, features).
            actions: shape (n, steps, action_features).
        """
        if self.acts is None:
            return torch.zeros(())
        # And a 1: the mere act counts too, whatever was seen.
        place = (before - self.low) / (self.high - self.low)
        seen = torch.cat([place, torch.ones_like(place[..., :1])], -1)
        # Linear in the pairs, so they can be summed before the weights: one product for a clip.
        pairs = torch.einsum("nsf,nsa->nfa", seen, actions).flatten(1)
        product: Tensor = self.acts @ pairs.T
        return product

    def _evaluate(self, inputs: Tensor) -> Tensor:
        """The members' MLPs, shape (n, width) or (members, n, width) to (members, n)."""
        inputs = inputs.expand(self.members, -1, -1)
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
        count, steps = actions.shape[:2]
        if self.judges_change:  # the potentials in between cancel out
            half = self.encoding.observation_features
            ends = np.stack([observations[:, 0, :half], observations[:, -1, half:]])
            shown = self._shown(torch.from_numpy(ends.reshape(2 * count, half)))
            first, last = self._evaluate(shown).chunk(2, -1)
            _, done = self.encoding.tensors(
                observations.reshape(count * steps, -1),
                actions.reshape(count * steps, *self.encoding.action_shape),
            )
            before = torch.from_numpy(observations[..., :half])
            return last - first + self._of_acts(before, done.reshape(count, steps, -1))
        rewards = self(
            *self.encoding.tensors(
                observations.reshape(count * steps, *self.encoding.observation_shape),
                actions.reshape(count * steps, *self.encoding.action_shape),
            )
        )
        total: Tensor = rewards.reshape(self.members, count, steps).sum(-1)
        return total

    @torch.no_grad()
    def judge(self, observations: NDArray[Any], actions: NDArray[Any]) -> Tensor:
        """Rewards of every member as it gives them, without gradients, in chunks.

        Args:
            observations: as `Encoding` keeps them, shape (n, ...).
            actions: of the same, shape (n, ...).

        Returns:
            Shape (members, n).

        Raises:
            InvalidData: steps as another encoding keeps them.
        """
        if observations.shape[1:] != self.encoding.observation_shape:
            raise InvalidData(
                "observations",
                observations.shape,
                f"not of shape (n, {', '.join(map(str, self.encoding.observation_shape))})",
                "Keep steps with the ensemble's own encoding",
            )
        step = CHUNK // 32 if self.encoding.is_image else CHUNK
        chunks = [
            self(*self.encoding.tensors(observations[i : i + step], actions[i : i + step]))
            for i in range(0, len(actions), step)
        ]
        return torch.cat(chunks, 1) if chunks else torch.zeros(self.members, 0)

    def rewards(self, observations: NDArray[Any], actions: NDArray[Any]) -> NDArray[np.float64]:
        """What an agent is paid: the mean of the normalised members, shape (n,).

        Args:
            observations: as `Encoding` keeps them, shape (n, ...).
            actions: of the same, shape (n, ...).
        """
        normalised = (self.judge(observations, actions) - self.mean[:, None]) / self.std[:, None]
        paid: NDArray[np.float64] = normalised.mean(0).double().numpy()
        return paid

    @torch.no_grad()
    def cover(self, observations: NDArray[Any]) -> None:
        """Lay the soft bins over the range of some observations.

        Args:
            observations: as `Encoding` keeps them, shape (..., *observation_shape).
        """
        if self.outcomes is not None:
            both = torch.from_numpy(observations).reshape(-1, *self.encoding.observation_shape)
            self.outcomes.cover(*both.chunk(2, -1))
        if not self.bins and self.acts is None:
            return
        numbers = torch.from_numpy(observations).reshape(-1, self.encoding.observation_features)
        self.low.copy_(numbers.amin(0))
        # A number that never changes needs some width.
        self.high.copy_(torch.maximum(numbers.amax(0), self.low + 1e-3))

    def normalise(self, observations: NDArray[Any], actions: NDArray[Any]) -> None:
        """Make mean 0 and deviation 1 of each member's rewards for these transitions.

        Args:
            observations: as `Encoding` keeps them, shape (n, ...).
            actions: of the same, shape (n, ...).
        """
        rewards = self.judge(observations, actions)
        self.mean.copy_(torch.zeros_like(self.mean) if self.judges_change else rewards.mean(1))
        # A member that gives one reward for all is left at its scale, not blown up.
        std = rewards.std(1, correction=0)
        self.std.copy_(torch.where(std > 1e-6, std, 1.0))

    @torch.no_grad()
    def begin_anew(self, seed: int) -> None:
        """Forget everything: parameters of other beginnings, no shift, no scale, no penalty."""
        fresh = RewardEnsemble(
            self.encoding,
            self.members,
            self.hidden,
            self.bins,
            judges_acts=self.acts is not None,
            judges_outcomes=self.outcomes is not None,
            seed=seed,
        )
        self.load_state_dict(fresh.state_dict())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to one safetensors file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = {"members": self.members, "hidden": self.hidden, "bins": self.bins}
        shape["judges_acts"] = self.acts is not None
        shape["judges_outcomes"] = self.outcomes is not None
        save_file(self.state_dict(), path, metadata={"ensemble": json.dumps(shape)})
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoding: Encoding) -> RewardEnsemble:
        """Read what `save` wrote.

        Raises:
            InvalidCheckpoint: no such file, damaged, another file, or of other spaces.
        """
        try:
            with safe_open(path, "pt") as file:
                shape = json.loads((file.metadata() or {})["ensemble"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            ensemble = cls(encoding, **shape)
            ensemble.load_state_dict(tensors)
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise InvalidCheckpoint(
                "path",
                str(path),
                f"not a reward ensemble of this task ({error})",
                "Give the file that `save` wrote for the same environment",
            ) from error
        return ensemble
