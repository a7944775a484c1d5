"""Responses of a language model to an environment's prompts, with all that the environment says.

The model acts through `step` as an agent does, so that rewards, KL and endings are the very ones an
agent would be paid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import nn

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.sampler import Sampler
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs.text import TextGenerationVectorEnv
from rlhf_gym.envs.text.infos import row_info

IntArray = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Generation:
    """One finished response.

    Attributes:
        prompt_index: which of the environment's prompts it answers.
        prompt: as text.
        completion: as text, special tokens left out.
        tokens: ids, the stop token included.
        log_prob: of the whole response under the model, in nats.
        score: what the environment's reward says without the KL penalty.
        terms: every reward term by name, weights applied.
        gold: the gold reward, or None if the environment has none.
        kl: log pi - log pi_ref of the whole response, in nats; None without a reference.
        stopped: True if it ended with a stop token, False at the length limit.
    """

    prompt_index: int
    prompt: str
    completion: str
    tokens: list[int]
    log_prob: float
    score: float
    terms: Mapping[str, float]
    gold: float | None
    kl: float | None
    stopped: bool

    @property
    def length(self) -> int:
        """Tokens, the stop token included."""
        return len(self.tokens)

    @property
    def finish_reason(self) -> str:
        """`stop` or `length`."""
        return "stop" if self.stopped else "length"

    def record(self) -> dict[str, Any]:
        """The row of a sample file, in plain numbers and texts."""
        numbers = {"score": self.score, "gold": self.gold, "kl": self.kl}
        return {
            "prompt": self.prompt,
            "completion": self.completion,
            **{name: value for name, value in numbers.items() if value is not None},
            **{f"reward/{name}": value for name, value in self.terms.items()},
            "finish_reason": self.finish_reason,
            "length": self.length,
        }


def text_task(env: VectorEnv[Any, Any, Any]) -> TextGenerationVectorEnv:
    """The text environment inside a vector environment.

    Raises:
        InvalidArgument: it is no text environment.
    """
    task = env.unwrapped
    if isinstance(task, TextGenerationVectorEnv):
        return task
    raise InvalidArgument(
        "env",
        type(task).__name__,
        "not a batch of text environments",
        "Make it with gymnasium.make_vec, from an id that `rlhf-gym list` shows",
    )


def draw_prompts(task: TextGenerationVectorEnv, count: int, seed: int) -> IntArray:
    """Prompt indices in random order, each once before any comes again, shape (count,)."""
    if count < 1:
        raise InvalidArgument("prompts", count, "nothing to answer", "Give 1 or more")
    rng = np.random.default_rng(seed)
    rounds = -(-count // len(task.prompts))
    order = [rng.permutation(len(task.prompts)) for _ in range(rounds)]
    return np.concatenate(order)[:count]


def generate(
    model: nn.Module,
    env: VectorEnv[Any, Any, Any],
    prompts: IntArray,
    *,
    seed: int,
    deterministic: bool = False,
    advance: Callable[[int], None] | None = None,
) -> list[Generation]:
    """Let a model answer prompts of an environment, `num_envs` at a time.

    Args:
        model: a Hugging Face causal language model, plain or wrapped by peft.
        env: a text environment, in any autoreset mode; its episodes are begun anew.
        prompts: indices of its prompts; one may occur many times.
        seed: of the sampling.
        deterministic: take the most probable token instead of sampling.
        advance: told, again and again, how many more responses there are.

    Returns:
        One response per index, in order.
    """
    task = text_task(env)
    wave = _Wave(model, env, task, seed, deterministic)
    generations: list[Generation] = []
    for start in range(0, len(prompts), task.num_envs):
        part = prompts[start : start + task.num_envs]
        # The last wave is filled up; what its spare rows write is thrown away.
        filled = np.resize(part, task.num_envs)
        generations += wave.run(filled)[: len(part)]
        if advance is not None:
            advance(len(part))
    return generations


class _Wave:
    """One response in every row, until the last has ended."""

    def __init__(
        self,
        model: nn.Module,
        env: VectorEnv[Any, Any, Any],
        task: TextGenerationVectorEnv,
        seed: int,
        deterministic: bool,
    ) -> None:
        self.env = env
        self.task = task
        self.deterministic = deterministic
        self.device = next(model.parameters()).device
        self.filler = filler_token(task.rules)
        self.sampler = Sampler(
            model,
            task.rules,
            generator=torch.Generator(self.device).manual_seed(seed),
            with_distribution=task.channel.wants_distribution,
        )

    def run(self, prompts: IntArray) -> list[Generation]:
        """Answer one prompt per row, shape (num_envs,)."""
        task = self.task
        self.env.reset(options={"prompt_index": prompts})
        ids, mask = task.prompts.padded(prompts, task.prompt_width, task.rules.pad_id)
        self.sampler.prefill(
            torch.from_numpy(ids).to(self.device),
            torch.from_numpy(mask).to(self.device),
            task.max_response_tokens,
        )
        tokens = np.full((task.num_envs, task.max_response_tokens), task.rules.pad_id)
        log_probs = np.zeros(task.num_envs)
        infos: list[dict[str, Any]] = [{}] * task.num_envs
        alive = np.arange(task.num_envs)
        time = 0
        while len(alive):
            actions, drawn, info, ended = self._step(alive)
            tokens[alive, time] = actions[alive]
            log_probs[alive] += drawn
            for row in alive[ended[alive]].tolist():
                infos[row] = row_info(info, row)
            alive = alive[~ended[alive]]
            time += 1
        return [
            self._generation(int(prompts[row]), tokens[row], float(log_probs[row]), infos[row])
            for row in range(task.num_envs)
        ]

    def _step(self, alive: IntArray) -> tuple[IntArray, Floats, dict[str, Any], NDArray[np.bool_]]:
        """One token in every row that is alive; the others get a filler."""
        task = self.task
        allowed = None
        if task.uses_action_masks:
            allowed = torch.from_numpy(task.action_masks()[alive])
        draw = self.sampler.draw(allowed, self.deterministic)
        rows = torch.from_numpy(alive)
        actions = torch.full((task.num_envs,), self.filler)
        actions[rows] = draw.tokens.cpu()
        log_probs = torch.full((task.num_envs,), torch.nan)
        log_probs[rows] = draw.log_probs.cpu()
        distribution = None
        if draw.log_distribution is not None:
            distribution = torch.full((task.num_envs, task.rules.vocab_size), torch.nan)
            distribution[rows] = draw.log_distribution.cpu()
        task.channel.write(actions, log_probs, distribution)
        _, _, terminated, truncated, info = self.env.step(actions.numpy())
        ended = terminated | truncated
        goes_on = torch.from_numpy(~ended[alive])
        if goes_on.any():
            self.sampler.keep(goes_on)
            self.sampler.advance(draw.tokens[goes_on.to(draw.tokens.device)])
        return actions.numpy(), draw.log_probs.double().cpu().numpy(), info, ended

    def _generation(
        self, prompt: int, tokens: IntArray, log_prob: float, info: dict[str, Any]
    ) -> Generation:
        ids = tokens[: info["response_length"]].tolist()
        return Generation(
            prompt_index=prompt,
            prompt=self.task.prompts.texts[prompt],
            completion=str(self.task.tokenizer.decode(ids, skip_special_tokens=True)),
            tokens=ids,
            log_prob=log_prob,
            score=float(info["score"]),
            terms={name: float(value) for name, value in info["reward_terms"].items()},
            gold=info.get("gold_reward"),
            kl=info.get("kl"),
            stopped=info["finish_reason"] == "stop",
        )


def filler_token(rules: TokenRules) -> int:
    """A token that ends nothing, for rows that have finished; any token if all of them stop."""
    ends = {*rules.illegal_ids, *rules.stop_ids}
    return next((i for i in range(rules.vocab_size) if i not in ends), rules.stop_ids[0])
