"""docs/labelling.md: its flags exist, its records can be read, its Python runs."""

import json
import re
import shlex
from pathlib import Path

import gymnasium as gym
import tyro

from rlhf_gym.core.feedback import Question
from rlhf_gym.pipelines.labelling.command import COMMAND
from rlhf_gym.pipelines.labelling.queries import add_queries
from rlhf_gym.pipelines.labelling.supervision import Supervision

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "labelling.md").read_text()


def test_its_commands_can_be_given():
    commands = re.findall(r"^rlhf-gym label(.*)$", PAGE, flags=re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        tyro.cli(COMMAND.config, args=shlex.split(command, comments=True))


def test_its_records_can_be_read(store, tmp_path):
    (records,) = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
    file = tmp_path / "queries.jsonl"
    file.write_text(records)
    assert add_queries(store, file) == (len(records.splitlines()), 1, [])
    best = json.loads(records.splitlines()[0])
    shown = store.query(1)
    assert shown.query.segments[shown.gold.order[0]].completion == best["completions"][best["gold"]]


def test_every_question_is_in_its_table():
    named = set(re.findall(r"^\| `(\w+)`", PAGE, flags=re.MULTILINE))
    assert set(Question.__args__) <= named


def test_its_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    supervision = Supervision("feedback.db", "rlhf_gym/Pizza-v0")
    supervision.step({"rater": "anna"})
    supervision.reward({"rater": "anna", "step": 1, "value": 1, "ticket": "a"})
    supervision.close()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "labelling.md", "exec"), names)
    names["paid"].reset()
    _, rewards, _, _ = names["paid"].step([0] * 16)
    assert rewards.shape == (16,)
    assert isinstance(names["agent"].encoding.action_space, gym.spaces.Discrete)


def test_its_pictures_are_there_and_small():
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", PAGE)
    assert len(pictures) == 2
    for picture in pictures:
        assert 0 < (DOCS / picture).stat().st_size < 150_000
