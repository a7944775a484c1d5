"""RLOO and REBEL: arithmetic by hand, exact gradients, groups that stay together, and learning."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from rlhf_gym.agents.checkpoint import CheckpointCallback
from rlhf_gym.agents.functional import leave_one_out
from rlhf_gym.agents.lm_policy import LMPolicy, TokenOutputs
from rlhf_gym.agents.minibatches import Minibatch, minibatches
from rlhf_gym.agents.rebel import REBEL, difference
from rlhf_gym.agents.rloo import RLOO
from rlhf_gym.agents.rollout import RolloutBatch
from rlhf_gym.agents.text_algorithm import TextAlgorithm
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.exact import ExactEnv, ExactVectorEnv
from rlhf_gym.envs.sb3 import make_sb3_env

Maker = Callable[..., Any]
AGENTS = pytest.mark.parametrize("kind", [RLOO, REBEL])


def agent_for(kind: type[TextAlgorithm], env: Any, **kwargs: Any) -> TextAlgorithm:
    return kind("LMPolicy", env, **{"seed": 0, "device": "cpu", "learning_rate": 1e-3} | kwargs)


def rollout(agent: TextAlgorithm) -> RolloutBatch:
    _, callback = agent._setup_learn(1)
    batch = agent.collect_rollouts(callback)
    assert batch is not None
    return batch


def whole(batch: RolloutBatch) -> Minibatch:
    return Minibatch(batch, int(batch.mask.sum()), len(batch.mask))


def parameters(agent: TextAlgorithm) -> Tensor:
    return torch.nn.utils.parameters_to_vector(agent.policy.parameters()).detach().clone()


def says(agent: TextAlgorithm, log_probs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the policy say these log-probabilities about any batch."""
    outputs = TokenOutputs(log_probs, torch.zeros_like(log_probs), None)
    monkeypatch.setattr(agent.policy, "evaluate", lambda *_: outputs)


def four_responses(rewards: list[list[float]], log_probs: list[list[float]]) -> RolloutBatch:
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    return RolloutBatch(
        input_ids=torch.tensor([[3, 4, 5], [3, 1, 0], [3, 6, 1], [3, 2, 0]]),
        attention_mask=torch.cat([torch.ones(4, 1, dtype=torch.bool), mask], dim=1),
        mask=mask,
        log_probs=torch.tensor(log_probs),
        token_rewards=torch.tensor(rewards),
        stopped=torch.ones(4, dtype=torch.bool),
        prompt_index=torch.tensor([0, 0, 1, 1]),
    )


# By hand ----------------------------------------------------------------------------------------


def test_leave_one_out_by_hand() -> None:
    # Of 1, 2, 6: 1 - (2 + 6) / 2 = -3, 2 - (1 + 6) / 2 = -1.5, 6 - 1.5 = 4.5. Of 5, 5, 5: 0.
    returns = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    assert leave_one_out(returns, 3).tolist() == pytest.approx([-3.0, -1.5, 4.5, 0.0, 0.0, 0.0])


def test_the_loss_of_rloo_by_hand(make_env: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agent_for(RLOO, make_env(num_envs=4), responses_per_prompt=2, clip_range=0.2)
    batch = four_responses(
        [[1.0, 1.0], [1.0, 0.0], [0.0, 3.0], [0.0, 0.0]],
        [[-1.0, -1.0], [-1.0, 0.0], [-2.0, -1.0], [-1.0, 0.0]],
    )
    batch = agent.compute_advantages(batch)
    assert batch.advantages is not None
    # Returns 2, 1 and 3, 0: each minus the other of its prompt.
    assert batch.advantages.tolist() == [1.0, -1.0, 3.0, -3.0]
    # Ratios of whole responses: row 0 exp(-1.5 + 2) = exp(0.5), clipped to 1.2; row 1 exp(0) = 1;
    # row 2 exp(-3.1 + 3) = 0.904837; row 3 exp(-1.5 + 1) = exp(-0.5), clipped to 0.8.
    says(
        agent,
        torch.tensor([[-0.75, -0.75], [-1.0, 0.0], [-2.1, -1.0], [-1.5, 0.0]]),
        monkeypatch,
    )
    # -(1.2 - 1 + 3 * 0.904837 - 3 * 0.8) / 4 = -0.128628
    assert float(agent.loss(whole(batch))) == pytest.approx(-0.128628, abs=1e-5)


def test_the_loss_of_rebel_by_hand(make_env: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agent_for(REBEL, make_env(num_envs=4), responses_per_prompt=2, eta=0.5)
    batch = four_responses(
        [[1.0, 1.0], [1.0, 0.0], [0.0, 3.0], [0.0, 0.0]],
        [[-1.0, -1.0], [-1.0, 0.0], [-2.0, -1.0], [-1.0, 0.0]],
    )
    # Log-ratios of whole responses 0.5, 0, -0.1, -0.5: differences 0.5 and 0.4, by 1/eta 1 and 0.8.
    says(
        agent,
        torch.tensor([[-0.75, -0.75], [-1.0, 0.0], [-2.1, -1.0], [-1.5, 0.0]]),
        monkeypatch,
    )
    # Reward differences 1 and 3: ((1 - 1)^2 + (0.8 - 3)^2) / 2 = 2.42
    assert float(agent.loss(whole(batch))) == pytest.approx(2.42, abs=1e-5)


def test_rebel_pairs_best_and_worst_and_filters(make_env: Maker) -> None:
    batch = four_responses([[1.0, 1.0], [5.0, 0.0], [0.0, 3.0], [0.0, 0.0]], [[0.0, 0.0]] * 4)
    width = 1

    def pairs(changed: RolloutBatch = batch, **settings: Any) -> list[int]:
        agent = agent_for(REBEL, make_env(num_envs=4), **{"responses_per_prompt": 2} | settings)
        agent.stepper.prompt_width = width
        result: list[int] = cast(REBEL, agent).pairs(changed).tolist()
        return result

    assert pairs() == [1, 0, 2, 3]
    assert pairs(responses_per_prompt=4) == [1, 3]
    assert pairs(max_prompt_tokens=1) == [1, 0, 2, 3]
    longer = batch._replace(
        attention_mask=batch.attention_mask & torch.tensor([[True], [True], [False], [False]])
    )
    width = 3  # all three columns belong to the prompt: 3, 2, 0 and 0 tokens
    no_response = longer._replace(mask=torch.zeros(4, 0, dtype=torch.bool))
    assert pairs(no_response, max_prompt_tokens=1) == []
    width = 1
    assert pairs(max_response_tokens=1) == []
    short = batch._replace(mask=batch.mask & torch.tensor([[True], [True], [False], [True]]))
    short.mask[0, 1] = False
    assert pairs(short, max_response_tokens=1) == [1, 0, 2, 3]
    same = batch._replace(input_ids=batch.input_ids[[1, 1, 2, 3]], mask=batch.mask[[1, 1, 2, 3]])
    assert pairs(same) == [2, 3]


def test_rebel_without_a_pair_learns_nothing(make_env: Maker) -> None:
    agent = agent_for(REBEL, make_env(), responses_per_prompt=2, max_prompt_tokens=1)
    batch = rollout(agent)
    before = parameters(agent)
    one_token_prompts = batch.attention_mask[:, : agent.stepper.prompt_width].sum(-1) == 1
    agent.update(batch._replace(token_rewards=batch.token_rewards * one_token_prompts[:, None]))
    agent = agent_for(REBEL, make_env(), responses_per_prompt=2, max_response_tokens=1)
    same = batch._replace(mask=batch.mask & True)
    agent._setup_learn(1)
    agent.update(same._replace(input_ids=same.input_ids[:1].expand_as(same.input_ids)))
    assert torch.equal(parameters(agent), before)
    assert agent.logger.name_to_value["train/pairs_kept"] == 0.0


# Exact ------------------------------------------------------------------------------------------


class _EveryPair:
    """All pairs of responses to every prompt of Exact-v0 with two tokens: what k = 2 may draw."""

    def __init__(self, env: ExactVectorEnv, policy: LMPolicy) -> None:
        self.kl_coef = env.kl_coef
        assert self.kl_coef is not None
        responses = [[1, 0], *([a, b] for a, b in product(range(2, 7), range(1, 7)))]
        tree, rewards, reference = env.judge.tree, env.judge.rewards, env.judge.reference
        ids, scores, reference_log_probs = [], [], []
        observations, _ = env.reset(options={"prompt_index": [0, 1, 2]})
        for prompt in range(3):
            for first, second in responses:
                ids.append([*observations["input_ids"][prompt, :3].tolist(), first, second])
                score = rewards[0][prompt, 0, first]
                log_prob = reference[0][prompt, 0, first]
                if second:
                    score = score + rewards[1][prompt, tree.node([first]), second]
                    log_prob = log_prob + reference[1][prompt, tree.node([first]), second]
                scores.append(score)
                reference_log_probs.append(log_prob)
        self.input_ids = torch.tensor(ids)
        self.attention_mask = self.input_ids != 0
        self.scores = torch.stack(scores).float()
        self.reference = torch.stack(reference_log_probs).float()
        self.per_prompt = len(responses)
        self.policy = policy

    def log_probs(self) -> Tensor:
        """Of every response under the policy, shape (3 * responses,)."""
        return self.policy.evaluate(self.input_ids, self.attention_mask).log_probs.sum(-1)

    def objective(self) -> Tensor:
        """E[score] - kl_coef KL, the mean over prompts, differentiable."""
        assert self.kl_coef is not None
        log_probs = self.log_probs()
        gains = self.scores - self.kl_coef * (log_probs - self.reference)
        return (log_probs.exp() * gains).sum() / 3

    def batch(self) -> tuple[RolloutBatch, Tensor]:
        """Every pair of every prompt as a rollout, and the probability of drawing it."""
        assert self.kl_coef is not None
        with torch.no_grad():
            outputs = self.policy.evaluate(self.input_ids, self.attention_mask)
        n = self.per_prompt
        pairs = torch.cartesian_prod(torch.arange(n), torch.arange(n))
        rows = torch.cat([pairs + prompt * n for prompt in range(3)]).flatten()
        log_probs = outputs.log_probs.sum(-1)
        paid = self.scores - self.kl_coef * (log_probs - self.reference)
        mask = self.attention_mask[:, 3:]
        rewards = torch.zeros(mask.shape)
        rewards[torch.arange(len(mask)), mask.sum(-1) - 1] = paid
        batch = RolloutBatch(
            input_ids=self.input_ids,
            attention_mask=self.attention_mask,
            mask=mask,
            log_probs=outputs.log_probs,
            token_rewards=rewards,
            stopped=torch.ones(len(mask), dtype=torch.bool),
            prompt_index=torch.arange(3).repeat_interleave(n),
        ).select(rows)
        return batch, log_probs[rows].view(-1, 2).sum(-1).exp()


def test_the_gradient_of_rloo_is_that_of_the_exact_objective() -> None:
    """Averaged over everything that could have been drawn, KL penalty included."""
    env = ExactVectorEnv(num_envs=3, max_response_tokens=2)
    agent = agent_for(RLOO, env, responses_per_prompt=3, minibatches=1)
    with torch.no_grad():  # away from the reference, where the KL penalty has a gradient too
        generator = torch.Generator().manual_seed(1)
        for parameter in agent.policy.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    everything = _EveryPair(env, agent.policy)
    trained = [p for p in agent.policy.parameters() if p.requires_grad]
    exact = torch.autograd.grad(everything.objective(), trained)

    batch, probability = everything.batch()
    assert float(probability.sum()) == pytest.approx(3.0, abs=1e-4)
    advantages = leave_one_out(batch.token_rewards.sum(-1), 2)
    # The mean over the batch's episodes, weighted so that it is the mean over draws of a pair.
    weights = probability.repeat_interleave(2) * len(batch.mask) / 2 / 3
    estimated = torch.autograd.grad(
        agent.loss(whole(batch._replace(advantages=advantages * weights))), trained
    )
    for mine, theirs in zip(estimated, exact, strict=True):
        torch.testing.assert_close(-mine, theirs, atol=1e-5, rtol=1e-3)


def test_rebel_at_its_target_has_loss_0(make_env: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """log pi = log pi_old + eta R + a constant of the prompt is what it regresses to."""
    agent = agent_for(REBEL, make_env(num_envs=4), responses_per_prompt=2, eta=2.0)
    batch = four_responses(
        [[0.0, 2.0], [1.0, 0.0], [0.0, 3.0], [0.5, 0.0]],
        [[-1.0, -1.0], [-1.0, 0.0], [-2.0, -1.0], [-1.0, 0.0]],
    )
    constants = torch.tensor([[0.3], [0.3], [-4.0], [-4.0]])
    first = torch.tensor([[1.0, 0.0]])
    target = batch.log_probs + 2.0 * batch.token_rewards + constants * first
    says(agent, target, monkeypatch)
    assert float(agent.loss(whole(batch))) == pytest.approx(0.0, abs=1e-10)
    assert difference(torch.tensor([3.0, 1.0, 0.0, 2.0])).tolist() == [2.0, -2.0]


# Groups -----------------------------------------------------------------------------------------


@AGENTS
@pytest.mark.parametrize("wrap", ["native", "sb3", "dummy", "waves"])
def test_responses_to_a_prompt_stand_together(kind: type[TextAlgorithm], wrap: str) -> None:
    settings: dict[str, Any] = {"responses_per_prompt": 4}
    if wrap == "dummy":
        env: Any = DummyVecEnv([ExactEnv] * 8)
    elif wrap == "waves":  # a group may be written in several waves
        env, settings["episodes_per_update"] = ExactVectorEnv(num_envs=2), 16
    else:
        env = ExactVectorEnv(num_envs=8)
        env = make_sb3_env(env) if wrap == "sb3" else env
    agent = agent_for(kind, env, **settings)
    met = set()
    for _ in range(4):
        index = rollout(agent).prompt_index.view(-1, 4)
        assert (index == index[:, :1]).all()
        met |= set(index.flatten().tolist())
    assert met == {0, 1, 2}


def test_minibatches_keep_groups_side_by_side(make_env: Maker) -> None:
    batch = rollout(agent_for(RLOO, make_env(num_envs=16)))
    numbered = batch._replace(prompt_index=torch.arange(16))
    drawn = list(
        minibatches(
            numbered,
            count=3,
            tokens_per_forward=40,
            generator=torch.Generator().manual_seed(0),
            together=2,
        )
    )
    rows = torch.cat([part.batch.prompt_index for parts in drawn for part in parts]).view(-1, 2)
    assert torch.equal(rows[:, 0] + 1, rows[:, 1])
    assert sorted(rows.flatten().tolist()) == list(range(16))
    assert len(drawn) == 3
    assert any(len(parts) > 1 for parts in drawn)
    assert all(part.episodes in (4, 6) for parts in drawn for part in parts)


# Runs -------------------------------------------------------------------------------------------


@AGENTS
def test_learns_the_exact_task(kind: type[TextAlgorithm]) -> None:
    """The reference stands at 0, a policy that picks letters at random far below."""
    env = gym.make_vec("rlhf_gym/Exact-v0", num_envs=128)
    agent = agent_for(kind, env, learning_rate=2e-3, minibatches=2).learn(10_000)
    assert cast(ExactVectorEnv, env.unwrapped).share_of_the_way(agent.policy.model) > 0.3


@AGENTS
def test_same_seed_same_run(kind: type[TextAlgorithm], make_env: Maker) -> None:
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        runs.append(parameters(agent_for(kind, make_env()).learn(150)))
    assert torch.equal(*runs)
    assert not torch.equal(runs[0], parameters(agent_for(kind, make_env(), seed=1).learn(150)))


@AGENTS
def test_resumed_equals_uninterrupted(
    kind: type[TextAlgorithm], make_env: Maker, tmp_path: Path
) -> None:
    straight = agent_for(kind, make_env()).learn(200)
    # What it has seen of the schedule must be the same, so the run is told its whole length and
    # stopped from outside.
    stopped = agent_for(kind, make_env())

    class Stop(Exception):
        pass

    update = stopped.update

    def until_the_third(batch: RolloutBatch) -> None:
        if stopped._n_updates == 2:
            raise Stop
        update(batch)

    stopped.update = until_the_third  # type: ignore[method-assign]
    with pytest.raises(Stop):
        stopped.learn(200, callback=CheckpointCallback(tmp_path, every=1))
    resumed = kind.resume(tmp_path, make_env(), device="cpu")
    resumed.learn(200 - resumed.num_timesteps, reset_num_timesteps=False)
    assert resumed.num_timesteps == straight.num_timesteps
    assert torch.equal(parameters(resumed), parameters(straight))


@AGENTS
def test_saved_and_loaded(kind: type[TextAlgorithm], make_env: Maker, tmp_path: Path) -> None:
    agent = agent_for(kind, make_env()).learn(60)
    assert not agent.policy.has_values
    agent.save(tmp_path / "agent")
    loaded = kind.load(tmp_path / "agent", make_env(), device="cpu")
    assert torch.equal(parameters(loaded), parameters(agent))


# What cannot work -------------------------------------------------------------------------------


@AGENTS
@pytest.mark.parametrize("number", [0, 1, 3])
def test_bad_group_sizes(kind: type[TextAlgorithm], number: int, make_env: Maker) -> None:
    with pytest.raises(InvalidArgument, match="responses_per_prompt"):
        agent_for(kind, make_env(num_envs=8), responses_per_prompt=number)


def test_rows_with_different_prompts_cannot_share_one() -> None:
    from rlhf_gym.envs.exact.babbler import babbler, letter_tokenizer
    from rlhf_gym.envs.text import TextGenerationEnv

    def make(prompts: list[str]) -> TextGenerationEnv:
        return TextGenerationEnv(
            prompts,
            letter_tokenizer(),
            lambda _, responses: [0.0] * len(responses),
            reference=babbler(),
            max_prompt_tokens=2,
            max_response_tokens=3,
        )

    env = DummyVecEnv([lambda: make(["a"]), lambda: make(["b c"])])
    agent = agent_for(RLOO, env, responses_per_prompt=2, minibatches=1)
    with pytest.raises(InvalidArgument, match="different prompts"):
        agent.learn(1)


@pytest.mark.parametrize(
    ("kind", "field"),
    [(RLOO, "clip_range"), (REBEL, "eta"), (REBEL, "max_prompt_tokens")],
)
def test_bad_settings(kind: type[TextAlgorithm], field: str, make_env: Maker) -> None:
    with pytest.raises(InvalidArgument, match=field):
        agent_for(kind, make_env(), **{field: 0})
