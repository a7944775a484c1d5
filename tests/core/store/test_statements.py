"""SQL that every supported Python takes."""

import ast
import re
from pathlib import Path

import rlhf_gym.core.store as store


def test_no_numbered_placeholders() -> None:
    """Python 3.14 refuses `?1` beside a sequence, 3.12 warns of it, 3.11 says nothing."""
    files = sorted(Path(store.__file__).parent.glob("*.py"))
    texts = {
        node.value
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert any("where l.retracted is null" in text for text in texts)
    assert not [text for text in texts if re.search(r"\?\d", text)]
