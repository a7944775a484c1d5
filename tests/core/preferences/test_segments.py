import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.preferences import Encoding, SegmentReplay


def counting_replay(steps: int, slots: int = 100, episode: int = 5) -> SegmentReplay:
    """One row; observation and gold are the number of the step since the beginning."""
    encoding = Encoding(Box(0, 1000, (1,)), Discrete(2))
    replay = SegmentReplay(encoding, 1, slots)
    for step in range(steps):
        replay.add(
            [[step]], [step % 2], np.array([float(step)]), np.array([(step + 1) % episode == 0])
        )
    return replay


def test_segments_are_consecutive_and_within_an_episode() -> None:
    segments = counting_replay(50).sample_up_to(1000, 3, np.random.default_rng(0))
    # 10 episodes of 5 steps hold 3 segments of 3 steps each.
    assert len(segments.gold) == 30
    assert (np.diff(segments.gold, axis=1) == 1).all()
    first, last = segments.gold[:, 0] // 5, segments.gold[:, -1] // 5
    assert (first == last).all()
    assert (segments.observations[..., 0] == segments.gold).all()
    assert (segments.actions == segments.gold % 2).all()


def test_what_was_overwritten_is_in_no_segment() -> None:
    # 12 slots hold the steps 18 to 29: of the episode 15 to 19 the steps 18 and 19, which is no
    # segment of 3, then two whole episodes of 3 segments each.
    segments = counting_replay(30, slots=12).sample_up_to(1000, 3, np.random.default_rng(0))
    assert sorted(segments.gold[:, 0].tolist()) == [20, 21, 22, 25, 26, 27]


def test_no_segment_crosses_a_reset() -> None:
    replay = counting_replay(3)
    replay.interrupt()
    replay.add([[3]], [0], np.array([3.0]), np.array([False]))
    segments = replay.sample_up_to(1000, 2, np.random.default_rng(0))
    assert sorted(segments.gold[:, 0].tolist()) == [0, 1]


def test_pairs_are_distinct_and_all_can_be_drawn() -> None:
    replay = counting_replay(10)  # 2 episodes with 3 segments of 3 steps: 6 * 5 / 2 = 15 pairs
    assert replay.pairs(3) == 15
    pairs = replay.sample_pairs(15, 3, np.random.default_rng(0)).gold[:, 0].reshape(15, 2)
    assert len({frozenset(pair) for pair in pairs.tolist()}) == 15
    assert all(len(set(pair)) == 2 for pair in pairs.tolist())
    # Neither side is always the older one.
    assert 0 < (pairs[:, 0] < pairs[:, 1]).sum() < 15


def test_more_labels_than_pairs() -> None:
    with pytest.raises(InvalidArgument, match=r"labels=16.*6 segments of 3 steps make 15 pairs"):
        counting_replay(10).sample_pairs(16, 3, np.random.default_rng(0))


@pytest.mark.parametrize("length", [6, 60])
def test_segments_longer_than_episodes(length: int) -> None:
    with pytest.raises(InvalidArgument, match=r"segment_length.*longest episode has 5"):
        counting_replay(20).sample_pairs(1, length, np.random.default_rng(0))


def test_nothing_recorded() -> None:
    with pytest.raises(InvalidArgument, match="segment_length"):
        counting_replay(0).pairs(1)
    with pytest.raises(InvalidData, match="nothing was recorded"):
        counting_replay(0).recent(10)
    with pytest.raises(InvalidArgument, match="capacity"):
        SegmentReplay(counting_replay(0).encoding, 4, 3)
    with pytest.raises(InvalidArgument, match="no steps"):
        counting_replay(5).pairs(0)


def test_nan_is_refused_and_nothing_kept() -> None:
    replay = counting_replay(5)
    for seen, gold in ((np.nan, 0.0), (0.0, np.inf)):
        with pytest.raises(InvalidData, match="not finite"):
            replay.add([[seen]], [0], np.array([gold]), np.array([False]))
    assert len(replay) == 5


def test_recent_are_the_last() -> None:
    observations, actions = counting_replay(30, slots=12).recent(4)
    assert observations[:, 0].tolist() == [26, 27, 28, 29]
    assert actions.tolist() == [0, 1, 0, 1]


def test_frames_come_with_their_steps() -> None:
    encoding = Encoding(Box(0, 1000, (1,)), Discrete(2))
    replay = SegmentReplay(encoding, 1, 10)
    for step in range(5):
        frame = np.full((1, 2, 2, 3), step, np.uint8)
        replay.add([[step]], [0], np.array([0.0]), np.array([False]), frame)
    segment = replay.sample_up_to(1, 5, np.random.default_rng(0)).segment(0)
    assert segment.frames is not None
    assert segment.frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_state_gives_the_same_draws() -> None:
    replay = counting_replay(33, slots=12)
    other = counting_replay(0, slots=12)
    other.load_state_dict(replay.state_dict())
    for one in (replay, other):
        one.add([[33]], [0], np.array([33.0]), np.array([False]))
    drawn = [one.sample_pairs(5, 2, np.random.default_rng(3)).gold for one in (replay, other)]
    assert (drawn[0] == drawn[1]).all()
