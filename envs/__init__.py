"""Environments: each a file or folder, registered as `rlhf_gym/<Name>-v0`.

Names are imported when they are first used, so that `import rlhf_gym` stays free of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_gym.core.lazy import lazy_names

if TYPE_CHECKING:
    from rlhf_gym.envs.registration import register_all
    from rlhf_gym.envs.sb3 import GymnasiumVecEnv, make_sb3_env
    from rlhf_gym.envs.text.single import TextGenerationEnv
    from rlhf_gym.envs.text.vector import TextGenerationVectorEnv

_MODULES = {
    "GymnasiumVecEnv": "sb3",
    "TextGenerationEnv": "text.single",
    "TextGenerationVectorEnv": "text.vector",
    "make_sb3_env": "sb3",
    "register_all": "registration",
}

__all__ = [
    "GymnasiumVecEnv",
    "TextGenerationEnv",
    "TextGenerationVectorEnv",
    "make_sb3_env",
    "register_all",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
