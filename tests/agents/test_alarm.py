"""The alarm: silent while all goes well, loud with step and reason when the proxy is hacked."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import A2C
from stable_baselines3.common.logger import KVWriter, Logger

from rlhf_gym.agents import PPO, OveroptimisationAlarm
from rlhf_gym.agents.alarm import AlarmLimits, Chapter, Mean, repeated_share, signs
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.sb3 import make_sb3_env

Maker = Callable[..., Any]
LIMITS = AlarmLimits()


class Recorder(KVWriter):
    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def write(self, key_values: Any, key_excluded: Any, step: int = 0) -> None:
        self.entries.append(dict(key_values))

    def close(self) -> None:
        pass


def chapter(step: int, **values: float) -> Chapter:
    """Every mean with a standard error of 0.1: a change of 4 errors of the difference is 0.57."""
    means = {"score": 0.0, "length": 10.0, **values}
    return Chapter(step, {name: Mean(value, 0.1) for name, value in means.items()})


def kinds(*chapters: Chapter) -> list[str]:
    return [kind for kind, _ in signs(chapters, LIMITS)]


def test_proxy_and_gold_part() -> None:
    rising = [chapter(100, score=0, gold=0), chapter(200, score=1, gold=1)]
    assert kinds(*rising) == []
    ((kind, message),) = signs([*rising, chapter(300, score=2, gold=0.3)], LIMITS)
    assert kind == "gold"
    assert message == "since step 200 gold fell from 1 to 0.3 while score rose from 1 to 2"


@pytest.mark.parametrize(
    "last",
    [
        {"score": 2.0, "gold": 0.5},  # 0.5 lower is 3.5 standard errors: may be chance
        {"score": 1.5, "gold": 0.3},  # and so may a score that is 0.5 higher
        {"score": 0.2, "gold": 0.2},  # both fell: something else is wrong
        {"score": 2.0, "gold": 2.0, "length": 30.0},  # with gold, length alone says nothing
    ],
)
def test_with_gold_only_their_parting_rings(last: dict[str, float]) -> None:
    history = [chapter(100, score=0, gold=0), chapter(200, score=1, gold=1)]
    assert kinds(*history, chapter(300, **last)) == []


def test_what_does_not_vary_did_not_change() -> None:
    still = Mean(0.4, 0.0)
    assert still.above(still) == 0.0
    assert still.above(Mean(0.3, 0.0)) == float("inf")


@pytest.mark.parametrize(("gold", "expected"), [(9.1, []), (8.9, ["gold"])])
def test_a_tenth_of_what_was_gained_may_be_lost(gold: float, expected: list[str]) -> None:
    """Gold gained 10; a loss of 0.9 is 6 standard errors of the difference, one of 1.1 nearly 8."""
    history = [chapter(100, score=0, gold=0), chapter(200, score=1, gold=10)]
    assert kinds(*history, chapter(300, score=2, gold=gold)) == expected


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ({"score": 1.0, "length": 16.0}, ["length"]),
        ({"score": 1.0, "length": 6.0}, ["length"]),  # 10 is more than 1.5 * 6
        ({"score": 1.0, "length": 14.0}, []),
        ({"score": 0.3, "length": 16.0}, []),  # nobody is paid for it
        ({"score": 1.0, "repetition": 0.7}, ["repetition"]),
        ({"score": 1.0, "repetition": 0.5}, []),  # 3.5 standard errors
        ({"score": 0.0, "kl_per_token": 3.2}, ["kl"]),
        ({"score": 0.0, "kl_per_token": 2.9}, []),
        ({"score": 1.0, "length": 16.0, "repetition": 0.7}, ["length", "repetition"]),
    ],
)
def test_without_gold_the_text_betrays_it(last: dict[str, float], expected: list[str]) -> None:
    quiet = {"repetition": 0.0, "kl_per_token": 0.0}
    assert kinds(chapter(100, **quiet), chapter(200, **{**quiet, **last})) == expected


def test_one_chapter_is_no_history() -> None:
    assert kinds(chapter(100, kl_per_token=9.0)) == []


def test_certain_means() -> None:
    assert Mean(1.0, 0.0).above(Mean(0.0, 0.0)) == np.inf
    assert Mean(2.0, 0.3).above(Mean(1.0, 0.4)) == pytest.approx(2.0)  # 1 / sqrt(0.09 + 0.16)


def test_repeated_share() -> None:
    # 123 231 312 123 231: two of five have been there.
    assert repeated_share(np.array([1, 2, 3, 1, 2, 3, 1])) == pytest.approx(0.4)
    assert repeated_share(np.array([1, 1])) == 0.0


def train(env: Any, alarm: OveroptimisationAlarm, tokens: int) -> list[dict[str, Any]]:
    recorder = Recorder()
    agent = PPO("LMPolicy", env, seed=0, device="cpu", learning_rate=5e-3, schedule="constant")
    agent.set_logger(Logger(None, [recorder]))
    agent.learn(tokens, callback=alarm)
    return recorder.entries


def test_a_reward_that_pays_length_is_found_out(
    make_env: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    def words(prompts: list[str], responses: list[str]) -> list[float]:
        return [float(len(response.split())) for response in responses]

    alarm = OveroptimisationAlarm(window=64)
    env = make_env(reward=words, num_envs=32, max_response_tokens=18)
    with caplog.at_level(logging.WARNING):
        entries = train(env, alarm, 8_000)
    assert any("length rose from" in message for message in alarm.messages)
    assert alarm.messages[0].startswith("step ")
    shown = [entry["alarm/message"] for entry in entries if "alarm/message" in entry]
    assert shown == alarm.messages
    assert caplog.messages[0].endswith(alarm.messages[0])
    # Once each; the scalar stays up.
    assert sum("length" in message for message in alarm.messages) == 1
    rang = [entry["alarm/overoptimisation"] for entry in entries]
    assert rang[0] == 0.0
    assert rang[-1] == 1.0


def test_gold_that_wants_one_good_and_no_more(make_env: Maker) -> None:
    """A proxy that pays each "good", where gold likes the first and none of the others."""

    def gold(prompts: list[str], responses: list[str]) -> list[float]:
        counts = [response.split().count("good") for response in responses]
        return [1.0 if count == 1 else -float(count) for count in counts]

    alarm = OveroptimisationAlarm(window=64)
    train(make_env(gold=gold, num_envs=32), alarm, 5_000)
    (message,) = alarm.messages
    assert "gold fell from" in message
    assert "score rose from" in message


def test_a_run_that_learns_what_was_wanted_stays_silent(make_env: Maker) -> None:
    def gold(prompts: list[str], responses: list[str]) -> list[float]:
        return [float(response.split().count("good")) for response in responses]

    alarm = OveroptimisationAlarm(window=64)
    entries = train(make_env(gold=gold, num_envs=32), alarm, 3_000)
    assert alarm.messages == []
    assert {entry["alarm/overoptimisation"] for entry in entries} == {0.0}


def test_stock_agents_have_it_too(make_env: Maker) -> None:
    recorder = Recorder()
    env = make_sb3_env(make_env(num_envs=8), num_envs=8)
    agent = A2C("MultiInputPolicy", env, seed=0, device="cpu", n_steps=8)
    agent.set_logger(Logger(None, [recorder]))
    agent.learn(64 * 4, callback=OveroptimisationAlarm(window=8), log_interval=1)
    tags = {tag for entry in recorder.entries for tag in entry}
    assert {"alarm/overoptimisation", "text/repetition"} <= tags


@pytest.mark.parametrize(
    "limit", [{"sigmas": 0.0}, {"length_factor": 1.0}, {"repetition_rise": -0.1}]
)
def test_limits_that_would_always_ring(limit: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument, match="always ring"):
        AlarmLimits(**limit)


def test_a_window_of_one() -> None:
    with pytest.raises(InvalidArgument, match="window"):
        OveroptimisationAlarm(window=1)
