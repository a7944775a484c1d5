"""docs/reward-schemes.md is run as written, and lists every scheme where it is."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from rlhf_gym.rewards.registry import CONTROL_REWARDS, REWARDS
from rlhf_gym.rewards.schemes import CONTROL_PRESETS, PRESETS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reward-schemes.md").read_text()
WRITING, ACTING = PAGE.split("## Where the task is to act")


def rows(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if re.match(r"\| `\w+` \|.*`rewards/", line)
    ]


ROWS = rows(WRITING)


def test_its_python_prints_what_it_says():
    names = {}
    printed = io.StringIO()
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        with contextlib.redirect_stdout(printed):
            exec(compile(block, "reward-schemes.md", "exec"), names)
    [said] = re.findall(r"```\n([a-z]+ +\d.*?)```", PAGE, flags=re.DOTALL)
    assert _pairs(printed.getvalue()) == [
        (name, pytest.approx(number, abs=0.002)) for name, number in _pairs(said)
    ]
    # two steps of the environment of the last block
    env = names["env"]
    env.reset(seed=0)
    env.step([2] * 8)


def _pairs(text):
    return [(name, float(number)) for name, number in map(str.split, text.splitlines())]


@pytest.mark.parametrize(("page", "registry"), [(WRITING, REWARDS), (ACTING, CONTROL_REWARDS)])
def test_every_scheme_is_listed_where_it_is(page, registry):
    files = {row[0].strip("`"): row[5].strip("`") for row in rows(page)}
    files.pop("scaled", None)  # an operator, no class
    listed = {
        name: entry.target.split(":")[0].replace("rlhf_gym.", "").replace(".", "/") + ".py"
        for name, entry in registry.items()
    }
    assert files == listed


def test_every_scheme_says_whether_it_moves_the_optimum():
    assert {row[3] for row in ROWS} == {"no", "trade", "batch", "yes"}
    assert all(row[1] and row[2] for row in ROWS)


@pytest.mark.parametrize("name", REWARDS)
def test_every_scheme_has_its_unit_and_a_page(name):
    scheme = REWARDS.load(name)
    assert scheme.__doc__
    assert "Args:" in scheme.__doc__


def test_every_scheme_with_a_name_is_on_the_page():
    row = r"^\| `(\w+)` \| `([^`]+)` \| (no|trade|batch|yes) \|$"
    for page, presets in ((WRITING, PRESETS), (ACTING, CONTROL_PRESETS)):
        found = re.findall(row, page, flags=re.MULTILINE)
        assert {name: (expression, moves) for name, expression, moves in found} == {
            name: (preset.expression, preset.moves) for name, preset in presets.items()
        }
