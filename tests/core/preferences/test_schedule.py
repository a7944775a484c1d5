import math

import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences import LabelSchedule


@pytest.mark.parametrize("rate", ["uniform", "hyperbolic", "decreasing", "increasing"])
def test_all_labels_are_asked_for_and_no_more(rate: str) -> None:
    schedule = LabelSchedule(total=700, rate=rate)  # type: ignore[arg-type]
    due = [schedule.due(step / 1000) for step in range(1001)]
    assert due[0] == 175  # a quarter
    assert due[800] == due[1000] == 700  # until = 0.8
    assert due == sorted(due)
    assert schedule.due(-1.0) == 175
    assert schedule.due(2.0) == 700


def test_rates_by_hand() -> None:
    def half_way(rate: str) -> int:
        return LabelSchedule(1000, 0.0, rate, until=1.0).due(0.5)  # type: ignore[arg-type]

    assert half_way("uniform") == 500
    assert half_way("decreasing") == 750  # 2 * 0.5 - 0.25
    assert half_way("increasing") == 416  # (1 + 0.25) / 3 = 0.41667
    # log(1 + 0.5 / 0.25) / log(1 + 1 / 0.25) = log 3 / log 5 = 0.6826
    assert half_way("hyperbolic") == int(1000 * math.log(3) / math.log(5)) == 682


def test_one_label_is_one_label() -> None:
    assert LabelSchedule(total=1, initial=0.0).due(0.0) == 1


@pytest.mark.parametrize(
    "wrong", [{"total": 0}, {"initial": 1.5}, {"rate": "log"}, {"half": 0.0}, {"until": 0.0}]
)
def test_mistakes_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        LabelSchedule(**wrong)  # type: ignore[arg-type]
