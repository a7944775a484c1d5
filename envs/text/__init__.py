"""Any prompts, any causal language model, any reward, as an environment.

Names are imported when they are first used, so that registration stays free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_gym.envs.text.single import TextGenerationEnv
    from rlhf_gym.envs.text.vector import TextGenerationVectorEnv

_MODULES = {"TextGenerationEnv": "single", "TextGenerationVectorEnv": "vector"}

__all__ = ["TextGenerationEnv", "TextGenerationVectorEnv"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"rlhf_gym.envs.text.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
