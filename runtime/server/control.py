"""What the command line asks of a running server: the operations of `server.workflows`, over the hub.

Whoever asks has passed the hub's handshake: the same user, and the token of the run directory. One connection's wishes are done one
after the other; one that is under way when its asker goes away is done to its end, because half of a cancel helps nobody.

The same desk serves where no server runs: `cli/offline.py` puts it on the rows of a database. So both ways obey the same rules.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from ...ipc.connection import Connection
from ...ipc.messages import Answer, Ask
from ..authoring.diagram import diagram_of
from ..base.errors import PaddockError, UsageError
from ..base.log import get_logger
from ..base.values import plain_json
from .workflows import Workflows

__all__ = ["STEERING", "ControlDesk"]

#: What is done by the method of `server.workflows` of the same name, with named arguments of plain JSON.
STEERING = frozenset(
    {
        "start",
        "signal",
        "cancel",
        "retry",
        "fork",
        "pause",
        "unpause",
        "cleanup",
        "cancel_all",
        "retry_all",
        "cleanup_all",
        "update_metadata",
        "update_state",
        "unschedule",
    }
)
_log = get_logger("paddock.control")


class ControlDesk:
    """Do what people ask for, and answer in JSON."""

    def __init__(
        self,
        workflows: Workflows,
        processes: Callable[[], list[dict[str, Any]]],
        problems: Callable[[], dict[str, Any]],
    ) -> None:
        """Work with a service; `processes` blocks and is called in a thread."""
        self._workflows = workflows
        self._processes = processes
        self._problems = problems
        self._under_way: set[asyncio.Task[Answer]] = set()
        self._looking: dict[str, Callable[..., Awaitable[Any]]] = {
            "processes": self._list_processes,
            "health": self._health,
            "workflows": self._list_workflows,
            "diagram": self._diagram,
        }

    async def talk(self, connection: Connection) -> None:
        """Serve one asker until it hangs up."""
        while (message := await connection.receive()) is not None:
            if not isinstance(message, Ask):
                return  # no asker of ours: its connection is closed
            task = asyncio.create_task(self._answer(message), name=f"paddock-ask-{message.operation}")
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            connection.send(await asyncio.shield(task))

    async def stop(self) -> None:
        """End what is under way; what it has stored so far is durable."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, ask: Ask) -> Answer:
        try:
            result = await self.do(ask.operation, plain_json(ask.arguments))
            return Answer(id=ask.id, result=json.dumps(result))
        except PaddockError as error:
            return Answer(id=ask.id, error_type=type(error).__name__, error=str(error))
        except Exception as error:  # noqa: BLE001  whatever it is, the asker must hear of it
            _log.exception("what the command line asked for failed", operation=ask.operation)
            return Answer(
                id=ask.id, error_type="PaddockError", error=f"the server failed: {type(error).__name__}: {error}"
            )

    async def do(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Do one operation and return its result, which has a JSON form.

        Raises:
            UsageError: there is no such operation.
            PaddockError: what the operation itself raises.
        """
        if operation in STEERING:
            return await getattr(self._workflows, operation)(**arguments)
        look = self._looking.get(operation)
        if look is None:
            raise UsageError(
                f"this server knows no operation {operation!r}; it and the command line need the same release of Paddock"
            )
        return await look(**arguments)

    # --- looking ---

    async def _list_processes(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._processes)

    async def _health(self) -> dict[str, Any]:
        problems = self._problems()
        return {"ok": not problems, "problems": problems}

    async def _list_workflows(self) -> list[dict[str, Any]]:
        return [
            {
                "name": known.definition.name,
                "description": known.definition.description,
                "isolated": known.isolated,
                "limit": known.limit,
            }
            for known in self._workflows.registry
        ]

    async def _diagram(self, workflow: str) -> dict[str, Any]:
        return asdict(diagram_of(self._workflows.registry.get(workflow).definition))
