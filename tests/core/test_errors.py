"""Errors keep their message wherever they are made anew."""

from __future__ import annotations

import pickle

import gymnasium as gym
import pytest

import rlhf_gym
from rlhf_gym.core.errors import InvalidAction, InvalidArgument


def test_an_error_reaches_another_process_with_its_message() -> None:
    error = InvalidAction("actions", lambda: 3, "no token", "Give an integer")
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is InvalidAction
    assert str(arrived) == str(error)
    assert arrived.field == "actions"


@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array'")
def test_gymnasium_can_add_to_a_message() -> None:
    assert rlhf_gym.__version__
    with pytest.raises(InvalidArgument, match=r"render_mode='rgb_array'.*rlhf_gym/Sentiment-v0"):
        gym.make("rlhf_gym/Sentiment-v0", render_mode="rgb_array")


@pytest.mark.parametrize(("problem", "shown"), [("bad", "bad. Do"), ("bad?", "bad? Do")])
def test_sentences_end_once(problem: str, shown: str) -> None:
    assert str(InvalidArgument("x", 1, problem, "Do it")) == f"x=1: {shown} it."
