"""Lines that were printed belong to the step that alone can have printed them, whoever reads them."""

import asyncio
from types import SimpleNamespace

from paddock.runtime.base.clock import SystemClock
from paddock.runtime.engine.logs import LogSink
from paddock.runtime.engine.step_call import CURRENT_STEP


async def test_what_one_of_two_steps_printed_is_not_put_down_to_the_one_that_reads_it():
    kept = []
    writer = SimpleNamespace(add=kept.append, add_later=kept.append)
    sink = LogSink(writer, SystemClock(), asyncio.get_running_loop(), 10_000)
    token = CURRENT_STEP.set(("reader", 2))
    try:
        sink.put("info", "somebody's", {}, source="stdout", position=9)
        sink.put("info", "alone's", {}, source="stdout", position=19, step=("alone", 1))
        sink.put("info", "logged", {})
    finally:
        CURRENT_STEP.reset(token)
    assert [(op.message, op.step_name, op.attempt) for op in kept] == [
        ("somebody's", None, None),
        ("alone's", "alone", 1),
        ("logged", "reader", 2),
    ]
