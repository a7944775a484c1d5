"""A canvas for small, smooth pictures: drawn large, then scaled down.

Pillow draws shapes without antialiasing; at three times the size, averaged, their edges are smooth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int] | tuple[int, int, int, int]
"""Red, green, blue and, if it shall be translucent, opacity; each from 0 to 255."""
Point = tuple[float, float]

SUPERSAMPLING = 3

INK: Colour = (58, 48, 42)
PAPER: Colour = (250, 246, 238)
FAINT: Colour = (225, 216, 202)
GOOD: Colour = (96, 153, 96)
BAD: Colour = (196, 84, 68)
GOLD: Colour = (214, 164, 54)
BLUE: Colour = (88, 128, 172)


class Canvas:
    """A picture in the making; coordinates are pixels of the result, from the upper left corner.

    Args:
        width: pixels.
        height: pixels.
        background: its colour.
    """

    def __init__(self, width: int, height: int, background: Colour = PAPER) -> None:
        size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self._image = Image.new("RGB", size, background)
        self._draw = ImageDraw.Draw(self._image, "RGBA")  # blends translucent colours
        self._size = (width, height)

    def circle(
        self,
        centre: Point,
        radius: float,
        fill: Colour | None = None,
        outline: Colour | None = None,
        width: float = 1.0,
    ) -> None:
        """A disc, a ring, or both."""
        self.ellipse(centre, (radius, radius), fill, outline, width)

    def ellipse(
        self,
        centre: Point,
        radii: Point,
        fill: Colour | None = None,
        outline: Colour | None = None,
        width: float = 1.0,
    ) -> None:
        """An ellipse with horizontal and vertical axes."""
        (x, y), (a, b) = centre, radii
        box = _large((x - a, y - b, x + a, y + b))
        self._draw.ellipse(box, fill=fill, outline=outline, width=_stroke(width))

    def rectangle(
        self,
        corner: Point,
        size: Point,
        fill: Colour | None = None,
        outline: Colour | None = None,
        width: float = 1.0,
        rounding: float = 0.0,
    ) -> None:
        """A rectangle from its upper left corner, its corners rounded to a radius."""
        (x, y), (w, h) = corner, size
        self._draw.rounded_rectangle(
            _large((x, y, x + w, y + h)),
            radius=rounding * SUPERSAMPLING,
            fill=fill,
            outline=outline,
            width=_stroke(width),
        )

    def polygon(
        self,
        points: Sequence[Point],
        fill: Colour | None = None,
        outline: Colour | None = None,
        width: float = 1.0,
    ) -> None:
        """A closed shape."""
        corners = _large([coordinate for point in points for coordinate in point])
        self._draw.polygon(corners, fill=fill, outline=outline, width=_stroke(width))

    def line(self, points: Sequence[Point], fill: Colour, width: float = 1.0) -> None:
        """A line through points, its bends and ends rounded."""
        corners = _large([coordinate for point in points for coordinate in point])
        self._draw.line(corners, fill=fill, width=_stroke(width), joint="curve")
        if width >= 2 and len(fill) == 3:  # translucent ends would show twice
            for point in (points[0], points[-1]):
                self.circle(point, width / 2, fill)

    def text(
        self,
        position: Point,
        text: str,
        fill: Colour = INK,
        size: float = 12.0,
        anchor: str = "la",
    ) -> None:
        """A line of text; `anchor` as Pillow's: "la" upper left, "mm" middle, "ra" upper right."""
        x, y = _large(position)
        self._draw.text((x, y), text, fill=fill, font=_font(size), anchor=anchor)

    def bar(
        self,
        corner: Point,
        size: Point,
        share: float,
        fill: Colour,
        mark: tuple[float, float] | None = None,
    ) -> None:
        """A horizontal gauge, `share` of it filled; `mark` shades a range of shares."""
        (x, y), (w, h) = corner, size
        self.rectangle(corner, size, FAINT, rounding=h / 2)
        if mark is not None:
            low, high = mark
            shade = (GOOD[0], GOOD[1], GOOD[2], 90)
            self.rectangle((x + w * low, y), (w * (high - low), h), shade, rounding=h / 2)
        filled = w * min(max(share, 0.0), 1.0)
        if filled >= h:  # less than a round end cannot be drawn
            self.rectangle(corner, (filled, h), fill, rounding=h / 2)
        elif filled > 0:
            self.circle((x + h / 2, y + h / 2), h / 2 * filled / h, fill)

    def pixels(self) -> NDArray[np.uint8]:
        """The picture, shape (height, width, 3)."""
        return np.asarray(self._image.resize(self._size, Image.Resampling.BOX), dtype=np.uint8)


def blend(start: Colour, end: Colour, share: float) -> Colour:
    """A colour `share` of the way from one to another; opaque."""
    share = min(max(share, 0.0), 1.0)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(start[:3], end[:3], strict=True))
    return red, green, blue


def _large(coordinates: Sequence[float]) -> list[float]:
    return [coordinate * SUPERSAMPLING for coordinate in coordinates]


def _stroke(width: float) -> int:
    return max(1, round(width * SUPERSAMPLING))


@lru_cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * SUPERSAMPLING)
