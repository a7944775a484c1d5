"""What all our agents share: whole episodes in, and a loop over minibatches of them."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from typing import ClassVar, Self

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import Tensor

from rlhf_gym.agents.callbacks import ONLY_TENSORBOARD
from rlhf_gym.agents.lm_algorithm import LMAlgorithm
from rlhf_gym.agents.metrics import UpdateMetrics, hyperparameters
from rlhf_gym.agents.minibatches import Minibatch, minibatches
from rlhf_gym.agents.rollout import RolloutBatch, collect_wave, concatenate
from rlhf_gym.agents.stepping import Step
from rlhf_gym.core.errors import NonFiniteTraining
from rlhf_gym.core.scoring import token_log_probs
from rlhf_gym.rewards.discount import check_gamma
from rlhf_gym.rewards.kl_estimators import kl_k3


class TextAlgorithm(LMAlgorithm):
    """A policy-gradient agent on text; a subclass says what its loss is.

    One update: `collect_rollouts` lets the policy write whole responses, `make_batch` turns what
    was paid into what is learned from, `loss` is minimised over epochs of minibatches. Each of them
    can be overridden alone.
    """

    # What a subclass says -----------------------------------------------------------------------

    @property
    def gamma(self) -> float:
        """Discount per token: none, unless a subclass has one."""
        return 1.0

    episodes_together: ClassVar[int] = 1
    """Consecutive episodes of a batch that the loss needs side by side."""

    def compute_advantages(self, batch: RolloutBatch) -> RolloutBatch:
        """Turn rewards (and values) into advantages (and returns), for a loss that has them."""
        return batch

    @abstractmethod
    def loss(self, minibatch: Minibatch) -> Tensor:
        """What one minibatch, or one part of it, adds to the loss, shape ()."""

    def collect_rollouts(self, callback: BaseCallback) -> RolloutBatch | None:
        """Let the policy write `episodes_per_update` responses.

        Args:
            callback: told about every step of the environment.

        Returns:
            The episodes as sampled, on the CPU; None if the callback wants to stop.
        """

        def on_step(step: Step, tokens: int) -> bool:
            self.num_timesteps += tokens
            infos = list(step.infos)
            if step.ended.any():
                self._update_info_buffer(infos, step.ended)  # type: ignore[arg-type]
            callback.update_locals({"rewards": step.rewards, "dones": step.ended, "infos": infos})
            return callback.on_step()

        stepper = self.stepper
        waves = []
        for prompts in self._prompts_by_wave():
            wave = collect_wave(
                stepper,
                self.policy,
                self._first_observation(prompts),
                self.generators["sampling"],
                on_step,
            )
            if wave is None:
                return None
            waves.append(wave)
        batch = concatenate(waves)
        self._episode_num += len(batch.mask)
        return batch

    def make_batch(self, batch: RolloutBatch) -> RolloutBatch:
        """Add to the episodes what the loss needs besides them."""
        if self.config.missing_stop_penalty:
            last = batch.mask & (batch.mask.cumsum(-1) == batch.lengths.unsqueeze(-1))
            penalty = self.config.missing_stop_penalty * (last & ~batch.stopped.unsqueeze(-1))
            batch = batch._replace(token_rewards=batch.token_rewards - penalty)
        if self.policy.value_model is not None:
            values = self.policy.predict_values(
                batch.input_ids, batch.attention_mask, self.config.tokens_per_forward
            )
            batch = batch._replace(values=values)
        if self.config.kl_loss_coef:
            batch = batch._replace(reference_log_probs=self._reference_log_probs(batch))
        return self.compute_advantages(batch)

    def kl_loss(self, minibatch: Minibatch, log_probs: Tensor) -> Tensor:
        """KL(policy || reference) as a part of the loss, shape (); 0 unless `kl_loss_coef` is set.

        Args:
            minibatch: holds the reference's log-probabilities.
            log_probs: under the policy being trained, shape (batch, time).
        """
        reference = minibatch.batch.reference_log_probs
        if reference is None:
            return log_probs.new_zeros(())
        kl = minibatch.mean(kl_k3(log_probs, reference))
        self.metrics.add("kl_loss", kl)
        return self.config.kl_loss_coef * kl

    # The loop -----------------------------------------------------------------------------------

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train.

        Args:
            total_timesteps: response tokens to sample; the update in which they are reached is the
                last.
            callback: SB3 callbacks.
            log_interval: updates between two log entries.
            tb_log_name: name of the run in TensorBoard, the class's name by default.
            reset_num_timesteps: start counting at 0; otherwise `total_timesteps` come on top.
            progress_bar: show one.

        Raises:
            InvalidArgument: the reward is shaped for another discount.
            NonFiniteTraining: a loss or gradient is NaN or infinite; the parameters are as they
                were before.
        """
        for task in self.stepper.tasks:
            remedy = f"Give {type(self).__name__} or the shaping the other's gamma"
            check_gamma(task.required_gamma, self.gamma, remedy)
        total_timesteps, callback = self._setup_learn(
            total_timesteps,
            callback,
            reset_num_timesteps,
            tb_log_name or type(self).__name__,
            progress_bar,
        )
        callback.on_training_start(locals(), globals())
        self.logger.record("hparams", hyperparameters(self.config), exclude=ONLY_TENSORBOARD)
        iteration = 0
        while self.num_timesteps < total_timesteps:
            # The schedule is read where the update begins; at its end the last one would get 0.
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            started = time.perf_counter()
            callback.on_rollout_start()
            batch = self.collect_rollouts(callback)
            if batch is None:
                break
            sampled = time.perf_counter()
            batch = self.make_batch(batch)
            callback.update_locals({"batch": batch})
            callback.on_rollout_end()
            self.update(batch)
            self.stepper.update_kl()
            iteration += 1
            self._log_rollout(batch, iteration, sampled - started, time.perf_counter() - sampled)
            if log_interval and iteration % log_interval == 0:
                self.dump_logs()
        callback.on_training_end()
        return self

    def update(self, batch: RolloutBatch) -> None:
        """Go through the batch in minibatches, epoch after epoch.

        Args:
            batch: what `make_batch` returned.

        Raises:
            NonFiniteTraining: a loss or gradient is NaN or infinite.
        """
        config = self.config
        batch = batch.to(self.device)
        self.metrics = UpdateMetrics()
        self._update_learning_rate(self.policy.optimizer)
        stopped = False
        for _ in range(config.epochs):
            for parts in minibatches(
                batch,
                count=config.minibatches,
                tokens_per_forward=config.tokens_per_forward,
                generator=self.generators["shuffling"],
                together=self.episodes_together,
            ):
                stopped = not self._minibatch_step(parts)
                if stopped:
                    break
            if stopped:
                break
        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/stopped_early", float(stopped))
        for name, value in self.metrics.summary().items():
            self.logger.record(f"train/{name}", value)

    def _minibatch_step(self, parts: list[Minibatch]) -> bool:
        """One step of the optimiser; False if the policy has already moved far enough."""
        self.policy.optimizer.zero_grad(set_to_none=True)
        for part in parts:
            loss = self.loss(part)
            loss.backward()  # type: ignore[no-untyped-call]
            self.metrics.add("loss", loss)
        most = self.config.max_update_kl
        if most is not None and self.metrics.current("approx_kl") > most:
            self.metrics.end_minibatch()
            return False
        gradients = [p.grad for p in self._trained if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._check_finite(self.metrics.current("loss"), float(norm))
        limit = self.config.max_grad_norm
        if limit is not None and norm > limit:
            torch.nn.utils.clip_grads_with_norm_(self._trained, limit, norm)
        self.metrics.add("grad_norm", norm)
        self.metrics.end_minibatch()
        self.policy.optimizer.step()
        return True

    def _check_finite(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        raise NonFiniteTraining(
            f"loss={loss}, gradient norm={norm} in update {self._n_updates + 1}, after "
            f"{self.num_timesteps} tokens. Nothing was changed by this step; the last checkpoint "
            "is good. Lower learning_rate, or look for extreme rewards."
        )

    def _reference_log_probs(self, batch: RolloutBatch) -> Tensor:
        assert self.stepper.reference is not None
        return token_log_probs(
            self.stepper.reference,
            batch.input_ids,
            batch.attention_mask,
            self.stepper.prompt_width,
            self.stepper.rules,
            batch.action_masks,
        )

    def _log_rollout(
        self, batch: RolloutBatch, iteration: int, sampling: float, updating: float
    ) -> None:
        tokens = int(batch.mask.sum())
        returns = batch.token_rewards.sum(-1)
        elapsed = max((time.time_ns() - self.start_time) / 1e9, 1e-9)
        trained = self.num_timesteps - self._num_timesteps_at_start
        record = self.logger.record
        record("rollout/ep_rew_mean", float(returns.mean()))
        record("rollout/ep_rew_std", float(returns.std(correction=0)))
        record("rollout/ep_len_mean", tokens / len(batch.mask))
        record("rollout/episodes", self._episode_num)
        record("time/fps", int(trained / elapsed))
        record("time/tokens_per_second", tokens / sampling)
        record("time/rollout_seconds", sampling)
        record("time/update_seconds", updating)
        record("time/iterations", iteration, exclude="tensorboard")
        record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")

    def dump_logs(self) -> None:
        """Write what has been recorded since the last time."""
        self.logger.dump(self.num_timesteps)
