"""The page is killed under four raters: what was acknowledged is in the store, once."""

import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter

import httpx
import pytest

from rlhf_gym.core.store import FeedbackStore

QUERIES = 1000
KILL_AFTER = 300
RATERS = ("anna", "bob", "carla", "dan")


class Page:
    """`rlhf-gym label` in a process of its own."""

    def __init__(self, path, *flags, port="0"):
        command = [sys.executable, "-m", "rlhf_gym", "label", "--store", str(path), "--port", port]
        command += flags
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}
        )
        greeting = self.process.stdout.readline()
        self.address = re.search(r"http://\S+", greeting).group().rstrip("/")

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Hand(threading.Thread):
    """A rater who answers until there is nothing left, or nobody to answer to.

    Attributes:
        acknowledged: query and label of every answer that the page said is kept.
        unsure: the request that was on its way when the page went away.
    """

    def __init__(self, address, rater, count, unsure=None):
        super().__init__(daemon=True)
        self.rater = rater
        self.acknowledged = []
        self.unsure = unsure
        self._client = httpx.Client(base_url=address, timeout=60)
        self._count = count

    def run(self):
        try:
            if self.unsure is not None:
                # As the page does when it is opened again: the same ticket.
                self._answer(self.unsure)
            shown = self._client.post("/api/next", json={"rater": self.rater}).json()
            while shown.get("query"):
                shown = self._answer(
                    {
                        "rater": self.rater,
                        "query": shown["query"]["id"],
                        "ticket": uuid.uuid4().hex,
                        "label": {"kind": "ranking", "order": [0, 1]},
                    }
                )
        except httpx.HTTPError:
            pass

    def _answer(self, body):
        self.unsure = body
        answer = self._client.post("/api/answer", json=body).json()
        self.acknowledged.append((self.rater, body["query"], answer["label"]))
        self.unsure = None
        if self._count() >= KILL_AFTER:
            enough.set()
        return answer


enough = threading.Event()


@pytest.mark.usefixtures("server_library")
def test_no_acknowledged_label_is_lost_and_none_is_double(store, pairs):
    store.add(pairs(QUERIES))
    page = Page(store.path)
    hands = []
    for rater in RATERS:
        hands.append(
            Hand(page.address, rater, lambda: sum(len(hand.acknowledged) for hand in hands))
        )
    for hand in hands:
        hand.start()
    assert enough.wait(60)
    page.kill()
    for hand in hands:
        hand.join()
    acknowledged = {label for hand in hands for label in hand.acknowledged}
    assert KILL_AFTER <= len(acknowledged) < QUERIES
    with FeedbackStore(store.path) as opened:
        stored = {(given.rater, given.query_id, given.id) for given in opened.feedback()}
    assert acknowledged <= stored
    # At most one label of each can have been on its way.
    assert len(stored - acknowledged) <= len(RATERS)

    # The page comes back, and so do the raters, with what they were not told about.
    page = Page(store.path)
    again = [Hand(page.address, hand.rater, lambda: 0, hand.unsure) for hand in hands]
    for hand in again:
        hand.start()
    for hand in again:
        hand.join()
    page.process.send_signal(signal.SIGINT)
    assert f"{QUERIES} labels" in page.process.communicate(timeout=20)[0]
    assert page.process.returncode == 0
    given = store.feedback()
    assert acknowledged <= {(one.rater, one.query_id, one.id) for one in given}
    assert Counter(one.query_id for one in given) == dict.fromkeys(range(1, QUERIES + 1), 1)


@pytest.mark.usefixtures("server_library")
def test_a_page_for_other_machines_has_a_token(store, pairs):
    store.add(pairs(1))
    page = Page(store.path, "--host", "0.0.0.0")
    warning = page.process.stdout.readline()
    assert "not encrypted" in warning
    port, token = re.search(r":(\d+)/\?token=([\w-]{32})$", page.address).groups()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            assert client.get("/").status_code == 401
            assert client.post("/api/next", json={"rater": "anna"}).status_code == 401
            assert client.get(f"/?token={token}").status_code == 303
            assert client.post("/api/next", json={"rater": "anna"}).json()["query"]["id"] == 1
    finally:
        page.kill()


@pytest.mark.usefixtures("server_library")
def test_a_browser_goes_on_when_the_page_is_back(store, pairs, sit):
    store.add(pairs(2))
    page = Page(store.path)
    rater = sit(page.address)
    rater.sees(1)
    page.kill()
    rater.press("1")
    assert "does not answer" in rater.alert()
    page = Page(store.path, port=page.address.rpartition(":")[2])
    try:
        rater.sees(2)
        assert [given.query_id for given in store.feedback()] == [1]
        rater.press("2")
        rater.sees("empty")
        assert len(store.feedback()) == 2
    finally:
        page.kill()
