"""What is installed: one top-level package, every subpackage in it, and its data files."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in filter(None, files):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to((ROOT / name).readlink())
        elif (ROOT / name).is_file():
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", str(folder), str(source)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_only_our_name_is_top_level(wheel_names: list[str]) -> None:
    top = {name.split("/")[0] for name in wheel_names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"rlhf_gym"}


def test_every_module_is_in_the_wheel(wheel_names: list[str]) -> None:
    tops = {"agents": "rlhf_gym/agents", "envs": "rlhf_gym/envs", "rewards": "rlhf_gym/rewards"}
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "rlhf_gym").rglob("*.py")} | {
        f"{target}/{path.relative_to(ROOT / top)}"
        for top, target in tops.items()
        for path in (ROOT / top).rglob("*.py")
    }
    assert expected <= set(wheel_names)


def test_the_embedded_task_is_package_data(wheel_names: list[str]) -> None:
    weights = [name for name in wheel_names if name.endswith("model.safetensors")]
    assert len(weights) >= 2
    assert not [name for name in wheel_names if name.endswith((".bin", ".pt", ".pkl"))]


def test_the_labelling_page_is_package_data(wheel_names: list[str]) -> None:
    folder = ROOT / "rlhf_gym/pipelines/labelling/static"
    assert {str(path.relative_to(ROOT)) for path in folder.iterdir()} <= set(wheel_names)


def test_declared_subpackages_are_those_on_disk() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = set(config["tool"]["setuptools"]["packages"])
    found = {"rlhf_gym"}
    for top in ("rlhf_gym/core", "rlhf_gym/pipelines", "agents", "envs", "rewards"):
        for init in (ROOT / top).rglob("__init__.py"):
            dotted = ".".join(init.parent.relative_to(ROOT).parts)
            found.add(dotted if dotted.startswith("rlhf_gym") else f"rlhf_gym.{dotted}")
    assert declared == found


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, rlhf_gym; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_top_level_name_leaks() -> None:
    code = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ['agents', 'envs'])))"
    outside = subprocess.run([sys.executable, "-c", code], cwd="/", check=False)
    assert outside.returncode == 0
