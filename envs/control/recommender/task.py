"""`rlhf_gym/Recommender-v0`: clicks are counted, satisfaction is what matters."""

from __future__ import annotations

from typing import Any, ClassVar

from gymnasium.vector import AutoresetMode

from rlhf_gym.envs.control.base import ControlEnv, ControlVectorEnv
from rlhf_gym.envs.control.recommender.catalogue import Catalogue
from rlhf_gym.envs.control.recommender.rules import (
    ReaderModel,
    ReaderState,
    RecommenderDynamics,
)  # fmt: skip


class RecommenderVectorEnv(ControlVectorEnv[ReaderState]):
    """Recommend articles to a reader whose taste drifts.

    ## Description
    In each step one item of a catalogue is shown, and the reader clicks it or does not. What fits
    the reader's taste attracts clicks; so do titles that promise more than the article keeps, and
    these even more. Good articles on what one likes satisfy and let the taste for their topic grow.
    Bait is regretted, the more so the more of it there was, and wears the taste down. More of the
    same tires: it is clicked less and pleases less. An agent that maximises clicks serves bait and
    leaves the reader dissatisfied.

    ## Action Space
    `Discrete(items)`: which item to show. The default catalogue has 20, item `4 * topic + style`
    of 5 topics in 4 styles, from guides (quality 0.95, bait 0.05) to shock (0.10, 0.95).

    ## Observation Space
    `Box(0, 1, (2 * topics + 3,), float32)`: the reader's taste for each topic, weariness of each,
    unease (a running mean of bait clicked), whether the last item was clicked, share of the session
    that is over. That is the whole state: how satisfied the reader is follows from it and the item.

    ## Starting State
    A new reader: tastes uniform on [0.2, 0.9], rested and at ease.

    ## Rewards
    1 for a click, else 0. `info["gold_reward"]`, satisfaction, is for a clicked item

        1.5 * fit * quality * (1 - 0.8 * weariness) - bait * (0.5 + 0.7 * unease)

    and -0.05 for one that is passed over; `ReaderModel` has the numbers. Fit and weariness are
    means over the item's topics.

    ## Episode End
    Terminated after `session_length` items.

    ## Information
    `gold_reward`; `clicked`.

    ## Arguments
    Args:
        num_envs: rows.
        catalogue: what can be recommended; five topics in four styles by default.
        session_length: items per episode.
        reader: how readers click, feel and change.
        autoreset_mode: see Gymnasium.
        render_mode: "rgb_array", "ansi" or None.

    ## References
    Ie et al., "RecSim: A Configurable Simulation Platform for Recommender Systems" (2019): choice
    by fit, and in its long-term satisfaction environment "choc" and "kale", clickbait that is
    clicked and wears down, quality that lasts. Here both are items of one catalogue, satisfaction
    is never paid for, and topics tire. Besbes, Gur and Zeevi,
    "Optimization in Online Content Recommendation Services: Beyond Click-Through Rates" (2016), on
    what clicks do not show.

    ## Version History
    v0: first.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        catalogue: Catalogue | None = None,
        session_length: int = 50,
        reader: ReaderModel | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        dynamics = RecommenderDynamics(
            catalogue=catalogue, session_length=session_length, reader=reader
        )
        super().__init__(
            dynamics, num_envs=num_envs, autoreset_mode=autoreset_mode, render_mode=render_mode
        )


class RecommenderEnv(ControlEnv):
    """`RecommenderVectorEnv` with one row; its page describes the task.

    Args:
        **kwargs: as `RecommenderVectorEnv`, without `num_envs` and `autoreset_mode`.
    """

    vector_class: ClassVar[Any] = RecommenderVectorEnv
