"""`rlhf_gym/Recommender-v0`: clicks against satisfaction."""

from rlhf_gym.envs.control.recommender.catalogue import Catalogue, default_catalogue
from rlhf_gym.envs.control.recommender.rules import ReaderModel
from rlhf_gym.envs.control.recommender.task import RecommenderEnv, RecommenderVectorEnv

__all__ = [
    "Catalogue",
    "ReaderModel",
    "RecommenderEnv",
    "RecommenderVectorEnv",
    "default_catalogue",
]
