"""Learning a reward for control from comparisons of segments; no environments, no agents in here.

Names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_gym.core.lazy import lazy_names

if TYPE_CHECKING:
    from rlhf_gym.core.preferences.comparisons import Comparisons
    from rlhf_gym.core.preferences.encoding import Encoding
    from rlhf_gym.core.preferences.fit import FitReport, fit_ensemble
    from rlhf_gym.core.preferences.fit_config import FitConfig
    from rlhf_gym.core.preferences.learner import RewardLearner
    from rlhf_gym.core.preferences.learner_config import RewardLearnerConfig
    from rlhf_gym.core.preferences.reward_net import RewardEnsemble
    from rlhf_gym.core.preferences.schedule import LabelSchedule
    from rlhf_gym.core.preferences.segments import SegmentBatch, SegmentReplay
    from rlhf_gym.core.preferences.selection import Selection

_MODULES = {
    "Comparisons": "comparisons",
    "Encoding": "encoding",
    "FitConfig": "fit_config",
    "FitReport": "fit",
    "LabelSchedule": "schedule",
    "RewardEnsemble": "reward_net",
    "RewardLearner": "learner",
    "RewardLearnerConfig": "learner_config",
    "SegmentBatch": "segments",
    "SegmentReplay": "segments",
    "Selection": "selection",
    "fit_ensemble": "fit",
}

__all__ = [
    "Comparisons",
    "Encoding",
    "FitConfig",
    "FitReport",
    "LabelSchedule",
    "RewardEnsemble",
    "RewardLearner",
    "RewardLearnerConfig",
    "SegmentBatch",
    "SegmentReplay",
    "Selection",
    "fit_ensemble",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
