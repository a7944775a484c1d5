"""What is asked about and how a reward is learned from the answers. Light to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences.fit_config import FitConfig
from rlhf_gym.core.preferences.selection_names import methods_named

Judges = Literal["steps", "change", "both", "outcome"]

HIDDEN = (64, 64)
"""Christiano et al. (2017), appendix A.1: two hidden layers of 64."""


@dataclass(frozen=True)
class RewardLearnerConfig:
    """How a reward is learned from comparisons."""

    judges: Judges = "steps"
    """What the reward network looks at: each step as it is done (steps), how things stand after it
    against before (change), where a rater judges what comes of the acts, that and, in a simple
    form, the acts (both), or each step by what is seen after it and how that changed (outcome)."""
    segment_length: int = 12
    """Steps of each of the two clips that are compared."""
    selection: str = "disagreement"
    """Which pairs are asked about: uniform, disagreement, entropy, kcenter, or several of them
    joined by `+`, such as disagreement+kcenter. The first pairs of all are drawn uniformly."""
    candidates: int = 10
    """Pairs from which each question is chosen."""
    members: int = 3
    """Networks in the ensemble."""
    hidden: tuple[int, ...] = HIDDEN
    """Widths of their hidden layers."""
    bins: int = 0
    """Soft bins as which each observed number is shown to them; 0 for plain numbers."""
    memory: int = 50_000
    """Transitions from which clips are drawn, the latest."""
    fit: FitConfig = field(default_factory=FitConfig)
    """How the networks are fitted."""

    def __post_init__(self) -> None:
        for name in ("segment_length", "candidates", "members", "memory"):
            if getattr(self, name) < 1:
                raise InvalidArgument(name, getattr(self, name), "not a count", "Give 1 or more")
        if self.judges not in get_args(Judges):
            raise InvalidArgument(
                "judges", self.judges, "no such thing", f"Choose {' or '.join(get_args(Judges))}"
            )
        methods_named(self.selection)
