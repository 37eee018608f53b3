"""A program of its own, as an audit may need one: it builds an index of where each name is defined.

It has been started as ``python -m paddock.examples.audit.indexer ROOT LIST INDEX``, knows nothing of workflows, and says that it is
ready by the index being there. The workflow starts it in one step, and polls for the index in another.
"""

import ast
import fcntl
import json
import os
import subprocess
import sys

__all__ = ["build", "ensure_running"]


def ensure_running(root: str, listing: str, index: str) -> bool:
    """Start the program unless it runs already; return whether it was started.

    A lock on a file tells: it is taken here, handed to the program with the descriptor, and given back by the kernel when that ends,
    however it ends. So this may be called again and again.
    """
    with open(f"{index}.lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        command = [sys.executable, "-P", "-m", __spec__.name, root, listing, index]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[lock.fileno()])
        return True


def build(root: str, listing: str, index: str) -> None:
    """Read the list of modules and write the index, whole or not at all."""
    with open(listing, encoding="utf-8") as file:
        paths = json.load(file)
    places: dict[str, list[str]] = {}
    for path in paths:
        with open(os.path.join(root, path), "rb") as source:
            try:
                tree = ast.parse(source.read())
            except (SyntaxError, ValueError):
                continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path}:{node.lineno}")
    with open(f"{index}.new", "w", encoding="utf-8") as file:
        json.dump(places, file, sort_keys=True)
    os.replace(f"{index}.new", index)


if __name__ == "__main__":
    build(*sys.argv[1:])
