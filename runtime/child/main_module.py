"""A script's `__main__` in another process: imported under another name, so that its guarded part does not run.

What `multiprocessing` does for its workers: definitions and plugins of a script run as `__main__` are found there under `__main__`.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import os
import sys
from types import CodeType, ModuleType

__all__ = ["MAIN_ALIAS", "describe_main", "importable", "load_main", "loaded_main"]

#: The `__name__` under which a script is imported in other processes.
MAIN_ALIAS = "__paddock_main__"

_failures: list[str] = []


def describe_main() -> tuple[str | None, str | None]:
    """Return (path, module) of this process's `__main__`: a script's path, or the name given to ``python -m``; both None in a shell."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in ("__main__", None):
        return None, spec.name.removesuffix(".__main__") + (".__main__" if spec.name.endswith(".__main__") else "")
    path = getattr(main, "__file__", None)
    return (os.path.abspath(path), None) if path and os.path.exists(path) else (None, None)


def importable(module: str) -> bool:
    """Tell whether a child process can import a module that is loaded here."""
    if module in ("__main__", MAIN_ALIAS):  # a script that registers where it is imported does so in every child, too
        return any(describe_main())
    top = module.partition(".")[0]
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        try:
            if find is not None and find(top, None) is not None:
                return True
        except (ImportError, ValueError, AttributeError):
            continue
    loaded = isinstance(getattr(sys.modules.get(module), "__spec__", None), importlib.machinery.ModuleSpec)
    return loaded and top in sys.builtin_module_names


def load_main(path: str | None, module: str | None) -> None:
    """Import the server's `__main__` here and let it stand as `__main__`.

    Raises:
        Exception: whatever the script's import raises.
    """
    if module is not None:
        loaded, code = _from_module(module)
    elif path is not None:
        loaded, code = _from_file(path)
    else:
        return
    loaded.__name__ = MAIN_ALIAS
    before = sys.modules.get("__main__")
    sys.modules[MAIN_ALIAS] = sys.modules["__main__"] = loaded
    try:
        exec(code, vars(loaded))  # noqa: S102  the loader's own `exec_module` insists on the module's own name
    except BaseException as error:
        _failures[:] = [f"{type(error).__name__}: {error}"]
        del sys.modules[MAIN_ALIAS]
        if before is not None:
            sys.modules["__main__"] = before
        raise


def loaded_main() -> ModuleType:
    """Return the server's `__main__` as `load_main` has imported it here.

    Raises:
        ImportError: it could not; the message says why.
    """
    main = sys.modules["__main__"]
    if main.__name__ != MAIN_ALIAS and _failures:
        raise ImportError(_failures[0])
    return main


def _from_module(name: str) -> tuple[ModuleType, CodeType]:
    spec = importlib.util.find_spec(name)
    code = getattr(spec.loader, "get_code", lambda _name: None)(name) if spec is not None else None
    if spec is None or code is None:
        raise ImportError(f"the main module {name} cannot be found")
    return importlib.util.module_from_spec(spec), code


def _from_file(path: str) -> tuple[ModuleType, CodeType]:
    """Return a script as a module, whatever its suffix, and leave no bytecode beside it: the interpreter does not either."""
    loaded = ModuleType(MAIN_ALIAS)
    loaded.__file__ = path
    with io.open_code(path) as file:
        return loaded, compile(file.read(), path, "exec", dont_inherit=True)
