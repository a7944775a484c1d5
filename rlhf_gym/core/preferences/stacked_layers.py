"""Layers of all members of an ensemble, stacked and evaluated in one batched computation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class StackedLinear(nn.Module):
    """A linear layer of every member of an ensemble, in one batched product.

    Args:
        members: how many layers.
        inputs: their width.
        outputs: numbers each gives.
        generator: of their beginnings, those of `torch.nn.Linear`.
    """

    def __init__(self, members: int, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(_uniform((members, inputs, outputs), bound, generator))
        self.bias = nn.Parameter(_uniform((members, 1, outputs), bound, generator))

    def forward(self, inputs: Tensor) -> Tensor:
        """Shape (members, n, inputs), or (n, inputs) for all alike, to (members, n, outputs)."""
        if inputs.dim() == 3:
            return torch.baddbmm(self.bias, inputs, self.weight)
        # What all read alike is read once: a batched product would copy it for each member.
        members, width, outputs = self.weight.shape
        side_by_side = self.weight.transpose(0, 1).reshape(width, members * outputs)
        product = (inputs @ side_by_side).reshape(-1, members, outputs)
        return product.transpose(0, 1) + self.bias


class StackedEyes(nn.Module):
    """Convolutions of every member of an ensemble, as groups of one convolution.

    Args:
        members: how many networks.
        channels: of the images.
        generator: of their beginnings, those of `torch.nn.Conv2d`.

    Source: Christiano et al. (2017), appendix A.2: kernels of 7, 5, 3, 3, strides 3, 2, 1, 1,
    16 channels, leaky ReLU. Here without dropout and batch normalisation, and averaged to 4 x 4.
    """

    SHAPES = ((7, 3), (5, 2), (3, 1), (3, 1))
    CHANNELS = 16
    FEATURES = CHANNELS * 16
    SMALLEST = 43  # pixels of which the last convolution still sees one place: 43, 13, 5, 3, 1

    def __init__(self, members: int, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.members = members
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for size, _ in self.SHAPES:
            bound = 1.0 / math.sqrt(channels * size * size)
            shape = (members, self.CHANNELS, channels, size, size)
            self.weights.append(nn.Parameter(_uniform(shape, bound, generator)))
            self.biases.append(nn.Parameter(_uniform(shape[:2], bound, generator)))
            channels = self.CHANNELS

    def forward(self, images: Tensor) -> Tensor:
        """Shape (n, channels, height, width) to (members, n, features)."""
        seen = images
        for place, (_, stride) in enumerate(self.SHAPES):
            weight, bias = self.weights[place].flatten(0, 1), self.biases[place].flatten()
            # All members look at the same image; from then on each at its own channels.
            groups = 1 if place == 0 else self.members
            seen = functional.leaky_relu(
                functional.conv2d(seen, weight, bias, stride=stride, groups=groups)
            )
        pooled = functional.adaptive_avg_pool2d(seen, 4)
        return pooled.reshape(len(images), self.members, self.FEATURES).transpose(0, 1)


def _uniform(shape: Sequence[int], bound: float, generator: torch.Generator) -> Tensor:
    return torch.empty(*shape).uniform_(-bound, bound, generator=generator)
