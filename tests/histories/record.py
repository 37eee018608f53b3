"""Record the journals of a version: ``python tests/histories/record.py 0.1`` writes journals/0.1-*.json.

Every suspension and the end of each workflow of `historyflows` is one journal: all instances with their steps, inputs, metadata and
kept signals. Journals of released versions are never recorded again: later versions must go on replaying them.
"""

import asyncio
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))

import historyflows  # noqa: E402

from paddock.runtime.base.config import WorkflowsConfig  # noqa: E402
from paddock.runtime.store.ops import Ended, Suspended  # noqa: E402
from paddock.runtime.store.sqlite import MemoryStore  # noqa: E402
from paddock.runtime.testing.server import MemoryServer  # noqa: E402

TABLES = ("paddock_instances", "paddock_payloads", "paddock_steps", "paddock_metadata", "paddock_signals")


def dump(tx):
    """Return the rows of the tables, as dictionaries without what is empty."""
    found = {}
    for table in TABLES:
        cursor = tx.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
        columns = [column[0] for column in cursor.description]
        found[table] = [
            {name: value for name, value in zip(columns, row, strict=True) if value is not None} for row in cursor
        ]
    return found


class RecordingStore(MemoryStore):
    """A store that keeps a copy of everything whenever its main instance suspends or ends."""

    def __init__(self, workflow_name):
        super().__init__()
        self.name = workflow_name
        self.journals = []

    async def commit(self, lease, ops, now):
        done = await super().commit(lease, ops, now)
        if any(isinstance(op, Suspended | Ended) for op in ops):
            tables = self._writer.call_now(dump)
            (main,) = [row for row in tables["paddock_instances"] if row["workflow_name"] == self.name]
            if main["seq"] == lease.instance:
                self.journals.append({"workflow": self.name, "at": now, "status": main["status"], "tables": tables})
        return done


async def record(version):
    for name, (definition, value) in historyflows.RECORDED.items():
        known = getattr(definition, "__paddock_definition__", definition)
        store = RecordingStore(known.name)
        server = MemoryServer((), {}, WorkflowsConfig(), store)
        for one in historyflows.ALL:
            server.workflows.register(one)
        async with server:
            ident = await server.workflows.start(definition, value)
            await server.workflows.signal(ident, "approve", {"name": "yes"})
            waiting = asyncio.create_task(server.workflows.wait(ident, timeout=60))
            while not waiting.done():
                for one in await server.workflows.get_instances(known.name, "waiting"):
                    if one.current_step == "never":
                        server.clock.advance("2s")
                await asyncio.sleep(0.01)
            instance = await waiting
            assert instance.status == "completed", instance.error
        text = json.dumps(
            {"version": version, "input": value, "output": instance.output, "journals": store.journals},
            indent=None,
            separators=(",", ":"),
            ensure_ascii=False,
        )
        (HERE / "journals" / f"{version}-{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1]))
