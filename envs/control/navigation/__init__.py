"""`rlhf_gym/Navigation-v0`: the fastest way is not the considerate one."""

from rlhf_gym.envs.control.navigation.task import NavigationEnv, NavigationVectorEnv

__all__ = ["NavigationEnv", "NavigationVectorEnv"]
