"""`rlhf-gym rlhf`: rounds that are complete, go on where they were, and lose no label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_gym.agents.ppo import PPOConfig
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
from rlhf_gym.core.feedback import Query, TextSegment
from rlhf_gym.core.labels import Label, Ranking, Skip
from rlhf_gym.core.store import FeedbackStore
from rlhf_gym.pipelines.environment import EnvironmentConfig, make_environment
from rlhf_gym.pipelines.generation import Generation, text_task
from rlhf_gym.pipelines.rlhf import RLHFConfig, RLHFLoop
from rlhf_gym.pipelines.rlhf_labels import LabelsMissing, Waiting, label, progress, teacher, wait
from rlhf_gym.pipelines.rlhf_queries import Sampled, candidates, sample, select

LABELS = 8


def config(folder: Path, **changes: Any) -> RLHFConfig:
    base = RLHFConfig(
        environment=EnvironmentConfig(num_envs=16),
        rounds=2,
        labels=LABELS,
        output=str(folder),
        candidates=2,
        members=2,
        reward_epochs=1.0,
        reward_batch_size=8,
        total_timesteps=200,
        ppo=PPOConfig(learning_rate=1e-3, epochs=1),
        evaluation_episodes=16,
        progress=False,
    )
    return replace(base, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loop") / "run"
    RLHFLoop(config(folder)).run()
    return folder


def test_every_round_is_a_folder(finished: Path) -> None:
    for number in (1, 2):
        here = finished / f"round-{number}"
        summary = json.loads((here / "summary.json").read_text())
        assert summary["number"] == number
        assert summary["labels"] == LABELS * number
        assert len((here / "feedback.jsonl").read_text().splitlines()) == LABELS * number
        for part in ("training/policy", "reward_model/member-0", "reward_model/member-1"):
            assert (here / part / "config.json").exists()
        assert (here / "evaluation/summary.json").exists()
    with FeedbackStore(finished / "feedback.db") as store:
        given = store.feedback()
    assert len(given) == len({one.query_id for one in given}) == 2 * LABELS
    assert {one.rater for one in given} == {"oracle"}
    assert {one.provenance["round"] for one in given} == {1, 2}


def test_the_second_round_asks_about_the_policy_and_its_ancestor(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "round-2/samples.jsonl").open()]
    assert {row["writer"] for row in rows} == {0, 1}
    assert all(row["writer"] == 1 for row in rows[::2])  # the newest is in every pair


def test_pairs_may_be_of_the_newest_policy_alone() -> None:
    env = make_environment(EnvironmentConfig(num_envs=4))
    reference = text_task(env).reference
    assert reference is not None
    writers = [reference, reference]
    drawn = {
        ancestors: sample(
            writers, env, prompts=16, completions=2, seed=0, ancestors=ancestors
        ).writers
        for ancestors in (True, False)
    }
    assert set(drawn[False]) == {1}
    assert set(drawn[True][::2]) == {1}
    assert set(drawn[True][1::2]) == {0, 1}


def test_a_finished_loop_does_nothing_again_and_may_grow(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")}
    result = RLHFLoop(config(finished)).run()
    assert [one.number for one in result.rounds] == [1, 2]
    assert result.labels == 2 * LABELS
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")} == before
    RLHFLoop(config(finished, rounds=3))  # more rounds are no other loop
    with pytest.raises(InvalidCheckpoint, match="differs in labels"):
        RLHFLoop(config(finished, labels=LABELS + 1))


def test_later_rounds_may_go_on_from_the_policy_before_without_asking(tmp_path: Path) -> None:
    result = RLHFLoop(config(tmp_path, asking=1, begin="newest", evaluation_episodes=4)).run()
    assert [one.labels for one in result.rounds] == [LABELS, LABELS]
    assert {path.name for path in (tmp_path / "round-2").iterdir()} == {
        "training",
        "evaluation",
        "summary.json",
    }
    trained = [
        json.loads((tmp_path / f"round-{number}/training/config.json").read_text())
        for number in (1, 2)
    ]
    assert [one["policy"] for one in trained] == [None, str(tmp_path / "round-1/training/policy")]
    paid = {one["environment"]["reward"] for one in trained}
    assert paid == {str(tmp_path / "round-1/reward_model")}


def test_people_are_waited_for(tmp_path: Path) -> None:
    loop = RLHFLoop(config(tmp_path, labeler="human", wait=False, rounds=1))
    with pytest.raises(LabelsMissing, match=f"{LABELS} of {LABELS} queries wait .*rlhf-gym label"):
        loop.run()
    with FeedbackStore(loop.store) as store:
        for _ in range(LABELS - 1):
            shown = store.next("anna")
            assert shown is not None
            store.answer(shown.id, "anna", Ranking((0, 1)))
    with pytest.raises(LabelsMissing, match=f"1 of {LABELS} queries"):
        RLHFLoop(loop.config).run()
    with FeedbackStore(loop.store) as store:
        shown = store.next("anna")
        assert shown is not None
        store.answer(shown.id, "anna", Skip("both are strange"))
    assert RLHFLoop(loop.config).run().labels == LABELS - 1


def pairs(count: int) -> list[Query]:
    texts = [[TextSegment(f"p{i}", text) for text in ("good", "bad")] for i in range(count)]
    return [Query(tuple(pair)) for pair in texts]


class Mortal:
    """Answers so many queries, then is killed."""

    name = "mortal"

    def __init__(self, life: int) -> None:
        self.life = life
        self.met: list[Query] = []

    def label(self, queries: Sequence[Query]) -> list[Label]:
        self.met += queries
        if len(self.met) > self.life:
            raise KeyboardInterrupt
        return [Ranking((0, 1)) for _ in queries]


def test_what_was_answered_before_a_kill_is_not_asked_again(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "f.db") as store:
        ids = store.add(pairs(10))
        with pytest.raises(KeyboardInterrupt):
            label(store, ids, Mortal(life=6), "t", chunk=3)
        again = Mortal(life=100)
        label(store, ids, again, "t", chunk=3)
        assert len(again.met) == 4
        assert len(store.feedback()) == 10


def test_a_teacher_who_is_resumed_makes_the_same_mistakes(tmp_path: Path) -> None:
    queries = pairs(20)
    texts = [s for query in queries for s in query.segments if isinstance(s, TextSegment)]
    truth = {(s.prompt, s.completion): float(s.completion == "good") for s in texts}

    def teach(name: str, known: int) -> list[Label]:
        with FeedbackStore(tmp_path / name) as store:
            ids = store.add(queries)
            given = teacher("stochastic", truth, seed=1).label(queries)
            for number, answer in list(zip(ids, given, strict=True))[:known]:
                store.answer(number, "stochastic", answer)
            label(store, ids, teacher("stochastic", truth, seed=1), "t", chunk=None)
            return [one.label for one in store.feedback()]

    whole = teach("whole.db", known=0)
    assert teach("resumed.db", known=7) == whole
    assert len(whole) == 20
    assert {answer.order for answer in whole if isinstance(answer, Ranking)} == {(0, 1), (1, 0)}


def test_waiting_ends_with_the_last_answer(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "f.db") as store:
        ids = store.add(pairs(2), overlap=2)
        seen: list[Waiting] = []

        def answer(waiting: Waiting) -> None:
            """People answer between two looks."""
            seen.append(waiting)
            for rater in ("anna", "bela")[: len(seen)]:
                while (shown := store.next(rater)) is not None:
                    store.answer(shown.id, rater, Ranking((0, 1)))

        wait(store, ids, 1, overlap=2, poll=0.01, patient=True, watch=answer)
        assert [one.answered for one in seen] == [0, 0, 2]
        assert progress(store, ids, 1, 2) == Waiting(1, 2, 2, 4)


def generation(prompt: str, completion: str) -> Generation:
    return Generation(0, prompt, completion, [1], 0.0, 0.0, {}, None, None, True)


def test_equal_responses_and_known_pairs_are_not_offered() -> None:
    written = [("p", "a"), ("p", "a"), ("q", "a"), ("q", "b"), ("r", "a"), ("r", "b")]
    sampled = Sampled([generation(*one) for one in written], [0] * 6)
    known = {frozenset({TextSegment("q", "b"), TextSegment("q", "a")})}
    assert [query.segments[0] for query in candidates(sampled, 2, known)] == [TextSegment("r", "a")]


def test_the_disputed_pairs_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlhf_gym.pipelines import rlhf_queries

    margins = {"x": torch.tensor([9.0, 3.0, 0.0]), "y": torch.tensor([9.0, -3.0, 0.0])}
    monkeypatch.setattr(rlhf_queries, "pair_margins", lambda path, _: margins[path.name])
    queries, members = pairs(3), [Path("x"), Path("y")]
    assert select(queries, members, "disagreement", 1, 0) == [queries[1]]
    # by entropy of the mean, pairs 1 and 2 are both at 0.5, pair 0 is certain
    assert queries[0] not in select(queries, members, "entropy", 2, 0)
    assert len(select(queries, [], "disagreement", 5, 0)) == 3


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"labels": 0}, "labels"),
        ({"asking": 0}, "asking"),
        ({"labeler": "nobody"}, "labeler"),
        ({"selection": "kcenter"}, "selection"),
        ({"selection": "luck"}, "selection"),
        ({"members": 1}, "members"),
        ({"noise": "some"}, "noise"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{field}="):
        config(tmp_path, **changes)


def test_tasks_of_acting_have_a_loop_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="reward preferences"):
        RLHFLoop(config(tmp_path, environment=EnvironmentConfig(env="rlhf_gym/Pizza-v0")))
