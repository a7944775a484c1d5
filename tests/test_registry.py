"""Lazy names: nothing is imported before it is asked for, and mistakes are explained."""

import sys
from pathlib import Path

import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.registry import Registry, load_object

REGISTRY = Registry(
    "tool", {"decimal": ("decimal:Decimal", "exact numbers"), "wave": ("wave:open", "sound")}
)


def test_loads_by_name_and_only_then() -> None:
    sys.modules.pop("wave", None)
    assert REGISTRY["wave"].summary == "sound"
    assert "wave" not in sys.modules
    assert REGISTRY.load("decimal")("1.5") == 1.5


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(InvalidArgument, match=r"'decimol'.*you mean 'decimal'.*decimal, wave"):
        REGISTRY.load("decimol")


@pytest.mark.parametrize("path", ["decimal", ":x", "no_such_module:x", "decimal:no_such_name"])
def test_bad_object_path_names_the_flag(path: str) -> None:
    with pytest.raises(InvalidArgument, match="--reward"):
        load_object(path, "--reward")


def test_an_object_in_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rewards_beside_me.py").write_text("score = 7\n")
    monkeypatch.chdir(tmp_path)
    # As the installed command finds it: its own folder in front, the working folder nowhere.
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert load_object("rewards_beside_me:score", "reward") == 7
