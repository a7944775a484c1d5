"""`--noise`: what is supposed about wrong answers. Light to import."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from rlhf_gym.core.errors import InvalidArgument

Kind = Literal["share", "flipped", "learned", "raters"]
_KNOWN = ("share", "flipped")


@dataclass(frozen=True)
class NoiseSetting:
    """How wrong answers come about.

    Attributes:
        kind: a known share of answers given at random ("share"), or turned round ("flipped"); one
            share for everybody, learned ("learned"); or one for each rater, learned ("raters").
        share: the known one; else 0.
    """

    kind: Kind
    share: float = 0.0

    @classmethod
    def parse(cls, text: str | float) -> NoiseSetting:
        """`0.1` or `share=0.1`, `flipped=0.3`, `learned`, `raters`.

        Raises:
            InvalidArgument: none of these, or a share that is none: from 0 to below 1, of turned
                answers below 0.5, beyond which they would say the opposite.
        """
        kind, equals, value = str(text).partition("=")
        if not equals and kind not in get_args(Kind):
            kind, value = "share", kind
        try:
            share = float(value) if kind in _KNOWN else 0.0
        except ValueError:
            share = math.nan
        most = 0.5 if kind == "flipped" else 1.0
        if kind not in get_args(Kind) or (equals and kind not in _KNOWN) or not 0 <= share < most:
            raise InvalidArgument(
                "noise",
                text,
                "nothing that noise can be",
                "Give share=0.1, flipped=0.3 (below 0.5), learned or raters",
            )
        return cls(kind, share)  # type: ignore[arg-type]

    @property
    def is_learned(self) -> bool:
        """Whether it has to be found out."""
        return self.kind not in _KNOWN

    @property
    def random(self) -> float:
        """The known share of random answers; of two answers a random one is wrong half the time."""
        return 2 * self.share if self.kind == "flipped" else self.share
