"""What the page's server takes and gives, without a browser."""

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from rlhf_gym.core.errors import InvalidArgument, InvalidData, StoreUnavailable
from rlhf_gym.core.feedback import ControlSegment, Query
from rlhf_gym.core.labels import Demonstration, Edit, Flag, Ranking, Rating, Skip
from rlhf_gym.core.store.rater_view import latest_label, revise, standing
from rlhf_gym.pipelines import labelling
from rlhf_gym.pipelines.labelling.answers import read_label
from rlhf_gym.pipelines.labelling.desk import AnsweredAlready, Desk, PageSettings
from rlhf_gym.pipelines.labelling.shown import screen_order, shown_query, strip


@pytest.fixture
def desk(store):
    opened = Desk(store.path, PageSettings())
    yield opened
    opened.close()


def said(query, label, ticket="t", rater="anna", **more):
    return {
        "rater": rater,
        "query": query,
        "ticket": ticket,
        "seconds": 1.0,
        "label": label,
        **more,
    }


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ({"kind": "ranking", "order": [1, 0]}, Ranking((1, 0))),
        ({"kind": "ranking", "order": [0, 1], "tie": True}, Ranking((0, 1), tie=True)),
        ({"kind": "rating", "value": 3}, Rating(3)),
        ({"kind": "flag", "reasons": ["toxic"]}, Flag(("toxic",))),
        ({"kind": "demonstration", "completion": "a", "prompt": None}, Demonstration("a")),
        ({"kind": "skip"}, Skip()),
    ],
)
def test_labels_from_json(answer, label):
    assert read_label(answer) == label


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        (None, "label="),
        ({"kind": "opinion"}, "label="),
        ({"kind": ["ranking"]}, "label="),
        ({"kind": "ranking"}, "order"),
        ({"kind": "ranking", "order": "10"}, "label.order="),
        ({"kind": "ranking", "order": [1, False]}, "label.order="),
        ({"kind": "ranking", "order": [1.0, 0.0]}, "label.order="),
        ({"kind": "best", "index": True}, "label.index="),
        ({"kind": "best", "index": 2**70}, "label.index="),
        ({"kind": "thumb", "up": 1}, "label.up="),
        ({"kind": "rating", "value": "5"}, "label.value="),
        ({"kind": "edit", "completion": "half \ud800"}, "label.completion="),
        ({"kind": "skip", "why": "no"}, "label.why="),
    ],
)
def test_what_is_no_label(answer, field):
    with pytest.raises(InvalidData, match=field):
        read_label(answer)


def test_the_next_query_comes_with_the_acknowledgement(desk, store, pairs):
    store.add(pairs(2))
    first = desk.begin({"rater": " anna ", "client": "test"})
    assert first["query"]["id"] == 1
    assert first["settings"]["highest"] == 10.0
    label = {"kind": "ranking", "order": [0, 1]}
    done = desk.answer(said(1, label, session=first["session"]))
    assert done["label"] == 1
    assert done["query"]["id"] == 2
    # Sent again, with the same ticket: the same label, not a second.
    assert desk.answer(said(1, label))["label"] == 1
    with pytest.raises(AnsweredAlready):
        desk.answer(said(1, label, ticket="another"))
    with pytest.raises(InvalidData, match="asks for a ranking"):
        desk.answer(said(2, {"kind": "thumb", "up": True}, ticket="u"))
    for seconds in (-1, float("nan"), float("inf"), "1", True):
        with pytest.raises(InvalidData, match="seconds="):
            desk.answer(said(2, label, ticket="v", seconds=seconds))
    with pytest.raises(InvalidData, match="ticket="):
        desk.answer(said(2, label, ticket=None))
    for rater in ("", " ", None, "x" * 101, "\ud800"):
        with pytest.raises(InvalidData, match="rater="):
            desk.next({"rater": rater})
    (given,) = store.feedback()
    assert (given.rater, given.seconds) == ("anna", 1.0)
    desk.end({"session": first["session"]})


def test_replacing_and_undoing(desk, store, pairs, texts):
    store.add(pairs(2))
    better, worse = ({"kind": "ranking", "order": order} for order in ([0, 1], [1, 0]))
    desk.answer(said(1, better))
    desk.answer(said(1, worse, ticket="second", replace=True))
    desk.answer(said(1, worse, ticket="second", replace=True))  # sent twice
    assert [given.label for given in store.feedback()] == [Ranking((1, 0))]
    assert store.query(1).answers == 1
    back = desk.undo({"rater": "anna"})
    assert back["query"]["id"] == 1
    assert back["undone"] == {"kind": "ranking", "order": (1, 0), "tie": False}
    assert store.feedback() == []
    with pytest.raises(InvalidArgument, match="no label of yours"):
        desk.undo({"rater": "anna"})
    # What was not said on the page is not undone there: an import, a signal to an agent.
    store.answer(2, "anna", Ranking((0, 1)))
    taught = {"supervised_environment": "rlhf_gym/Pizza-v0"}
    (step,) = store.add([Query(texts("step"), "rating")], provenance=taught)
    store.answer(step, "anna", Rating(1.0), ticket="signal")
    with pytest.raises(InvalidArgument, match="no label of yours"):
        desk.undo({"rater": "anna"})
    with pytest.raises(InvalidData, match="not an order"):
        revise(store, 1, "anna", Ranking((0, 2)))


def test_an_answer_to_what_is_no_longer_there(desk, store, pairs):
    store.add(pairs(1))
    shown = desk.next({"rater": "anna"})["query"]
    label = {"kind": "ranking", "order": [0, 1]}
    # The page outlived its store: number 1 is another query there.
    with pytest.raises(InvalidData, match="no longer that query"):
        desk.answer(said(1, label, key="0" * 24))
    assert desk.answer(said(1, label, key=shown["key"]))["label"] == 1


def test_a_store_that_cannot_be_written(desk, store, pairs):
    store.add(pairs(2))
    label = {"kind": "ranking", "order": [0, 1]}
    with desk.store.connection.reading() as sqlite:
        sqlite.execute("pragma query_only = on")
    with pytest.raises(StoreUnavailable, match=r"readonly.*permissions"):
        desk.answer(said(1, label))
    with desk.store.connection.reading() as sqlite:
        sqlite.execute("pragma query_only = off")
        pages = sqlite.execute("pragma page_count").fetchone()[0]
        sqlite.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="disk is full"):
        desk.write({"rater": "anna", "prompt": "x" * 10**6, "ticket": "t"})
    with desk.store.connection.reading() as sqlite:
        sqlite.execute("pragma max_page_count = 100000")
    # The same request, sent again.
    assert desk.answer(said(1, label))["label"] == 1
    assert [given.label for given in store.feedback()] == [Ranking((0, 1))]


def test_a_prompt_of_ones_own(desk, store):
    desk.write({"rater": "anna", "prompt": "Why?", "completion": "So.", "ticket": "a"})
    desk.write({"rater": "anna", "prompt": "Why?", "completion": "So.", "ticket": "a"})
    desk.write({"rater": "anna", "prompt": "Who?", "ticket": "b"})
    with pytest.raises(AnsweredAlready):
        desk.write({"rater": "anna", "prompt": "Why?", "completion": "Or so.", "ticket": "c"})
    with pytest.raises(InvalidData, match="nothing is written"):
        desk.write({"rater": "anna", "prompt": " ", "ticket": "d"})
    assert [given.label for given in store.feedback()] == [
        Demonstration("So."),
        Demonstration("", "Who?"),
    ]
    assert desk.next({"rater": "anna"})["query"] is None
    assert desk.next({"rater": "bob"})["query"]["prompt"] == "Who?"


def test_standing_by_hand(store, pairs, texts):
    store.add(pairs(4), overlap=3, gold=[Ranking((0, 1)), Ranking((1, 0)), None, None])
    for number, order in enumerate([(0, 1), (0, 1), (0, 1)], 1):
        store.answer(number, "anna", Ranking(order), seconds=float(number))
    store.answer(1, "bob", Ranking((0, 1)))
    store.answer(2, "bob", Ranking((1, 0)))
    store.answer(3, "bob", Skip())
    store.answer(3, "carla", Ranking((0, 1)))
    found = standing(store, "anna")
    # Same as bob on 1, other on 2; same as carla on 3; bob's skip does not count.
    assert found.agreement.value == pytest.approx(2 / 3)
    assert found.gold.value == 0.5
    assert found.seconds == 2.0
    assert standing(store, "nobody") == (None, None, None)
    assert latest_label(store, "anna") is None  # none of these came with a ticket
    store.answer(4, "anna", Skip(), ticket="t")
    assert latest_label(store, "anna").query_id == 4
    (text,) = store.add([Query(texts("a"), "edit")], overlap=2)
    store.answer(text, "anna", Edit("b"))
    store.answer(text, "bob", Edit("c"))
    assert standing(store, "anna").agreement.value == pytest.approx(2 / 3)


def test_the_order_on_the_screen(store, texts):
    (number,) = store.add([Query(texts(*"abcdef"))], gold=[Ranking((0, 1, 2, 3, 4, 5))])
    stored = store.query(number)
    shown = shown_query(stored, "anna")
    assert shown == shown_query(stored, "anna")
    assert "gold" not in shown
    places = [segment["place"] for segment in shown["segments"]]
    assert sorted(places) == list(range(6))
    assert [s["text"] for s in shown["segments"]] == ["abcdef"[place] for place in places]
    orders = {tuple(screen_order(2, number, f"rater {i}")) for i in range(20)}
    assert orders == {(0, 1), (1, 0)}


def test_a_strip_holds_every_frame():
    frames = np.zeros((7, 10, 20, 3), np.uint8)
    frames += (30 * np.arange(7, dtype=np.uint8))[:, None, None, None]
    segment = ControlSegment(np.zeros((7, 1)), np.zeros((7, 1)), None, frames)
    image = np.asarray(Image.open(io.BytesIO(strip(segment))).convert("RGB"))
    # Two columns of frames 20 wide and four rows of frames 10 high.
    assert image.shape == (40, 40, 3)
    for frame in range(7):
        part = image[10 * (frame // 2) :, 20 * (frame % 2) :][2:8, 4:16]
        assert np.abs(part.astype(int) - 30 * frame).max() <= 3
    # 200 frames of 300 x 300 pixels would be more than a browser takes.
    long = ControlSegment(
        np.zeros((200, 1)), np.zeros((200, 1)), None, np.zeros((200, 300, 300, 3), np.uint8)
    )
    width, height = Image.open(io.BytesIO(strip(long))).size
    assert width * height <= 12_000_000
    with pytest.raises(InvalidArgument, match="no pictures"):
        strip(ControlSegment(np.zeros((2, 1)), np.zeros((2, 1))))


def test_a_clip_without_pictures_is_shown_as_numbers(desk, store):
    store.add([Query((ControlSegment(np.zeros((3, 1)), np.ones((3, 1))),), "thumb")])
    (segment,) = desk.next({"rater": "anna"})["query"]["segments"]
    assert segment["kind"] == "numbers"
    assert segment["text"].splitlines()[2] == "3. saw [0.] did [1.]"


def test_over_http(serve, store, pairs, texts):
    store.add([*pairs(1), Query(texts("x"), "edit")])
    with serve() as address, httpx.Client(base_url=address) as client:
        page = client.get("/")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert client.get("/static/main.js").headers["content-type"].startswith("text/javascript")
        assert client.get("/static/../desk.py").status_code == 404
        assert client.get("/clips/1/0").status_code == 422
        assert client.get("/clips/9/0").status_code == 422
        for body in (b"", b"[]", b"{", b"\xff", b'"x"'):
            sent = client.post(
                "/api/next", content=body, headers={"content-type": "application/json"}
            )
            assert sent.status_code == 400
        bad = client.post("/api/answer", json=said(1, {"kind": "thumb", "up": True}))
        assert bad.status_code == 422
        assert "asks for a ranking" in bad.json()["problem"]
        client.post("/api/answer", json=said(1, {"kind": "skip"}))
        twice = client.post("/api/answer", json=said(1, {"kind": "skip"}, ticket="other"))
        assert twice.status_code == 409
        long = {"kind": "edit", "completion": "x" * 1_000_000}
        assert client.post("/api/answer", json=said(2, long, ticket="long")).status_code == 200
        huge = b"[" + b"1," * 20_000_000 + b"1]"
        sent = client.post("/api/next", content=huge, headers={"content-type": "application/json"})
        assert sent.status_code == 413
        with store.connection.writing():
            pass
    assert store.feedback()[-1].label == Edit("x" * 1_000_000)


def test_no_text_is_ever_set_as_markup():
    folder = Path(labelling.__file__).parent / "static"
    scripts = sorted(folder.glob("*.js"))
    assert len(scripts) >= 8
    for script in scripts:
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in script.read_text(), (script.name, word)


def test_strangers_are_turned_away(serve, store, pairs):
    store.add(pairs(1))
    ask = {"rater": "anna"}
    with serve() as address, httpx.Client(base_url=address) as client:
        assert client.post("/api/next", json=ask).status_code == 200
        # A name that an attacker's server gave to this address (DNS rebinding).
        assert client.get("/", headers={"host": "evil.example:80"}).status_code == 403
        other = {"origin": "https://evil.example"}
        assert client.post("/api/next", json=ask, headers=other).status_code == 403
        form = {"content-type": "text/plain"}
        assert client.post("/api/next", content='{"rater": "a"}', headers=form).status_code == 403
    with serve(token="correct horse") as address, httpx.Client(base_url=address) as client:
        for path in ("/", "/static/main.js", "/clips/1/0", "/?token=wrong"):
            assert client.get(path).status_code == 401
        assert client.post("/api/next", json=ask).status_code == 401
        assert client.post("/api/next?token=correct horse", json=ask).status_code == 401
        entered = client.get("/?token=correct%20horse")
        assert entered.status_code == 303
        assert entered.headers["location"] == "/"  # the token is not left in the address
        assert "httponly" in entered.headers["set-cookie"].lower()
        assert client.get("/").status_code == 200
        assert client.post("/api/next", json=ask).json()["query"]["id"] == 1
        client.cookies.clear()
        bearer = {"authorization": "Bearer correct horse"}
        assert client.post("/api/next", json=ask, headers=bearer).status_code == 200
