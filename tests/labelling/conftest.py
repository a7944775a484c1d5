"""A page on a store of its own, served in this process, and raters with a browser before it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rlhf_gym.core.feedback import Query, TextSegment
from rlhf_gym.core.store import FeedbackStore


@pytest.fixture(scope="session")
def server_library():
    """uvicorn and Starlette; skips where the extra `label` is not installed."""
    pytest.importorskip("starlette")
    return pytest.importorskip("uvicorn")


@pytest.fixture
def texts():
    """Segments of one prompt."""

    def make(*completions, prompt="The film"):
        return tuple(TextSegment(prompt, completion) for completion in completions)

    return make


@pytest.fixture
def pairs(texts):
    """Comparisons of two, each of another prompt."""

    def make(count):
        return [Query(texts("good", "bad", prompt=f"Prompt {number}")) for number in range(count)]

    return make


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.db") as opened:
        yield opened


@contextmanager
def served(uvicorn, app) -> Iterator[str]:
    """The address of an app that runs in a thread."""
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


@pytest.fixture
def serve(tmp_path, server_library):
    """Serves the store: `with serve(settings=..., feed=..., supervised=...) as address`."""
    from rlhf_gym.pipelines.labelling.app import make_app
    from rlhf_gym.pipelines.labelling.desk import Desk, PageSettings
    from rlhf_gym.pipelines.labelling.supervision import Supervision

    @contextmanager
    def start(settings=None, feed=None, supervised=None, token=None, timeout=5.0):
        path = tmp_path / "feedback.db"
        settings = settings or PageSettings(supervised=supervised)
        desk = Desk(path, settings, feed, timeout=timeout)
        supervision = None if supervised is None else Supervision(path, supervised)
        try:
            with served(
                server_library, make_app(desk, supervision=supervision, token=token)
            ) as address:
                yield address
        finally:
            desk.close()
            if supervision is not None:
                supervision.close()

    return start


class Rater:
    """A rater in front of the page."""

    def __init__(self, context, address, name="anna"):
        self.name = name
        self.address = address
        self.page = context.new_page()
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(error))
        self.page.set_default_timeout(8000)

    def sit_down(self):
        """Open the page and give a name; the first query is in front of them."""
        self.page.goto(self.address)
        self.page.wait_for_selector("main[data-ready]")
        if self.page.get_attribute("main", "data-ready") == "name":
            self.page.get_by_label("Your name").fill(self.name)
            self.page.keyboard.press("Enter")
            self.page.wait_for_selector("main[data-ready]:not([data-ready='name'])")
        return self

    def sees(self, query_id):
        """Wait until a query can be answered, or "empty"."""
        self.page.wait_for_selector(f"main[data-ready='{query_id}']")

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def click(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def alert(self):
        """What the page complains of."""
        self.page.wait_for_selector("#alert:not([hidden])")
        return self.page.inner_text("#alert")


@pytest.fixture
def sit(chromium):
    """Seats raters, each in a browser of their own: `sit(address, name)`."""
    contexts = []

    def seat(address, name="anna", **options):
        contexts.append(chromium.new_context(**options))
        return Rater(contexts[-1], address, name).sit_down()

    yield seat
    for context in contexts:
        context.close()
