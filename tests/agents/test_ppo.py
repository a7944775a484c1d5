"""PPO: exact before its first update, equal where it must be equal, and it learns."""

import random
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from torch import Tensor

from rlhf_gym.agents.functional import clipped_policy_loss, clipped_value_loss, whiten
from rlhf_gym.agents.metrics import UpdateMetrics
from rlhf_gym.agents.minibatches import Minibatch, minibatches
from rlhf_gym.agents.ppo import PPO, PPOConfig
from rlhf_gym.agents.rollout import RolloutBatch
from rlhf_gym.core.errors import InvalidArgument, NonFiniteTraining, TokenizerMismatch
from rlhf_gym.envs.sentiment.task import REFERENCE
from rlhf_gym.rewards import KLPenalty

Maker = Callable[..., Any]


def count_good(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(response.split().count("good")) for response in responses]


def agent_for(env: Any, **kwargs: Any) -> PPO:
    return PPO("LMPolicy", env, **{"seed": 0, "device": "cpu", "learning_rate": 1e-3} | kwargs)


def rollout(agent: PPO) -> RolloutBatch:
    """One batch as `loss` gets it."""
    _, callback = agent._setup_learn(1)
    batch = agent.collect_rollouts(callback)
    assert batch is not None
    return agent.make_batch(batch)


def parameters(agent: PPO) -> Tensor:
    return torch.nn.utils.parameters_to_vector(agent.policy.parameters()).detach().clone()


# Before the first update ------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_before_the_first_update_nothing_has_moved(make_env: Maker, temperature: float) -> None:
    """KL to the reference 0, every ratio 1, nothing clipped."""
    agent = agent_for(make_env(num_envs=32, temperature=temperature))
    batch = rollout(agent)
    agent.loss(whole(batch))
    summary = agent.metrics
    summary.end_minibatch()
    numbers = summary.summary()
    assert numbers["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert numbers["ratio_max"] == pytest.approx(1.0, abs=1e-4)
    assert numbers["clip_fraction"] == 0.0
    assert numbers["approx_kl"] == pytest.approx(0.0, abs=1e-8)
    assert agent.logger.name_to_value["kl/reference"] == pytest.approx(0.0, abs=1e-5)


def whole(batch: RolloutBatch) -> Minibatch:
    return Minibatch(batch, int(batch.mask.sum()), len(batch.mask))


def test_advantages_by_hand(make_env: Maker) -> None:
    agent = agent_for(make_env(), whiten_advantages=False, gae_lambda=0.5)
    _, _ = agent._setup_learn(1)
    batch = RolloutBatch(
        input_ids=torch.zeros(1, 6, dtype=torch.long),
        attention_mask=torch.ones(1, 6, dtype=torch.bool),
        mask=torch.tensor([[True, True, True, False]]),
        log_probs=torch.zeros(1, 4),
        token_rewards=torch.tensor([[0.0, 0.0, 1.0, 0.0]]),
        stopped=torch.tensor([True]),
        prompt_index=torch.tensor([0]),
        values=torch.tensor([[0.5, 0.4, 0.2, 0.0]]),
    )
    # As in test_functional: delta = -0.1, -0.2, 0.8; A = 0, 0.2, 0.8.
    result = agent.compute_advantages(batch)
    assert result.advantages is not None
    assert result.advantages[0].tolist() == pytest.approx([0.0, 0.2, 0.8, 0.0], abs=1e-6)
    whitening = agent_for(make_env(), gae_lambda=0.5)
    whitening._setup_learn(1)
    whitened = whitening.compute_advantages(batch).advantages
    assert whitened is not None
    # mean 1/3, variance (1/9 + 4/225 + 49/225) / 3 = 0.1155556, deviation 0.3399346
    assert whitened[0].tolist() == pytest.approx([-0.980581, -0.392232, 1.372813, 0.0], abs=1e-4)


def test_reward_whitening_keeps_the_mean(make_env: Maker) -> None:
    agent = agent_for(make_env(num_envs=16), whiten_rewards=True, whiten_advantages=False)
    batch = rollout(agent)
    expected = whiten(batch.token_rewards, batch.mask, shift_mean=False)
    assert batch.returns is not None
    # With values of 0 and lambda 0.95: R_t = r_t + 0.95 R_{t+1}.
    last = batch.lengths - 1
    rows = torch.arange(16)
    torch.testing.assert_close(batch.returns[rows, last], expected[rows, last])


def test_missing_stop_is_penalised_at_the_last_token(make_env: Maker) -> None:
    agent = agent_for(make_env(num_envs=16), missing_stop_penalty=2.5)
    _, callback = agent._setup_learn(1)
    batch = agent.collect_rollouts(callback)
    assert batch is not None
    difference = batch.token_rewards - agent.make_batch(batch).token_rewards
    rows = torch.arange(16)
    at_end = difference[rows, batch.lengths - 1]
    assert torch.equal(at_end, torch.where(batch.stopped, 0.0, 2.5))
    assert batch.stopped.any()
    assert not batch.stopped.all()
    assert difference.sum() == at_end.sum()


# Equivalences -----------------------------------------------------------------------------------


def test_accumulated_gradients_equal_those_of_the_whole_batch(make_env: Maker) -> None:
    gradients = []
    for tokens_per_forward in (10_000, 20):
        agent = agent_for(
            make_env(num_envs=16), tokens_per_forward=tokens_per_forward, entropy_coef=0.1
        )
        batch = rollout(agent)
        (parts,) = minibatches(
            batch,
            count=1,
            tokens_per_forward=tokens_per_forward,
            generator=torch.Generator().manual_seed(0),
        )
        assert (len(parts) == 1) == (tokens_per_forward == 10_000)
        for part in parts:
            agent.loss(part).backward()
        gradients.append([p.grad for p in agent.policy.parameters() if p.grad is not None])
    assert gradients[0]
    for one, many in zip(*gradients, strict=True):
        torch.testing.assert_close(one, many, atol=1e-6, rtol=1e-4)


class _Table(torch.nn.Module):
    """A policy that knows transition number n by heart: what SB3's PPO asks a policy for."""

    def __init__(self, log_probs: Tensor, values: Tensor, entropies: Tensor) -> None:
        super().__init__()
        self.log_probs = torch.nn.Parameter(log_probs.clone())
        self.values = torch.nn.Parameter(values.clone())
        self.entropies = torch.nn.Parameter(entropies.clone())
        self.optimizer = torch.optim.SGD(self.parameters(), lr=1.0)

    def evaluate_actions(self, observations: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        n = observations.long().squeeze(-1)
        return self.values[n], self.log_probs[n], self.entropies[n]

    def set_training_mode(self, _: bool) -> None:
        pass


def test_the_loss_has_the_gradient_of_sb3s_ppo() -> None:
    """The same numbers as one rollout of SB3's PPO, trained for one step of SGD with rate 1."""
    count, clip = 24, 0.2
    generator = torch.Generator().manual_seed(0)
    old, now, values, advantages, returns, entropies = torch.randn(6, count, generator=generator)
    now = old + 0.3 * now  # some ratios beyond the clip

    # With one environment and no time left, SB3 flattens its buffer in order.
    stock = SB3PPO(
        "MlpPolicy",
        gym.make("CartPole-v1"),
        n_steps=count,
        batch_size=count,
        n_epochs=1,
        clip_range=clip,
        normalize_advantage=False,
        ent_coef=0.05,
        vf_coef=0.05,  # SB3 squares the error, we halve it
        max_grad_norm=1e9,
        learning_rate=1.0,
        device="cpu",
    )
    stock.set_logger(Logger(None, []))
    numbered = gym.spaces.Box(0, count, (1,))
    buffer = RolloutBuffer(count, numbered, stock.action_space, device="cpu")
    buffer.observations[:, 0, 0] = np.arange(count)
    for name, numbers in (("log_probs", old), ("advantages", advantages), ("returns", returns)):
        getattr(buffer, name)[:, 0] = numbers.numpy()
    buffer.full = True
    table = _Table(now, values, entropies)
    stock.policy, stock.rollout_buffer = table, buffer
    stock.train()

    ours = [tensor.clone().requires_grad_() for tensor in (now, values, entropies)]
    loss = (
        clipped_policy_loss(ours[0], old, advantages, clip)
        + 0.1 * clipped_value_loss(ours[1], values, returns, None)
        - 0.05 * ours[2]
    ).mean()
    trained = (table.log_probs, table.values, table.entropies)
    before = (now, values, entropies)
    for gradient, after, start in zip(
        torch.autograd.grad(loss, ours), trained, before, strict=True
    ):
        torch.testing.assert_close(start - gradient, after.detach())


def test_minibatches_cover_every_episode_once_in_a_new_order(make_env: Maker) -> None:
    batch = rollout(agent_for(make_env(num_envs=16)))
    numbered = batch._replace(prompt_index=torch.arange(16))
    generator = torch.Generator().manual_seed(0)
    orders = []
    for _ in range(2):
        drawn = [
            [part.batch.prompt_index.tolist() for part in parts]
            for parts in minibatches(numbered, count=4, tokens_per_forward=30, generator=generator)
        ]
        assert len(drawn) == 4
        flat = [row for parts in drawn for part in parts for row in part]
        assert sorted(flat) == list(range(16))
        orders.append(flat)
    assert orders[0] != orders[1]


def test_a_part_divides_by_the_whole_minibatch(make_env: Maker) -> None:
    batch = rollout(agent_for(make_env(num_envs=16)))
    (parts,) = minibatches(
        batch, count=1, tokens_per_forward=20, generator=torch.Generator().manual_seed(0)
    )
    tokens = sum(part.mean(torch.ones_like(part.batch.log_probs)) for part in parts)
    episodes = sum(part.episode_mean(torch.ones(len(part.batch.mask))) for part in parts)
    assert float(tokens) == pytest.approx(1.0)
    assert float(episodes) == pytest.approx(1.0)


def test_the_environments_mode_and_wrappers_do_not_change_training(make_env: Maker) -> None:
    """One update on equal first waves gives equal parameters."""
    results = []
    for mode in ("SameStep", "NextStep", "Disabled"):
        agent = agent_for(make_env(autoreset_mode=mode))
        agent.learn(1)
        results.append(parameters(agent))
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])


# Determinism ------------------------------------------------------------------------------------


def test_same_seed_same_run_and_no_global_generator(make_env: Maker) -> None:
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        np.random.seed(noise)  # noqa: NPY002
        random.seed(noise)
        agent = agent_for(make_env())
        before = torch.random.get_rng_state()
        agent.learn(150)
        assert torch.equal(before, torch.random.get_rng_state())
        runs.append(parameters(agent))
    assert torch.equal(runs[0], runs[1])
    other = agent_for(make_env(), seed=1)
    other.learn(150)
    assert not torch.equal(runs[0], parameters(other))


def test_total_steps_change_the_schedule_and_nothing_else(make_env: Maker) -> None:
    def after_first_update(total: int, schedule: str) -> tuple[Tensor, float]:
        seen = []

        class Watched(PPO):
            def update(self, batch: RolloutBatch) -> None:
                super().update(batch)
                if not seen:
                    rate = self.logger.name_to_value["train/learning_rate"]
                    seen.append((parameters(self), rate))

        agent = Watched(
            "LMPolicy", make_env(), seed=0, device="cpu", learning_rate=1e-3, schedule=schedule
        )
        agent.learn(total)
        result: tuple[Tensor, float] = seen[0]
        return result

    for schedule in ("linear", "constant"):
        short, long = (after_first_update(total, schedule) for total in (60, 300))
        assert torch.equal(short[0], long[0])
        # The first update has the whole learning rate: progress is read where it begins.
        assert short[1] == long[1] == pytest.approx(1e-3)


def test_linear_schedule_by_hand(make_env: Maker) -> None:
    rates = []

    class Watched(PPO):
        def update(self, batch: RolloutBatch) -> None:
            before = self.num_timesteps - int(batch.mask.sum())
            super().update(batch)
            rates.append((before, self.logger.name_to_value["train/learning_rate"]))

    Watched("LMPolicy", make_env(), seed=0, device="cpu", learning_rate=1e-3).learn(200)
    assert len(rates) > 3
    for before, rate in rates:
        assert rate == pytest.approx(1e-3 * (1 - before / 200))


# Learning ---------------------------------------------------------------------------------------


def test_learns_to_write_good(make_env: Maker) -> None:
    """The reference writes `good` 0.3 times in a response of 6; PPO must reach 4 of 6."""
    agent = agent_for(make_env(num_envs=32), learning_rate=5e-3)
    first = rollout(agent).token_rewards.sum(-1).mean()
    assert first < 1.0
    agent.learn(2_500)
    assert rollout(agent).token_rewards.sum(-1).mean() > 4.0


def test_kl_penalty_holds_the_policy_back(make_env: Maker, make_model: Maker) -> None:
    """With a coefficient so large, the best policy is close to the reference."""
    kls = []
    for coef in (0.0, 2.0):
        env = make_env(num_envs=32, reward=count_good - KLPenalty(make_model(), coef))
        agent = agent_for(env, learning_rate=5e-3)
        agent.learn(1_500)
        rollout(agent)
        kls.append(agent.logger.name_to_value["kl/reference"])
    assert kls[0] > 3.0
    assert kls[1] < 1.0


def test_kl_in_the_loss_holds_the_policy_back_too(make_env: Maker) -> None:
    agent = agent_for(make_env(num_envs=32), learning_rate=5e-3, kl_loss_coef=5.0)
    agent.learn(1_500)
    rollout(agent)
    assert agent.logger.name_to_value["kl/reference"] < 1.5


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "exact"])
def test_every_kl_estimator_trains(make_env: Maker, make_model: Maker, estimator: str) -> None:
    reward = count_good - KLPenalty(make_model(), 0.1, estimator=estimator)
    agent = agent_for(make_env(reward=reward))
    before = parameters(agent)
    agent.learn(60)
    assert not torch.equal(before, parameters(agent))


@pytest.mark.parametrize("optimizer", ["adam", "adam-tf", "adamw", "sgd"])
def test_every_optimizer_trains(make_env: Maker, optimizer: str) -> None:
    agent = agent_for(make_env(), optimizer=optimizer)
    before = parameters(agent)
    agent.learn(60)
    assert not torch.equal(before, parameters(agent))


def test_action_masks_hold_in_training(make_env: Maker) -> None:
    agent = agent_for(make_env(num_envs=16, top_k=5, min_response_tokens=2))
    batch = rollout(agent)
    agent.loss(whole(batch))
    assert agent.metrics.current("ratio") == pytest.approx(1.0, abs=1e-5)


# What is trained --------------------------------------------------------------------------------


def test_lora_trains_adapters_alone_and_shares_the_weights(make_env: Maker) -> None:
    env = make_env()
    reference = env.reference
    before = [p.clone() for p in reference.parameters()]
    agent = agent_for(env, policy_kwargs={"lora_rank": 2})
    trained = {name for name, p in agent.policy.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name.startswith("value_head") for name in trained)
    base = agent.policy.model.get_base_model()
    assert base.transformer.wte.weight is reference.transformer.wte.weight
    agent.learn(150)
    for old, new in zip(before, reference.parameters(), strict=True):
        assert torch.equal(old, new)
    assert any(p.any() for name, p in agent.policy.named_parameters() if "lora_B" in name)
    # The environment's reference is the policy with its adapter off.
    ids = torch.tensor([[3, 4, 5]])
    with agent.policy.model.disable_adapter(), torch.no_grad():
        off = agent.policy.model(input_ids=ids).logits
    torch.testing.assert_close(off, reference(input_ids=ids).logits)


def test_frozen_layers_stay(make_env: Maker) -> None:
    agent = agent_for(make_env(), policy_kwargs={"freeze": 1})
    before = {name: p.clone() for name, p in agent.policy.named_parameters()}
    agent.learn(60)
    moved = {n for n, p in agent.policy.named_parameters() if not torch.equal(p, before[n])}
    assert not any(".h.0." in name or "wte" in name for name in moved)
    assert any(".h.1." in name for name in moved)


def test_the_reference_is_never_trained(make_env: Maker) -> None:
    env = make_env()
    before = [p.clone() for p in env.reference.parameters()]
    agent_for(env, policy_kwargs={"value_model": "separate"}).learn(60)
    assert all(torch.equal(a, b) for a, b in zip(before, env.reference.parameters(), strict=True))


class OnlyValues(PPO):
    """Leaves the policy where it is, so that there is something to predict."""

    def loss(self, minibatch: Minibatch) -> Tensor:
        batch = minibatch.batch
        now = self.policy.evaluate(batch.input_ids, batch.attention_mask)
        return minibatch.mean((now.values - batch.returns).square())


@pytest.mark.parametrize("value_model", ["trunk", "separate"])
def test_values_are_learned(make_env: Maker, value_model: str) -> None:
    """The reward is the length of the prompt: values of 0 explain none of it."""
    agent = OnlyValues(
        "LMPolicy",
        make_env(num_envs=32, reward=lambda prompts, _: [len(prompt) for prompt in prompts]),
        seed=0,
        device="cpu",
        learning_rate=1e-2,
        policy_kwargs={"value_model": value_model},
    )
    agent.learn(1_000)
    rollout(agent)
    assert agent.logger.name_to_value["train/explained_variance"] > 0.5


# Limits and mistakes ----------------------------------------------------------------------------


def test_an_update_stops_when_the_policy_has_moved_far(make_env: Maker) -> None:
    counts = []

    class Counting(PPO):
        def _minibatch_step(self, parts: list[Minibatch]) -> bool:
            counts.append(super()._minibatch_step(parts))
            return counts[-1]

    agent = Counting(
        "LMPolicy", make_env(), seed=0, device="cpu", learning_rate=1e-2, max_update_kl=1e-3
    )
    agent.learn(1)
    assert 1 < len(counts) < 16
    assert counts[-1] is False
    assert all(counts[:-1])
    assert agent.logger.name_to_value.get("train/approx_kl", 1.0) > 0


class WithoutNumber(PPO):
    """A custom agent gone wrong."""

    def loss(self, minibatch: Minibatch) -> Tensor:
        return super().loss(minibatch) * torch.nan


def test_a_nan_stops_training_before_the_step(make_env: Maker) -> None:
    agent = WithoutNumber("LMPolicy", make_env(), seed=0, device="cpu")
    before = parameters(agent)
    with pytest.raises(NonFiniteTraining, match="loss=nan"):
        agent.learn(60)
    assert torch.equal(before, parameters(agent))


class Reinforce(PPO):
    """The README's custom agent: REINFORCE with the batch's mean as its baseline."""

    def compute_advantages(self, batch: RolloutBatch) -> RolloutBatch:
        returns = batch.token_rewards.sum(-1, keepdim=True)
        advantages = (returns - returns.mean()).expand_as(batch.mask)
        return batch._replace(advantages=advantages * batch.mask)

    def loss(self, minibatch: Minibatch) -> Tensor:
        batch = minibatch.batch
        now = self.policy.evaluate(batch.input_ids, batch.attention_mask)
        return minibatch.mean(-batch.advantages * now.log_probs)


def test_a_custom_agent_trains(make_env: Maker) -> None:
    agent = Reinforce(
        "LMPolicy",
        make_env(num_envs=32),
        seed=0,
        device="cpu",
        learning_rate=3e-3,
        epochs=1,
        policy_kwargs={"value_model": "none"},
    )
    agent.learn(4_000)
    _, callback = agent._setup_learn(1)
    batch = agent.collect_rollouts(callback)
    assert batch is not None
    assert batch.token_rewards.sum(-1).mean() > 2.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rat": 1e-3}, "learning_rat=.*no such field.*Did you mean learning_rate"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"learning_rate": "1e-3"}, "learning_rate='1e-3'"),
        ({"learning_rate": lambda left: 1e-3 * left}, "learning_rate=.*schedule='linear'"),
        ({"epochs": 0}, "epochs=0"),
        ({"minibatches": 2.5}, "minibatches=2.5"),
        ({"minibatches": 9}, "minibatches=9.*only 8 episodes"),
        ({"episodes_per_update": 12}, "episodes_per_update=12.*multiple of the environment's 8"),
        ({"schedule": "cosine"}, "schedule='cosine'"),
        ({"optimizer": "lion"}, "optimizer='lion'"),
        ({"gamma": 1.5}, "gamma=1.5"),
        ({"clip_range": 0.0}, "clip_range=0.0"),
        ({"value_coef": -1.0}, "value_coef=-1.0"),
        ({"value_coef": None}, "value_coef=None"),
        ({"missing_stop_penalty": -1.0}, "missing_stop_penalty=-1.0"),
        ({"config": 3}, "config='int'"),
        ({"policy_kwargs": {"modell": "x"}}, "policy_kwargs='modell'"),
        ({"policy_kwargs": {"value_model": "none"}}, "value_model='none'"),
    ],
)
def test_bad_settings_are_refused_at_once(
    make_env: Maker, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        agent_for(make_env(), **fields)


def test_kl_in_reward_and_loss_is_refused(make_env: Maker, make_model: Maker) -> None:
    env = make_env(reward=count_good - KLPenalty(make_model(), 0.1))
    with pytest.raises(InvalidArgument, match="kl_loss_coef"):
        agent_for(env, kl_loss_coef=0.1)


def test_models_that_are_missing_or_modules(make_env: Maker, make_model: Maker) -> None:
    with pytest.raises(InvalidArgument, match="no reference"):
        agent_for(make_env(reference=None))
    with pytest.raises(InvalidArgument, match="no reference"):
        agent_for(
            make_env(reference=None), kl_loss_coef=0.1, policy_kwargs={"model": "nowhere/else"}
        )
    with pytest.raises(InvalidArgument, match="SB3 pickles"):
        agent_for(make_env(), policy_kwargs={"model": make_model()})


def test_config_and_fields_join() -> None:
    config = PPOConfig(clip_range=0.1, epochs=2)
    env = None
    agent = PPO("LMPolicy", env, config, epochs=3, _init_setup_model=False)
    assert agent.config == PPOConfig(clip_range=0.1, epochs=3)


def test_metrics_of_parts_add_up_and_minibatches_average() -> None:
    metrics = UpdateMetrics()
    for share in (0.25, 0.5):
        metrics.add("loss", torch.tensor(share))
        metrics.maximum("ratio_max", torch.tensor(share))
    assert metrics.current("loss") == 0.75
    metrics.end_minibatch()
    metrics.add("loss", torch.tensor(0.25))
    metrics.end_minibatch()
    assert metrics.summary() == {"loss": 0.5, "ratio_max": 0.5}
    assert np.isnan(metrics.current("loss"))


def test_a_model_of_other_tokens_is_refused(make_env: Maker) -> None:
    """It has rows enough for the environment's ids, and would mean other words by them."""
    with pytest.raises(TokenizerMismatch, match=r"policy_kwargs\['model'\].*495 tokens are not"):
        PPO("LMPolicy", make_env(), policy_kwargs={"model": str(REFERENCE)})
