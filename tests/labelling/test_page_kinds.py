"""Every kind of label, given with the mouse and with the keyboard alone, is in the store."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rlhf_gym.core.feedback import ControlSegment, Query, TextSegment
from rlhf_gym.core.labels import (
    Accept,
    Best,
    Choice,
    Demonstration,
    Edit,
    Flag,
    Label,
    Likert,
    Ranking,
    Rating,
    Skip,
    Thumb,
)
from rlhf_gym.core.store.transfer import export_feedback
from rlhf_gym.pipelines.labelling.shown import screen_order


def texts(*completions: str, prompt: str = "The film") -> tuple[TextSegment, ...]:
    return tuple(TextSegment(prompt, completion) for completion in completions)


def clip(steps: int, shade: int) -> ControlSegment:
    frames = np.full((steps, 20, 30, 3), shade, np.uint8)
    frames[:, :, :10] += (10 * np.arange(steps, dtype=np.uint8))[:, None, None, None]
    return ControlSegment(np.zeros((steps, 2)), np.zeros((steps, 1)), None, frames)


class Kind(NamedTuple):
    """A query, and how it is answered.

    Attributes:
        query: what is asked.
        keys: with the keyboard alone.
        mouse: with the mouse (and, where a text is written, its keyboard).
        label: what must be stored, given the order on the rater's screen.
    """

    query: Query
    keys: Callable[[Any], None]
    mouse: Callable[[Any], None]
    label: Callable[[list[int]], Label]


def drag_last_to_top(rater: Any) -> None:
    grips = rater.page.locator(".grip")
    start, end = grips.last.bounding_box(), rater.page.locator(".ranking li").first.bounding_box()
    mouse = rater.page.mouse
    mouse.move(start["x"] + 3, start["y"] + start["height"] / 2)
    mouse.down()
    mouse.move(start["x"] + 3, end["y"] + end["height"], steps=4)
    mouse.move(start["x"] + 3, end["y"] + 2, steps=4)
    mouse.up()
    rater.click("Save this order")


def write(rater: Any, label: str, text: str) -> None:
    rater.page.get_by_role("textbox", name=label, exact=True).fill(text)


def type_over(rater: Any, text: str) -> None:
    """The text field has the focus already: nothing but keys is needed."""
    rater.press("Control+a")
    rater.page.keyboard.type(text)
    rater.press("Control+Enter")


def move_slider(rater: Any) -> None:
    rater.page.get_by_role("slider", name="Rating").fill("2.5")
    rater.click("Save")


ONE = texts("is fine.")
KINDS = {
    "the left one": Kind(
        Query(texts("good", "bad")),
        lambda r: r.press("ArrowLeft"),
        lambda r: r.click("1 is better"),
        lambda order: Ranking((order[0], order[1])),
    ),
    "the right one": Kind(
        Query(texts("good", "poor")),
        lambda r: r.press("ArrowRight"),
        lambda r: r.click("2 is better"),
        lambda order: Ranking((order[1], order[0])),
    ),
    "a tie": Kind(
        Query(texts("good", "great")),
        lambda r: r.press("t"),
        lambda r: r.click("Equal"),
        lambda _: Ranking((0, 1), tie=True),
    ),
    "a skip": Kind(
        Query(texts("x", "y")),
        lambda r: r.press("s"),
        lambda r: r.click("Skip"),
        lambda _: Skip(),
    ),
    "a ranking of nine": Kind(
        Query(texts(*"abcdefghi")),
        lambda r: r.press(*"987654321", "Enter"),
        # The ninth has only one place left.
        lambda r: (
            [r.page.locator(f"li[data-number='{n}'] .badge").click() for n in range(9, 1, -1)],
            # Enter saves; it does not press the button that was clicked last once more.
            r.press("Enter"),
        ),
        lambda order: Ranking(tuple(order[::-1])),
    ),
    "a ranking by moving": Kind(
        Query(texts(*"abcd")),
        lambda r: (
            r.page.locator("li[data-number='4']").focus(),
            r.press("Shift+ArrowUp", "Shift+ArrowUp", "Shift+ArrowUp", "Enter"),
        ),
        drag_last_to_top,
        lambda order: Ranking((order[3], order[0], order[1], order[2])),
    ),
    "all equal": Kind(
        Query(texts(*"abcde")),
        lambda r: r.press("t"),
        lambda r: r.click("All equal"),
        lambda _: Ranking((0, 1, 2, 3, 4), tie=True),
    ),
    "best of three": Kind(
        Query(texts("a", "b", "c"), "best"),
        lambda r: r.press("3"),
        lambda r: r.click("Answer 3 is best"),
        lambda order: Best(order[2]),
    ),
    "thumb up": Kind(
        Query(ONE, "thumb"),
        lambda r: r.press("ArrowUp"),
        lambda r: r.click("Good"),
        lambda _: Thumb(up=True),
    ),
    "thumb down": Kind(
        Query(texts("is bad."), "thumb"),
        lambda r: r.press("b"),
        lambda r: r.click("Bad"),
        lambda _: Thumb(up=False),
    ),
    "a level": Kind(
        Query(ONE, "likert", levels=10),
        lambda r: r.press("0"),
        lambda r: r.click("10 of 10"),
        lambda _: Likert(9),
    ),
    "a choice": Kind(
        Query(ONE, "choice", choices=("polite", "<b>rude</b>")),
        lambda r: r.press("2"),
        lambda r: r.click("<b>rude</b>"),
        lambda _: Choice(1),
    ),
    "a rating": Kind(
        Query(ONE, "rating"),
        # Three tenths of 0 to 10, and half a tenth back.
        lambda r: r.press("3", "ArrowLeft", "Enter"),
        move_slider,
        lambda _: Rating(2.5),
    ),
    "an edit": Kind(
        Query(ONE, "edit"),
        lambda r: type_over(r, "is great, really."),
        lambda r: (write(r, "The answer as it should be", "is great, really."), r.click("Save")),
        lambda _: Edit("is great, really."),
    ),
    "an answer": Kind(
        Query(texts(""), "demonstration"),
        lambda r: type_over(r, "was long."),
        lambda r: (write(r, "Your answer", "was long."), r.click("Save")),
        lambda _: Demonstration("was long."),
    ),
    "prompt and answer": Kind(
        Query(texts("", prompt=""), "demonstration"),
        lambda r: (
            r.page.keyboard.type("A prompt"),
            r.press("Tab"),
            type_over(r, "An answer"),
        ),
        lambda r: (
            write(r, "Prompt", "A prompt"),
            write(r, "Answer (leave it empty to hand in the prompt alone)", "An answer"),
            r.click("Save prompt and answer"),
        ),
        lambda _: Demonstration("An answer", "A prompt"),
    ),
    "a review": Kind(
        Query(ONE, "review"),
        lambda r: r.press("a"),
        lambda r: r.click("Accept"),
        lambda _: Accept(),
    ),
    "flags": Kind(
        Query(texts("lies."), "review"),
        lambda r: r.press("i", "x", "b", "x", "Enter"),
        lambda r: (r.click("inaccurate"), r.click("biased"), r.click("Save the flag")),
        lambda _: Flag(("inaccurate", "biased")),
    ),
    "an edited demonstration": Kind(
        Query(texts("is fnie."), "review"),
        lambda r: (r.press("e"), type_over(r, "is fine.")),
        lambda r: (
            r.click("Edit"),
            write(r, "The demonstration as it should be", "is fine."),
            r.click("Save the edit"),
        ),
        lambda _: Edit("is fine."),
    ),
    "clips": Kind(
        Query((clip(5, 50), clip(3, 150))),
        lambda r: r.press(" ", ".", "1"),
        lambda r: (r.click("Pause"), r.click("1 is better")),
        lambda order: Ranking((order[0], order[1])),
    ),
}


def test_every_kind_by_keyboard_and_by_mouse(store, serve, sit, tmp_path):
    ids = store.add([kind.query for kind in KINDS.values()], overlap=2)
    with serve() as address:
        hands = {
            "anna": (sit(address, "anna"), lambda kind: kind.keys),
            "bob": (sit(address, "bob"), lambda kind: kind.mouse),
        }
        for number, (what, kind) in zip(ids, KINDS.items(), strict=True):
            for name, (rater, hand) in hands.items():
                rater.sees(number)
                hand(kind)(rater)
                # The page moves on when the label is in the store, and not before.
                rater.page.wait_for_selector(f"main:not([data-query='{number}'])")
                (given,) = store.feedback(raters=[name])[-1:]
                order = screen_order(len(kind.query.segments), number, name)
                assert (given.query_id, given.label) == (number, kind.label(order)), what
                assert 0.1 < given.seconds < 30
        assert [rater.errors for rater, _ in hands.values()] == [[], []]
    preferences = tmp_path / "preferences.jsonl"
    export_feedback(store, preferences)
    records = [json.loads(line) for line in preferences.read_text().splitlines()]
    assert {
        "prompt": "The film",
        "chosen": "is great, really.",
        "rejected": "is fine.",
    }.items() <= (next(r for r in records if r.get("chosen") == "is great, really.").items())
    demonstrations = tmp_path / "demonstrations.jsonl"
    export_feedback(store, demonstrations, kind="demonstrations", raters=["anna"])
    written = [json.loads(line)["completion"] for line in demonstrations.read_text().splitlines()]
    assert written == ["is great, really.", "was long.", "An answer", "is fine.", "is fine."]


def test_choices_are_shown_as_they_were_given(store, serve, sit):
    store.add(
        [
            Query(ONE, "choice", choices=("polite", "iOS", "Rude")),
            Query((TextSegment("The film", "is great."),), "review"),
        ]
    )
    with serve() as address:
        rater = sit(address)
        rater.sees(1)
        first_letters = """() => [...document.querySelectorAll('.answers button span')].map(
            span => getComputedStyle(span, '::first-letter').textTransform)"""
        assert rater.page.evaluate(first_letters) == ["none"] * 3
        rater.click("iOS")
        rater.sees(2)
        # What the page itself says begins with a capital.
        assert set(rater.page.evaluate(first_letters)) == {"uppercase"}


def test_clips_show_the_same_moment(store, serve, sit):
    store.add([Query((clip(5, 50), clip(3, 150)))])
    with serve() as address:
        page = sit(address).page
        page.wait_for_selector("canvas[data-frame='3'] >> nth=0")
        longer, shorter = (0, 1) if screen_order(2, 1, "anna") == [0, 1] else (1, 0)
        page.keyboard.press(" ")
        page.wait_for_timeout(50)
        frames = [int(c.get_attribute("data-frame")) for c in page.locator("canvas").all()]
        # The shorter one waits at its end.
        assert frames[shorter] == min(frames[longer], 2)
        page.get_by_role("slider", name="Step").fill("1")
        page.wait_for_function(
            "() => [...document.querySelectorAll('canvas')].every(c => c.dataset.frame === '1')"
        )
        # The pixels are those of the frame: its left third is 10 brighter than in the one before.
        pixel = page.evaluate(
            """() => [...document.querySelectorAll('canvas')].map(c =>
                c.getContext('2d').getImageData(2, 10, 1, 1).data[0])"""
        )
        assert abs(pixel[longer] - 60) <= 3
        assert abs(pixel[shorter] - 160) <= 3
        page.keyboard.press(" ")
        # And round again. (A selector would be looked for twice a second, and miss it.)
        page.wait_for_function("""() => document.querySelector("canvas[data-frame='0']")""")


def test_a_text_of_ones_own(store, serve, sit):
    store.add([Query(texts("good", "bad"))])
    with serve() as address:
        rater = sit(address)
        rater.sees(1)
        rater.press("w")
        rater.sees("own")
        rater.page.keyboard.type("Why is the sky blue?")
        rater.press("Tab")
        rater.page.keyboard.type("Because of the air.")
        rater.press("Control+Enter")
        rater.page.wait_for_function("() => document.querySelector('textarea').value === ''")
        rater.sees("own")
        write(rater, "Prompt", "A prompt alone")
        rater.click("Save the prompt alone")
        rater.page.wait_for_function("() => document.querySelector('textarea').value === ''")
        rater.sees("own")
        rater.press("Escape", "Escape")
        rater.sees(1)
        both, alone = store.feedback(raters=["anna"])
        assert both.query.segments == texts("", prompt="Why is the sky blue?")
        assert both.label == Demonstration("Because of the air.")
        assert alone.label == Demonstration("", "A prompt alone")
        # Somebody else is asked for the answer.
        store.answer(1, "bob", Skip())
        assert store.next("bob").query.segments == texts("", prompt="A prompt alone")


def test_undo_shows_what_was_said(store, serve, sit):
    store.add([Query(texts("a", "b")), Query(texts(*"abcd")), Query(ONE, "edit")])
    with serve() as address:
        rater = sit(address)
        rater.sees(1)
        rater.press("ArrowRight")
        rater.sees(2)
        rater.press(*"4321", "Enter")
        rater.sees(3)
        rater.click("Undo")
        rater.sees(2)
        assert rater.page.locator(".decided").count() == 4
        assert store.progress("anna").labels == 1
        rater.press("u")
        rater.sees(1)
        assert rater.page.locator("button.before").inner_text().startswith("2 is better")
        rater.press("ArrowLeft")
        rater.sees(2)
        rater.press("Enter")
        rater.sees(3)
        first, second = store.feedback()
        assert first.label == Ranking(tuple(screen_order(2, 1, "anna")))
        assert second.label == Ranking(tuple(screen_order(4, 2, "anna")[::-1]))
