"""Waves of whole episodes: what was written, what was paid, and to which token."""

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import TransformReward
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecMonitor

from rlhf_gym.agents.lm_policy import LMPolicy
from rlhf_gym.agents.rollout import RolloutBatch, collect_wave, concatenate
from rlhf_gym.agents.stepping import Step, TextStepper, make_stepper
from rlhf_gym.core.errors import InvalidArgument, RewardWasWrapped
from rlhf_gym.core.scoring import token_log_probs
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.text import TextGenerationEnv, TextGenerationVectorEnv
from rlhf_gym.rewards import KLPenalty

EOS, GOOD = 1, 8
Maker = Callable[..., Any]


def count_good(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(response.split().count("good")) for response in responses]


def adapted(env: VectorEnv[Any, Any, Any]) -> GymnasiumVecEnv:
    return GymnasiumVecEnv(env, refuse_next_step=False)


def policy_for(stepper: TextStepper, **kwargs: Any) -> LMPolicy:
    return LMPolicy(
        stepper.venv.observation_space,
        stepper.venv.action_space,
        model=kwargs.pop("model", None) or copy.deepcopy(stepper.reference),
        rules=stepper.rules,
        prompt_width=stepper.prompt_width,
        **kwargs,
    )


def collect(
    venv: VecEnv, steps: list[tuple[Step, int]] | None = None, **kwargs: Any
) -> RolloutBatch:
    stepper = make_stepper(venv)
    venv.seed(0)

    def on_step(step: Step, tokens: int) -> bool:
        if steps is not None:
            steps.append((step, tokens))
        return True

    generator = torch.Generator().manual_seed(0)
    wave = collect_wave(stepper, policy_for(stepper, **kwargs), stepper.reset(), generator, on_step)
    assert wave is not None
    return wave


def test_every_row_writes_one_whole_response(make_env: Maker) -> None:
    steps: list[tuple[Step, int]] = []
    batch = collect(adapted(make_env()), steps)
    lengths = batch.mask.sum(-1)
    assert batch.mask.shape == (8, 6)
    assert lengths.min() >= 1
    assert lengths.min() < lengths.max()  # otherwise this test sees no unequal lengths
    # The mask has no holes, and a stop token only at its end.
    assert torch.equal(batch.mask, torch.arange(6) < lengths[:, None])
    response = batch.input_ids[:, -6:]
    last = response.gather(1, lengths[:, None] - 1)[:, 0]
    assert torch.equal(batch.stopped, last == EOS)
    assert ((response == EOS).sum(-1) == batch.stopped).all()
    assert (response[~batch.mask] == 0).all()
    assert (lengths[~batch.stopped] == 6).all()
    # Every row ends once, and only tokens that count are counted.
    assert sum(step.ended.sum() for step, _ in steps) == 8
    assert sum(tokens for _, tokens in steps) == lengths.sum()


def test_ids_are_those_of_the_environment(make_env: Maker) -> None:
    """Nothing is decoded and tokenised again between rollout and update."""
    steps: list[tuple[Step, int]] = []
    batch = collect(adapted(make_env()), steps)
    for step, _ in steps:
        for row in np.flatnonzero(step.ended):
            last = step.infos[row]["terminal_observation"]
            assert np.array_equal(last["input_ids"], batch.input_ids[row].numpy())
            assert np.array_equal(last["attention_mask"], batch.attention_mask[row].numpy())
            assert step.infos[row]["prompt_index"] == batch.prompt_index[row]


def test_log_probs_are_those_of_a_forward_pass(make_env: Maker, make_model: Maker) -> None:
    env = make_env(temperature=0.7)
    batch = collect(adapted(env))
    expected = token_log_probs(
        make_model(), batch.input_ids, batch.attention_mask, env.prompt_width, env.rules
    )
    torch.testing.assert_close(batch.log_probs, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_autoreset_modes_agree(make_env: Maker, mode: AutoresetMode) -> None:
    expected = collect(adapted(make_env()))
    assert_equal(collect(adapted(make_env(autoreset_mode=mode))), expected)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("timing", ["end", "step"])
def test_episodes_that_end_together_are_the_same(
    make_env: Maker, make_model: Maker, mode: AutoresetMode, timing: str
) -> None:
    reward = count_good - KLPenalty(make_model(seed=1), 0.3)
    expected = collect(adapted(make_env(reward=reward)))
    steps: list[tuple[Step, int]] = []
    env = make_env(reward=reward, ends="together", autoreset_mode=mode, reward_timing=timing)
    batch = collect(adapted(env), steps)
    if timing == "end":
        assert_equal(batch, expected)
    torch.testing.assert_close(batch.token_rewards.sum(), expected.token_rewards.sum())
    assert torch.equal(batch.mask, expected.mask)
    assert [step.ended.sum() for step, _ in steps] == [*[0] * (len(steps) - 1), 8]
    # Only what is written counts, as when they end apart.
    assert sum(tokens for _, tokens in steps) == batch.mask.sum()


def test_a_vecenv_wrapper_changes_nothing(make_env: Maker) -> None:
    steps: list[tuple[Step, int]] = []
    batch = collect(VecMonitor(adapted(make_env())), steps)
    assert_equal(batch, collect(adapted(make_env())))
    ended = [step.infos[row] for step, _ in steps for row in np.flatnonzero(step.ended)]
    assert sorted(info["episode"]["l"] for info in ended) == sorted(batch.mask.sum(-1).tolist())


def test_single_environments_work_too(tokenizer: Any, make_model: Maker) -> None:
    def one() -> TextGenerationEnv:
        return TextGenerationEnv(
            ["a film", "the plot"],
            tokenizer,
            count_good,
            max_response_tokens=4,
            reference=make_model(),
        )

    for venv in (
        DummyVecEnv([one, one, one]),
        adapted(gym.vector.SyncVectorEnv([one] * 3, autoreset_mode=AutoresetMode.SAME_STEP)),
    ):
        batch = collect(venv)
        assert batch.mask.shape == (3, 4)
        assert batch.token_rewards.sum() == (batch.input_ids[:, -4:] == GOOD).sum()


def test_reward_vector_by_hand(make_env: Maker, make_model: Maker) -> None:
    """A policy that writes `good good <eos>` with certainty, and one that never stops."""
    penalty = KLPenalty(make_model(), 0.0)
    for bias, response, rewards in (
        # The score, 2, sits on EOS; not on the PAD behind it, not on the word before.
        ({GOOD: [0, 1], EOS: [2]}, [GOOD, GOOD, EOS, 0, 0, 0], [0, 0, 2, 0, 0, 0]),
        # Without EOS it sits on the last token.
        ({GOOD: range(6)}, [GOOD] * 6, [0, 0, 0, 0, 0, 6]),
    ):
        model = scripted_gpt2(make_model, bias)
        env = make_env(reward=count_good - penalty, prompts=["a film"])
        batch = collect(adapted(env), model=model)
        assert batch.input_ids[0, -6:].tolist() == response
        assert batch.token_rewards[0].tolist() == pytest.approx(rewards)


def scripted_gpt2(make_model: Maker, script: dict[int, Any]) -> Any:
    """GPT-2 whose next token is a function of the position: word positions `a film` are 0 and 1."""
    model = make_model(n_embd=32, n_head=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.ln_f.weight.fill_(1.0)
        # Position p has a direction of its own; the tied head would read token embeddings, so the
        # words get theirs: word w lies along the positions at which it is to be written.
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
        for position in range(12):
            model.transformer.wpe.weight[position, position] = 10.0
        for word, times in script.items():
            for time in times:
                model.lm_head.weight[word, time + 1] = 20.0
    model.config.tie_word_embeddings = False
    return model


def test_rewards_add_up_to_score_minus_kl(make_env: Maker, make_model: Maker) -> None:
    """Sum of rewards = score - kl_coef * KL, and KL of a copy of the reference is 0."""
    steps: list[tuple[Step, int]] = []
    reference = make_model()
    batch = collect(
        adapted(make_env(reward=count_good - KLPenalty(reference, 0.3))),
        steps,
        model=make_model(seed=1),
    )
    infos = {
        row: step.infos[row] for step, _ in steps for row in np.flatnonzero(step.ended).tolist()
    }
    for row, info in infos.items():
        assert info["kl_known"]
        assert batch.token_rewards[row].sum().item() == pytest.approx(
            info["score"] - 0.3 * info["kl"], abs=1e-4
        )
    assert any(abs(info["kl"]) > 0.1 for info in infos.values())

    steps.clear()
    collect(adapted(make_env(reward=count_good - KLPenalty(reference, 0.3))), steps)
    kls = [step.infos[row]["kl"] for step, _ in steps for row in np.flatnonzero(step.ended)]
    assert np.abs(kls).max() < 1e-5


def test_paid_by_step_and_at_the_end_agree(make_env: Maker, make_model: Maker) -> None:
    batches = [
        collect(
            adapted(
                make_env(
                    reward=count_good - KLPenalty(make_model(), 0.3),
                    reward_timing=timing,
                )
            ),
            model=make_model(seed=1),
        )
        for timing in ("end", "step")
    ]
    torch.testing.assert_close(batches[0].token_rewards, batches[1].token_rewards)


def test_exact_kl_gets_whole_distributions(make_env: Maker, make_model: Maker) -> None:
    penalty = KLPenalty(make_model(), 0.3, estimator="exact")
    steps: list[tuple[Step, int]] = []
    batch = collect(adapted(make_env(reward=count_good - penalty)), steps, model=make_model(seed=1))
    ended = [step.infos[row] for step, _ in steps for row in np.flatnonzero(step.ended)]
    assert all(info["kl_known"] for info in ended)
    # Exact KL is never negative, so no token is paid for leaving the reference.
    last = batch.mask & (batch.mask.cumsum(-1) == batch.mask.sum(-1, keepdim=True))
    assert (batch.token_rewards[batch.mask & ~last] < 0).all()


def test_action_masks_are_obeyed_and_kept(make_env: Maker, make_model: Maker) -> None:
    env = make_env(min_response_tokens=3, top_k=4, banned_token_ids=(GOOD,))
    batch = collect(adapted(env))
    assert batch.mask.sum(-1).min() >= 3
    assert batch.action_masks is not None
    assert batch.action_masks.shape == (8, 6, 12)
    response = batch.input_ids[:, -6:]
    chosen = batch.action_masks.gather(-1, response.unsqueeze(-1)).squeeze(-1)
    assert chosen[batch.mask].all()
    assert (batch.action_masks[batch.mask].sum(-1) <= 4).all()
    expected = token_log_probs(
        make_model(),
        batch.input_ids,
        batch.attention_mask,
        env.prompt_width,
        env.rules,
        action_masks=batch.action_masks,
    )
    torch.testing.assert_close(batch.log_probs, expected, atol=1e-5, rtol=1e-4)


def test_fillers_end_no_episode(make_env: Maker) -> None:
    """A row that is done must not waste the reward model's time, nor count as an episode."""
    env = make_env()
    for _ in range(3):
        collect(adapted(env))
    assert env.episodes_seen == 24


def test_values_come_with_the_tokens(make_env: Maker) -> None:
    stepper = make_stepper(adapted(make_env()))
    policy = policy_for(stepper)
    assert policy.value_head is not None
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    batch = collect_wave(
        stepper, policy, stepper.reset(), torch.Generator().manual_seed(0), lambda *_: True
    )
    assert batch is not None
    assert batch.values is not None
    outputs = policy.evaluate(batch.input_ids, batch.attention_mask)
    torch.testing.assert_close(batch.values, outputs.values, atol=1e-5, rtol=1e-4)
    assert (batch.values[~batch.mask] == 0).all()


def test_a_scaling_wrapper_reaches_the_tokens(make_env: Maker) -> None:
    def wrapped(function: Any) -> GymnasiumVecEnv:
        return adapted(TransformReward(make_env(), function))

    plain = collect(adapted(make_env())).token_rewards
    assert plain.any()
    tripled = collect(wrapped(lambda rewards: 3 * rewards)).token_rewards
    torch.testing.assert_close(tripled, 3 * plain)
    with pytest.raises(RewardWasWrapped, match="reward_timing"):
        collect(wrapped(lambda rewards: rewards + 1))


def test_the_callback_stops_the_wave(make_env: Maker) -> None:
    stepper = make_stepper(adapted(make_env()))
    wave = collect_wave(
        stepper, policy_for(stepper), stepper.reset(), torch.Generator(), lambda *_: False
    )
    assert wave is None


def test_batches_join_select_and_trim(make_env: Maker) -> None:
    env = make_env()
    first, second = collect(adapted(env)), collect(adapted(env))
    both = concatenate([first, second])
    assert_equal(both.select(torch.arange(8)), first)
    assert_equal(both.select(torch.arange(8, 16)), second)
    short = first.select(first.mask.sum(-1).argsort()[:2])
    time = int(short.mask.sum(-1).max())
    assert time < 6
    assert short.trimmed().mask.shape == (2, time)
    assert short.trimmed().input_ids.shape == (2, env.prompt_width + time)


def test_environments_that_cannot_work(make_env: Maker) -> None:
    with pytest.raises(InvalidArgument, match="observation='ids'"):
        make_stepper(adapted(make_env(observation="ids"))).reset()
    with pytest.raises(InvalidArgument, match="not a text environment"):
        make_stepper(DummyVecEnv([lambda: gym.make("CartPole-v1")]))


def test_processes_are_refused() -> None:
    venv = object.__new__(SubprocVecEnv)
    with pytest.raises(InvalidArgument, match="another process"):
        make_stepper(venv)


def assert_equal(batch: RolloutBatch, expected: RolloutBatch) -> None:
    for name, ours, theirs in zip(batch._fields, batch, expected, strict=True):
        if theirs is None:
            assert ours is None, name
        else:
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5, msg=name)


def test_env_fixture_type(make_env: Maker) -> None:
    assert isinstance(make_env(), TextGenerationVectorEnv)
