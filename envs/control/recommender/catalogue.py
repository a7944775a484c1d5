"""What can be recommended: items with topics, quality and bait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items.

    Args:
        titles: one per item.
        topic_names: one per topic.
        topics: how much of each topic an item is, rows of shares that sum to 1; shape (items,
            topics).
        quality: what reading it is worth to someone who likes its topics, 0 to 1, shape (items,).
        bait: how much its title promises beyond that, 0 to 1, shape (items,).

    Raises:
        InvalidArgument: arrays that do not belong together or are out of range.
    """

    titles: Sequence[str]
    topic_names: Sequence[str]
    topics: FloatArray
    quality: FloatArray
    bait: FloatArray

    def __post_init__(self) -> None:
        items, topics = len(self.titles), len(self.topic_names)
        shapes = {"topics": (items, topics), "quality": (items,), "bait": (items,)}
        for field, shape in shapes.items():
            array = np.ascontiguousarray(getattr(self, field), dtype=np.float64)
            if items < 2 or topics < 1 or array.shape != shape:
                problem = f"shape {array.shape}, with {items} titles and {topics} topic names"
                raise InvalidArgument(field, array, problem, f"Give shape {shape}, 2 items or more")
            if not ((array >= 0) & (array <= 1)).all():
                raise InvalidArgument(field, array, "not all from 0 to 1", "Scale it")
            object.__setattr__(self, field, array)
        if not np.allclose(self.topics.sum(axis=1), 1):
            problem = "an item's shares do not sum to 1"
            raise InvalidArgument("topics", self.topics, problem, "Divide by the sums")

    def __len__(self) -> int:
        return len(self.titles)


TOPICS = ("space", "music", "sport", "food", "travel")
STYLES = ("guide", "story", "list", "shock")
"""From what takes long to what shouts."""
QUALITY = (0.95, 0.85, 0.40, 0.10)
BAIT = (0.05, 0.20, 0.65, 0.95)
TITLES = (
    "How a telescope sees the past", "A night at the observatory",
    "9 planets you must see", "They HID this about Mars!!",
    "Harmony, from the beginning", "The last piano maker",
    "12 songs nobody skips", "Her voice BROKE the internet",
    "Running without injuries", "The goalkeeper who read Kant",
    "7 goals that broke physics", "Coach EXPLODES, see why!!",
    "Bread in four ingredients", "My grandmother's harbour kitchen",
    "10 snacks under 5 minutes", "NEVER eat this again!!",
    "Crossing the Alps on foot", "The lighthouse at the end",
    "8 beaches before they vanish", "Pilots won't TELL you this",
)  # fmt: skip
"""The styles of the first topic, of the second, and so on."""
MAIN_SHARE = 0.8
"""Of an item's own topic; the rest belongs to the next one."""


def default_catalogue() -> Catalogue:
    """Twenty items: each of five topics in four styles."""
    own = np.eye(len(TOPICS))
    mixed = MAIN_SHARE * own + (1 - MAIN_SHARE) * np.roll(own, 1, axis=1)
    return Catalogue(
        titles=TITLES,
        topic_names=TOPICS,
        topics=np.repeat(mixed, len(STYLES), axis=0),
        quality=np.tile(QUALITY, len(TOPICS)),
        bait=np.tile(BAIT, len(TOPICS)),
    )
