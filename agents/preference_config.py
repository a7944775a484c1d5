"""How an agent is taught by comparisons. Light to import."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences.learner_config import RewardLearnerConfig
from rlhf_gym.core.preferences.schedule import LabelSchedule


@dataclass(frozen=True)
class PreferenceConfig:
    """How an agent is taught by comparisons."""

    schedule: LabelSchedule = field(default_factory=LabelSchedule)
    """How many comparisons, and when."""
    learner: RewardLearnerConfig = field(default_factory=RewardLearnerConfig)
    """What is asked and how the reward is fitted."""
    rounds: int = 20
    """In how many rounds the comparisons are asked for after those before training."""
    explore: int = 4000
    """Random steps before training, of all environments together: the first clips."""
    persistence: float = 0.0
    """Probability with which a random step repeats the one before it. Where a thing has to be done
    several times before it helps, chance alone hardly ever does it."""
    detours: int = 0
    """Steps before each round of questions after the first, of all environments together, in which
    the agent does what it thinks best, but now and then one random act several times instead; like
    those of `explore` they are asked about, not learned from. So what the agent has given up is
    asked about too. With them disagreement is a better choice of pairs than chance."""
    detour_length: int = 8
    """Most steps of a detour. It takes effect with `detours`."""
    automated_weight: float = 0.0
    """Weight of the task's own reward beside the learned one, whose deviation is 1 a step."""
    supervisor: float = 0.0
    """Probability that a step is rewarded or punished (by 1, as its gold reward's sign) on top."""
    record_frames: bool = False
    """Keep pictures in the clips, for people; the environment must draw rgb_array."""

    def __post_init__(self) -> None:
        for name in ("rounds", "explore", "detour_length"):
            if getattr(self, name) < 1:
                raise InvalidArgument(name, getattr(self, name), "not a count", "Give 1 or more")
        if self.detours < 0:
            raise InvalidArgument(
                "detours", self.detours, "not a number of steps", "Give 0 for none, or more"
            )
        if not 0 <= self.persistence < 1:
            raise InvalidArgument(
                "persistence", self.persistence, "not a probability below 1", "Give such as 0.5"
            )
