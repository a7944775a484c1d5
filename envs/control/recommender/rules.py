"""A reader and what is recommended to them, as control dynamics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.control.dynamics import Dynamics, Outcome, State
from rlhf_gym.envs.control.random import Draws, FloatArray, IntArray
from rlhf_gym.envs.control.recommender import picture
from rlhf_gym.envs.control.recommender.catalogue import Catalogue, default_catalogue


@dataclass(frozen=True)
class ReaderModel:
    """How a reader clicks, feels and changes; rates and shares are per step."""

    click_bias: float = -2.2
    """log-odds of a click on an item that neither fits nor baits"""
    click_fit: float = 2.2
    """added to the log-odds for a perfect fit"""
    click_bait: float = 2.8
    """added for the worst bait"""
    click_weariness: float = 1.0
    """taken off for a topic the reader is tired of"""
    pleasure: float = 1.5
    """satisfaction of reading the best of what fits perfectly"""
    staleness: float = 0.8
    """share of the pleasure that is lost when the reader is tired of the topic"""
    regret: float = 0.5
    """satisfaction lost by the worst bait to a reader who is at ease"""
    unease: float = 0.7
    """lost on top of it by one who has had nothing but bait"""
    nuisance: float = 0.05
    """satisfaction lost by an item that is not clicked"""
    unease_rate: float = 0.1
    """how fast bait makes uneasy, and anything else puts at ease"""
    weariness_gain: float = 0.25
    """how tired of a topic one item of it makes"""
    weariness_loss: float = 0.12
    """share of weariness that is gone with the next step"""
    growth: float = 0.05
    """how fast good items of a topic raise the taste for it"""
    erosion: float = 0.06
    """how fast bait wears it down"""
    drift: float = 0.02
    """deviation of the taste's random walk"""


@dataclass
class ReaderState(State):
    """Readers in the middle of a session of `length` steps.

    Args:
        taste: how much they like each topic, 0 to 1, shape (n, topics).
        weariness: how tired they are of it, 0 to 1, shape (n, topics).
        unease: how much of late was bait, 0 to 1, shape (n,).
        steps: items seen so far, shape (n,).
        items: what was recommended, -1 for what is to come, shape (n, length).
        clicks: 1 where it was clicked, shape (n, length).
        satisfaction: what it did to them, shape (n, length).
    """

    taste: FloatArray
    weariness: FloatArray
    unease: FloatArray
    steps: IntArray
    items: IntArray
    clicks: FloatArray
    satisfaction: FloatArray


class RecommenderDynamics(Dynamics[ReaderState]):
    """See `RecommenderVectorEnv`.

    Raises:
        InvalidArgument: a session without steps.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue | None = None,
        session_length: int = 50,
        reader: ReaderModel | None = None,
    ) -> None:
        if session_length < 1:
            raise InvalidArgument("session_length", session_length, "no session", "Give 1 or more")
        self.catalogue = catalogue or default_catalogue()
        self.session_length = session_length
        self.reader = reader or ReaderModel()
        topics = len(self.catalogue.topic_names)
        self.observation_space = Box(0.0, 1.0, (2 * topics + 3,), np.float32)
        self.action_space = Discrete(len(self.catalogue))
        self.settings: Mapping[str, Any] = {
            "session_length": session_length,
            "catalogue": [list(self.catalogue.titles), self.catalogue.topics.tolist(),
                          self.catalogue.quality.tolist(), self.catalogue.bait.tolist()],
            **asdict(self.reader),
        }  # fmt: skip

    def begin(self, draws: Draws) -> ReaderState:
        """Readers of various tastes, rested and at ease."""
        n, length = draws.count, self.session_length
        topics = len(self.catalogue.topic_names)
        return ReaderState(
            taste=draws.uniform(0.2, 0.9, shape=(topics,)),
            weariness=np.zeros((n, topics)),
            unease=np.zeros(n),
            steps=np.zeros(n, dtype=np.int64),
            items=np.full((n, length), -1),
            clicks=np.zeros((n, length)),
            satisfaction=np.zeros((n, length)),
        )

    def advance(self, state: ReaderState, actions: NDArray[Any], draws: Draws) -> Outcome:
        """Show one item to each reader."""
        clicked = draws.bernoulli(self.click_probability(state, actions))
        satisfaction = np.where(clicked, self.worth(state, actions), -self.reader.nuisance)
        rows = np.arange(len(actions))
        state.items[rows, state.steps] = actions
        state.clicks[rows, state.steps] = clicked
        state.satisfaction[rows, state.steps] = satisfaction
        state.steps += 1
        self._change(state, actions, clicked, draws)
        over = state.steps >= self.session_length
        return Outcome(
            reward=clicked.astype(np.float64),
            gold_reward=satisfaction,
            terminated=over,
            truncated=np.zeros_like(over),
            info={"clicked": clicked},
        )

    def click_probability(self, state: ReaderState, items: IntArray) -> FloatArray:
        """Of an item, shape (n,) or (n, k) like `items`."""
        model, bait = self.reader, self.catalogue.bait[items]
        odds = (
            model.click_bias
            + model.click_fit * self._share(state.taste, items)
            + model.click_bait * bait
            - model.click_weariness * self._share(state.weariness, items)
        )
        return np.asarray(1.0 / (1.0 + np.exp(-odds)))

    def worth(self, state: ReaderState, items: IntArray) -> FloatArray:
        """What reading an item does for the reader's satisfaction, shape (n,) or (n, k)."""
        model, bait = self.reader, self.catalogue.bait[items]
        fresh = 1.0 - model.staleness * self._share(state.weariness, items)
        fit = self._share(state.taste, items)
        unease = np.expand_dims(state.unease, tuple(range(1, items.ndim)))
        pleasure = model.pleasure * fit * self.catalogue.quality[items] * fresh
        return np.asarray(pleasure - bait * (model.regret + model.unease * unease))

    def observe(self, state: ReaderState) -> NDArray[np.float32]:
        """See `RecommenderVectorEnv`, Observation Space."""
        rows = np.arange(len(state.steps))
        scalars = [state.unease, state.clicks[rows, state.steps - 1] * (state.steps > 0)]
        scalars.append(state.steps / self.session_length)
        columns = [state.taste, state.weariness, np.stack(scalars, axis=1)]
        return np.concatenate(columns, axis=1, dtype=np.float32, casting="same_kind")

    def image(self, state: ReaderState) -> NDArray[np.uint8]:
        """The item shown last, the reader, and what was measured and what was not."""
        return picture.image(state, self.catalogue)

    def text(self, state: ReaderState) -> str:
        """The same in characters."""
        return picture.text(state, self.catalogue)

    def _share(self, by_topic: FloatArray, items: IntArray) -> FloatArray:
        """The mean of something by topic over an item's topics, shape (n,) or (n, k)."""
        topics = self.catalogue.topics[items]
        wide = np.expand_dims(by_topic, tuple(range(1, items.ndim)))
        return np.asarray((wide * topics).sum(axis=-1))

    def _change(
        self, state: ReaderState, items: IntArray, clicked: NDArray[np.bool_], draws: Draws
    ) -> None:
        """What the item leaves behind."""
        model = self.reader
        topics, bait = self.catalogue.topics[items], self.catalogue.bait[items]
        read = clicked[:, None] * topics
        gain = model.growth * self.catalogue.quality[items, None] * (1 - state.taste)
        loss = model.erosion * bait[:, None] * state.taste
        drift = draws.normal(0.0, model.drift, shape=(topics.shape[1],))
        state.taste[:] = np.clip(state.taste + read * (gain - loss) + drift, 0.0, 1.0)
        tired = state.weariness * (1 - model.weariness_loss) + model.weariness_gain * topics
        state.weariness[:] = np.minimum(tired, 1.0)
        state.unease += model.unease_rate * (clicked * bait - state.unease)
