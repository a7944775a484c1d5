"""DQN, QR-DQN and ARS on text: they start as the language model, and stay within the rules."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import ARS, QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from rlhf_gym.agents.sb3.ars import LMARSPolicy, Steering, lm_ars_kwargs
from rlhf_gym.agents.sb3.q_networks import ILLEGAL, Epsilon
from rlhf_gym.agents.sb3.q_policies import LMQPolicy, LMQuantilePolicy, lm_q_kwargs
from rlhf_gym.agents.sb3.replay_buffer import TextReplayBuffer
from rlhf_gym.core.errors import InvalidAction, InvalidArgument, TokenizerMismatch
from rlhf_gym.core.tokens import TokenRules, legal_logits, next_token_logits
from rlhf_gym.envs.sb3 import make_sb3_env
from rlhf_gym.rewards.kl import KLPenalty

Maker = Callable[..., Any]
LEARNERS = {"DQN": (DQN, LMQPolicy, {}), "QRDQN": (QRDQN, LMQuantilePolicy, {"n_quantiles": 5})}
PAD, STOP = 0, 1


def learner(name: str, env: Any, policy_kwargs: Any = None, **choices: Any) -> Any:
    algorithm, policy, small = LEARNERS[name]
    kwargs = lm_q_kwargs(env, policy_kwargs=small | (policy_kwargs or {}), **choices)
    return algorithm(policy, env, seed=0, device="cpu", **kwargs)


def searcher(env: Any, **choices: Any) -> Any:
    return ARS(LMARSPolicy, env, n_delta=2, seed=0, device="cpu", **lm_ars_kwargs(env, **choices))


def network(agent: Any) -> Any:
    return agent.policy.q_net if isinstance(agent, DQN) else agent.policy.quantile_net


def values(agent: Any, observation: Any, net: Any = None) -> torch.Tensor:
    """Mean value of every token, shape (rows, vocab)."""
    agent.policy.set_training_mode(False)
    with torch.no_grad():
        out = (net or network(agent))(agent.policy.obs_to_tensor(observation)[0])
    return out if out.ndim == 2 else out.mean(1)


def written(env: Any, steps: int, seed: int = 0) -> Any:
    """An observation behind some random legal tokens."""
    rng, observation = np.random.default_rng(seed), env.reset()
    for _ in range(steps):
        observation, *_ = env.step(rng.integers(2, 12, size=env.num_envs))
    return observation


def unended(samples: Any) -> Any:
    """Samples without what follows texts that have ended, which has no value."""
    goes_on = samples.dones.squeeze(1) == 0
    behind = {key: value[goes_on] for key, value in samples.next_observations.items()}
    return samples._replace(next_observations=behind)


@pytest.mark.parametrize("name", LEARNERS)
def test_values_start_as_the_language_models_log_probs(
    make_env: Maker, make_model: Maker, name: str
) -> None:
    env = make_sb3_env(make_env(temperature=0.7))
    agent = learner(name, env, q_scale=0.3)
    for steps in range(4):
        observation = written(env, steps)
        with torch.no_grad():
            logits = next_token_logits(make_model(), observation)
        expected = legal_logits(logits, agent.policy._lm["rules"]).log_softmax(-1)
        got = values(agent, observation)
        assert (got[:, PAD] == ILLEGAL).all()
        torch.testing.assert_close(got[:, 1:], 0.3 * expected[:, 1:], atol=1e-5, rtol=0)
        greedy, _ = agent.predict(observation, deterministic=True)
        np.testing.assert_array_equal(greedy, expected.argmax(-1))


def test_quantiles_start_as_one_and_can_part(make_env: Maker) -> None:
    agent = learner("QRDQN", make_sb3_env(make_env()))
    observation = agent.policy.obs_to_tensor(written(agent.env, 2))[0]
    net = agent.policy.quantile_net
    quantiles = net(observation)
    assert quantiles.shape == (8, 5, 12)
    assert torch.equal(quantiles, quantiles[:, :1].expand(-1, 5, -1))
    # Two tokens' spreads move apart: their first and last quantiles are pulled differently.
    loss = quantiles[:, 0, 3] - quantiles[:, 4, 3] + quantiles[:, 4, 4] - quantiles[:, 0, 4]
    loss.sum().backward()
    assert net.quantile_net[0].spread.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LEARNERS)
def test_exploration_draws_from_the_language_model(make_env: Maker, name: str) -> None:
    """4,000 draws of one state: each token within four standard errors of its probability."""
    env = make_sb3_env(make_env(prompts=["a film"], num_envs=1))
    agent = learner(name, env)
    observation = {key: np.repeat(value, 4000, axis=0) for key, value in env.reset().items()}
    drawn, _ = agent.predict(observation, deterministic=False)
    probabilities = (values(agent, env.reset()) / agent.policy._values.scale).softmax(-1)[0]
    share = np.bincount(drawn, minlength=12) / 4000
    error = (probabilities * (1 - probabilities) / 4000).sqrt().numpy()
    assert (np.abs(share - probabilities.numpy()) <= 4 * error + 1e-12).all()
    assert share[PAD] == 0


def test_exploration_at_random_falls_and_stays_legal(make_env: Maker) -> None:
    env = make_sb3_env(make_env(prompts=["a film"], num_envs=1, banned_token_ids=[5]))
    agent = learner("DQN", env, {"epsilon": Epsilon(1.0, 0.0, tokens=3000)})
    observation = {key: np.repeat(value, 3000, axis=0) for key, value in env.reset().items()}
    drawn, _ = agent.predict(observation, deterministic=False)
    share = np.bincount(drawn, minlength=12) / 3000
    assert share[PAD] == share[5] == 0
    # Ten legal tokens: 0.1 each, with a standard error of 0.0055.
    assert np.abs(share[[1, 2, 3, 4, *range(6, 12)]] - 0.1).max() < 0.022
    epsilon = agent.policy._values.epsilon
    assert [epsilon.after(n) for n in (0, 1500, 3000, 9000)] == [1.0, 0.5, 0.0, 0.0]
    # From here on it is the language model's, whose tokens are not equally probable.
    drawn, _ = agent.predict(observation, deterministic=False)
    assert np.abs(np.bincount(drawn, minlength=12) / 3000 - 0.1).max() > 0.05


@pytest.mark.parametrize("name", LEARNERS)
def test_tokens_without_support_are_never_taken(make_env: Maker, name: str) -> None:
    """Half the best token's probability, or more: greed, exploration and targets keep to those."""
    env = make_sb3_env(make_env())
    policy = {"support": 0.5, "epsilon": Epsilon(1.0, 1.0)}
    agent = learner(name, env, policy, q_scale=0.3, learning_rate=1e-2)
    observation = written(env, 2)
    plain = learner(name, make_sb3_env(make_env()), {"support": 0.0}, q_scale=0.3)
    log_probs = values(plain, observation) / 0.3
    outside = log_probs < log_probs.amax(-1, keepdim=True) + np.log(0.5)
    assert 0 < outside[:, 1:].sum() < outside[:, 1:].numel()
    for steps in (0, 40):
        agent.learn(steps, reset_num_timesteps=False)
        assert torch.equal(values(agent, observation) == ILLEGAL, outside)
        drawn, _ = agent.predict(observation, deterministic=False)
        assert not outside[np.arange(len(drawn)), drawn].any()


@pytest.mark.parametrize("name", LEARNERS)
def test_a_frozen_model_stays_as_it_is(make_env: Maker, name: str) -> None:
    agent = learner(name, make_sb3_env(make_env()), learning_rate=1e-2)
    before = copy.deepcopy(network(agent).state_dict())
    agent.learn(40)
    moved = {
        key for key, value in network(agent).state_dict().items() if (value != before[key]).any()
    }
    assert moved
    assert not any(key.startswith("features_extractor") for key in moved)


def test_what_all_tokens_have_in_common_is_learned_once(make_env: Maker) -> None:
    agent = learner("DQN", make_sb3_env(make_env()), learning_rate=1e-2)
    observation = agent.policy.obs_to_tensor(written(agent.env, 2))[0]
    before = agent.policy.q_net(observation).detach()
    # One token alone is told that it is worth more.
    agent.policy.q_net(observation)[:, 4].sum().neg().backward()
    agent.policy.optimizer.step()
    after = agent.policy.q_net(observation).detach()
    assert (after[:, 1:] > before[:, 1:]).all()


@pytest.mark.parametrize("name", LEARNERS)
def test_cached_and_uncached_values_agree_while_learning(make_env: Maker, name: str) -> None:
    agent = learner(name, make_sb3_env(make_env(num_envs=4)), learning_rate=1e-2)
    for _ in range(3):
        agent.learn(20, reset_num_timesteps=False)
        observation = agent._last_obs
        cached = values(agent, observation)
        network(agent).set_training_mode(True)
        with torch.no_grad():
            fresh = network(agent)(agent.policy.obs_to_tensor(observation)[0])
        fresh = fresh if fresh.ndim == 2 else fresh.mean(1)
        torch.testing.assert_close(cached, fresh, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_target_follows_and_is_read_as_it_is(make_env: Maker, name: str) -> None:
    """With tau = 1 the target is a copy after every step, also of what it has read before."""
    env = make_sb3_env(make_env(num_envs=4))
    agent = learner(name, env, learning_rate=1e-2, tau=1.0, gradient_steps=0)
    target = agent.q_net_target if name == "DQN" else agent.quantile_net_target
    observation = written(env, 2)
    before = values(agent, observation, target)
    torch.testing.assert_close(before, values(agent, observation))
    with torch.no_grad():
        for parameter in network(agent).parameters():
            parameter += 0.05
    agent.learn(8)
    after = values(agent, observation, target)
    assert (after - before)[:, 1:].abs().max() > 0.01
    torch.testing.assert_close(after, values(agent, observation), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.filterwarnings("ignore:the policy did not write")
def test_masks_are_obeyed_in_exploration_greed_and_targets(make_env: Maker, name: str) -> None:
    env = make_sb3_env(make_env(grammar="(a|b)( good| bad)+", min_response_tokens=2))
    agent = learner(name, env)
    inner = env.venv.vector_env.unwrapped
    observation = env.reset()
    for deterministic in (True, False) * 6:
        allowed = torch.from_numpy(inner.action_masks())
        assert torch.equal(values(agent, observation) > ILLEGAL / 2, allowed)
        actions, _ = agent.predict(observation, deterministic=deterministic)
        assert allowed[np.arange(8), actions].all()
        observation, *_ = env.step(actions)
    agent.learn(60)


def test_kl_is_unknown_in_the_sampled_form_and_exact_in_the_soft_one(
    make_env: Maker, make_model: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf_gym.rewards.kl.UNKNOWN_TOKENS_TOLERATED", 0)
    env = make_sb3_env(make_env(reward=-KLPenalty(make_model(), 0.3)))
    with pytest.warns(UserWarning, match="mode='soft'"):
        learner("DQN", env).learn(100)
    soft = make_env(reward=-KLPenalty(make_model(), 0.3, mode="soft"), num_envs=2)
    agent = learner("DQN", make_sb3_env(soft))
    observation, total, reference = agent.env.reset(), np.zeros(2), make_model()
    while not (ended := soft.episodes_seen):
        with torch.no_grad():
            logits = legal_logits(next_token_logits(reference, observation), soft.rules)
        actions, _ = agent.predict(observation, deterministic=True)
        total += 0.3 * logits.log_softmax(-1).numpy()[[0, 1], actions]
        observation, rewards, dones, _ = agent.env.step(actions)
    assert ended
    # -KL of a policy that is certain of its tokens: 0.3 * sum of log pi_ref.
    np.testing.assert_allclose(rewards[dones], total[dones], atol=1e-4)


class TestReplayBuffer:
    RULES = TokenRules(vocab_size=12, pad_id=PAD, stop_ids=(STOP,))

    @pytest.mark.parametrize("limit", ["terminate", "truncate"])
    def test_samples_are_sb3s(self, make_env: Maker, limit: str) -> None:
        env = make_sb3_env(make_env(num_envs=3, length_limit=limit))
        spaces_ = env.observation_space, env.action_space
        ours = TextReplayBuffer(30, *spaces_, device="cpu", n_envs=3, rules=self.RULES)
        sb3 = DictReplayBuffer(30, *spaces_, device="cpu", n_envs=3)
        rng, observation = np.random.default_rng(0), env.reset()
        for _ in range(14):  # more than ten: the oldest are written over
            actions = rng.integers(1, 12, size=3)
            following, rewards, dones, infos = env.step(actions)
            behind = {key: value.copy() for key, value in following.items()}
            for row in np.flatnonzero(dones):
                for key, value in infos[row]["terminal_observation"].items():
                    behind[key][row] = value
            for buffer in (ours, sb3):
                buffer.add(observation, behind, actions, rewards, dones, infos)
            observation = following
        assert ours.size() == sb3.size() == 10
        scaled = VecNormalize(env, norm_obs=False)
        scaled.ret_rms.var = np.array(4.0)
        for wrapper in (None, scaled):
            samples = []
            for buffer in (ours, sb3, pickle.loads(pickle.dumps(ours))):
                np.random.seed(0)  # noqa: NPY002
                samples.append(buffer.sample(64, env=wrapper))
            for other in samples[1:]:
                goes_on = other.dones.squeeze(1) == 0
                for mine, theirs in zip(unended(samples[0]), unended(other), strict=True):
                    torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
            # Behind the end of a text the target network reads one token.
            shown = samples[0].next_observations["attention_mask"].sum(-1)
            assert (shown[~goes_on] == 1).all()
            assert (shown[goes_on] > 1).all()
        assert samples[0].dones.any() or limit == "truncate"

    @pytest.mark.parametrize("limit", ["terminate", "truncate"])
    def test_several_steps_are_summed_as_sb3_sums_them(self, make_env: Maker, limit: str) -> None:
        """`NStepReplayBuffer` takes no Dict: it is given the ids, and both the same draws."""
        env = make_sb3_env(make_env(num_envs=3, length_limit=limit))
        rules, space = env.get_attr("rules")[0], env.observation_space
        size, steps = 3 * 40, 4
        ours = TextReplayBuffer(
            size, space, env.action_space, "cpu", 3, rules=rules, n_steps=steps, gamma=0.9
        )
        theirs = NStepReplayBuffer(
            size, space["input_ids"], env.action_space, "cpu", 3, n_steps=steps, gamma=0.9
        )
        rng, observation = np.random.default_rng(0), env.reset()
        for step in range(55):  # around the buffer's end, too
            action = rng.choice([1, *range(2, 12)], size=3)
            after, _, done, infos = env.step(action)
            reward = rng.normal(size=3)
            behind = copy.deepcopy(after)
            for row in np.flatnonzero(done):
                for key, value in infos[row]["terminal_observation"].items():
                    behind[key][row] = value
            ours.add(observation, behind, action, reward, done, infos)
            ids = observation["input_ids"], behind["input_ids"]
            theirs.add(*ids, action, reward, done, infos)
            observation = after
            if step not in (20, 54):
                continue
            np.random.seed(step)  # noqa: NPY002
            samples = ours.sample(200)
            np.random.seed(step)  # noqa: NPY002
            expected = theirs.sample(200)
            for name in ("actions", "rewards", "dones", "discounts"):
                torch.testing.assert_close(getattr(samples, name), getattr(expected, name))
            mine = samples.observations["input_ids"]
            torch.testing.assert_close(mine, expected.observations, check_dtype=False)
            goes_on = samples.dones.squeeze(1) == 0
            assert goes_on.any()
            mine = samples.next_observations["input_ids"][goes_on]
            behind_those = expected.next_observations[goes_on]
            torch.testing.assert_close(mine, behind_those, check_dtype=False)

    def test_a_whole_response_is_taken_for_what_it_earned(self, make_env: Maker) -> None:
        env = make_sb3_env(make_env(num_envs=1))
        budget = env.get_attr("max_response_tokens")[0]
        kwargs = lm_q_kwargs(env)["replay_buffer_kwargs"]
        assert (kwargs["n_steps"], kwargs["gamma"]) == (budget, 1.0)
        buffer = TextReplayBuffer(50, env.observation_space, env.action_space, "cpu", 1, **kwargs)
        observation = env.reset()
        for action, reward in ((4, 0.5), (5, 0.25), (STOP, 2.0), (6, 8.0)):
            after, _, done, infos = env.step(np.array([action]))
            last = infos[0]["terminal_observation"] if done[0] else None
            behind = after if last is None else {key: last[key][None] for key in after}
            buffer.add(observation, behind, np.array([action]), np.array([reward]), done, infos)
            observation = after
        samples = buffer._get_samples(np.arange(4))
        # 0.5 + 0.25 + 2, 0.25 + 2 and 2; the last response has not ended, and earned 8 so far.
        assert samples.rewards.squeeze(1).tolist() == [2.75, 2.25, 2.0, 8.0]
        assert samples.dones.squeeze(1).tolist() == [1, 1, 1, 0]

    @pytest.mark.parametrize("wrong", [{"n_steps": 0}, {"gamma": 0.0}, {"gamma": 1.5}])
    def test_returns_that_cannot_be(self, make_env: Maker, wrong: dict[str, Any]) -> None:
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            learner("DQN", make_sb3_env(make_env()), **wrong)

    def test_memory_is_the_budgets(self, make_env: Maker) -> None:
        env = make_sb3_env(make_env())
        # Prompts of 4 tokens and responses of 6: ten ids of two bytes, and 14 bytes beside.
        assert env.observation_space["input_ids"].shape == (10,)
        space = env.observation_space
        assert TextReplayBuffer.transitions_in(34 * 100 + 33, space, self.RULES) == 100
        buffer = TextReplayBuffer(100, space, env.action_space, rules=self.RULES, device="cpu")
        arrays = [value for value in vars(buffer).values() if isinstance(value, np.ndarray)]
        kept = [array for array in arrays if len(array) == 100]
        assert sum(array.nbytes for array in kept) == 34 * 100
        large = TokenRules(vocab_size=70_000, pad_id=PAD, stop_ids=(STOP,))
        assert TextReplayBuffer.transitions_in(54 * 100, space, large) == 100
        assert lm_q_kwargs(env, buffer_bytes=3400)["buffer_size"] == 100
        with pytest.raises(InvalidArgument, match="buffer_bytes"):
            lm_q_kwargs(env, buffer_bytes=33)

    def test_illegal_tokens_of_sb3s_exploration_are_refused(self, make_env: Maker) -> None:
        env = make_sb3_env(make_env(banned_token_ids=range(2, 11)))
        agent = learner("DQN", env, learning_starts=100)
        with pytest.raises(InvalidAction, match="lm_q_kwargs"):
            agent.learn(50)

    def test_observations_that_a_wrapper_changed_are_refused(self, make_env: Maker) -> None:
        env = make_sb3_env(make_env(num_envs=2))
        buffer = TextReplayBuffer(
            10, env.observation_space, env.action_space, n_envs=2, rules=self.RULES
        )
        observation = env.reset()
        following, rewards, dones, infos = env.step(np.array([4, 5]))
        buffer.add(observation, following, np.array([4, 5]), rewards, dones, infos)
        for actions, given in [([4, 4], following), ([4, 5], observation)]:
            with pytest.raises(InvalidArgument, match="next_obs"):
                buffer.add(observation, given, np.array(actions), rewards, dones, infos)

    def test_nothing_to_optimise(self, make_env: Maker) -> None:
        with pytest.raises(InvalidArgument, match="optimize_memory_usage"):
            learner("DQN", make_sb3_env(make_env()), optimize_memory_usage=True)


class TestRandomSearch:
    def test_it_starts_as_the_greedy_model_and_searches_few_directions(
        self, make_env: Maker, make_model: Maker
    ) -> None:
        env = make_sb3_env(make_env())
        agent = searcher(env)
        assert agent.n_params == 8 * 8 + 8
        for steps in range(4):
            observation = written(env, steps)
            with torch.no_grad():
                logits = next_token_logits(make_model(), observation)
            greedy, _ = agent.predict(observation)
            np.testing.assert_array_equal(
                greedy, legal_logits(logits, agent.policy._arguments["rules"]).argmax(-1)
            )

    def test_opposite_directions_differ_and_the_model_is_left_alone(self, make_env: Maker) -> None:
        agent = searcher(make_sb3_env(make_env()), policy_kwargs={"size": 3.0})
        before = [p.clone() for p in agent.policy.features_extractor.parameters()]
        observation = written(agent.env, 2)
        direction = torch.randn(72, generator=torch.Generator().manual_seed(0))
        chosen = []
        for sign in (1, -1):
            agent.policy.load_from_vector((sign * direction).numpy())
            chosen.append(agent.predict(observation)[0])
        assert (chosen[0] != chosen[1]).any()
        agent.learn(100)
        after = agent.policy.features_extractor.parameters()
        assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
        assert agent.weights.abs().sum() > 0

    def test_copies_share_the_model(self, make_env: Maker) -> None:
        policy = searcher(make_sb3_env(make_env())).policy
        twin = copy.deepcopy(policy)
        assert twin.features_extractor is policy.features_extractor
        assert twin.steering.learned.weight is not policy.steering.learned.weight

    def test_steering_by_hand(self) -> None:
        steering = Steering(6, rank=2, size=0.5, seed=0)
        hidden = torch.randn(3, 6)
        assert torch.equal(steering(hidden), hidden)
        with torch.no_grad():
            steering.learned.bias[:] = torch.tensor([3.0, 4.0])
        # Orthonormal directions: |change| = 0.5 * sqrt(6 / 2) * 5.
        change = (steering(hidden) - hidden).norm(dim=-1)
        torch.testing.assert_close(change, torch.full((3,), 0.5 * 3**0.5 * 5))

    def test_masks_are_obeyed(self, make_env: Maker) -> None:
        env = make_sb3_env(make_env(vocabulary=["good", "bad"]))
        actions, _ = searcher(env).predict(env.reset())
        assert set(actions) <= {STOP, 8, 9}


def test_a_masked_agent_is_saved_and_connected_again(make_env: Maker, tmp_path: Path) -> None:
    masks = {"grammar": "(a|b)( good| bad)*", "banned_words": ["good bad"]}
    env = make_sb3_env(make_env(**masks))
    agent = learner("DQN", env)
    agent.save(tmp_path / "agent")
    kwargs = lm_q_kwargs(make_sb3_env(make_env(**masks)))["policy_kwargs"]
    again = DQN.load(tmp_path / "agent", env=env, device="cpu", policy_kwargs=kwargs)
    observation = written(env, 2)
    assert torch.equal(values(again, observation), values(agent, observation))
    other = lm_q_kwargs(make_sb3_env(make_env(grammar="a|b")))["policy_kwargs"]
    with pytest.raises(ValueError, match="policy kwargs"):
        DQN.load(tmp_path / "agent", env=env, policy_kwargs=other)


MAKERS = [lambda env: learner("DQN", env), lambda env: learner("QRDQN", env), searcher]


@pytest.mark.parametrize("make", MAKERS)
def test_masks_of_the_reference_are_refused(make_env: Maker, make: Maker) -> None:
    with pytest.raises(InvalidArgument, match="MaskablePPO"):
        make(make_sb3_env(make_env(top_k=3)))


@pytest.mark.parametrize("make", MAKERS)
def test_ids_alone_are_refused(make_env: Maker, make: Maker) -> None:
    with pytest.raises(InvalidArgument, match="observation"):
        make(make_sb3_env(make_env(observation="ids")))


@pytest.mark.parametrize(("algorithm", "policy"), [(DQN, LMQPolicy), (ARS, LMARSPolicy)])
def test_a_policy_for_another_vocabulary_is_refused(
    make_env: Maker, algorithm: Any, policy: Any
) -> None:
    env = make_sb3_env(make_env())
    kwargs = lm_q_kwargs(env) if algorithm is DQN else lm_ars_kwargs(env)
    env.action_space = spaces.Discrete(13)
    with pytest.raises(TokenizerMismatch, match="vocabulary"):
        algorithm(policy, env, **kwargs)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf")])
def test_scales_that_cannot_be(make_env: Maker, scale: float) -> None:
    with pytest.raises(InvalidArgument, match="q_scale"):
        learner("DQN", make_sb3_env(make_env()), q_scale=scale)


@pytest.mark.parametrize("epsilon", [(2.0, 0.0, 1), (0.0, -1.0, 1), (0.0, 0.0, 0)])
def test_shares_that_cannot_be(epsilon: Any) -> None:
    with pytest.raises(InvalidArgument, match="epsilon"):
        Epsilon(*epsilon)


@pytest.mark.parametrize("support", [-0.1, 1.0])
def test_supports_that_cannot_be(make_env: Maker, support: float) -> None:
    with pytest.raises(InvalidArgument, match="support"):
        learner("DQN", make_sb3_env(make_env()), {"support": support})


def test_a_support_that_would_move_is_refused(make_env: Maker) -> None:
    with pytest.raises(InvalidArgument, match="freeze_lm"):
        learner("DQN", make_sb3_env(make_env()), {"support": 0.1, "freeze_lm": False})
