"""A state machine alone: in the user's own loop, saved to text between any two steps, without a server or a database."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..base.errors import InvalidInput, InvalidState, InvalidWorkflow, StepFailed, WaitTimeout
from ..base.values import ANY, Schema, describe_validation, plain_json
from ..engine.failure import describe_error
from .flow_context import look_at
from .machine_data import next_state

if TYPE_CHECKING:
    from .machine import StateMachine

__all__ = ["Standalone", "Transition"]

_VERSION = 1
_DATA = "the machine's data"


@dataclass(frozen=True, slots=True)
class Transition:
    """A step from one state to the next; `target` is None at the end."""

    source: str
    target: str | None


class _NotSent(BaseException):
    """The machine waits for a signal that was not sent."""


class Standalone:
    """The host of a machine that runs alone."""

    def __init__(self, machine: StateMachine[Any]) -> None:
        """Begin at the machine's start."""
        self._machine = machine
        self._model = Schema(type(machine).data_type)
        self._cache: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._failures: dict[str, list[str]] = {}
        self._inbox: list[list[Any]] = []
        self.log_entries: list[dict[str, Any]] = []
        self._logged = 0
        self._replayed = 0
        self._data_at_entry = self._text()

    def send(self, name: str, payload: Any) -> None:
        """Keep a signal."""
        self._inbox.append([name, plain_json(ANY.encode(payload, f"signal {name!r}"))])

    async def run(self) -> AsyncIterator[Transition]:
        """Go on from the current state; a state that was left in the middle is entered again, with what it had done from the cache."""
        machine = self._machine
        while machine.state is not None:
            source = machine.state
            self._counts.clear()
            self._replayed = 0
            machine.data = self._model.decode(self._data_at_entry, _DATA)
            machine._host = self  # noqa: SLF001  the machine is ours
            try:
                target = next_state(type(machine), await getattr(machine, source)())
            except _NotSent:
                return
            except Exception:
                self._failures.clear()  # what the state has not caught is tried again when it runs again
                raise
            machine.data = self._model.decode(self._text(), _DATA)
            machine.state = target
            self._cache.clear()
            self._failures.clear()
            self._logged = 0
            self._data_at_entry = self._text()
            yield Transition(source, target)

    def _text(self) -> str:
        return self._model.encode(self._machine.data, _DATA)

    def _key(self, name: str) -> str:
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"

    # --- what a state asks for ---

    async def action(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], _options: dict[str, Any]
    ) -> Any:
        """Run a function once per visit."""
        key = self._key(name)
        handler, _ = look_at(function)
        if key in self._failures:
            raise StepFailed(key, self._failures[key][0], self._failures[key][1], 1)
        if key not in self._cache:
            try:
                if handler.is_async:
                    found = await function(*args)
                else:
                    found = await asyncio.to_thread(function, *args)
                    found = await found if inspect.isawaitable(found) else found
                self._cache[key] = plain_json(handler.output.encode(found, f"the result of action {name!r}"))
            except Exception as error:
                info = describe_error(error, key)
                self._failures[key] = [info.type, info.message]
                raise StepFailed(key, info.type, info.message, 1, info.traceback) from error
        return handler.output.decode(json.dumps(self._cache[key]), f"the result of action {name!r}")

    async def wait_event(self, name: str, schema: Schema, timeout: float | None) -> Any:
        """Take a signal that was sent, or stop running until it is."""
        key = self._key(name)
        if key not in self._cache:
            if key in self._failures:
                raise WaitTimeout(self._failures[key][1])
            for kept in [one for one in self._inbox if one[0] == name]:
                if self._take(kept, key, schema):
                    break
            else:
                self._time_out(key, name, timeout)
                raise _NotSent
        return schema.decode(json.dumps(self._cache[key]), f"signal {name!r}")

    def _take(self, payload: list[Any], key: str, schema: Schema) -> bool:
        """Take a signal for a wait; one that does not fit is dropped, and the audit log says so."""
        self._inbox.remove(payload)
        name, value = payload
        try:
            typed = schema.decode(json.dumps(value), f"signal {name!r}")
        except InvalidInput as error:
            self._note(f"a signal does not fit and was dropped: {error}", {})
            return False
        self._cache[key] = plain_json(schema.encode(typed, f"signal {name!r}"))
        return True

    def _time_out(self, key: str, name: str, timeout: float | None) -> None:
        if timeout is None:
            return
        deadline = self._cache.setdefault(f"{key}:deadline", time.time() + timeout)
        if time.time() >= deadline:
            self._failures[key] = [WaitTimeout.__name__, f"no signal {name!r} came in time"]
            raise WaitTimeout(self._failures[key][1])

    async def sleep(self, name: str, seconds: float) -> None:
        """Wait in real time, until a moment that was fixed when the wait began."""
        wake_at = self._cache.setdefault(self._key(name), time.time() + seconds)
        await asyncio.sleep(max(0.0, wake_at - time.time()))

    def log(self, message: str, data: dict[str, Any]) -> None:
        """Write to the audit log; a state that is entered again repeats no line."""
        self._replayed += 1
        if self._replayed <= self._logged:
            return
        self._logged += 1
        self._note(message, data)

    def _note(self, message: str, data: dict[str, Any]) -> None:
        entry = {
            "at": datetime.now(UTC).isoformat(),
            "state": self._machine.state,
            "message": message,
            **({"data": data} if data else {}),
        }
        self.log_entries.append(plain_json(ANY.encode(entry, "an audit log entry")))

    # --- saved and loaded ---

    def to_json(self) -> str:
        """Return everything as JSON text."""
        saved = {
            "version": _VERSION,
            "machine": self._machine.name,
            "state": self._machine.state,
            "data": json.loads(self._data_at_entry),
            "cache": self._cache,
            "failures": self._failures,
            "inbox": self._inbox,
            "logged": self._logged,
            "log": self.log_entries,
        }
        return json.dumps(saved)

    @classmethod
    def load(cls, machine: StateMachine[Any], text: str) -> Standalone:
        """Fill a bare machine from text.

        Raises:
            InvalidState: it is not what `to_json` of this class returned.
        """
        try:
            saved = json.loads(text)
            if saved["machine"] != machine.name or saved["version"] != _VERSION:
                raise InvalidState(
                    f"the text was saved by {saved['machine']!r} (version {saved['version']}), not by {machine.name!r}"
                )
            machine.data = type(machine).data_type.model_validate(saved["data"])
            machine.state = saved["state"]
            if machine.state is not None:
                next_state(type(machine), machine.state)
            made = cls(machine)
            made._cache, made._inbox, made.log_entries = saved["cache"], saved["inbox"], saved["log"]
            made._logged, made._failures = saved["logged"], saved["failures"]
        except (ValueError, KeyError, TypeError, AttributeError, InvalidWorkflow) as error:
            if isinstance(error, ValidationError):
                raise InvalidState(f"the saved data does not fit: {describe_validation(error)}") from None
            raise InvalidState(f"this is no saved state machine: {error!r}") from None
        return made
