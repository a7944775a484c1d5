"""Verifiable rewards: a checker that runs on prompt and answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument, InvalidData, InvalidReward
from rlhf_gym.rewards.base import ScoreTerm
from rlhf_gym.rewards.penalty import not_negative

Checker = Callable[[str, str, Mapping[str, Any]], float | bool]
"""`(prompt, response, data row) -> how right it is`: True and False count 1 and 0."""

# The sign is none in "10-20"; commas part thousands only.
_NUMBER = re.compile(
    r"(?:(?<![\d.])[-+])?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
)


class VerifiableReward(ScoreTerm):
    """What a checker says of each response, 1 for right and 0 for wrong; it may give parts.

    It is called once per response, and may run a program, ask a solver, or compare with the data
    row that the prompt came from.

    Args:
        checker: see `Checker`; `exact_match` and `numeric_match` are ready-made.
        name: tag of the term.

    Source: Lambert et al. (2024), "Tulu 3", section 6 (reinforcement learning with verifiable
    rewards).
    """

    def __init__(self, checker: Checker, name: str = "verified") -> None:
        if not callable(checker):
            raise InvalidArgument(
                "checker",
                checker,
                "it cannot be called",
                "Give a function (prompt, response, row) -> bool, or exact_match('answer')",
            )
        self.checker = checker
        self.name = name

    def scores(self, episodes: Episodes) -> Tensor:
        """What the checker says, shape (batch,).

        Raises:
            InvalidReward: the checker says something that is no number.
        """
        rows = episodes.rows or [{}] * len(episodes)
        said = [
            self.checker(prompt, response, row)
            for prompt, response, row in zip(
                episodes.prompts, episodes.responses, rows, strict=True
            )
        ]
        for value in said:
            if not isinstance(value, bool | int | float):
                raise InvalidReward(
                    self.name, value, "the checker gave no number", "Return True, False or a number"
                )
        return torch.tensor([float(value) for value in said])


def exact_match(column: str = "answer", *, ignore_case: bool = True) -> Checker:
    """A checker: the response is the row's answer, however blanks are set.

    Args:
        column: of the data row, holds the answer.
        ignore_case: "Paris" is "paris".
    """

    def clean(text: str) -> str:
        text = " ".join(text.split())
        return text.casefold() if ignore_case else text

    def check(prompt: str, response: str, row: Mapping[str, Any]) -> bool:
        return clean(response) == clean(str(_answer(row, column)))

    return check


def numeric_match(
    column: str = "answer", *, tolerance: float = 1e-6, relative: float = 0.0
) -> Checker:
    """A checker: the last number in the response is that of the row's answer.

    Numbers may have thousands commas, a sign, decimals and an exponent: "so it is 1,234.50".

    Args:
        column: of the data row, holds a number, or a text whose last number is it.
        tolerance: largest distance that counts as equal, in the answer's unit, 0 or more,
        relative: plus so much as a share of the answer, 0 or more.
    """
    not_negative("tolerance", tolerance)
    not_negative("relative", relative)

    def check(prompt: str, response: str, row: Mapping[str, Any]) -> bool:
        answer = last_number(str(_answer(row, column)))
        if answer is None:
            raise InvalidData(
                column, row[column], "no number to compare with", "Use exact_match, or correct it"
            )
        given = last_number(response)
        return given is not None and abs(given - answer) <= tolerance + relative * abs(answer)

    return check


def last_number(text: str) -> float | None:
    """The last number in a text, or None without one."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _answer(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise InvalidData(
            column,
            sorted(row),
            "the data row of the prompt has no such column",
            "Give prompts as rows with it: [{'prompt': '2 + 2 =', 'answer': '4'}]",
        )
    return row[column]
