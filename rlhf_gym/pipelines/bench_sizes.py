"""How large the benchmarks' task is (`bench_task`). Light to import."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_gym.core.errors import InvalidArgument


@dataclass(frozen=True)
class BenchTask:
    """Sizes of the networks, the batch and the update; what both sides are given."""

    layers: int = 4
    """Transformer layers of each network."""
    hidden: int = 128
    """Hidden width of each network."""
    heads: int = 4
    """Attention heads of each network."""
    vocab_size: int = 512
    """Tokens in the vocabulary, PAD and EOS among them."""
    prompt_tokens: int = 12
    """Longest prompt; lengths are spread evenly between half of it and all of it. The embedded
    task's openings have 8 tokens on average, these 9."""
    responses: int = 64
    """Responses of one iteration."""
    response_tokens: int = 32
    """Response budget."""
    stop_probability: float = 0.0
    """Chance of EOS at each token; 0 makes every response as long as the budget."""
    epochs: int = 4
    """Passes over the responses in one update."""
    minibatches: int = 4
    """Optimiser steps in one pass."""
    learning_rate: float = 1e-7
    """So small that the lengths stay what they are while we measure."""
    kl_coef: float = 0.05
    """Weight of the KL penalty."""
    seed: int = 0
    """Seed of networks, prompts and sampling."""
    device: str = "cpu"
    """Where both sides work."""

    def __post_init__(self) -> None:
        if not 0 <= self.stop_probability < 1:
            raise InvalidArgument(
                "stop_probability", self.stop_probability, "not a probability", "Give 0 to 1"
            )
        if self.responses % self.minibatches:
            raise InvalidArgument(
                "minibatches",
                self.minibatches,
                f"does not divide the {self.responses} responses",
                "Both sides need minibatches of one size",
            )

    @property
    def label(self) -> str:
        """The networks' shape in a few words."""
        return f"{self.layers} x {self.hidden}, vocabulary {self.vocab_size}"

    @property
    def stops(self) -> bool:
        """Whether responses may end before the budget."""
        return self.stop_probability > 0

    @property
    def mean_length(self) -> float:
        """Expected response length in tokens, the stop token included."""
        p, budget = self.stop_probability, self.response_tokens
        return (1 - (1 - p) ** budget) / p if p else float(budget)
