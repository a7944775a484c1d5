import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences import Encoding


def test_discrete_actions_are_one_hot_and_count_from_their_start() -> None:
    encoding = Encoding(Box(0, 1, (2,)), Discrete(3, start=5))
    _, actions = encoding.tensors(np.zeros((2, 2), np.float32), encoding.actions([5, 7]))
    assert actions.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_several_discrete_actions_are_one_hot_side_by_side() -> None:
    encoding = Encoding(Box(0, 1, (2,)), MultiDiscrete([2, 3]))
    _, actions = encoding.tensors(np.zeros((1, 2), np.float32), encoding.actions([[1, 2]]))
    # Columns 0 and 1 for the first, 2 to 4 for the second.
    assert actions.tolist() == [[0, 1, 0, 0, 1]]


def test_dictionaries_are_joined() -> None:
    space = Dict(place=Box(-1, 1, (2,)), flags=MultiBinary(2), level=Discrete(2))
    encoding = Encoding(space, Discrete(2))
    batch = {
        "place": np.array([[0.5, -0.5]]),
        "flags": np.array([[1, 0]]),
        "level": np.array([1]),
    }
    # In the order of the space; level 1 of two is (0, 1).
    assert encoding.observations(batch).tolist() == [[0.5, -0.5, 1, 0, 0, 1]]
    assert encoding.observation_features == 6


@pytest.mark.parametrize("shape", [(8, 10, 3), (3, 8, 10)])
def test_images_are_kept_as_they_are_and_shown_with_channels_first(shape: tuple[int, ...]) -> None:
    encoding = Encoding(Box(0, 255, shape, np.uint8), Box(-1, 1, (2,)))
    images = encoding.observations(np.full((4, *shape), 255, np.uint8))
    assert images.dtype == np.uint8
    shown, _ = encoding.tensors(images, np.zeros((4, 2), np.float32))
    assert shown.shape == (4, 3, 8, 10)
    assert float(shown.max()) == 1.0


def test_spaces_that_no_network_reads_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="observation_space"):
        Encoding(Sequence(Box(0, 1, (2,))), Discrete(2))
    with pytest.raises(InvalidArgument, match="action_space"):
        Encoding(Box(0, 1, (2,)), Dict(a=Discrete(2)))
