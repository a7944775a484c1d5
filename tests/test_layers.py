"""core < rewards < envs < agents < pipelines < cli: nothing imports from above itself."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["core", "rewards", "envs", "agents", "pipelines", "cli"]


def layer_of(module: str) -> int | None:
    parts = module.split(".")
    if parts[0] != "rlhf_gym" or len(parts) == 1:
        return None
    return LAYERS.index(parts[1]) if parts[1] in LAYERS else None


def sources() -> list[tuple[str, Path]]:
    folders = {
        "core": ROOT / "rlhf_gym/core",
        "rewards": ROOT / "rewards",
        "envs": ROOT / "envs",
        "agents": ROOT / "agents",
        "pipelines": ROOT / "rlhf_gym/pipelines",
    }
    return [(name, path) for name, top in folders.items() for path in sorted(top.rglob("*.py"))]


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: write absolute imports"
            found.append(node.module)
    return found


@pytest.mark.parametrize(("layer", "path"), sources(), ids=lambda value: str(value)[-40:])
def test_no_import_from_a_higher_layer(layer: str, path: Path) -> None:
    for module in imports(path):
        imported = layer_of(module)
        assert imported is None or imported <= LAYERS.index(layer), f"{path} imports {module}"


def test_every_layer_is_looked_at() -> None:
    assert {name for name, _ in sources()} == set(LAYERS[:-1])
