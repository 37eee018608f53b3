"""A child as a fresh interpreter: what `launcher="spawn"` and `python=` ask for, and what is left where a fork would not be safe."""

from __future__ import annotations

import json
import os
import sys
import tempfile

from ...ipc.messages import Boot, Fork
from ..base.limits import environment
from .interpreter import path_for
from .spec import MARKER, ChildSpec

__all__ = ["spawn"]

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


def spawn(order: Fork, boot: Boot) -> int:
    """Start an interpreter for an order and return its pid.

    Its orders are in an unlinked file: they hold secrets, so argv and environment are no place.

    Args:
        order: what the child is for.
        boot: where the server imports from.

    Raises:
        OSError: it could not be started.
    """
    spec = ChildSpec.model_validate_json(order.spec)
    orders = {
        "sys_path": path_for(order.python, boot.sys_path),
        "foreign": order.python not in (None, sys.executable),
        "argv": boot.argv,
        "main_path": boot.main_path,
        "main_module": boot.main_module,
        "spec": json.loads(order.spec),
    }
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(orders).encode())
        file.seek(0)
        descriptor = file.fileno()
        os.set_inheritable(descriptor, True)
        out, err = (os.open(path, _APPEND, 0o600) for path in spec.outputs)
        try:
            python = order.python or sys.executable
            return os.posix_spawn(
                python,
                [python, "-P", "-m", "paddock.runtime.child", str(descriptor)],
                {**environment(order.environ, os.environ), MARKER: spec.marker},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, out, 1),
                    (os.POSIX_SPAWN_DUP2, err, 2),
                ],
            )
        finally:
            os.close(out)
            os.close(err)
