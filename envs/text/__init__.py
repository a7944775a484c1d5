"""Any prompts, any causal language model, any reward, as an environment.

Names are imported when they are first used, so that registration stays free of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_gym.core.lazy import lazy_names

if TYPE_CHECKING:
    from rlhf_gym.envs.text.single import TextGenerationEnv
    from rlhf_gym.envs.text.vector import TextGenerationVectorEnv

_MODULES = {"TextGenerationEnv": "single", "TextGenerationVectorEnv": "vector"}

__all__ = ["TextGenerationEnv", "TextGenerationVectorEnv"]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
