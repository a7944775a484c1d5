"""One round of the loop as a folder: each step leaves a file, and is not done again if it is there.

round-1/samples.jsonl     what the policy and its ancestors wrote
round-1/queries.json      the numbers of the queries asked, in the store
round-1/feedback.jsonl    every label so far, as the reward-model stage reads it
round-1/reward_model/     member-0 to member-n
round-1/training/         the policy's run, with `policy/`
round-1/evaluation/       the policy beside the reference
round-1/summary.json      the round is complete
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_gym.core.calibration import Estimate
from rlhf_gym.core.data import read_records, write_jsonl
from rlhf_gym.core.feedback import Query, TextSegment
from rlhf_gym.core.labelers import MODEL, Labeler
from rlhf_gym.core.store import FeedbackStore
from rlhf_gym.core.store.transfer import export_feedback
from rlhf_gym.core.supervised.common import write_json
from rlhf_gym.core.supervised.reward_model import RewardModelConfig, train_reward_model
from rlhf_gym.pipelines.collect import check_judge, judged, policy_model
from rlhf_gym.pipelines.environment import EnvironmentConfig, make_environment
from rlhf_gym.pipelines.evaluate import EvaluateConfig, evaluate
from rlhf_gym.pipelines.rlhf_labels import HUMAN, Watch, label, teacher, wait
from rlhf_gym.pipelines.train import TrainConfig, train

if TYPE_CHECKING:
    from rlhf_gym.pipelines.rlhf import RLHFConfig

SUMMARY = "summary.json"
Truth = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class RoundResult:
    """What a round came to.

    Attributes:
        number: from 1.
        labels: records in all rounds so far.
        accuracy: of the reward models on held-out feedback, mean over members.
        score: mean reward of the policy's responses.
        gold: mean gold reward; None where there is none.
        reference_gold: the same of the reference, to the same prompts.
        kl: of a response to the reference, nats.
        win_rate: how often the policy's response is judged better than the reference's.
    """

    number: int
    labels: int
    accuracy: float
    score: Estimate
    gold: Estimate | None
    reference_gold: Estimate | None
    kl: Estimate | None
    win_rate: Estimate | None


class Round:
    """A round, done or to be done.

    Args:
        config: of the loop.
        number: from 1.
    """

    def __init__(self, config: RLHFConfig, number: int) -> None:
        self.config = config
        self.number = number
        self.loop = Path(config.output)
        self.folder = self.loop / f"round-{number}"
        self.seed = config.seed * 1000 + number

    @property
    def policy(self) -> Path:
        """Where the policy is that the round trained."""
        return self.folder / "training" / "policy"

    @property
    def asks(self) -> bool:
        """Whether the round asks for labels; if not, it is paid by the reward models there are."""
        return self.config.asking is None or self.number <= self.config.asking

    @property
    def reward_model(self) -> Path:
        """Folder of the reward models that pay in the round."""
        if self.asks:
            return self.folder / "reward_model"
        return self.earlier[-1].reward_model

    @property
    def members(self) -> list[Path]:
        """Folders of each of them."""
        return [self.reward_model / f"member-{i}" for i in range(self.config.members)]

    @property
    def begins(self) -> str | None:
        """What the round's policy begins as; None for the reference."""
        if self.config.begin == "reference" or self.number == 1:
            return None
        return str(self.earlier[-1].policy)

    @property
    def earlier(self) -> list[Round]:
        """The rounds before."""
        return [Round(self.config, number) for number in range(1, self.number)]

    def run(self, store: FeedbackStore, model: Labeler | None, watch: Watch) -> RoundResult:
        """Do what has not been done.

        Args:
            store: holds all labels.
            model: answers, where the labeler is a model.
            watch: told how far people are.
        """
        if not (self.folder / SUMMARY).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.asks:
                ids = self.ask(store)
                self.gather(store, ids, model, watch)
                self.learn_reward(store)
            self.improve_policy()
            self.judge()
        return self.result()

    def ask(self, store: FeedbackStore) -> list[int]:
        """Sample, choose, and put the queries into the store.

        Killed before the numbers are written, it comes to the same queries again, which the store
        does not hold twice.
        """
        from rlhf_gym.core.models import load_causal_lm
        from rlhf_gym.pipelines.generation import text_task
        from rlhf_gym.pipelines.rlhf_queries import candidates, sample, select

        file = self.folder / "queries.json"
        if file.exists():
            return list(json.loads(file.read_text(encoding="utf-8"))["queries"])
        config = self.config
        env = make_environment(sampling_environment(config.environment))
        task = text_task(env)
        check_judge(config.judge, task)
        sampled = sample(
            [
                policy_model(None, task.reference),
                *(load_causal_lm(before.policy) for before in self.earlier),
            ],
            env,
            prompts=config.labels * (config.candidates if self.number > 1 else 2),
            completions=2,
            ancestors=config.ancestors,
            seed=self.seed,
        )
        values = judged(sampled.generations, config.judge)
        rows = zip(sampled.generations, sampled.writers, values, strict=True)
        write_jsonl(
            self.folder / "samples.jsonl",
            ({**g.record(), "writer": writer, "worth": worth} for g, writer, worth in rows),
        )
        offered = candidates(sampled, 2, self._known(store))
        before = self.earlier[-1].members if self.number > 1 else []
        chosen = select(offered, before, config.selection, config.labels, self.seed)
        origin = {"loop": config.output, "round": self.number, "selection": config.selection}
        ids = store.add(chosen, overlap=config.overlap, provenance=origin)
        write_json(file, {"queries": ids, "offered": len(offered)})
        return ids

    def gather(
        self, store: FeedbackStore, ids: Sequence[int], model: Labeler | None, watch: Watch
    ) -> None:
        """Have the queries answered."""
        config = self.config
        if config.labeler == HUMAN:
            wait(
                store,
                ids,
                self.number,
                overlap=config.overlap,
                poll=config.poll,
                patient=config.wait,
                watch=watch,
            )
            return
        ticket = f"{self.folder.resolve()}"
        if config.labeler == MODEL and model is not None:
            label(store, ids, model, ticket)
            return
        label(store, ids, teacher(config.labeler, self.truth(), self.seed), ticket, chunk=None)

    def learn_reward(self, store: FeedbackStore) -> None:
        """Reward models from the labels of all rounds; split and order are each one's own."""
        config = self.config
        feedback = self.folder / "feedback.jsonl"
        if not feedback.exists():
            export_feedback(store, feedback)
        for number, member in enumerate(self.members):
            if not (member / SUMMARY).exists():
                train_reward_model(
                    RewardModelConfig(
                        data=(str(feedback),),
                        model=config.reward_base or str(self.loop / "base"),
                        output=str(member),
                        normalise_on=str(self.loop / "round-1" / "samples.jsonl"),
                        noise=config.noise,
                        token_loss=config.reward_token_loss,
                        epochs=config.reward_epochs,
                        learning_rate=config.reward_learning_rate,
                        batch_size=config.reward_batch_size,
                        validation=0.0,
                        seed=self.seed * 100 + number,
                        progress=config.progress,
                    )
                )

    def improve_policy(self) -> None:
        """A policy paid by the reward models' mean.

        From the reference on, what an earlier reward model led it into stays behind (Bai et al.
        2022, section 4.5); from the policy before on, it gets further with the same work.
        """
        if (self.folder / "training" / SUMMARY).exists():
            return
        config = self.config
        train(
            TrainConfig(
                environment=self.rewarded(),
                agent=config.agent,
                total_timesteps=config.total_timesteps,
                policy=self.begins,
                output=str(self.folder / "training"),
                seed=self.seed,
                progress=config.progress,
                ppo=config.ppo,
            )
        )

    def judge(self) -> None:
        """Policy and reference on the same prompts, and the round's summary."""
        folder = self.folder / "evaluation"
        evaluation = evaluate(
            EvaluateConfig(
                environment=self.rewarded(),
                policy=str(self.policy),
                output=str(folder),
                episodes=self.config.evaluation_episodes,
                judge=self.config.judge,
                seed=self.seed,
                progress=self.config.progress,
            )
        )
        accuracies = [_summary(member)["result"]["accuracy"] for member in self.members]
        known = [a for a in accuracies if a is not None]
        reference = evaluation.reference
        result = RoundResult(
            number=self.number,
            labels=len(read_records(self.reward_model.parent / "feedback.jsonl")),
            accuracy=float(np.mean(known)) if known else float("nan"),
            score=evaluation.policy.score,
            gold=evaluation.policy.gold,
            reference_gold=None if reference is None else reference.gold,
            kl=evaluation.policy.kl,
            win_rate=evaluation.win_rate,
        )
        write_json(self.folder / SUMMARY, asdict(result))

    def result(self) -> RoundResult:
        """What the round's summary says."""
        found = _summary(self.folder)
        for name in ("score", "gold", "reference_gold", "kl", "win_rate"):
            found[name] = None if found[name] is None else Estimate(*found[name])
        return RoundResult(**found)

    def rewarded(self) -> EnvironmentConfig:
        """The task, paid by the round's reward models."""
        return replace(self.config.environment, reward=str(self.reward_model))

    def truth(self) -> Truth:
        """What each of the round's responses is really worth."""
        rows = read_records(self.folder / "samples.jsonl")
        return {(row["prompt"], row["completion"]): float(row["worth"]) for row in rows}

    def _known(self, store: FeedbackStore) -> set[frozenset[TextSegment]]:
        asked: list[Query] = [
            store.query(number).query
            for before in self.earlier
            if before.asks
            for number in before.ask(store)
        ]
        return {
            frozenset(s for s in query.segments if isinstance(s, TextSegment)) for query in asked
        }


def no_reward(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Judges nothing: for sampling before there is anything to judge by."""
    return [0.0] * len(responses)


def sampling_environment(environment: EnvironmentConfig) -> EnvironmentConfig:
    """The task for sampling alone; a model of one's own needs some reward to be built with."""
    if environment.model is None or environment.gold is not None:
        return environment
    return replace(environment, reward=environment.reward or f"{__name__}:no_reward")


def _summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / SUMMARY).read_text(encoding="utf-8")))
