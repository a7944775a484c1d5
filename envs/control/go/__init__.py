"""`rlhf_gym/Go-v0`: Go on small boards, many at a time."""

from rlhf_gym.envs.control.go.boards import Boards
from rlhf_gym.envs.control.go.opponents import OPPONENTS
from rlhf_gym.envs.control.go.shape import ShapeTaste
from rlhf_gym.envs.control.go.task import GoEnv, GoVectorEnv

__all__ = ["OPPONENTS", "Boards", "GoEnv", "GoVectorEnv", "ShapeTaste"]
