import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from sb3_contrib import ARS, TQC, CrossQ
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm

import rlhf_gym  # noqa: F401
from rlhf_gym.agents.preference_learning import PreferenceConfig, PreferenceLearning
from rlhf_gym.agents.sb3.relabelling import PreferenceReplayBuffer, relabel
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.feedback import Query
from rlhf_gym.core.labels import Label, Ranking, Skip
from rlhf_gym.core.preferences import FitConfig, LabelSchedule, RewardLearnerConfig
from rlhf_gym.core.store import FeedbackStore
from rlhf_gym.envs.sb3 import make_sb3_env

TINY = PreferenceConfig(
    schedule=LabelSchedule(total=12, initial=0.5),
    learner=RewardLearnerConfig(
        segment_length=5, hidden=(8,), members=2, memory=400, fit=FitConfig(epochs=2)
    ),
    rounds=3,
    explore=80,
)
OFF_POLICY = {
    "replay_buffer_class": PreferenceReplayBuffer,
    "buffer_size": 200,
    "learning_starts": 10,
    "batch_size": 8,
    "policy_kwargs": {"net_arch": [8]},
}


def learning(
    folder: Path, *, continuous: bool = False, config: PreferenceConfig = TINY, **kwargs: Any
) -> PreferenceLearning:
    env = make_sb3_env("rlhf_gym/Pizza-v0", 4, continuous=continuous)
    return PreferenceLearning(env, folder, config=config, **kwargs)


def small_ppo(loop: PreferenceLearning, **kwargs: Any) -> PPO:
    return PPO("MlpPolicy", loop.env, n_steps=20, batch_size=40, n_epochs=1, seed=0, **kwargs)


def make_agent(kind: type[BaseAlgorithm], loop: PreferenceLearning) -> BaseAlgorithm:
    if kind is PPO:
        return small_ppo(loop)
    if kind is ARS:
        return ARS("LinearPolicy", loop.env, n_delta=1, n_top=1, seed=0)
    return kind("MlpPolicy", loop.env, seed=0, **copy.deepcopy(OFF_POLICY))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [PPO, SAC, TQC, CrossQ, ARS, DQN])
def test_any_agent_is_taught(kind: type[BaseAlgorithm], tmp_path: Path) -> None:
    loop = learning(tmp_path, continuous=kind in (SAC, TQC, CrossQ))
    agent = make_agent(kind, loop)
    last = loop.learn(agent, 480)
    assert loop.learner.asked == 12
    assert last["labels"] == 12
    assert loop.history[0]["labels"] == 6  # half of them before training
    assert loop.history[0]["timesteps"] == 0
    assert agent.num_timesteps >= 480
    with FeedbackStore(tmp_path / "feedback.db") as store:
        assert len(store.feedback()) == 12


def test_a_run_of_one_rollout_asks_for_all_before_it(tmp_path: Path) -> None:
    loop = learning(tmp_path)
    loop.learn(small_ppo(loop), 60)  # a rollout is 80 steps
    assert [told["labels"] for told in loop.history] == [6, 12]
    assert [told["timesteps"] for told in loop.history] == [0, 0]


def test_labels_that_were_not_asked_for_are_told(tmp_path: Path) -> None:
    loop = learning(tmp_path)
    with pytest.warns(UserWarning, match=r"6 of 12 labels were asked for.*--total-timesteps"):
        loop.learn(make_agent(ARS, loop), 4)  # all of it within its first update
    assert loop.learner.asked == 6


def test_a_resumed_run_does_not_ask_for_the_rest_at_once(tmp_path: Path) -> None:
    first = learning(tmp_path)
    first.learn(small_ppo(first), 320)
    more = replace(TINY, schedule=LabelSchedule(total=24, initial=0.5, until=1.0))
    second = learning(tmp_path, config=more)
    second.learn(second.resume_agent(PPO) or small_ppo(second), 480)
    # At two thirds: 12 + 12 log(1 + 4 * 2/3) / log(5) = 21.7
    assert [told["labels"] for told in second.history[-2:]] == [21, 24]


def test_what_old_experience_is_paid_follows_the_reward(tmp_path: Path) -> None:
    """Actions of the buffer are scaled to [-1, 1]; here the task's own bounds are 0 and 4."""
    bounds = gym.spaces.Box(0.0, 4.0, (11,), np.float32)
    pizza = gym.make("rlhf_gym/Pizza-v0", continuous=True)
    rescaled = gym.wrappers.TransformAction(pizza, lambda action: action / 2 - 1, bounds)
    mixed = PreferenceConfig(TINY.schedule, TINY.learner, 3, 80, automated_weight=0.5)
    loop = PreferenceLearning(make_sb3_env(rescaled), tmp_path, config=mixed)
    seen, done, automated = [], [], []

    step_async, step_wait = loop.taught.venv.step_async, loop.taught.venv.step_wait

    def record_actions(actions: np.ndarray) -> None:
        seen.append(loop.taught._seen[0].copy())
        done.append(actions[0].copy())
        step_async(actions)

    def record_rewards() -> Any:
        result = step_wait()
        automated.append(result[1][0])
        return result

    loop.taught.venv.step_async = record_actions  # type: ignore[method-assign]
    loop.taught.venv.step_wait = record_rewards  # type: ignore[method-assign]
    agent = SAC("MlpPolicy", loop.env, seed=0, **copy.deepcopy(OFF_POLICY))  # type: ignore[arg-type]
    loop.learn(agent, 60)
    # One more change of the reward, after which everything is paid anew.
    loop.learner.ensemble.mean.fill_(0.25)
    assert relabel(agent, loop.learner.ensemble) == 60
    learned = loop.learner.ensemble.rewards(np.stack(seen[-60:]), np.stack(done[-60:]))
    buffer = agent.replay_buffer
    assert buffer is not None
    np.testing.assert_allclose(
        buffer.rewards[:60, 0], learned + 0.5 * np.array(automated[-60:]), atol=1e-4
    )


def test_old_experience_is_paid_by_both_ends_of_a_step(tmp_path: Path) -> None:
    """A potential and its term of acts, over steps that end an episode (each twelfth) too."""
    both = replace(TINY, learner=replace(TINY.learner, judges="both", bins=4))
    loop = learning(tmp_path, continuous=True, config=both)
    agent = make_agent(SAC, loop)
    loop.learn(agent, 240)
    ensemble = loop.learner.ensemble
    assert isinstance(agent, SAC)
    assert agent.replay_buffer is not None
    before = agent.replay_buffer.rewards[:60].copy()
    ensemble.begin_anew(7)
    assert ensemble.acts is not None
    torch.nn.init.normal_(ensemble.acts, generator=torch.Generator().manual_seed(0))
    # A buffer of 200 steps of 4 rows has room for 50 of each; all are paid anew.
    assert relabel(agent, ensemble) == 200
    # What the wrapper that pays has kept, in the task's own units, is what the networks are asked.
    paid = ensemble.rewards(*loop.learner.replay.recent(200)).reshape(50, 4)
    # The ring's next place is 60 % 50 = 10: that is its oldest step.
    kept = np.roll(agent.replay_buffer.rewards, -10, axis=0)
    np.testing.assert_allclose(kept, paid, atol=1e-5)
    assert np.abs(kept - np.roll(before, -10, axis=0)).max() > 0.1


def test_random_steps_that_repeat_themselves_stay_allowed(tmp_path: Path) -> None:
    stubborn = replace(TINY, explore=400, persistence=0.9)
    loop = PreferenceLearning(make_sb3_env("rlhf_gym/Go-v0", 4), tmp_path, config=stubborn)
    step_async, illegal = loop.taught.venv.step_async, []

    def check(actions: np.ndarray) -> None:
        masks = np.stack(loop.taught.venv.env_method("action_masks"))
        illegal.append(~masks[np.arange(4), actions])
        step_async(actions)

    loop.taught.venv.step_async = check  # type: ignore[method-assign]
    loop.explore()
    assert not np.concatenate(illegal).any()
    loop = learning(tmp_path / "pizza", config=stubborn)
    loop.explore()
    acts = loop.learner.replay._actions
    # 0.9 and a thirteenth of the rest are the same again: 0.908 of 396 steps, within 4 deviations.
    assert np.mean(acts[1:] == acts[:-1]) == pytest.approx(0.908, abs=0.06)


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    loop = learning(tmp_path)
    loop.learn(small_ppo(loop), 240)
    weights = loop.learner.ensemble.state_dict()
    again = learning(tmp_path)
    agent = again.resume_agent(PPO)
    assert agent is not None
    assert agent.num_timesteps == 240
    assert again.learner.asked == loop.learner.asked
    assert again.history == loop.history
    assert len(again.learner.replay) == len(loop.learner.replay)
    assert (again.learner.comparisons.weights == loop.learner.comparisons.weights).all()
    for name, values in again.learner.ensemble.state_dict().items():
        assert (values == weights[name]).all()
    again.learn(agent, 480)
    assert agent.num_timesteps == 480


class Stubborn:
    """Answers so many rounds, then is gone, as a killed process is."""

    name = "stubborn"

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def label(self, queries: list[Query]) -> list[Label]:
        self.rounds -= 1
        if self.rounds < 0:
            raise KeyboardInterrupt
        return [Ranking((0, 1)) for _ in queries]


def test_no_answer_is_lost_and_none_asked_for_twice(tmp_path: Path) -> None:
    first = learning(tmp_path, labeler=Stubborn(1))
    with pytest.raises(KeyboardInterrupt):
        first.learn(small_ppo(first), 480)
    assert first.learner.asked == 6
    first.learner.store.close()
    second = learning(tmp_path, labeler=Stubborn(9))
    assert second.learner.asked == 6  # before anything else was saved
    second.learn(second.resume_agent(PPO) or small_ppo(second), 480)
    assert second.learner.asked == 12
    with pytest.raises(InvalidArgument, match="answers of another run"):
        learning(tmp_path, resume=False)


def test_whoever_skips_everything_teaches_nothing(tmp_path: Path) -> None:
    class Silent:
        name = "silent"

        def label(self, queries: list[Query]) -> list[Label]:
            return [Skip() for _ in queries]

    loop = learning(tmp_path, labeler=Silent())
    last = loop.learn(small_ppo(loop), 240)
    assert last["skipped"] > 0
    assert "loss" not in last


def test_same_seed_same_run(tmp_path: Path) -> None:
    histories = []
    for name in ("a", "b"):
        loop = learning(tmp_path / name)
        loop.learn(small_ppo(loop), 240)
        histories.append(loop.history)
    assert str(histories[0]) == str(histories[1])  # NaN is equal to itself as text


def test_returns_and_rounds_are_logged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loop = learning(tmp_path)
    loop.learn(small_ppo(loop, tensorboard_log=str(tmp_path / "tb")), 480)
    events = EventAccumulator(str(next((tmp_path / "tb").iterdir())))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"reward/gold", "reward/automated", "reward/learned", "reward/paid"} <= tags
    assert {f"preferences/{name}" for name in loop.history[-1] if name != "timesteps"} <= tags
    assert [event.value for event in events.Scalars("preferences/labels")][-1] == 12
    glossary = Path(__file__).parents[2] / "docs" / "metrics.md"
    _, _, acting = glossary.read_text().partition("## Tasks of acting")
    acting, _, _ = acting.partition("\n## ")
    explained = set(re.findall(r"^\| `([^`]+)`", acting, flags=re.MULTILINE))
    ours = {tag for tag in tags if tag.startswith(("reward/", "preferences/"))}
    assert explained == ours | {"rollout/episode_length"}


def test_mistakes_are_named_before_work_is_lost(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="teacher='nobody'"):
        learning(tmp_path / "a", labeler="nobody")
    loop = learning(tmp_path / "b", continuous=True)
    sac = SAC("MlpPolicy", loop.env, buffer_size=100)
    with pytest.raises(InvalidArgument, match="replay_buffer_class=PreferenceReplayBuffer"):
        loop.learn(sac, 100)
    elsewhere = PPO("MlpPolicy", make_sb3_env("rlhf_gym/Pizza-v0", 4))
    with pytest.raises(InvalidArgument, match=r"learning\.env"):
        loop.learn(elsewhere, 100)
    for wrong in ({"rounds": 0}, {"explore": 0}, {"persistence": 1.0}):
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            PreferenceConfig(**wrong)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"segment_length": 29}, "longest episode has"), ({"segment_length": 20}, "make 0 pairs")],
)
def test_too_little_to_ask_about(settings: dict[str, int], problem: str, tmp_path: Path) -> None:
    """80 steps of 4 rows are 20 each: no segment of 29, one of 20 a row, so 6 pairs."""
    config = PreferenceConfig(LabelSchedule(total=40), RewardLearnerConfig(**settings), explore=80)
    loop = learning(tmp_path, config=config)
    problem = problem.replace("make 0", "make 6")
    with pytest.raises(InvalidArgument, match=problem):
        loop.learn(small_ppo(loop), 100)


def test_a_task_of_gymnasiums_own(tmp_path: Path) -> None:
    env = gym.make_vec(
        "CartPole-v1",
        num_envs=4,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )
    loop = PreferenceLearning(env, tmp_path, config=TINY)
    assert loop.learn(small_ppo(loop), 160)["labels"] == 12
