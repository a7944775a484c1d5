"""`rlhf_gym/Tutor-v0`: quiz scores against what is remembered."""

from rlhf_gym.envs.control.tutor.student import StudentModel
from rlhf_gym.envs.control.tutor.task import TutorEnv, TutorVectorEnv

__all__ = ["StudentModel", "TutorEnv", "TutorVectorEnv"]
