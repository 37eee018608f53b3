"""structlog for children, without rich until somebody formats a traceback with it.

structlog imports rich where that is installed, and rich imports pygments: 4 of the 31 MB of a fork server, whose pages each fork copies the table
of. A child's logger needs none of it. So stand-ins take rich's place while structlog is imported, and import the real one at their first
use: a formatter that a user configures works in a child as it does elsewhere, and pays for it then.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

__all__ = ["import_structlog"]

#: What structlog takes from rich while it is imported: classes, and a module.
_TAKEN = (("rich.console", "Console"), ("rich.traceback", "Traceback"), ("rich.pretty", None))


class _Late:
    """Something of a module's, or the module, that is imported at the first use."""

    def __init__(self, module: str, name: str | None) -> None:
        self._module = module
        self._name = name

    def _found(self) -> Any:
        module = importlib.import_module(self._module)
        return module if self._name is None else getattr(module, self._name)

    def __call__(self, *values: Any, **named: Any) -> Any:
        return self._found()(*values, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found(), name)


def import_structlog() -> None:
    """Import structlog, without rich where nobody has it yet. For a process with one thread: others would find the stand-ins."""
    if "structlog" in sys.modules or "rich" in sys.modules or importlib.util.find_spec("rich") is None:
        importlib.import_module("structlog")
        return
    whole = ModuleType("rich")
    stand_ins = {"rich": whole}
    for module, name in _TAKEN:
        part = stand_ins[module] = ModuleType(module)
        if name is None:
            setattr(whole, module.removeprefix("rich."), _Late(module, None))
        else:
            setattr(part, name, _Late(module, name))
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("structlog")
    finally:
        for module in stand_ins:
            del sys.modules[module]
