"""What is logged: the right numbers under the right tags, and every tag in the glossary."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import HParam, KVWriter, Logger
from stable_baselines3.common.vec_env import VecMonitor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlhf_gym.agents.alarm import OveroptimisationAlarm
from rlhf_gym.agents.callbacks import SampleTableCallback, TextMetricsCallback, episode_metrics
from rlhf_gym.agents.ppo import PPO
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.sb3 import GymnasiumVecEnv, make_sb3_env
from rlhf_gym.rewards import AdaptiveKL, KLPenalty

GLOSSARY = Path(__file__).parents[2] / "docs" / "metrics.md"
Maker = Callable[..., Any]


def count_good(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(response.split().count("good")) for response in responses]


class Recorder(KVWriter):
    """Keeps what would be written."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0
    ) -> None:
        self.entries.append(dict(key_values))

    def close(self) -> None:
        pass


def trained(env: Any, callback: Any = None, timesteps: int = 60, **kwargs: Any) -> Recorder:
    recorder = Recorder()
    agent = PPO("LMPolicy", env, seed=0, device="cpu", **kwargs)
    agent.set_logger(Logger(None, [recorder]))
    agent.learn(timesteps, callback=callback)
    return recorder


def glossary_tags() -> set[str]:
    """Tags of text; those of acting have a section of their own, behind the others."""
    text, _, _ = GLOSSARY.read_text().partition("## Tasks of acting")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return {re.match(r"\| `([^`]+)`", row)[1] for row in rows}  # type: ignore[index]


def test_every_tag_is_in_the_glossary(make_env: Maker, make_model: Maker, tmp_path: Path) -> None:
    """Everything PPO, its callbacks and SB3's evaluation can write, and nothing in it is stale."""
    penalty = KLPenalty(make_model(), 0.1)
    evaluation = EvalCallback(
        VecMonitor(GymnasiumVecEnv(make_env())), n_eval_episodes=8, eval_freq=5, verbose=0
    )
    with pytest.warns(UserWarning, match="not of the same type"):
        entries = trained(
            make_env(reward=count_good - penalty, gold=count_good),
            [evaluation, OveroptimisationAlarm()],
            max_update_kl=1.0,
        ).entries
    entries += trained(make_env(), kl_loss_coef=0.1).entries
    logged = {tag for entry in entries for tag in entry}
    terms = {"reward/count_good", "reward/kl"}
    assert terms <= logged
    written_down = glossary_tags()
    assert logged - terms <= written_down
    # Each term has a tag of its own; REBEL alone drops pairs; nothing gave alarm.
    assert written_down - logged == {"reward/<term>", "train/pairs_kept", "alarm/message"}


def test_metrics_of_an_episode_by_hand() -> None:
    info = {
        "score": 1.5,
        "reward_terms": {"reward_model": 1.5, "kl": -0.2},
        "gold_reward": 0.5,
        "kl": 2.0,
        "kl_known": True,
        "response_length": 4,
        "finish_reason": "stop",
    }
    assert episode_metrics(info) == {
        "reward/score": 1.5,
        "reward/reward_model": 1.5,
        "reward/kl": -0.2,
        "reward/gold": 0.5,
        "kl/reference": 2.0,
        "kl/reference_per_token": 0.5,
        "kl/known": 1.0,
        "text/response_length": 4.0,
        "text/stopped": 1.0,
        "text/cut_at_limit": 0.0,
    }


def test_means_are_over_all_episodes_of_the_update(make_env: Maker) -> None:
    class Collecting(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.infos: list[dict[str, Any]] = []

        def _on_step(self) -> bool:
            rows = np.flatnonzero(self.locals["dones"])
            self.infos += [self.locals["infos"][row] for row in rows]
            return True

    collecting = Collecting()
    (entry,) = trained(make_env(), collecting, timesteps=1).entries
    assert len(collecting.infos) == 8
    assert entry["reward/score"] == pytest.approx(np.mean([i["score"] for i in collecting.infos]))
    lengths = [info["response_length"] for info in collecting.infos]
    assert entry["text/response_length"] == pytest.approx(np.mean(lengths))
    assert entry["rollout/ep_len_mean"] == pytest.approx(np.mean(lengths))
    assert entry["rollout/ep_rew_mean"] == pytest.approx(entry["reward/score"])
    assert entry["text/stopped"] + entry["text/cut_at_limit"] == 1.0
    assert entry["time/total_timesteps"] == sum(lengths)
    assert isinstance(entry["hparams"], HParam)


def test_sampling_speed_is_logged(make_env: Maker) -> None:
    (entry,) = trained(make_env(), timesteps=1).entries
    tokens = entry["time/total_timesteps"]
    assert entry["time/tokens_per_second"] == pytest.approx(tokens / entry["time/rollout_seconds"])
    assert entry["time/fps"] > 0


def test_stock_agents_get_the_same_tags(make_env: Maker) -> None:
    env = make_sb3_env(make_env(gold=count_good), num_envs=8)
    recorder = Recorder()
    agent = A2C("MultiInputPolicy", env, seed=0, device="cpu", n_steps=8)
    agent.set_logger(Logger(None, [recorder]))
    agent.learn(64 * 8, callback=TextMetricsCallback(update_kl=True), log_interval=1)
    tags = {tag for entry in recorder.entries for tag in entry}
    assert {"reward/score", "reward/gold", "text/response_length", "kl/known"} <= tags
    ours = {tag for tag in tags if tag.split("/")[0] in ("reward", "kl", "text")}
    assert ours - {"reward/count_good"} <= glossary_tags()


def test_the_kl_controller_moves_once_per_update(make_env: Maker, make_model: Maker) -> None:
    penalty = KLPenalty(make_model(), AdaptiveKL(0.1, target=1.0, horizon=80))
    coefs = [entry["kl/coef"] for entry in trained(make_env(reward=count_good - penalty)).entries]
    # KL is about 0 at first: error -0.2, 8 episodes: 0.1 * (1 - 0.2 * 8 / 80) = 0.098.
    assert coefs[0] == 0.1
    assert coefs[1] == pytest.approx(0.098)


def test_sample_table(make_env: Maker, tmp_path: Path) -> None:
    callback = SampleTableCallback(every=2, rows=3, folder=tmp_path)
    entries = trained(make_env(gold=count_good), callback, timesteps=100).entries
    assert len(entries) >= 3
    assert ["text/samples" in entry for entry in entries[:3]] == [True, False, True]
    table = entries[0]["text/samples"].splitlines()
    assert table[0] == "| prompt | response | score | gold | kl | finish_reason |"
    assert len(table) == 2 + 3
    lines = sorted(tmp_path.glob("samples-*.jsonl"))[0].read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert len(samples) == 3
    for sample in samples:
        assert sample["score"] == sample["response"].split().count("good")
        assert sample["finish_reason"] in ("stop", "length")
        assert "<pad>" not in sample["prompt"] + sample["response"]


def test_tensorboard_gets_scalars_tables_and_hyperparameters(
    make_env: Maker, tmp_path: Path
) -> None:
    agent = PPO("LMPolicy", make_env(), seed=0, device="cpu", tensorboard_log=tmp_path)
    agent.learn(60)
    events = EventAccumulator(str(tmp_path / "PPO_1"))
    events.Reload()
    assert {"reward/score", "kl/reference", "train/loss"} <= set(events.Tags()["scalars"])
    assert "text/samples/text_summary" in events.Tags()["tensors"]
    steps = [event.step for event in events.Scalars("reward/score")]
    assert steps[-1] == agent.num_timesteps


def test_printing_works_although_there_are_tables(
    make_env: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    PPO("LMPolicy", make_env(), seed=0, device="cpu", verbose=1).learn(1)
    assert "ep_rew_mean" in capsys.readouterr().out


def test_log_interval(make_env: Maker) -> None:
    recorder = Recorder()
    agent = PPO("LMPolicy", make_env(), seed=0, device="cpu")
    agent.set_logger(Logger(None, [recorder]))
    agent.learn(150, log_interval=2)
    assert len(recorder.entries) == agent._n_updates // 2


def test_bad_intervals(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="rows=0"):
        SampleTableCallback(rows=0)
