"""Learning a reward by asking: choose pairs, get them answered, keep the answers, fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf_gym.core.calibration import pearson
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.feedback import ControlSegment, Query
from rlhf_gym.core.labelers import TEACHERS, Labeler, Teacher, make_teacher, recorded_rewards
from rlhf_gym.core.labels import Label, Ranking, Skip
from rlhf_gym.core.preferences.comparisons import Comparisons
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.preferences.fit import fit_ensemble
from rlhf_gym.core.preferences.learner_config import Judges as Judges
from rlhf_gym.core.preferences.learner_config import RewardLearnerConfig as RewardLearnerConfig
from rlhf_gym.core.preferences.reward_net import RewardEnsemble
from rlhf_gym.core.preferences.segments import SegmentBatch, SegmentReplay
from rlhf_gym.core.preferences.selection import Candidates, Selection, first_is_better
from rlhf_gym.core.store import FeedbackStore

PROBES = 200
"""Segments on which a learned reward is compared with the gold one."""

Metrics = dict[str, float]


class RewardLearner:
    """A reward ensemble, those who teach it, and everything they have said.

    Args:
        encoding: of the environment's spaces.
        num_envs: environments side by side that `replay` is fed from.
        store: where questions and answers are kept; answers that are there already are used.
        labeler: who answers, or the name of a synthetic teacher, for whom a segment's typical gold
            return is measured before the first question.
        config: how.
        seed: of everything drawn here.
        provenance: noted with each question.

    Attributes:
        replay: to be fed with what the agent does.
        ensemble: the reward.
        comparisons: what it was taught.
        asked: questions put and answered, skips included.
        scale: typical gold return of a segment, NaN before the first question.

    Raises:
        InvalidArgument: no such teacher or selection.
        InvalidData: answers in the store about something else.
    """

    def __init__(
        self,
        encoding: Encoding,
        num_envs: int,
        store: FeedbackStore,
        labeler: Labeler | str = "oracle",
        config: RewardLearnerConfig | None = None,
        *,
        seed: int = 0,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(labeler, str) and labeler not in TEACHERS:
            raise InvalidArgument(
                "teacher", labeler, "no such teacher", f"Choose one of {', '.join(TEACHERS)}"
            )
        self.config = config or RewardLearnerConfig()
        self.encoding = encoding
        self.store = store
        self.labeler = labeler
        self.seed = seed
        self.provenance = dict(provenance or {})
        self.scale = math.nan
        self.replay = SegmentReplay(encoding, num_envs, self.config.memory)
        members = self.config.members
        self.ensemble = RewardEnsemble(
            encoding,
            members,
            self.config.hidden,
            self.config.bins,
            judges_acts=self.config.judges == "both",
            judges_outcomes=self.config.judges == "outcome",
            seed=seed,
        )
        self.comparisons = Comparisons(encoding, members, seed=seed)
        self.asked = 0
        self.fits = 0
        self._asked_about: list[Tensor] = []
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._answered: set[int] = set()
        known = store.feedback()
        self._take([(one.query, one.label) for one in known])
        self._answered.update(one.query_id for one in known)

    def ask(self, count: int) -> Metrics:
        """Choose pairs, have them answered, keep the answers, and fit.

        An answer is on the disk before it is used.

        Args:
            count: pairs to ask about.

        Returns:
            Numbers for the log: `labels`, `skipped`, `agreement` of the answers with what the
            ensemble thought before it saw them, then those of `learn`.

        Raises:
            InvalidArgument: fewer pairs than are asked for, or no episode as long as a segment.
        """
        queries = self._choose(count)
        ids = self.store.add(queries, provenance=self.provenance)
        # Where episodes repeat exactly, a pair may have been asked about before.
        new = {
            query_id: query
            for query_id, query in zip(ids, queries, strict=True)
            if query_id not in self._answered
        }
        labeler = self._labeler()
        labels = labeler.label(list(new.values()))
        for query_id, label in zip(new, labels, strict=True):
            self.store.answer(query_id, labeler.name, label)
        self._answered.update(new)
        answers = list(zip(new.values(), labels, strict=True))
        agreement = self._agreement(answers)
        self._take(answers)
        skipped = sum(isinstance(label, Skip) for label in labels)
        metrics = {"labels": float(self.asked), "skipped": float(skipped), "agreement": agreement}
        return metrics | self.learn()

    def learn(self) -> Metrics:
        """Fit to all that was answered, and normalise on what the agent has done of late.

        Returns:
            Numbers of the fit (`loss`, `held_out_loss`, `accuracy`, `held_out_accuracy`, `l2`) and
            `correlation` of learned and gold return of a segment; none while all was skipped.
        """
        if not len(self.comparisons):
            return {}
        if self.config.fit.anew and self.fits:
            self.ensemble.begin_anew(self.seed + self.fits)
        report = fit_ensemble(
            self.ensemble, self.comparisons, self.config.fit, generator=self._generator
        )
        self.fits += 1
        self.ensemble.normalise(*self.replay.recent(self.config.memory))
        return {
            "loss": report.loss,
            "held_out_loss": report.held_out_loss,
            "accuracy": report.accuracy,
            "held_out_accuracy": report.held_out_accuracy.value,
            "l2": float(self.ensemble.l2.mean()),
            "fit_epochs": float(report.epochs),
            "correlation": self.correlation(),
        }

    def correlation(self) -> float:
        """Linear correlation of learned and gold return over segments of late; NaN if undefined."""
        probes = self._probes()
        learned = self.ensemble.rewards(
            probes.observations.reshape(-1, *self.encoding.observation_shape),
            probes.actions.reshape(-1, *self.encoding.action_shape),
        ).reshape(probes.gold.shape)
        return pearson(learned.sum(1), probes.gold.sum(1))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; the answers themselves are in the store."""
        labeler = self.labeler
        return {
            "ensemble": self.ensemble.state_dict(),
            "replay": self.replay.state_dict(),
            "rng": self._rng.bit_generator.state,
            "generator": self._generator.get_state(),
            "labeler": labeler.state_dict() if isinstance(labeler, Teacher) else None,
            "scale": self.scale,
            "fits": self.fits,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.ensemble.load_state_dict(state["ensemble"])
        self.replay.load_state_dict(state["replay"])
        self._rng.bit_generator.state = state["rng"]
        self._generator.set_state(state["generator"])
        self.scale = state["scale"]
        self.fits = state["fits"]
        if state["labeler"] is not None:
            labeler = self._labeler()
            assert isinstance(labeler, Teacher)  # it had a generator
            labeler.load_state_dict(state["labeler"])

    def _choose(self, count: int) -> list[Query]:
        length = self.config.segment_length
        wanted = max(count, min(count * self.config.candidates, self.replay.pairs(length)))
        batch = self.replay.sample_pairs(wanted, length, self._rng)
        probabilities = first_is_better(self._returns(batch).reshape(-1, wanted, 2))
        asked = torch.stack(self._asked_about) if self._asked_about else torch.empty(0)
        features = self._features(batch).reshape(wanted, -1)
        # Untaught networks differ in their beginnings, which says nothing about the task.
        selection = Selection(self.config.selection if self.fits else "uniform")
        chosen = selection.choose(
            Candidates(probabilities, features, asked), count, self._generator
        )
        return [
            Query((batch.segment(2 * pair), batch.segment(2 * pair + 1)))
            for pair in chosen.tolist()
        ]

    def _returns(self, batch: SegmentBatch) -> Tensor:
        """Of each segment under each member, shape (members, n)."""
        count, steps = batch.gold.shape
        rewards = self.ensemble.judge(
            batch.observations.reshape(-1, *self.encoding.observation_shape),
            batch.actions.reshape(-1, *self.encoding.action_shape),
        )
        return rewards.reshape(-1, count, steps).sum(-1)

    def _features(self, batch: SegmentBatch) -> Tensor:
        """What each segment is about: its mean observation and action, shape (n, features)."""
        count, steps = batch.gold.shape
        parts = self.encoding.tensors(
            batch.observations.reshape(-1, *self.encoding.observation_shape),
            batch.actions.reshape(-1, *self.encoding.action_shape),
        )
        return torch.cat([part.reshape(count, steps, -1).mean(1) for part in parts], -1)

    def _take(self, answers: Sequence[tuple[Query, Label]]) -> None:
        self.comparisons.add(answers)
        self.asked += len(answers)
        for query, _ in answers:
            if len(query.segments) == 2:
                self._asked_about.append(self._features(_batch(query)).flatten())

    def _agreement(self, answers: Sequence[tuple[Query, Label]]) -> float:
        """Share of answered pairs that the ensemble would have answered so; NaN without any."""
        pairs = [
            (query, label.order[0])
            for query, label in answers
            if isinstance(label, Ranking) and not label.tie and len(label.order) == 2
        ]
        if not pairs:
            return math.nan
        batch = [_batch(query) for query, _ in pairs]
        together = SegmentBatch(
            np.concatenate([one.observations for one in batch]),
            np.concatenate([one.actions for one in batch]),
            np.concatenate([one.gold for one in batch]),
            None,
        )
        returns = self._returns(together).reshape(-1, len(pairs), 2)
        first = first_is_better(returns).mean(0) > 0.5
        best = torch.tensor([best for _, best in pairs])
        return float((first == (best == 0)).float().mean())

    def _labeler(self) -> Labeler:
        if isinstance(self.labeler, str):
            if math.isnan(self.scale):
                typical = float(np.abs(self._probes().gold.sum(1)).mean())
                self.scale = typical if typical > 0 else 1.0
            self.labeler = make_teacher(
                self.labeler, recorded_rewards, seed=self.seed, scale=self.scale
            )
        return self.labeler

    def _probes(self) -> SegmentBatch:
        # A generator of its own: looking must not change what is asked next.
        rng = np.random.default_rng((self.seed, self.fits))
        return self.replay.sample_up_to(PROBES, self.config.segment_length, rng)


def _batch(query: Query) -> SegmentBatch:
    """A query's segments."""
    segments = [segment for segment in query.segments if isinstance(segment, ControlSegment)]
    gold = [np.zeros(len(one)) if one.rewards is None else one.rewards for one in segments]
    return SegmentBatch(
        np.stack([segment.observations for segment in segments]),
        np.stack([segment.actions for segment in segments]),
        np.stack(gold),
        None,
    )
