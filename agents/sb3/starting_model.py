"""What a policy starts from, in a form that SB3 can pickle and compare: no weights, no path."""

from __future__ import annotations

import copy
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel


class StartingModel:
    """A language model to start from, which pickles to its configuration alone.

    SB3 pickles `policy_kwargs` and compares them when an agent is loaded. A saved agent has its
    weights in its own file, so all that is needed to make its policy again is the shape.

    Args:
        model: the model to start from, left as it is; or a configuration, when weights are loaded
            afterwards.
    """

    def __init__(self, model: PreTrainedModel | PretrainedConfig) -> None:
        self._model = model

    @property
    def config(self) -> PretrainedConfig:
        """The model's configuration."""
        return self._model if isinstance(self._model, PretrainedConfig) else self._model.config

    def take(self) -> PreTrainedModel | PretrainedConfig:
        """A copy of the model, which the caller may train; or the configuration."""
        return copy.deepcopy(self._model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StartingModel) and self._shape() == other._shape()

    def __hash__(self) -> int:
        return hash(self.config.model_type)

    def __repr__(self) -> str:
        return f"StartingModel({self.config.model_type})"

    def __deepcopy__(self, memo: dict[int, Any]) -> StartingModel:
        return self

    def __reduce__(self) -> tuple[type[StartingModel], tuple[PretrainedConfig]]:
        return StartingModel, (self.config,)

    def _shape(self) -> dict[str, Any]:
        """The configuration without what loading and saving write into it."""
        shape: dict[str, Any] = self.config.to_diff_dict()
        return {key: value for key, value in shape.items() if key not in _NO_SHAPE}


_NO_SHAPE = frozenset({"_name_or_path", "architectures", "dtype", "transformers_version"})
