"""Ensembles on three members' scores worked out by hand."""

import pytest
import torch

from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
from rlhf_gym.rewards import EnsembleReward, RunningNormalised


def member(*scores):
    return lambda prompts, responses: list(scores)


# On the first response all agree on 1; on the second they say 0, 3 and 6.
MEMBERS = [member(1.0, 0.0), member(1.0, 3.0), member(1.0, 6.0)]


@pytest.mark.parametrize(
    ("options", "second"),
    [
        ({}, 3.0),
        ({"combine": "minimum"}, 0.0),
        # variance (9 + 0 + 9) / 3 = 6
        ({"combine": "deviations", "k": 0.5}, 3 - 0.5 * 6**0.5),
        ({"combine": "variance", "k": 0.5}, 0.0),
        ({"combine": "deviations", "k": 0}, 3.0),
    ],
)
def test_combinations(write, options, second):
    episodes = write("a <stop>", "b <stop>")
    scores = EnsembleReward(MEMBERS, **options).scores(episodes)
    torch.testing.assert_close(scores, torch.tensor([1.0, second]))


def test_members_keep_their_state(write):
    def make():
        return EnsembleReward([RunningNormalised(MEMBERS[0]), MEMBERS[1]])

    episodes = write("a <stop>", "b <stop>")
    first, again = make(), make()
    first.scores(episodes)
    again.load_state_dict(first.state_dict())
    assert torch.equal(first.scores(episodes), again.scores(episodes))
    with pytest.raises(InvalidCheckpoint, match="2 members"):
        again.load_state_dict({"0": {}})


@pytest.mark.parametrize(
    ("members", "options", "field"),
    [
        (MEMBERS[:1], {}, "members"),
        (MEMBERS, {"combine": "median"}, "combine"),
        (MEMBERS, {"k": -1}, "k"),
    ],
)
def test_arguments(members, options, field):
    with pytest.raises(InvalidArgument, match=field):
        EnsembleReward(members, **options)
