import numpy as np
import pytest

from rlhf_gym.core.errors import InvalidData
from rlhf_gym.core.feedback import ControlSegment, Query, TextSegment
from rlhf_gym.core.labels import Best, Label, Ranking, Skip, Thumb
from rlhf_gym.core.preferences import Comparisons, Encoding


def segment(value: float, steps: int = 2) -> ControlSegment:
    return ControlSegment(np.full((steps, 2), value, np.float32), np.zeros(steps, np.int64))


def query(count: int) -> Query:
    return Query(tuple(segment(float(number)) for number in range(count)))


def best(count: int) -> Query:
    return Query(query(count).segments, question="best")


def test_answers_as_rows(encoding: Encoding) -> None:
    data = Comparisons(encoding, 3)
    data.add(
        [
            (query(2), Ranking((1, 0))),  # segments 0, 1
            (query(2), Ranking((0, 1), tie=True)),  # 2, 3
            (query(2), Skip()),
            (query(3), Ranking((2, 0, 1))),  # 4, 5, 6
            (best(3), Best(1)),  # 7, 8, 9
            (query(3), Ranking((0, 1, 2), tie=True)),  # 10, 11, 12
        ]
    )
    rows = [[1, 0, -1], [2, 3, -1], [6, 4, 5], [8, 7, -1], [8, 9, -1]]
    assert data.items.tolist() == [*rows, [10, 11, -1], [10, 12, -1], [11, 12, -1]]
    assert data.preference.tolist() == [1.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    assert data.skipped == 1
    assert data.observations.shape == (13, 2, 2)
    assert data.actions.shape == (13, 2)
    # One answer, one draw: a member that sees one pair of "the best of three" sees the other too.
    assert (data.weights[:, 3] == data.weights[:, 4]).all()
    assert (data.weights[:, 5] == data.weights[:, 7]).all()


def test_a_share_of_one_in_e_is_held_out(encoding: Encoding) -> None:
    data = Comparisons(encoding, 4, seed=0)
    data.add((query(2), Ranking((0, 1))) for _ in range(2000))
    # 8000 draws: deviation of the share sqrt(0.368 * 0.632 / 8000) = 0.0054
    assert float((data.weights == 0).float().mean()) == pytest.approx(np.exp(-1), abs=0.02)
    assert float(data.weights.mean()) == pytest.approx(1.0, abs=0.04)


def test_weights_do_not_depend_on_the_rounds(encoding: Encoding) -> None:
    answers: list[tuple[Query, Label]] = [(query(2), Ranking((0, 1))) for _ in range(10)]
    answers.insert(4, (query(2), Skip()))
    whole, parts = Comparisons(encoding, 3, seed=7), Comparisons(encoding, 3, seed=7)
    whole.add(answers)
    parts.add(answers[:5])
    parts.add(answers[5:])
    assert (whole.weights == parts.weights).all()


def test_answers_that_cannot_be_used(encoding: Encoding) -> None:
    data = Comparisons(encoding, 2)
    data.add([(query(2), Ranking((0, 1)))])
    nan = Query((segment(np.nan), segment(0.0)))
    longer = Query((segment(0.0, 3), segment(1.0, 3)))
    text = Query((TextSegment("a", "b"), TextSegment("a", "c")))
    thumb = Query((segment(0.0),), question="thumb")
    wide = ControlSegment(np.zeros((2, 5), np.float32), np.zeros(2, np.int64))
    for question, answer, problem in (
        (nan, Ranking((0, 1)), "not finite"),
        (longer, Ranking((0, 1)), "one length"),
        (Query((wide, wide)), Ranking((0, 1)), "one environment"),
        (text, Ranking((0, 1)), "text"),
        (thumb, Thumb(True), "compares nothing"),
        (query(2), Ranking((0, 1, 2)), "not an order"),
    ):
        with pytest.raises(InvalidData, match=problem):
            data.add([(question, answer)])
    assert len(data) == 1
