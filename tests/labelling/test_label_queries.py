"""Queries from files, from tasks of acting and from models, and the command that gathers them."""

import http.server
import json
import re
import threading
import time
from contextlib import contextmanager

import pytest
from rich.console import Console

import rlhf_gym
from rlhf_gym.core.ai_models import ModelUnavailable
from rlhf_gym.core.errors import InvalidArgument, InvalidData, InvalidPrompt, InvalidStore
from rlhf_gym.core.feedback import ControlSegment, TextSegment
from rlhf_gym.core.labels import Best, Choice, Likert, Ranking, Rating, Thumb
from rlhf_gym.core.store import EVERYONE, FeedbackStore
from rlhf_gym.pipelines.labelling.command import (
    ActingConfig,
    LabelConfig,
    WritingConfig,
    fill,
    label,
)
from rlhf_gym.pipelines.labelling.desk import Desk, PageSettings
from rlhf_gym.pipelines.labelling.feed import Feed
from rlhf_gym.pipelines.labelling.queries import add_clips, add_queries
from rlhf_gym.pipelines.labelling.writers import DirectoryWriter, EndpointWriter


def write_lines(path, *records):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records))
    return path


def test_queries_from_a_file(store, tmp_path):
    file = write_lines(
        tmp_path / "queries.jsonl",
        {"prompt": "p", "completions": ["a", "b", "c"]},
        {"prompt": "p", "chosen": "a", "rejected": "b", "gold": 0},
        {"prompt": "p", "completion": "a", "question": "likert", "levels": 7, "gold": 6},
        {"prompt": "p", "completion": "a", "question": "choice", "choices": ["x", "y"], "gold": 1},
        {"prompt": "p"},
        {"prompt": "p", "completions": ["a", "b"], "question": "best", "gold": 1, "overlap": 3},
        {"prompt": "p", "completion": "a", "gold": True},
        {"prompt": "p", "completion": "a", "question": "rating", "gold": 2},
    )
    assert add_queries(store, file, overlap=2)[:2] == (8, 6)
    found = [store.query(number) for number in range(1, 9)]
    assert [(one.query.question, len(one.query.segments)) for one in found] == [
        ("ranking", 3),
        ("ranking", 2),
        ("likert", 1),
        ("choice", 1),
        ("demonstration", 1),
        ("best", 2),
        ("thumb", 1),
        ("rating", 1),
    ]
    assert [one.gold for one in found] == [
        None,
        Ranking((0, 1)),
        Likert(6),
        Choice(1),
        None,
        Best(1),
        Thumb(up=True),
        Rating(2.0),
    ]
    # Gold is for everyone, unless the record says otherwise.
    assert [one.overlap for one in found[:6]] == [2, EVERYONE, EVERYONE, EVERYONE, 2, 3]
    assert found[2].query.levels == 7
    assert found[0].provenance == {"source": "queries.jsonl", "where": "line 1"}
    # A file read twice adds nothing.
    add_queries(store, file)
    assert store.progress().queries == 8


def test_bad_records_are_named_and_the_others_kept(store, tmp_path):
    file = write_lines(
        tmp_path / "queries.jsonl",
        {"prompt": "p", "completions": ["a", "b"]},
        '{"prompt": "p", "compl',
        {"completions": ["a", "b"]},
        {"prompt": "p", "completions": ["a", 7]},
        {"prompt": "p", "completions": ["a", "b"], "gold": [0, 2]},
        {"prompt": "p", "completion": "a", "question": "opinion"},
        {"prompt": "p", "completion": "a", "question": "likert", "gold": "7"},
        {"prompt": "p", "completion": "a", "question": "choice", "choices": [1, 2]},
        {"prompt": "p", "completion": "a", "overlap": "all"},
        {"prompt": "p", "completion": "a", "levels": "five"},
        {"prompt": "p", "completion": "a \ud800"},
        {"prompt": "p", "completion": "the last"},
    )
    queries, _, problems = add_queries(store, file)
    assert queries == 3  # half a character, in line 11, is read as U+FFFD
    named = {int(n) for problem in problems for n in re.findall(r"line (\d+)", str(problem))}
    assert named == set(range(2, 11))
    assert len(problems) == 9
    with pytest.raises(InvalidData, match="no query could be read"):
        add_queries(store, write_lines(tmp_path / "bad.jsonl", {"text": "x"}))


def test_clips_of_a_task(store):
    assert add_clips(store, "rlhf_gym/Pizza-v0", 2, 3) == 2
    first, second = store.query(1).query.segments
    assert isinstance(first, ControlSegment)
    assert first.frames.shape == (3, 320, 480, 3)
    assert len(second) == 3
    assert (first.frames != second.frames).any()
    assert store.query(1).provenance["environment"] == "rlhf_gym/Pizza-v0"
    with pytest.raises(InvalidArgument, match="supervise="):
        add_clips(store, "rlhf_gym/NoSuchTask-v0", 2, 3)
    with pytest.raises(InvalidArgument, match="nothing to show"):
        add_clips(store, "rlhf_gym/Pizza-v0", 0, 3)


class Scripted:
    """A writer that says what it was told to."""

    provenance = {"model": "scripted"}  # noqa: RUF012

    def __init__(self, say):
        self.say = say

    def write(self, prompt, count, seed):
        return [self.say(prompt, seed * 10 + number) for number in range(count)]


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def feeding(store, prompts, say, **options):
    feed = Feed(store.path, prompts, Scripted(say), options.pop("question", "ranking"), **options)
    desk = Desk(store.path, PageSettings(), feed)
    try:
        yield feed, desk
    finally:
        feed.close()
        desk.close()


def test_a_model_stays_a_few_queries_ahead(store):
    prompts = [f"Prompt {number}" for number in range(5)] * 2
    asked = threading.Event()

    def say(prompt, seed):
        asked.wait(10)
        return f"{prompt} {seed}"

    with feeding(store, prompts, say, ahead=2) as (_, desk):
        assert store.progress().queries == 0  # nothing before somebody is there
        assert desk.next({"rater": "anna"}) == {"query": None, "writing": True, "problem": None}
        asked.set()
        until(lambda: store.progress().queries == 2)
        for number in range(1, 6):
            until(lambda: desk.next({"rater": "anna"})["query"])
            store.answer(number, "anna", Ranking((0, 1)))
        until(lambda: not desk.next({"rater": "anna"})["writing"])
        # Each prompt is used once.
        assert store.progress().queries == 5
        provenance = store.query(1).provenance
        assert provenance["model"] == "scripted"


def test_a_model_that_repeats_itself_and_one_that_fails(store):
    def say(prompt, seed):
        if prompt == "stubborn":
            return "always the same"
        # The first two tries give one and the same text.
        return "again" if seed % 40 < 11 else "something else"

    with feeding(store, ["stubborn", "repeats"], say) as (_, desk):
        desk.next({"rater": "anna"})
        until(lambda: store.progress().queries == 1)
        assert store.query(1).query.segments[0].prompt == "repeats"

    failures = iter([True, True, False])

    def breaks(prompt, seed):
        if next(failures, False):
            raise ModelUnavailable("no server there.")
        return "text"

    with feeding(store, ["q"], breaks, question="thumb", pause=0.05) as (feed, desk):
        desk.next({"rater": "anna"})
        until(lambda: feed.problem == "no server there.")
        until(lambda: store.progress().queries == 2)
        assert store.query(2).query.segments == (TextSegment("q", "text"),)


def test_a_prompt_that_cannot_be_answered_holds_nobody_up(store):
    def say(prompt, _):
        if prompt == "too long":
            raise InvalidPrompt("prompt", prompt, "longer than the model takes", "Cut it")
        return "text"

    with feeding(store, ["too long", "fine"], say, question="thumb") as (_, desk):
        desk.next({"rater": "anna"})
        until(lambda: store.progress().queries == 1)
        assert store.query(1).query.segments[0].prompt == "fine"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_raters_do_not_wait_for_a_writer_that_has_a_bug(store):
    def breaks(*_):
        raise ZeroDivisionError("a bug")

    with feeding(store, ["any"], breaks, question="thumb") as (feed, desk):
        desk.next({"rater": "anna"})
        until(lambda: feed.finished)
        shown = desk.next({"rater": "anna"})
        assert shown == {"query": None, "writing": False, "problem": "ZeroDivisionError: a bug"}


def test_a_model_in_a_directory():
    import pathlib

    folder = pathlib.Path(rlhf_gym.__file__).parent / "envs/assets/sentiment/reference"
    writer = DirectoryWriter(str(folder), max_tokens=8)
    (prompt,) = ["The film"]
    texts = writer.write(prompt, 4, seed=1)
    assert texts == writer.write(prompt, 4, seed=1)
    assert len(set(texts)) > 1
    assert all(isinstance(text, str) and text for text in texts)
    assert writer.provenance["model"] == str(folder)


@contextmanager
def endpoint(answer):
    """A server that speaks OpenAI's form; yields its address and what it was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, body, self.headers.get("authorization")))
            status, content = answer(body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def test_a_model_behind_an_endpoint(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")

    contents = iter(["one", "two \ud800", ""])

    def answer(_):
        message = {"content": next(contents)}
        return 200, json.dumps({"choices": [{"message": message}]}).encode()

    with endpoint(answer) as (url, asked):
        writer = EndpointWriter(url + "/", "small", max_tokens=5, temperature=0.5)
        # What is empty is no answer, and half a character cannot be stored.
        assert sorted(writer.write("Why?", 3, seed=3)) == ["one", "two ?"]
        path, body, authorization = asked[0]
        assert path == "/v1/chat/completions"
        assert body["messages"] == [{"role": "user", "content": "Why?"}]
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("small", 5, 0.5)
        assert authorization == "Bearer secret"
        assert "secret" not in json.dumps(dict(writer.provenance))


@pytest.mark.parametrize(
    "content",
    [b"no json", b"{}", b'{"choices": []}', b'{"choices": [{"message": null}]}'],
)
def test_an_endpoint_that_gives_no_text(content):
    with (
        endpoint(lambda _: (200, content)) as (url, _),
        pytest.raises(ModelUnavailable, match=url),
    ):
        EndpointWriter(url, "m").write("q", 1, 0)
    with (
        endpoint(lambda _: (500, content)) as (url, _),
        pytest.raises(ModelUnavailable, match="500"),
    ):
        EndpointWriter(url, "m").write("q", 1, 0)


def test_an_endpoint_that_is_not_there():
    with pytest.raises(ModelUnavailable, match="refused"):
        EndpointWriter("http://127.0.0.1:9/v1", "m").write("q", 1, 0)
    with pytest.raises(InvalidArgument, match="no http address"):
        EndpointWriter("localhost", "m")


def test_the_command_fills_the_store(store, tmp_path):
    queries = write_lines(tmp_path / "q.jsonl", {"prompt": "p", "completions": ["a", "b"]}, "{")
    prompts = write_lines(tmp_path / "p.jsonl", {"prompt": "one"}, {"prompt": "two"})
    config = LabelConfig(
        queries=(str(queries),),
        writing=WritingConfig(prompts=str(prompts)),
        acting=ActingConfig(clips="rlhf_gym/Pizza-v0", clip_pairs=1, clip_length=2),
    )
    console = Console(record=True, width=200)
    fill(store, config, console)
    assert "1 queries, 0 of them gold, 1 records left out" in console.export_text()
    asked = [store.query(number).query.question for number in range(1, 5)]
    assert asked == ["ranking", "demonstration", "demonstration", "ranking"]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: WritingConfig(model="m"), "prompts"),
        (lambda: WritingConfig(prompts="p", model="m", endpoint="http://x"), "two writers"),
        (lambda: WritingConfig(completions=10), "completions"),
        (lambda: LabelConfig(rating_range=(3.0, 3.0)), "rating_range"),
        (lambda: LabelConfig(port=70000), "port"),
        (lambda: LabelConfig(overlap=0), "overlap"),
        (lambda: LabelConfig(token="short"), "guessed"),
    ],
)
def test_flags_that_cannot_work(make, match):
    with pytest.raises(InvalidArgument, match=match):
        make()


@pytest.mark.usefixtures("server_library")
def test_what_stops_the_command(store, tmp_path, monkeypatch):
    import socket
    import sqlite3

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InvalidArgument, match="--port 0"):
            label(LabelConfig(store=str(store.path), port=taken.getsockname()[1]))
    with pytest.raises(InvalidData, match="guidelines="):
        label(LabelConfig(store=str(store.path), port=0, guidelines=str(tmp_path / "none.md")))
    newer = tmp_path / "newer.db"
    FeedbackStore(newer).close()
    with sqlite3.connect(newer) as sqlite:
        sqlite.execute("pragma user_version = 99")
    with pytest.raises(InvalidStore, match=r"its version is 99.*Update"):
        label(LabelConfig(store=str(newer), port=0))
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database " * 1000)
    with pytest.raises(InvalidStore, match="Restore"):
        label(LabelConfig(store=str(broken), port=0))
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    with pytest.raises(InvalidArgument, match=r"pip install 'rlhf-gym\[label\]'"):
        label(LabelConfig(store=str(store.path)))
