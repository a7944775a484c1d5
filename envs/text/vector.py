"""Text generation as a vector environment: N responses, one token each per step."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import nn

from rlhf_gym.core.channel import LogProbChannel
from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import EpisodeEnded
from rlhf_gym.envs.text import checks
from rlhf_gym.envs.text.infos import spread
from rlhf_gym.envs.text.masking import ActionMasks
from rlhf_gym.envs.text.prompts import Order, PromptData, PromptOrder, load_prompts
from rlhf_gym.envs.text.responses import Responses
from rlhf_gym.envs.text.scoring import RewardLedger, Scored
from rlhf_gym.envs.text.stepwise import Stepwise
from rlhf_gym.rewards.base import RewardFunction, RewardTerm

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Observation = dict[str, NDArray[Any]] | NDArray[np.int64]
Info = dict[str, Any]
StepReturn = tuple[Observation, FloatArray, BoolArray, BoolArray, Info]


class TextGenerationVectorEnv(VectorEnv[Any, Any, NDArray[Any]]):
    """N language-model responses being written, one token per row and step.

    ## Description
    One episode is one response to one prompt; one step is one token. N episodes live in arrays,
    with one reference LM and one reward for all of them.

    ## Action Space
    `MultiDiscrete([V] * N)`, a single row `Discrete(V)`: token ids. `action_masks()` says which are
    allowed (PAD and banned tokens never are). An agent that samples from `legal_logits` under those
    masks emits no other; one that does not, may: the token is then written down like any other.

    ## Observation Space
    `Dict(input_ids: Box int64 (P + T,), attention_mask: Box int8 (P + T,))` per row. The prompt is
    padded on the left to P columns, the response grows from column P. Do not call a model on it as
    it
    is: `lm_inputs` adds the positions. With `observation="ids"` it is `input_ids` alone.

    ## Starting State
    A prompt and no response. The next prompt is drawn without replacement, over all rows.

    ## Rewards
    The reward's terms, summed. With `reward_timing="end"` all of it is paid with the step that ends
    the episode, with "step" each token's share in its own step. `info["token_rewards"]` says which
    token earned what, and sums to the same.

    ## Episode End
    A stop token, or `max_response_tokens`; both are `terminated`, unless `length_limit="truncate"`.

    ## Information
    When an episode ends, arrays over all rows, each with its mask `_key`: `finish_reason` ("stop"
    or "length"), `token_rewards` (N, T), `reward_terms` (name -> sum over the response, weight
    applied), `score` (sum of the terms that are no KL penalty), `gold_reward`, `kl` (sampled, nats;
    only where it is known), `kl_known`, `response_length` (tokens), `prompt_index`. At the top
    level in every mode, and in `final_info`, beside `final_obs`, under SAME_STEP. In DISABLED mode
    every step has `active`.

    ## Arguments
    Args:
        prompts: a path, texts, rows with a column `prompt`, or lists of chat messages; see
            `load_prompts`.
        tokenizer: the tokenizer of policy and reference, or a directory or hub name. It needs a PAD
            token of its own.
        reward: a term, a sum of terms, or a function `(prompts, responses) -> list of numbers`.
        num_envs: N, rows.
        reference: frozen causal LM (or directory, or hub name) that `kl`, `top_k` and `top_p` are
            about. If the reward has a KL penalty, it is that one's.
        gold: a true reward, reported as `gold_reward`, never paid.
        max_prompt_tokens: P; by default the longest prompt's.
        max_response_tokens: T, the response budget.
        temperature: divides the logits of policy and reference alike.
        stop_token_ids: the first of these ends a response; by default the tokenizer's EOS.
        banned_token_ids: never legal, besides PAD.
        min_response_tokens: no stop token is legal among the first so many.
        top_k: only the reference's k likeliest tokens are legal; costs a cached reference pass per
            step.
        top_p: only the reference's likeliest tokens that make up this probability are.
        observation: "dict", or "ids" for agents that cannot read a Dict.
        autoreset_mode: see Gymnasium. In DISABLED mode rows whose episode has ended may be stepped
            on until all have: their action is ignored, their reward 0, `info["active"]` False.
        reward_timing: "end" or "step".
        length_limit: what the response budget is: "terminate" or "truncate".
        prompt_order: "shuffle" (a new permutation each time round) or "sequential".
        chat_template: render prompts with the tokenizer's chat template.
        channel: where the policy writes log pi; by default a new one.
        max_distribution_bytes: most memory for distributions or masks that are kept per episode.
        render_mode: "ansi" or None.
        device: where a reference that is loaded by name goes.

    Attributes:
        rules: vocabulary, PAD, stop tokens, temperature.
        reward: the sum of terms, or None.
        channel: where the policy writes log pi.
        prompt_width: P.
        uses_action_masks: True if more than PAD and banned tokens is forbidden somewhere.
        episodes_seen: episodes that have ended.

    Raises:
        InvalidPrompt, InvalidData, TokenizerMismatch, InvalidArgument: see their messages.

    ## References
    Ramamurthy et al. (2022), "Is Reinforcement Learning (Not) for Natural Language Processing?",
    for text generation as a token-level MDP.

    ## Version History
    v0: first.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012

    def __init__(
        self,
        prompts: PromptData,
        tokenizer: PreTrainedTokenizerBase | str | os.PathLike[str],
        reward: RewardTerm | RewardFunction | None = None,
        *,
        num_envs: int = 1,
        reference: nn.Module | str | os.PathLike[str] | None = None,
        gold: RewardTerm | RewardFunction | None = None,
        max_prompt_tokens: int | None = None,
        max_response_tokens: int = 32,
        temperature: float = 1.0,
        stop_token_ids: Sequence[int] | None = None,
        banned_token_ids: Sequence[int] = (),
        min_response_tokens: int = 0,
        top_k: int | None = None,
        top_p: float | None = None,
        observation: Literal["dict", "ids"] = "dict",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        reward_timing: Literal["end", "step"] = "end",
        length_limit: Literal["terminate", "truncate"] = "terminate",
        prompt_order: Order = "shuffle",
        chat_template: bool = False,
        channel: LogProbChannel | None = None,
        max_distribution_bytes: int = 2**30,
        render_mode: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_envs = checks.positive("num_envs", num_envs)
        self.max_response_tokens = checks.positive("max_response_tokens", max_response_tokens)
        self.reward_timing = checks.choice("reward_timing", reward_timing, ("end", "step"))
        self.length_limit = checks.choice("length_limit", length_limit, ("terminate", "truncate"))
        self.observation = checks.choice("observation", observation, ("dict", "ids"))
        self.render_mode = checks.check_render_mode(render_mode, self.metadata["render_modes"])
        self.autoreset_mode = checks.autoreset_mode_of(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}

        self.tokenizer = checks.tokenizer_of(tokenizer)
        self.rules = checks.make_rules(
            self.tokenizer, temperature, stop_token_ids, banned_token_ids
        )
        self.prompts = load_prompts(prompts, self.tokenizer, chat_template=chat_template)
        self.prompt_width = checks.prompt_width_for(self.prompts, max_prompt_tokens)
        self._order = PromptOrder(len(self.prompts), prompt_order)

        self._ledger = RewardLedger(
            reward, gold, checks.model_of(reference, device), by_step=reward_timing == "step"
        )
        self.reward, self.reference = self._ledger.reward, self._ledger.reference
        checks.check_fit(self.reference, self.rules, self.prompts, max_response_tokens)
        self.device = checks.device_of(self.reference, device)
        self.channel = LogProbChannel() if channel is None else channel
        self.channel.wants_distribution |= self._ledger.wants_distribution

        self._masks = ActionMasks(
            self.rules,
            max_response_tokens=max_response_tokens,
            min_response_tokens=min_response_tokens,
            top_k=top_k,
            top_p=top_p,
        )
        checks.check_masks(self._masks, self.reference)
        self.uses_action_masks = self._masks.depends_on_state
        self._responses = Responses(
            self.num_envs, self.prompt_width, self.max_response_tokens, self.rules.pad_id
        )
        self._stepwise = Stepwise(
            self._responses,
            self._masks,
            self._ledger,
            max_bytes=max_distribution_bytes,
            device=self.device,
        )
        self._stops = np.zeros(self.rules.vocab_size, dtype=np.bool_)
        self._stops[list(self.rules.stop_ids)] = True
        self._rows = np.arange(self.num_envs)
        self._started = False
        self._all_live = False
        self.episodes_seen = 0
        self._make_spaces()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Start new episodes, in all rows or in some.

        Args:
            seed: seeds the generator that draws prompts, and begins their order anew.
            options: `reset_mask`, bool array of shape (N,): only these rows; `prompt_index`, one
                index per row that is reset: these prompts instead of the next ones.

        Returns:
            Observations of all rows, and an empty info.

        Raises:
            InvalidArgument: a mask or prompt index that cannot be.
            EpisodeEnded: a mask before the first reset of all rows.
        """
        # get, never pop: vector RecordEpisodeStatistics reads the mask after us.
        options = options or {}
        rows = checks.reset_rows(options, self.num_envs)
        given = checks.given_prompts(options, len(rows), len(self.prompts))
        if not self._started and len(rows) < self.num_envs:
            raise EpisodeEnded("reset all rows once before resetting some with reset_mask")
        super().reset(seed=seed)
        if seed is not None:
            self._order.restart()
        self._started = True
        self._begin(rows, given)
        return self._observations(), {}

    def step(self, actions: Any) -> StepReturn:
        """Append one token to every row.

        Args:
            actions: token ids, shape (N,); NumPy, torch or a list.

        Returns:
            Observations, rewards (N,) float64, terminated (N,), truncated (N,), info.

        Raises:
            InvalidAction: something else than N token ids of the vocabulary.
            EpisodeEnded: before the first reset, or in DISABLED mode after all episodes have ended.
        """
        responses = self._responses
        tokens = checks.check_actions(actions, self.num_envs, self.rules.vocab_size)
        record = self.channel.take(tokens)
        if record is not None:
            checks.check_record(record, self.num_envs, self.rules.vocab_size)
        log_probs = None if record is None else record.log_probs
        was_live = None
        if self._all_live:
            ended = self._stops[tokens] | (responses.lengths >= self.max_response_tokens - 1)
            rows = self._rows
        else:
            was_live = self._live_rows()
            rows = np.flatnonzero(was_live)
            ended = self._stops[tokens] | (responses.lengths >= self.max_response_tokens - 1)
            ended &= was_live
        rewards = np.zeros(self.num_envs)
        if self._stepwise.is_needed:
            rewards[rows] = self._stepwise.observe(rows, tokens, ended[rows], record)
        if was_live is None:
            responses.append(tokens, log_probs)
        else:
            responses.append_at(rows, tokens, log_probs)
        return self._conclude(tokens, ended, rewards, was_live)

    def _conclude(
        self, tokens: IntArray, ended: BoolArray, rewards: FloatArray, was_live: BoolArray | None
    ) -> StepReturn:
        """Score what has ended, reset what is due, and answer."""
        mode = self.autoreset_mode
        info: Info = {}
        terminated, truncated = ended, np.zeros(self.num_envs, dtype=np.bool_)
        waiting = None if was_live is None or mode is not AutoresetMode.NEXT_STEP else ~was_live
        if ended.any():
            rows = np.flatnonzero(ended)
            stopped = self._stops[tokens[rows]]
            scored = self._score(rows, stopped)
            rewards[rows] += scored.due.numpy()
            if self.length_limit == "truncate":
                terminated, truncated = ended.copy(), ended.copy()
                terminated[rows], truncated[rows] = stopped, ~stopped
            info = spread(self._episode_values(rows, stopped, scored), rows, self.num_envs)
            self._responses.live[rows] = False
            self._all_live = False
            if mode is AutoresetMode.SAME_STEP:
                info["final_info"], info["_final_info"] = dict(info), ended.copy()
                info["final_obs"], info["_final_obs"] = (
                    self._single_observations(rows),
                    ended.copy(),
                )
                self._begin(rows)
        if waiting is not None:
            self._begin(np.flatnonzero(waiting))
        if mode is AutoresetMode.DISABLED:
            active = np.ones(self.num_envs, dtype=np.bool_) if was_live is None else was_live
            info["active"], info["_active"] = active, np.ones(self.num_envs, dtype=np.bool_)
        return self._observations(), rewards, terminated, truncated, info

    def action_masks(self) -> BoolArray:
        """Which actions are allowed now, shape (N, V); at least one per row.

        Raises:
            EpisodeEnded: before the first reset.
        """
        if not self._started:
            raise EpisodeEnded("action_masks() was called before reset()")
        return self._stepwise.allowed().numpy().copy()

    @property
    def kl_coef(self) -> float | None:
        """Reward per nat of KL in force; None without a KL penalty."""
        return self._ledger.kl_coef

    def update_kl(self) -> float | None:
        """Let the KL controller see the episodes that ended since the last call, and move once.

        Episodes whose KL is not known do not count; without any, nothing moves.

        Returns:
            The new coefficient, or None without a KL penalty.
        """
        return self._ledger.update_kl()

    def render(self) -> tuple[str, ...] | None:
        """Prompt and response so far of each row, as text; None without a render mode."""
        if self.render_mode is None:
            return None
        rows = zip(self._responses.ids, self._responses.mask.astype(np.bool_), strict=True)
        return tuple(self.tokenizer.batch_decode([ids[mask] for ids, mask in rows]))

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, in the middle of episodes too.

        Returns:
            Generator, prompt order, episodes, KL and reward states: nested dictionaries of NumPy
            arrays, numbers, strings and None.
        """
        return {
            "fingerprint": self._fingerprint(),
            "started": self._started,
            "episodes_seen": self.episodes_seen,
            "seed": self.np_random_seed,
            "generator": self.np_random.bit_generator.state,
            "prompt_order": self._order.state_dict(),
            "responses": self._responses.state_dict(),
            "stepwise": self._stepwise.state_dict(),
            "ledger": self._ledger.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; the next step is then the one that would have followed.

        Raises:
            InvalidCheckpoint: the state of another environment, or no such state.
        """
        checks.check_state(state, self._fingerprint())
        self.np_random.bit_generator.state = state["generator"]
        self._np_random_seed = state["seed"]
        self._started, self.episodes_seen = state["started"], state["episodes_seen"]
        self._order.load_state_dict(state["prompt_order"])
        self._responses.load_state_dict(state["responses"])
        self._stepwise.load_state_dict(state["stepwise"])
        self._ledger.load_state_dict(state["ledger"])
        self._all_live = bool(self._responses.live.all())

    def _fingerprint(self) -> dict[str, Any]:
        """What must be equal for a saved state to fit."""
        return {
            "num_envs": self.num_envs,
            "prompt_width": self.prompt_width,
            "max_response_tokens": self.max_response_tokens,
            "vocab_size": self.rules.vocab_size,
            "autoreset_mode": self.autoreset_mode.value,
            "reward_timing": self.reward_timing,
            "prompts": self.prompts.digest,
        }

    def _make_spaces(self) -> None:
        width = self.prompt_width + self.max_response_tokens
        ids = gym.spaces.Box(0, self.rules.vocab_size - 1, (width,), np.int64)
        if self.observation == "ids":
            self.single_observation_space: gym.Space[Any] = ids
        else:
            mask = gym.spaces.Box(0, 1, (width,), np.int8)
            self.single_observation_space = gym.spaces.Dict(
                {"input_ids": ids, "attention_mask": mask}
            )
        self.single_action_space = gym.spaces.Discrete(self.rules.vocab_size)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def _begin(self, rows: IntArray, prompt_index: IntArray | None = None) -> None:
        """Start episodes in some rows, with the next prompts or the given ones."""
        if prompt_index is None:
            prompt_index = self._order.draw(len(rows), self.np_random)
        ids, mask = self.prompts.padded(prompt_index, self.prompt_width, self.rules.pad_id)
        self._responses.begin(rows, prompt_index, ids, mask)
        if self._stepwise.is_needed:
            self._stepwise.begin(rows)
        self._all_live = bool(self._responses.live.all())

    def _live_rows(self) -> BoolArray:
        """Rows whose action counts, shape (N,); a copy."""
        if not self._started:
            raise EpisodeEnded("step() was called before reset()")
        live = self._responses.live.copy()
        if self.autoreset_mode is AutoresetMode.DISABLED and not live.any():
            raise EpisodeEnded("step() was called after all episodes had ended; call reset()")
        return live

    def _score(self, rows: IntArray, stopped: BoolArray) -> Scored:
        """Score the episodes that have ended in some rows, all in one batch."""
        responses = self._responses
        index = responses.prompt_index[rows]
        log_probs = torch.from_numpy(responses.log_probs[rows])
        episodes = Episodes(
            input_ids=torch.from_numpy(responses.ids[rows]).to(self.device),
            attention_mask=torch.from_numpy(responses.mask[rows]).bool().to(self.device),
            prompt_width=self.prompt_width,
            stopped=torch.from_numpy(stopped).to(self.device),
            rules=self.rules,
            tokenizer=self.tokenizer,
            prompts=[self.prompts.texts[i] for i in index],
            rows=[self.prompts.rows[i] for i in index],
            # None, not all NaN: then no term asks the reference for nothing.
            log_probs=None if bool(log_probs.isnan().all()) else log_probs,
            **self._stepwise.kept(rows),
        )
        self.episodes_seen += len(rows)
        known = self._stepwise.reference_log_probs(rows)
        return self._ledger.score(episodes, self._stepwise.paid(rows), known)

    def _episode_values(self, rows: IntArray, stopped: BoolArray, scored: Scored) -> Info:
        """What info says about episodes that have ended, each of shape (k, ...)."""
        known = scored.kl_known.numpy()
        values: Info = {
            "finish_reason": np.where(stopped, "stop", "length").astype(object),
            "token_rewards": scored.token_rewards.numpy(),
            "reward_terms": {name: total.numpy() for name, total in scored.terms.items()},
            "score": scored.score.numpy(),
            "kl_known": known,
            "response_length": self._responses.lengths[rows],
            "prompt_index": self._responses.prompt_index[rows],
        }
        if scored.gold is not None:
            values["gold_reward"] = scored.gold.numpy()
        if scored.kl is not None:
            values["kl"] = (scored.kl.numpy(), known)
        return values

    def _observations(self) -> Observation:
        """A copy, for callers keep what they are given."""
        ids = self._responses.ids.copy()
        if self.observation == "ids":
            return ids
        return {"input_ids": ids, "attention_mask": self._responses.mask.copy()}

    def _single_observations(self, rows: IntArray) -> NDArray[np.object_]:
        """One observation per row in an object array, as Gymnasium's `final_obs`; shape (N,)."""
        final = np.full(self.num_envs, None, dtype=object)
        ids, mask = self._responses.ids[rows], self._responses.mask[rows]
        for at, row in enumerate(rows):
            single = {"input_ids": ids[at], "attention_mask": mask[at]}
            final[row] = ids[at] if self.observation == "ids" else single
        return final
