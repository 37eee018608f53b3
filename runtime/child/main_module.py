"""A script's `__main__` in another process: imported under another name, so that its guarded part does not run.

What `multiprocessing` does for its workers: definitions and plugins of a script run as `__main__` are found there under `__main__`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType

__all__ = ["MAIN_ALIAS", "describe_main", "load_main"]

#: The `__name__` under which a script is imported in other processes.
MAIN_ALIAS = "__paddock_main__"


def describe_main() -> tuple[str | None, str | None]:
    """Return (path, module) of this process's `__main__`: a script's path, or the name given to ``python -m``; both None in a shell."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in ("__main__", None):
        return None, spec.name.removesuffix(".__main__") + (".__main__" if spec.name.endswith(".__main__") else "")
    path = getattr(main, "__file__", None)
    return (os.path.abspath(path), None) if path and os.path.exists(path) else (None, None)


def load_main(path: str | None, module: str | None) -> None:
    """Import the server's `__main__` here and let it stand as `__main__`.

    Raises:
        Exception: whatever the script's import raises.
    """
    if module is not None:
        spec = importlib.util.find_spec(module)
    elif path is not None:
        spec = importlib.util.spec_from_file_location(MAIN_ALIAS, path)
    else:
        return
    if spec is None or spec.loader is None:
        raise ImportError(f"the main module {module or path} cannot be found")
    loaded: ModuleType = importlib.util.module_from_spec(spec)
    loaded.__name__ = MAIN_ALIAS
    before = sys.modules.get("__main__")
    sys.modules[MAIN_ALIAS] = sys.modules["__main__"] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[MAIN_ALIAS]
        if before is not None:
            sys.modules["__main__"] = before
        raise
