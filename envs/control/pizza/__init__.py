"""`rlhf_gym/Pizza-v0`: what is weighed is not what tastes good."""

from rlhf_gym.envs.control.pizza.task import PizzaEnv, PizzaVectorEnv
from rlhf_gym.envs.control.pizza.tastes import TASTES, Taste

__all__ = ["TASTES", "PizzaEnv", "PizzaVectorEnv", "Taste"]
