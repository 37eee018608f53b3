"""A state machine alone: in the user's own loop, saved to text between any two steps, without a server or a database."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from ..base.errors import InvalidInput, InvalidState, InvalidWorkflow, StepFailed, WaitTimeout
from ..base.ids import new_id
from ..base.values import ANY, Schema, describe_validation, plain_json
from ..engine.failure import describe_error
from ..engine.retry import next_delay
from .machine_data import change_data, next_state
from .standalone_action import ActionCall, AloneContext

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


class _Pause(BaseException):
    """The machine waits for a signal that was not sent, or for a time that its caller does not want to wait for."""


class Standalone:
    """The host of a machine that runs alone.

    Attributes:
        wake_at: when the machine goes on by itself, in seconds since the epoch; None where it does not wait for a time.
        waits_for: the signal that it waits for.
    """

    def __init__(self, machine: StateMachine[Any]) -> None:
        """Begin at the machine's start."""
        self._machine = machine
        self._model = Schema(type(machine).data_type)
        self._id = new_id()
        self._visits: dict[str, int] = {}
        self._cache: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._tries: dict[str, list[float]] = {}
        self._failures: dict[str, list[Any]] = {}
        self._inbox: list[list[Any]] = []
        self.log_entries: list[dict[str, Any]] = []
        self._logged = 0
        self._replayed = 0
        self._running = False
        self._patient = True
        self.wake_at: float | None = None
        self.waits_for: str | None = None
        self._data_at_entry = self._text()
        self._seen = self._fields()

    def send(self, name: str, payload: Any) -> None:
        """Keep a signal."""
        self._inbox.append([name, plain_json(ANY.encode(payload, f"signal {name!r}"))])

    async def run(self, *, wait: bool) -> AsyncIterator[Transition]:
        """Go on from the current state; a state that was left in the middle is entered again, with what it had done from the cache."""
        machine = self._machine
        while machine.state is not None:
            source = machine.state
            self._enter(wait=wait)
            try:
                target = next_state(type(machine), await getattr(machine, source)())
                machine.data = self._model.decode(self._text(), _DATA)
            except _Pause:
                return
            except Exception:
                self._tries.clear()
                self._failures.clear()  # what the state has not caught is tried again when it runs again
                raise
            finally:
                self._running = False
                self._seen = self._fields()
            self._leave(target)
            yield Transition(source, target)

    def _enter(self, *, wait: bool) -> None:
        self._take_changes()
        self._running, self._patient = True, wait
        self.wake_at = self.waits_for = None
        self._counts.clear()
        self._replayed = 0
        self._machine.data = self._model.decode(self._data_at_entry, _DATA)
        self._machine._host = self  # noqa: SLF001  the machine is ours

    def _leave(self, target: str | None) -> None:
        machine = self._machine
        self._visits[machine.state or ""] = self._visits.get(machine.state or "", 0) + 1
        machine.state = target
        self._cache.clear()
        self._tries.clear()
        self._failures.clear()
        self._logged = 0
        self._data_at_entry = self._text()

    # --- changes from outside ---

    def update(self, changes: Mapping[str, Any]) -> None:
        """Change the data from outside, at once.

        Raises:
            InvalidState: the machine has ended, or a value does not fit; nothing was changed.
        """
        machine, patch = self._machine, dict(changes)
        if machine.state is None:
            raise InvalidState(f"state machine {machine.name!r} has ended; its data are final")
        if not self._running:
            self._take_changes()
        entry = self._model.decode(self._data_at_entry, _DATA)
        change_data(type(machine), entry, patch)
        change_data(type(machine), machine.data, patch)
        self._data_at_entry = self._model.encode(entry, _DATA)
        if not self._running:
            self._seen = self._fields()

    def _take_changes(self) -> None:
        """Take what others have assigned to the data while the machine did not run, so that the state that is entered again sees it."""
        now, seen = self._fields(), self._seen
        if now is None or seen is None or now == seen:
            return
        entry = self._model.decode(self._data_at_entry, _DATA)
        changed = {name: value for name, value in now.items() if name not in seen or seen[name] != value}
        change_data(type(self._machine), entry, changed)
        self._data_at_entry = self._model.encode(entry, _DATA)
        self._seen = now

    def _fields(self) -> dict[str, Any] | None:
        """Return the data as they are, None where a state was left with something in them that has no JSON form."""
        try:
            return dict(self._machine.data.model_dump(mode="json"))
        except PydanticSerializationError:
            return None

    def _text(self) -> str:
        return self._model.encode(self._machine.data, _DATA)

    def _key(self, name: str) -> str:
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"

    # --- what a state asks for ---

    async def action(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Run a function once per visit, tried as the options say."""
        key = self._key(name)
        call = ActionCall(name, function, args, options)
        if key in self._failures:
            kind, message, *attempts = self._failures[key]
            raise StepFailed(key, kind, message, *attempts or [1])
        while key not in self._cache:
            await self._try(key, call)
        return call.output.decode(json.dumps(self._cache[key]), f"the result of action {name!r}")

    async def _try(self, key: str, call: ActionCall) -> None:
        """Try an action once more, when its time has come.

        Raises:
            StepFailed: that was its last try.
        """
        failures, wake_at = self._tries.get(key, (0, 0.0))
        await self._until(wake_at)
        try:
            found = await call.run(AloneContext(int(failures) + 1, f"{self._id}:{self._visit()}/{key}"))
            self._cache[key] = plain_json(call.output.encode(found, f"the result of action {call.name!r}"))
        except Exception as error:
            failures = int(failures) + 1
            delay = next_delay(call.policy, failures, error)
            if delay is not None:
                self._tries[key] = [failures, time.time() + delay]
                return
            info = describe_error(error, key)
            self._failures[key] = [info.type, info.message, failures]
            raise StepFailed(key, info.type, info.message, failures, info.traceback) from error

    def _visit(self) -> str:
        """Return the name of the current visit, as a server's journal would have it."""
        state = self._machine.state or ""
        count = self._visits.get(state, 0)
        return state if not count else f"{state}#{count + 1}"

    async def _until(self, wake_at: float) -> None:
        """Wait until a moment; or stop running, where the caller does not want to wait."""
        if wake_at <= time.time():
            return
        if not self._patient:
            self.wake_at = wake_at
            raise _Pause
        await asyncio.sleep(max(0.0, wake_at - time.time()))

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
                self.waits_for = name
                raise _Pause
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
        self.wake_at = deadline

    async def sleep(self, name: str, seconds: float) -> None:
        """Wait in real time, until a moment that was fixed when the wait began."""
        await self._until(self._cache.setdefault(self._key(name), time.time() + seconds))

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
        if not self._running:
            self._take_changes()
        saved = {
            "version": _VERSION,
            "id": self._id,
            "machine": self._machine.name,
            "state": self._machine.state,
            "data": json.loads(self._data_at_entry),
            "visits": self._visits,
            "cache": self._cache,
            "tries": self._tries,
            "failures": self._failures,
            "inbox": self._inbox,
            "wake_at": self.wake_at,
            "waits_for": self.waits_for,
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
            made._id, made._visits = saved.get("id", made._id), saved.get("visits", {})
            made._tries = saved.get("tries", {})
            made.wake_at, made.waits_for = saved.get("wake_at"), saved.get("waits_for")
        except (ValueError, KeyError, TypeError, AttributeError, InvalidWorkflow) as error:
            if isinstance(error, ValidationError):
                raise InvalidState(f"the saved data does not fit: {describe_validation(error)}") from None
            raise InvalidState(f"this is no saved state machine: {error!r}") from None
        return made
