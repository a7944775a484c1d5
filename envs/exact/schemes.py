"""Where a reward scheme puts the optimum of Exact-v0: every response is written and paid.

The environment's own rewards are not looked at here: a scheme is handed in as a reward term, and
the very code that pays agents pays all 3 x 3,906 responses.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.exact.solver import NodeTable, check_kl_coef
from rlhf_gym.envs.exact.task import ExactVectorEnv
from rlhf_gym.rewards.base import RewardFunction, RewardTerm, as_weighted


def every_response(env: ExactVectorEnv, prompt: int) -> Episodes:
    """All responses to a prompt as finished episodes, in the order of `ResponseTree.responses`.

    Args:
        env: the task.
        prompt: index of the prompt.
    """
    rows, lengths = env.judge.tree.responses()
    count, width = len(rows), env.prompt_width
    ids, mask = env.prompts.padded(np.array([prompt]), width, env.rules.pad_id)
    input_ids = torch.cat([torch.from_numpy(ids).expand(count, width), rows], 1)
    written = torch.arange(rows.shape[1]) < lengths.unsqueeze(-1)
    attention_mask = torch.cat([torch.from_numpy(mask).bool().expand(count, width), written], 1)
    last = rows.gather(1, lengths.unsqueeze(-1) - 1)[:, 0]
    return Episodes(
        input_ids=input_ids,
        attention_mask=attention_mask,
        prompt_width=width,
        stopped=torch.isin(last, torch.tensor(env.rules.stop_ids)),
        rules=env.rules,
        tokenizer=env.tokenizer,
        prompts=[env.prompts.texts[prompt]] * count,
        rows=[env.prompts.rows[prompt]] * count,
    )


def token_rewards(env: ExactVectorEnv, reward: RewardTerm | RewardFunction) -> Tensor:
    """What a scheme pays each token of every response, shape (prompts, responses, horizon).

    Args:
        env: the task.
        reward: the scheme, without a KL penalty (which depends on the policy).
    """
    term = as_weighted(reward)
    paid = [term.token_rewards(every_response(env, i)) for i in range(len(env.prompts))]
    return torch.stack(paid).double()


def optimal_responses(
    env: ExactVectorEnv, reward: RewardTerm | RewardFunction, kl_coef: float
) -> Tensor:
    """Probability of every response under the KL-regularised optimum of a scheme, gamma = 1.

        pi*(y) = pi_ref(y) exp(r(y) / beta) / Z

    Args:
        env: the task.
        reward: the scheme, without a KL penalty.
        kl_coef: beta, reward per nat, above 0.

    Returns:
        Shape (prompts, responses), float64, each row summing to 1.
    """
    check_kl_coef(kl_coef)
    log_reference = env.judge.tree.along(env.judge.reference)
    return (log_reference + token_rewards(env, reward).sum(-1) / kl_coef).softmax(-1)


def optimum_moved(
    env: ExactVectorEnv,
    reward: RewardTerm | RewardFunction,
    goal: RewardTerm | RewardFunction,
    kl_coef: float,
) -> float:
    """How far a scheme's optimum is from that of the reward it stands for, from 0 to 1.

    Args:
        env: the task.
        reward: the scheme.
        goal: what it stands for.
        kl_coef: beta, reward per nat, above 0.

    Returns:
        Total variation of the two optimal distributions over responses, the mean over prompts.
    """
    difference = optimal_responses(env, reward, kl_coef) - optimal_responses(env, goal, kl_coef)
    return float(0.5 * difference.abs().sum(-1).mean())


def node_rewards(env: ExactVectorEnv, reward: RewardTerm | RewardFunction) -> NodeTable:
    """A scheme as a table of what each token earns at each prefix, for `solver.solve`.

    Args:
        env: the task.
        reward: the scheme, without a KL penalty.

    Raises:
        InvalidArgument: a token's reward depends on what is written after it, so that it is no
            function of state and action.
    """
    tree, paid = env.judge.tree, token_rewards(env, reward)
    rows, lengths = tree.responses()
    letter = torch.full((tree.rules.vocab_size,), -1)
    letter[list(tree.letters)] = torch.arange(len(tree.letters))
    node = torch.zeros(len(rows), dtype=torch.long)
    table = []
    for depth in range(tree.horizon):
        alive = depth < lengths
        at = node[alive], rows[alive, depth]
        earned = paid[:, alive, depth]
        shape = (len(paid), len(tree.letters) ** depth, tree.rules.vocab_size)
        entries = torch.zeros(shape, dtype=torch.float64)
        entries[:, at[0], at[1]] = earned
        if not torch.allclose(entries[:, at[0], at[1]], earned, atol=1e-5):
            raise InvalidArgument(
                "reward",
                as_weighted(reward).parts,
                "what it pays a token depends on what is written later",
                "Compare optimal_responses instead, which look at whole responses",
            )
        table.append(entries)
        node = torch.where(
            depth + 1 < lengths, node * len(tree.letters) + letter[rows[:, depth]], 0
        )
    return tuple(table)
