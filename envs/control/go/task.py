"""`rlhf_gym/Go-v0`: small-board Go, won by area, taught by shape."""

from __future__ import annotations

from typing import Any, ClassVar

from gymnasium.vector import AutoresetMode

from rlhf_gym.envs.control.base import ControlEnv, ControlVectorEnv
from rlhf_gym.envs.control.go.rules import Colour, GoDynamics, GoState, IllegalMove
from rlhf_gym.envs.control.go.shape import ShapeTaste


class GoVectorEnv(ControlVectorEnv[GoState]):
    """Go on 5x5 or 7x7 points against a scripted opponent.

    ## Description
    A step is the agent's move and the opponent's answer. Stones without liberties are captured,
    suicide is forbidden, and so is every move that would bring an earlier position of the whole
    board back (positional superko, so ko too). Two passes in a row end the game; the area counts:
    stones on the board and empty points that reach stones of one colour only. Nobody removes dead
    stones, they are to be captured; in a seki each side has its stones, and what both reach is
    neutral.

    Whether the game is won is easy to measure. Whether it was played well is what a teacher sees.

    ## Action Space
    `Discrete(size * size + 1)`: point `row * size + column`, row 0 at the top; the last is a pass.
    `action_masks()`, as MaskablePPO of sb3-contrib reads it, says what is legal.

    ## Observation Space
    `Box(0, 1, (4 * size * size + 3,), float32)`. Four planes, of size x size each once reshaped:
    the agent's stones, the opponent's, the points the agent may play (all that earlier positions
    decide, by superko, is among these), stones of groups in atari. Then: the agent is White, the
    opponent has just passed, share of the move limit that is used up.

    ## Starting State
    An empty board. If the agent is White, the opponent has made the first move.

    ## Rewards
    1 for a win, -1 for a loss, 0 for a draw (komi permitting), in the last step; else 0.
    `info["gold_reward"]`, the teacher's, is that and 0.1 times an opinion of each move
    (`ShapeTaste`): self-atari, filling an own eye and empty triangles are bad, joining groups and
    gaining liberties are good.

    ## Episode End
    Terminated by two passes in a row, by the move limit (the board counts as it stands; the limit
    is a rule of the game, seen in the observation) and, unless `illegal_move="pass"`, by an illegal
    move, which loses.

    ## Information
    `gold_reward`; `shape`, the teacher's opinion of the move; `illegal_move`, it was one; at the
    end `lead`, the agent's area less the opponent's with komi counted, in points.

    ## Arguments
    Args:
        num_envs: rows.
        size: 5 or 7.
        opponent: all of them play on while they have a sensible move, leave their own eyes alone,
            and answer a pass by a pass if that wins. "random": anywhere. "capturer": captures,
            saves its own, keeps out of atari, else random. "shape": weighs liberties, threats,
            ground and shape too.
        komi: points for White, who moves second; an integer makes draws possible.
        colour: the agent's: "black", "white", or "random" in each game.
        illegal_move: "lose" the game by it, or let it count as a "pass".
        max_plies: moves of both players; 3 per point by default.
        taste: what the teacher thinks.
        autoreset_mode: see Gymnasium.
        render_mode: "rgb_array", "ansi" or None.

    ## References
    Tromp and Taylor, "The Game of Go" (https://tromp.github.io/go.html), the rules, with suicide
    forbidden. Silver et al., "Mastering the game of Go without human knowledge" (Nature, 2017):
    planes, area scoring and self-play at full size; here the opponent is a script. Van der Werf,
    van den Herik and Uiterwijk, "Solving Go on Small Boards" (ICGA Journal, 2003): on 5x5 Black
    wins by 25 points.

    ## Version History
    v0: first.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        size: int = 5,
        opponent: str = "random",
        komi: float = 0.5,
        colour: Colour = "black",
        illegal_move: IllegalMove = "lose",
        max_plies: int | None = None,
        taste: ShapeTaste | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        dynamics = GoDynamics(
            size=size, opponent=opponent, komi=komi, colour=colour,
            illegal_move=illegal_move, max_plies=max_plies, taste=taste,
        )  # fmt: skip
        super().__init__(
            dynamics, num_envs=num_envs, autoreset_mode=autoreset_mode, render_mode=render_mode
        )


class GoEnv(ControlEnv):
    """`GoVectorEnv` with one row; its page describes the task.

    Args:
        **kwargs: as `GoVectorEnv`, without `num_envs` and `autoreset_mode`.
    """

    vector_class: ClassVar[Any] = GoVectorEnv
