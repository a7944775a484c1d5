"""Learning from what an expert did, not from what was said of it: cloning, and two rewards.

Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_gym.agents.imitation.apprenticeship import Apprenticeship, ApprenticeshipConfig
    from rlhf_gym.agents.imitation.cloning import CloningConfig, CloningReport, behaviour_cloning
    from rlhf_gym.agents.imitation.demonstrations import Demonstrations, record_demonstrations
    from rlhf_gym.agents.imitation.discriminator import Discriminator
    from rlhf_gym.agents.imitation.feature_encoding import FeatureEncoding
    from rlhf_gym.agents.imitation.features import FeatureMatching

_MODULES = {
    "Apprenticeship": "apprenticeship",
    "ApprenticeshipConfig": "apprenticeship",
    "CloningConfig": "cloning",
    "CloningReport": "cloning",
    "Demonstrations": "demonstrations",
    "Discriminator": "discriminator",
    "FeatureEncoding": "feature_encoding",
    "FeatureMatching": "features",
    "behaviour_cloning": "cloning",
    "record_demonstrations": "demonstrations",
}

__all__ = [
    "Apprenticeship",
    "ApprenticeshipConfig",
    "CloningConfig",
    "CloningReport",
    "Demonstrations",
    "Discriminator",
    "FeatureEncoding",
    "FeatureMatching",
    "behaviour_cloning",
    "record_demonstrations",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"rlhf_gym.agents.imitation.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
