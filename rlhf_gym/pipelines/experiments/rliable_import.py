"""Getting rliable imported beside pandas 3.

rliable 1.2 asks for arch below 8, for its bootstrap alone; but importing any part of arch 7 imports
its volatility models first, and these fail with pandas 3. So where `import arch` fails, the package
is registered without running its `__init__`: its submodules are found all the same.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec, module_from_spec
from typing import Any


def import_rliable() -> tuple[Any, Any]:
    """rliable's modules `library` and `metrics`."""
    try:
        importlib.import_module("arch")
    except TypeError:
        spec = find_spec("arch")
        assert spec is not None  # it was found a line above
        sys.modules["arch"] = module_from_spec(spec)
    return importlib.import_module("rliable.library"), importlib.import_module("rliable.metrics")
