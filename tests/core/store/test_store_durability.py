"""Four raters and a training run at once, killed in the middle: what was acknowledged is there."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

from rlhf_gym.core.feedback import Query, TextSegment
from rlhf_gym.core.store import FeedbackStore

QUERIES = 1000
RATERS = ("anna", "bob", "carla", "dan")

RATER = """
import os, sys
from rlhf_gym.core.labels import Ranking
from rlhf_gym.core.store import FeedbackStore
store, rater = FeedbackStore(sys.argv[1]), sys.argv[2]
while (shown := store.next(rater)) is not None:
    label = store.answer(shown.id, rater, Ranking((0, 1)))
    # Written past Python's buffers: this is the acknowledgement.
    os.write(1, f"{shown.id} {label}\\n".encode())
"""

TRAINING = """
import sys
from rlhf_gym.core.store import FeedbackStore
from rlhf_gym.core.store.transfer import export_feedback
store, target = FeedbackStore(sys.argv[1]), sys.argv[2]
while True:
    # As each round of the loop does: read every label, write queries (known ones: none is added).
    export_feedback(store, target)
    store.add([store.query(1).query], provenance={"read": store.progress().labels})
"""


def start(path, rater, script=RATER):
    command = [sys.executable, "-c", script, str(path), rater]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_no_acknowledged_label_is_lost_and_none_is_double(tmp_path):
    path = tmp_path / "feedback.db"
    with FeedbackStore(path) as store:
        store.add(
            [
                Query(tuple(TextSegment(f"Prompt {number}", text) for text in "ab"))
                for number in range(QUERIES)
            ]
        )
    processes = [start(path, rater) for rater in RATERS]
    exported = tmp_path / "labels.jsonl"
    training = start(path, str(exported), TRAINING)
    with FeedbackStore(path) as reader:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if reader.progress().labels >= 200 and exported.exists():
                break
            time.sleep(0.02)
    for process in [training, *processes]:
        os.kill(process.pid, signal.SIGKILL)
    assert training.wait() == -signal.SIGKILL  # it was at work until then
    # An export that was cut off has left the whole one before it.
    read = [json.loads(line) for line in exported.read_text().splitlines()]
    assert {record["rater"] for record in read} <= set(RATERS)
    acknowledged = {
        (rater, *map(int, line.split()))
        for rater, process in zip(RATERS, processes, strict=True)
        # The last line may be cut in the middle; a label whose number is not whole is not counted.
        for line in process.communicate()[0].split("\n")[:-1]
    }
    assert len(acknowledged) >= 150
    with sqlite3.connect(path) as sqlite:
        assert sqlite.execute("pragma integrity_check").fetchone() == ("ok",)
        assert sqlite.execute("pragma foreign_key_check").fetchall() == []
    with FeedbackStore(path, claim_seconds=0) as store:
        stored = {(given.rater, given.query_id, given.id) for given in store.feedback()}
        assert acknowledged <= stored
        # At most one label per rater can have been on its way when the signal came.
        assert len(stored) <= len(acknowledged) + len(RATERS)
        assert len(stored) < QUERIES
        with store.connection.writing() as sqlite:
            sqlite.execute("delete from claims")  # those of the dead
    # Raters who come back finish the rest, and every query has exactly the one label.
    for process in [start(path, rater) for rater in RATERS]:
        process.communicate()
    with FeedbackStore(path) as store:
        per_query = Counter(given.query_id for given in store.feedback())
        assert len(per_query) == QUERIES
        assert set(per_query.values()) == {1}
        assert store.progress().answered == QUERIES
