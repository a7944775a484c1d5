"""docs/feedback-store.md is run as written, and names every table and column."""

import re
from pathlib import Path

from rlhf_gym.core.store import FeedbackStore

PAGE = (Path(__file__).parents[3] / "docs" / "feedback-store.md").read_text()


def test_its_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "feedback-store.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["Progress(queries=1, answered=0, labels=1, skips=0, open=1)", "1 0 []"]


def test_it_names_every_table_and_column(tmp_path):
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, flags=re.MULTILINE))
    with (
        FeedbackStore(tmp_path / "feedback.db") as store,
        store.connection.reading() as sqlite,
    ):
        tables = [r[0] for r in sqlite.execute("select name from sqlite_master where type='table'")]
        assert set(tables) == set(rows)
        for table in tables:
            columns = {r["name"] for r in sqlite.execute(f"pragma table_info({table})")} - {"id"}
            assert columns == set(re.findall(r"`(\w+)`", rows[table])), table
