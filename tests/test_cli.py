"""The command line: every command loads, mistakes end with their message, help comes at once."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import tyro

from rlhf_gym import cli
from rlhf_gym.core.calibration import Estimate
from rlhf_gym.core.command import Command

HEAVY = (
    "matplotlib",
    "pandas",
    "sb3_contrib",
    "scipy",
    "sklearn",
    "stable_baselines3",
    "torch",
    "transformers",
)
"""Seconds to import; people who ask for help should not wait for them."""


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_flags_with_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = cli.COMMANDS.load(name)
    assert isinstance(command, Command)
    with pytest.raises(SystemExit) as end:
        tyro.cli(command.config, prog=name, args=["--help"])
    assert end.value.code == 0
    assert name in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in cli.COMMANDS)


def assert_light(code: str) -> None:
    """Run code in a process of its own (this one has imported torch) and see what it loads."""
    looked = f"import sys\n{code}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"


def test_help_and_list_import_nothing_heavy() -> None:
    assert_light("from rlhf_gym.cli import main; main(['--help']); main(['list'])")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_imports_nothing_heavy(name: str) -> None:
    assert_light(
        "import tyro\n"
        "from rlhf_gym.cli import COMMANDS\n"
        f"config = COMMANDS.load({name!r}).config\n"
        f"try: tyro.cli(config, prog={name!r}, args=['--help'])\n"
        "except SystemExit as end: assert end.code == 0"
    )


def test_values_are_checked_without_importing_anything_heavy() -> None:
    assert_light(
        "from rlhf_gym.core.errors import InvalidArgument\n"
        "from rlhf_gym.pipelines.collect import CollectConfig\n"
        "from rlhf_gym.pipelines.experiments.config import CompareConfig\n"
        "from rlhf_gym.pipelines.rlhf import RLHFConfig\n"
        "from rlhf_gym.pipelines.train import PPOConfig, TrainConfig\n"
        "from rlhf_gym.core.preferences import RewardLearnerConfig\n"
        "for kind, mistake in (\n"
        "    (CollectConfig, {'labeler': 'nobody'}),\n"
        "    (CompareConfig, {'schemes': 'score,score'}),\n"
        "    (PPOConfig, {'optimizer': 'adm'}),\n"
        "    (RewardLearnerConfig, {'selection': 'nonsense'}),\n"
        "    (RLHFConfig, {'labeler': 'nobody'}),\n"
        "    (RLHFConfig, {'noise': 'nonsense'}),\n"
        "    (RLHFConfig, {'selection': 'nonsense'}),\n"
        "    (TrainConfig, {'agent_kwargs': ('nonsense',)}),\n"
        "):\n"
        "    try: kind(**mistake)\n"
        "    except InvalidArgument: continue\n"
        "    raise AssertionError(mistake)"
    )


def test_list_shows_environments_agents_and_rewards(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["list"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("rlhf_gym/Exact-v0", "ppo", "reward_model"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "--env", "rlhf_gym/Exat-v0"], "env="),
        (["train", "--kl-coef", "-1"], "kl_coef=-1.0"),
        (["train", "--agent", "pppo"], "agent='pppo'"),
        (["train", "--model", "somewhere"], "prompts=None"),
        (["train", "--prompts", "somewhere"], "model=None"),
        (["pretrain", "--corpus", "no/such/file.txt", "--output", "{tmp}/lm"], "no/such/file.txt"),
        (["study", "nonsense"], "study='nonsense'"),
        (["train", "--seed", "-1"], "seed=-1: no seed."),
        (
            ["sft", "--model", "a", "--data", "b", "--output", "c", "--seed", "4294967296"],
            "seed=4294",
        ),
        (["demo", "--seed", "-2"], "seed=-2"),
        (["demo", "--reviews", "0"], "reviews=0"),
        (["evaluate", "--seed", "-1"], "seed=-1"),
        (["collect", "--seed", "-1"], "seed=-1"),
        (["rlhf", "--seed", "-1"], "seed=-1"),
        (["compare", "--schemes", "score", "--first-seed", "-1"], "first_seed=-1"),
    ],
)
def test_mistakes_end_with_their_message_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    if given[0] == "train":
        given += ["--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as end:
        cli.main(given)
    assert end.value.code == 2
    assert message in capsys.readouterr().err.replace("\n", "")


def test_a_folder_without_permission_is_refused_before_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "file"
    taken.write_text("not a folder")
    started = time.perf_counter()
    with pytest.raises(SystemExit):
        cli.main(["train", "--env", "rlhf_gym/Exact-v0", "--output", str(taken / "run")])
    assert time.perf_counter() - started < 30
    assert "FolderNotWritable" in capsys.readouterr().err


def test_an_estimate_is_shown_with_its_interval(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Nothing:
        """Needs nothing."""

    @dataclass(frozen=True)
    class Found:
        gold_return: Estimate

    command = Command(Nothing, lambda config: Found(Estimate(2.45, 2.203, 2.696)))
    monkeypatch.setattr(cli.COMMANDS, "load", lambda name: command)
    cli.main(["train"])
    assert "2.450 [2.203, 2.696]" in capsys.readouterr().out
