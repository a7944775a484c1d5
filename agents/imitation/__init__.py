"""Learning from what an expert did, not from what was said of it: cloning, and two rewards.

Names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_gym.core.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
