"""Where another interpreter than ours finds what a workflow imports."""

from __future__ import annotations

import os
import site
import sys
import sysconfig

__all__ = ["path_for"]


def path_for(python: str | None, ours: list[str]) -> list[str]:
    """Return what a child puts on its import path: ours as it is, or for another interpreter what the user has put on ours.

    The library and the packages of this interpreter were built for it; another one goes on with its own behind these.
    """
    if python is None or python == sys.executable:
        return ours
    own = {os.path.realpath(folder) for folder in _own_folders()}
    return [entry for entry in ours if not _within(os.path.realpath(entry), own)]


def _own_folders() -> list[str]:
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_path(kind) for kind in kinds]
    folders += [*site.getsitepackages(), site.getusersitepackages(), os.path.dirname(sysconfig.get_path("stdlib"))]
    return folders


def _within(path: str, folders: set[str]) -> bool:
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)
