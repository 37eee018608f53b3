"""What a child is told, in tests that are not about what it is told."""

from pathlib import Path
from typing import Any

from paddock.runtime.base.config import SqlitePragmas
from paddock.runtime.child.spec import ChildSpec, DefinitionPath


def told(folder: Path, database: str = "app.db", **more: Any) -> ChildSpec:
    """Return the spec of a child whose files and sockets lie in a folder."""
    facts: dict[str, Any] = {
        "database": str(folder / database),
        "pragmas": SqlitePragmas(),
        "instance": 1,
        "epoch": 1,
        "instance_id": "i",
        "definition": DefinitionPath(name="w"),
        "address": f"unix:{folder}/hub.sock",
        "token": "",
        "run_dir": str(folder),
        "slot": 0,
        "beat_interval": 1,
        "ready_timeout": 1,
        "kill_grace": 1,
        "orphan_grace": 60,
        "suspend_after": 1,
        "max_payload": 1,
        "max_output": 1,
    }
    return ChildSpec(**{**facts, **more})
