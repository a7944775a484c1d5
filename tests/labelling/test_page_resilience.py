"""Hostile texts, pages left, two tabs, a store that is busy or broken: nothing runs or is lost."""

import json
import sqlite3

import pytest

from rlhf_gym.core.feedback import Query
from rlhf_gym.core.labels import Edit, Ranking, Thumb
from rlhf_gym.core.store import EVERYONE, FeedbackStore
from rlhf_gym.core.store.transfer import export_feedback
from rlhf_gym.pipelines.labelling.desk import PageSettings
from rlhf_gym.pipelines.labelling.shown import screen_order

MARKUP = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    "</textarea></template><a href='javascript:window.hacked=1'>&lt;b&gt;</a> {{7*7}} ${7*7}"
)
PEOPLE = "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 caf\u00e9"
ARABIC = "\u0645\u0631\u062d\u0628\u0627 \u202eoverride\u202c \u05e9\u05dc\u05d5\u05dd"


def test_texts_are_texts_whatever_is_in_them(store, serve, sit, texts, tmp_path):
    huge = "word & <i> " * 100_000
    store.add(
        [
            Query(texts(MARKUP, PEOPLE + "\r\n" + ARABIC, prompt=MARKUP + ARABIC)),
            Query(texts(MARKUP), "choice", choices=(MARKUP, "b")),
            Query(texts(MARKUP), "edit"),
            Query(texts(huge), "thumb"),
        ]
    )
    with serve(PageSettings(guidelines="# " + MARKUP)) as address:
        rater = sit(address, name=MARKUP[:90])
        page = rater.page
        rater.sees(1)
        first, second = screen_order(2, 1, rater.name)
        shown = page.locator(".card .prose").all_text_contents()
        assert shown[first] == MARKUP
        assert shown[second] == PEOPLE + "\r\n" + ARABIC
        assert page.locator(".prompt .prose").text_content() == MARKUP + ARABIC
        assert page.locator("main script, main img, main a, main i").count() == 0
        assert page.locator("dialog h3").text_content() == MARKUP
        rater.press("Escape", "ArrowLeft")
        rater.sees(2)
        rater.press("1")
        rater.sees(3)
        page.keyboard.type("<script>window.hacked = 1</script>")
        assert "hacked" in page.locator(".difference ins").first.text_content()
        rater.press("Control+Enter")
        rater.sees(4)
        # Only the beginning of a huge text is laid out, until all of it is asked for.
        assert len(page.locator(".card .prose").text_content()) < 30_000
        rater.click("Show all 1,100,000 characters")
        assert page.locator(".card .prose").text_content() == huge
        rater.press("g")
        rater.sees("empty")
        assert page.evaluate("window.hacked") is None
        assert rater.errors == []
    labels = [given.label for given in store.feedback()]
    assert isinstance(labels[2], Edit)
    assert labels[3] == Thumb(up=True)
    target = tmp_path / "out.jsonl"
    export_feedback(store, target)
    with target.open(encoding="utf-8") as file:
        record = json.loads(next(file))
    assert {record["chosen"], record["rejected"]} == {MARKUP, PEOPLE + "\r\n" + ARABIC}
    assert record["rater"] == MARKUP[:90].strip()


def test_a_page_that_is_left_loses_nothing(store, serve, sit, texts):
    store.add([Query(texts(*"abcd")), Query(texts("is fine."), "edit")])
    with serve() as address:
        rater = sit(address)
        rater.sees(1)
        before = rater.page.locator(".ranking .prose").all_text_contents()
        rater.press("3", "1")
        rater.page.reload()
        rater.sees(1)
        # The same order on the screen, and the two that were ranked still are.
        assert rater.page.locator(".decided .prose").all_text_contents() == [before[2], before[0]]
        rater.press("2", "Enter")
        rater.sees(2)
        rater.page.locator("textarea").fill("half of a sen")
        rater.page.goto("about:blank")
        rater.page.goto(address)
        rater.sees(2)
        assert rater.page.locator("textarea").input_value() == "half of a sen"
        rater.press("Control+Enter")
        rater.sees("empty")
        assert [given.label for given in store.feedback()][1] == Edit("half of a sen")
        with sqlite3.connect(store.path) as sqlite:
            ended = sqlite.execute("select count(*) from sessions where ended is not null")
            assert ended.fetchone()[0] >= 2


def test_two_tabs(store, serve, sit, texts):
    store.add([Query(texts("a", "b")), Query(texts("is fine."), "edit")])
    with serve() as address:
        one = sit(address)
        two = type(one)(one.page.context, address).sit_down()
        one.sees(1)
        two.sees(1)
        one.press("1")
        one.sees(2)
        two.sees(2)  # what the other tab answered is not asked again
        two.page.locator("textarea").fill("of the second")
        one.page.locator("textarea").fill("of the first")
        one.press("Control+Enter")
        one.sees("empty")
        assert "another tab" in two.alert()
        two.press("Control+Enter")
        two.page.get_by_text("You have answered this one already").wait_for()
        assert two.page.locator("textarea").input_value() == "of the second"
        two.click("Replace it with this one")
        two.sees("empty")
    assert [given.label for given in store.feedback()][1:] == [Edit("of the second")]


def test_an_acknowledgement_that_is_lost_on_the_way(store, serve, sit, pairs):
    store.add(pairs(2))
    with serve() as address:
        rater = sit(address)
        rater.sees(1)
        # One route throughout: routes that come and go leave moments in which requests slip by. And
        # the line stays broken until the complaint was seen, however busy the machine is.
        line = {"broken": True}

        def over_the_line(route):
            if not line["broken"]:
                route.continue_()
                return
            if not store.feedback(raters=["anna"]):
                route.fetch()  # the store has it, the page does not know
            route.abort()

        rater.page.route("**/api/answer", over_the_line)
        rater.press("1")
        assert "Not saved yet" in rater.alert()
        assert rater.page.get_attribute("main", "data-query") == "1"
        line["broken"] = False
        rater.sees(2)
        assert len(store.feedback()) == 1
        # Left before the acknowledgement: it is sent again by the next page.
        line["broken"] = True
        rater.press("1")
        rater.alert()
        line["broken"] = False
        rater.page.reload()
        rater.sees("empty")
    assert [given.query_id for given in store.feedback()] == [1, 2]


def test_a_store_that_is_busy(store, serve, sit, pairs):
    store.add(pairs(2))
    with serve(timeout=0.05) as address:
        rater = sit(address)
        rater.sees(1)
        with store.connection.writing():
            rater.press("1")
            assert "another process has been writing" in rater.alert()
            assert rater.page.get_attribute("main", "data-query") == "1"
        rater.sees(2)  # it went on by itself
        assert rater.page.locator("#alert").is_hidden()
        with store.connection.writing():
            rater.press("2")
            rater.alert()
            rater.click("Stop trying")
            rater.page.get_by_text("another process").wait_for()
        assert len(store.feedback()) == 1


def test_a_store_that_breaks(store, serve, sit, pairs):
    store.add(pairs(3))
    with serve() as address:
        rater = sit(address)
        rater.sees(1)
        with FeedbackStore(store.path) as other, other.connection.writing() as sqlite:
            sqlite.execute("drop table claims")
        rater.press("1")
        assert "claims" in rater.alert()
        assert rater.page.get_attribute("main", "data-query") == "1"


def test_figures_and_guidelines(store, serve, sit, texts):
    store.add([Query(texts("a", "b"))], gold=[Ranking((0, 1))], overlap=EVERYONE)
    store.add([Query(texts("c", "d")), Query(texts("e", "f"))], overlap=2)
    store.answer(2, "bob", Ranking((0, 1)))
    settings = PageSettings(guidelines="Be kind.\n\n- Read all of it")
    with serve(settings) as address:
        rater = sit(address)
        assert "Be kind." in rater.page.inner_text("dialog")
        rater.press("Escape")
        rater.page.reload()
        rater.sees(1)
        assert rater.page.locator("dialog").count() == 0  # shown once, then on demand
        rater.press("?")
        assert "Be kind." in rater.page.inner_text("dialog")
        rater.press("Escape")
        for number, query_id in enumerate((1, 2)):
            rater.sees(query_id)
            # The gold answer, and the other one than bob's.
            wanted = screen_order(2, query_id, "anna").index(number)
            rater.press(str(wanted + 1))
        rater.sees(3)
        rater.page.get_by_text("agreement 0 %").wait_for()
        figures = rater.page.inner_text("#progress")
        assert "2 done" in figures
        assert "1 left" in figures
        assert "known answers 100 %" in figures


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(store, serve, sit, texts, scheme):
    store.add([Query(texts("word " * 300, "x" * 500)), Query(texts("a"), "likert", levels=9)])
    phone = {"viewport": {"width": 360, "height": 640}, "is_mobile": True, "has_touch": True}
    with serve() as address:
        rater = sit(address, color_scheme=scheme, **phone)
        for query_id in (1, 2):
            rater.sees(query_id)
            width = rater.page.evaluate("() => document.documentElement.scrollWidth")
            assert width <= 360
            button = rater.page.locator(".answers button").last
            box = button.bounding_box()
            assert box["y"] + box["height"] <= 640  # within reach without scrolling
            assert box["height"] >= 40
            button.tap()
        rater.sees("empty")
    background = rater.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    shade = int(background.removeprefix("rgb(").split(",")[0])
    assert (shade < 60) == (scheme == "dark")


def test_the_space_that_a_completion_begins_with_is_kept_and_indents_nothing(
    store, serve, sit, texts
):
    store.add([Query(texts(" is fine."), "thumb"), Query(texts(" is fine."), "edit")])
    with serve() as address:
        rater = sit(address)
        rater.sees(1)
        answer = rater.page.locator(".card .prose")
        assert answer.text_content() == " is fine."
        assert answer.locator(".leading").bounding_box()["width"] == 0
        rater.press("g")
        rater.sees(2)
        rater.press("Control+Enter")
        rater.sees("empty")
    assert [given.label for given in store.feedback()] == [Thumb(up=True), Edit(" is fine.")]
