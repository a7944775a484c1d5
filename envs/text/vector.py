"""Text generation as a vector environment: N responses, one token each per step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import nn

from rlhf_gym.core.channel import LogProbChannel
from rlhf_gym.core.devices import Device
from rlhf_gym.core.errors import EpisodeEnded
from rlhf_gym.envs.text import calls, checks
from rlhf_gym.envs.text.agent_side import AgentSide
from rlhf_gym.envs.text.engine import TextEngine
from rlhf_gym.envs.text.grammars import Grammar
from rlhf_gym.envs.text.infos import spread
from rlhf_gym.envs.text.observations import Observation, Observations
from rlhf_gym.envs.text.prompts import Order, PromptData, PromptOrder, load_prompts
from rlhf_gym.envs.text.responses import NO_ROWS
from rlhf_gym.envs.text.scoring import RewardLedger
from rlhf_gym.rewards.base import RewardFunction, RewardTerm

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Info = dict[str, Any]
IntArray = NDArray[np.int64]
StepReturn = tuple[Observation, FloatArray, BoolArray, BoolArray, Info]


class TextGenerationVectorEnv(AgentSide):
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
    padded on the left to P columns, the response grows from column P. `lm_inputs` adds the
    positions, without which a model misreads it. With `observation="ids"` it is `input_ids` alone.

    ## Starting State
    A prompt and no response. The next prompt is drawn without replacement, over all rows.

    ## Rewards
    The reward's terms, summed. With `reward_timing="end"` all of it is paid with the step that ends
    the episode, with "step" each token's share in its own step. `info["token_rewards"]` says which
    token earned what, and sums to the same.

    ## Episode End
    A stop token, or `max_response_tokens`; both are `terminated`, unless `length_limit="truncate"`.
    With `ends="together"` a row whose response has ended waits until all have: its actions are
    ignored and its reward is 0 until then, when all episodes end, scored in one pass.

    ## Information
    When an episode ends, arrays over all rows, each with its mask `_key`: `finish_reason` ("stop"
    or "length"), `token_rewards` (N, T), `reward_terms` (name -> sum over the response, weight
    applied), `score` (sum of the terms that are no KL penalty), `gold_reward`, `kl` (sampled, nats;
    only where it is known), `kl_known`, `response_length` (tokens), `prompt_index`. At the top
    level in every mode, and in `final_info`, beside `final_obs`, under SAME_STEP. In DISABLED mode
    and with `ends="together"` every step has `active`, True where the action was written.

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
        stop_token_ids: the first of these ends a response; by default the tokenizer's EOS, and what
            the reference's generation settings list beside it.
        banned_token_ids: never legal, besides PAD.
        min_response_tokens: no stop token is legal among the first so many.
        top_k: only the reference's k likeliest tokens are legal; costs a cached reference pass per
            step.
        top_p: only the reference's likeliest tokens that make up this probability are.
        banned_words: never written, at the beginning of a word either; of a word of several tokens
            the last one is illegal behind the others.
        vocabulary: words or token ids: no others are legal, but for the stop tokens.
        grammar: what responses look like: a regular expression (see `regular_syntax.parse`) that
            the whole text matches, a `TokenAutomaton`, or a function `(prompt ids, response ids) ->
            mask of shape (V,)`.
        observation: "dict", or "ids" for agents that cannot read a Dict.
        autoreset_mode: see Gymnasium. In DISABLED mode rows whose episode has ended may be stepped
            on until all have: their action is ignored, their reward 0, `info["active"]` False.
        reward_timing: "end" or "step".
        length_limit: what the response budget is: "terminate" or "truncate".
        ends: "apart", each episode with its response; or "together", all with the last one's: for
            agents that collect whole batches, because one pass of reference and reward model over
            all responses costs half of many passes over a few.
        prompt_order: "shuffle" (a new permutation each time round) or "sequential".
        chat_template: render prompts with the tokenizer's chat template.
        channel: where the policy writes log pi; by default a new one.
        max_distribution_bytes: most memory for distributions or masks that are kept per episode.
        render_mode: "ansi" or None.
        device: where a reference that is loaded by name goes; "auto" is a GPU if there is one. A
            module stays where it is.

    Attributes:
        rules: vocabulary, PAD, stop tokens, temperature.
        masks: all of what is allowed; see `ActionMasks`.
        reward: the sum of terms, or None.
        gold: the terms that are reported and never trained on, or None.
        channel: where the policy writes log pi.
        prompt_width: P.
        uses_action_masks: True if more than PAD and banned tokens is forbidden somewhere.

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
        banned_words: Sequence[str] = (),
        vocabulary: Sequence[str | int] | None = None,
        grammar: Grammar | None = None,
        observation: Literal["dict", "ids"] = "dict",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        reward_timing: Literal["end", "step"] = "end",
        length_limit: Literal["terminate", "truncate"] = "terminate",
        ends: Literal["apart", "together"] = "apart",
        prompt_order: Order = "shuffle",
        chat_template: bool = False,
        channel: LogProbChannel | None = None,
        max_distribution_bytes: int = 2**30,
        render_mode: str | None = None,
        device: Device = "auto",
    ) -> None:
        self.num_envs = checks.positive("num_envs", num_envs)
        self.max_response_tokens = checks.positive("max_response_tokens", max_response_tokens)
        self.reward_timing = checks.choice("reward_timing", reward_timing, ("end", "step"))
        self.length_limit = checks.choice("length_limit", length_limit, ("terminate", "truncate"))
        self.ends = checks.choice("ends", ends, ("apart", "together"))
        self.render_mode = checks.check_render_mode(render_mode, self.metadata["render_modes"])
        self.autoreset_mode = checks.autoreset_mode_of(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}

        self.tokenizer = checks.tokenizer_of(tokenizer)
        model = checks.model_of(reference, device)
        ledger = RewardLedger(reward, gold, model, by_step=reward_timing == "step")
        self.reward, self.gold, self.reference = ledger.reward, ledger.gold, ledger.reference
        self.rules = checks.make_rules(
            self.tokenizer, temperature, stop_token_ids, banned_token_ids, self.reference
        )
        self.prompts = load_prompts(prompts, self.tokenizer, chat_template=chat_template)
        self.prompt_width = checks.prompt_width_for(self.prompts, max_prompt_tokens)
        checks.check_reward(self.reward, num_envs, ends=ends, length_limit=length_limit)
        checks.check_fit(self.reference, self.rules, self.prompts, max_response_tokens)
        self.device = checks.device_of(self.reference, device)
        self.masks = checks.make_masks(
            self.rules,
            self.tokenizer,
            self.reference,
            banned_words=banned_words,
            vocabulary=vocabulary,
            grammar=grammar,
            max_response_tokens=max_response_tokens,
            min_response_tokens=min_response_tokens,
            top_k=top_k,
            top_p=top_p,
        )
        self.uses_action_masks = self.masks.depends_on_state
        self.channel = LogProbChannel() if channel is None else channel
        self.channel.wants_distribution |= ledger.wants_distribution
        self._engine = TextEngine(
            self.prompts,
            PromptOrder(len(self.prompts), prompt_order),
            self.tokenizer,
            self.masks,
            ledger,
            num_envs=num_envs,
            prompt_width=self.prompt_width,
            max_response_tokens=max_response_tokens,
            max_bytes=max_distribution_bytes,
            device=self.device,
        )
        self._started = False
        # Copies cost less than new arrays: the code that copies is in the caches already.
        self._everywhere = np.ones(self.num_envs, dtype=np.bool_)
        self._nowhere = np.zeros(self.num_envs, dtype=np.bool_)
        self._observations = Observations(observation, self._engine.responses, self.rules)
        self.single_observation_space = self._observations.single_space
        self.observation_space = self._observations.space
        self.single_action_space = Discrete(self.rules.vocab_size)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

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
        rows = calls.reset_rows(options, self.num_envs)
        given = calls.given_prompts(options, len(rows), len(self.prompts))
        if not self._started and len(rows) < self.num_envs:
            raise EpisodeEnded("reset all rows once before resetting some with reset_mask")
        super().reset(seed=seed)
        if seed is not None:
            self._engine.order.restart()
        self._started = True
        self._engine.begin(rows, self.np_random, given)
        return self._observations.batch(), {}

    def step(self, actions: Any) -> StepReturn:
        """Append one token to every row.

        Args:
            actions: token ids, shape (N,); NumPy, torch or a list.

        Returns:
            Observations, rewards (N,) float64, terminated (N,), truncated (N,), info.

        Raises:
            InvalidAction: something else than N token ids of the vocabulary.
            EpisodeEnded: before the first reset, or in DISABLED mode after all episodes have ended.
            InvalidReward: a reward that is not finite, or of the wrong shape.
        """
        mode, responses = self.autoreset_mode, self._engine.responses
        if not responses.all_live:
            self._check_running()
        tokens = calls.check_actions(actions, self.num_envs, self.rules.vocab_size)
        record = self.channel.take(tokens.numbers)
        if record is not None:
            calls.check_record(record, self.num_envs, self.rules.vocab_size)
        active = None if responses.all_live else responses.live.copy()
        idle = responses.idle if mode is AutoresetMode.NEXT_STEP else NO_ROWS
        ending, rewards = self._engine.write(tokens, record)
        if self.ends == "together" and len(ending):
            ending = responses.wait(ending)
        terminated, truncated = self._nowhere.copy(), self._nowhere.copy()
        info: Info = {}
        if len(ending):
            info = self._end(ending, rewards, terminated, truncated)
        if len(idle):
            self._engine.begin(idle, self.np_random)
        if mode is AutoresetMode.DISABLED or self.ends == "together":
            info["active"] = self._everywhere.copy() if active is None else active
            info["_active"] = self._everywhere.copy()
        return self._observations.batch(), rewards, terminated, truncated, info

    def _check_running(self) -> None:
        """Refuse a step in rows that are not all live, unless they may be stepped on."""
        responses = self._engine.responses
        if not self._started:
            raise EpisodeEnded("step() was called before reset()")
        if self.autoreset_mode is AutoresetMode.DISABLED and not len(responses.live_rows):
            raise EpisodeEnded("step() was called after all episodes had ended; call reset()")
        if self.autoreset_mode is AutoresetMode.SAME_STEP and len(responses.idle):
            raise EpisodeEnded("step() was called after an error had left an episode; call reset()")

    def _end(
        self, rows: IntArray, rewards: FloatArray, terminated: BoolArray, truncated: BoolArray
    ) -> Info:
        """Score the episodes that end in some rows, shape (k,), and under SAME_STEP begin the next.

        `rewards`, `terminated` and `truncated`, of all rows, shape (N,), are filled in.

        Returns:
            The step's info.
        """
        ending = self._engine.end(rows)
        rewards[rows] += ending.due
        truncated[rows] = ~ending.stopped & (self.length_limit == "truncate")
        terminated[rows] = ~truncated[rows]
        info = spread(ending.values, rows, self.num_envs)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            final = info.copy()
            ended = terminated | truncated
            info |= {"final_info": final, "_final_info": ended, "_final_obs": ended.copy()}
            info["final_obs"] = self._observations.single(rows)
            self._engine.begin(rows, self.np_random)
        return info
