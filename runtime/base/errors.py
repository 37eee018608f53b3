"""Every error that Paddock raises, in one tree.

```
PaddockError
├── UsageError                    the caller's doing; nothing was changed
│   ├── InvalidWorkflow           a graph that cannot work, at build()
│   ├── WorkflowNotImportable     a definition that a child process could not import, at register()
│   ├── WorkflowAlreadyRegistered
│   ├── WorkflowNotFound
│   ├── InstanceNotFound
│   ├── InvalidInstanceId
│   ├── InstanceIdConflict
│   ├── InvalidInput              fails its schema, or is not JSON (NotSerializable)
│   │   └── NotSerializable
│   ├── InvalidSignal
│   ├── InvalidState
│   ├── InvalidTransition         retry of what did not fail, cleanup of what has not ended
│   ├── PayloadTooLarge
│   ├── OpenTransaction           a durable call while the code itself holds the database's write lock
│   ├── ConcurrencyLimitReached
│   ├── ConfigError
│   │   └── LimitNotEnforceable    a limit that this machine cannot enforce, at register()
│   └── PluginConfigError
├── OutcomeError                  what became of an instance or a step
│   ├── WorkflowFailed
│   ├── WorkflowCancelled
│   ├── WorkflowTimedOut
│   ├── WorkflowBlocked
│   ├── StepFailed
│   ├── StepTimeout               (also a TimeoutError)
│   └── WaitTimeout               (also a TimeoutError)
├── PluginSetupError              a plugin that failed or hung in setup
├── NonDeterminismError           the code asks for something other than the journal holds
├── LeaseLost                     this executor was replaced; its process ends
└── MachineError                  the ground we stand on
    ├── ServerAlreadyRunning
    ├── ServerNotRunning
    ├── RunDirectoryError
    ├── AddressUnavailable        the address to listen on is in use, or not ours
    ├── DatabaseTooNew
    ├── DatabaseDamaged
    └── DatabaseUnavailable
```

`InterruptError` stands apart: it is a `BaseException`, so that `except Exception` in a user's flow does not swallow a suspension.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .records import ErrorInfo

__all__ = [
    "AddressUnavailable",
    "ConcurrencyLimitReached",
    "ConfigError",
    "DatabaseDamaged",
    "DatabaseTooNew",
    "DatabaseUnavailable",
    "InstanceIdConflict",
    "InstanceNotFound",
    "InterruptError",
    "InvalidInput",
    "InvalidInstanceId",
    "InvalidSignal",
    "InvalidState",
    "InvalidTransition",
    "InvalidWorkflow",
    "LeaseLost",
    "LimitNotEnforceable",
    "MachineError",
    "NonDeterminismError",
    "NotSerializable",
    "OpenTransaction",
    "OutcomeError",
    "PaddockError",
    "PayloadTooLarge",
    "PluginConfigError",
    "PluginSetupError",
    "RunDirectoryError",
    "ServerAlreadyRunning",
    "ServerNotRunning",
    "StepFailed",
    "StepTimeout",
    "UsageError",
    "WaitTimeout",
    "WorkflowAlreadyRegistered",
    "WorkflowBlocked",
    "WorkflowCancelled",
    "WorkflowFailed",
    "WorkflowNotFound",
    "WorkflowNotImportable",
    "WorkflowTimedOut",
]


class PaddockError(Exception):
    """The root of everything that Paddock raises."""


class InterruptError(BaseException):
    """Travel up through a workflow's code when its instance suspends. Let it pass."""


# --- the caller's doing ---------------------------------------------------------------------------------------------


class UsageError(PaddockError):
    """The call was wrong; nothing was changed by it."""


class InvalidWorkflow(UsageError):
    """A workflow definition that cannot work; the message names the workflow and the step."""


class WorkflowNotImportable(UsageError):
    """A child process could not import this definition; the message says where to put it."""


class WorkflowAlreadyRegistered(UsageError):
    """A workflow of this name is registered already."""


class WorkflowNotFound(UsageError):
    """No workflow of this name is registered."""


class InstanceNotFound(UsageError):
    """No instance has this id."""


class InvalidInstanceId(UsageError):
    """An instance id that breaks the rule for ids."""


class InstanceIdConflict(UsageError):
    """The id belongs to an instance that was started with another workflow or input."""


class InvalidInput(UsageError):
    """An input that fails its schema.

    Attributes:
        fields: where it does not fit and why, in pairs; empty where that is not known field by field.
    """

    fields: tuple[tuple[str, str], ...] = ()


class NotSerializable(InvalidInput):
    """A value that has no faithful JSON form; the message names it."""


class InvalidSignal(UsageError):
    """A signal that the awaited schema refuses, or that nobody can receive any more.

    Attributes:
        fields: where it does not fit and why, in pairs; empty where that is not known field by field.
    """

    fields: tuple[tuple[str, str], ...] = ()


class InvalidState(UsageError):
    """An update of a state machine's data that its model refuses; the message names the field.

    Attributes:
        fields: where it does not fit and why, in pairs; empty where that is not known field by field.
    """

    fields: tuple[tuple[str, str], ...] = ()


class InvalidTransition(UsageError):
    """The instance's status does not allow this call."""


class PayloadTooLarge(UsageError):
    """A payload whose JSON is longer than `max_payload` bytes.

    Attributes:
        size: length of the payload's JSON in bytes.
        limit: the configured maximum in bytes.
    """

    def __init__(self, what: str, size: int, limit: int) -> None:
        """Name the payload, its size and the limit, both in bytes."""
        super().__init__(
            f"{what} is {size:,} bytes as JSON; max_payload is {limit:,}. "
            "Store the data elsewhere and pass a reference, or raise WorkflowsConfig(max_payload=…)."
        )
        self.size = size
        self.limit = limit


class OpenTransaction(UsageError):
    """A durable call that could never be acknowledged: the code that waits for it holds a write transaction on the database itself."""


class ConcurrencyLimitReached(UsageError):
    """The workflow is at its limit and was registered with `on_limit="reject"`."""


class ConfigError(UsageError):
    """A configuration value that cannot work; the message names it."""


class LimitNotEnforceable(ConfigError):
    """A limit of `register` that this machine cannot enforce; the message names it and says what would help."""


class PluginConfigError(UsageError):
    """A plugin's config that does not survive the JSON round trip; the message names plugin and field."""


# --- what became of an instance or a step ---------------------------------------------------------------------------


class OutcomeError(PaddockError):
    """An instance or a step did not end well."""


class _InstanceOutcome(OutcomeError):
    """An instance ended without a result.

    Attributes:
        instance_id: the instance.
        error: its structured error, or None.
    """

    _verb = "ended"

    def __init__(self, instance_id: str, workflow_name: str, error: ErrorInfo | None) -> None:
        detail = f": {error.type}: {error.message}" if error is not None else ""
        step = f" at step {error.step!r}" if error is not None and error.step else ""
        super().__init__(f"{workflow_name} instance {instance_id} {self._verb}{step}{detail}")
        self.instance_id = instance_id
        self.workflow_name = workflow_name
        self.error = error


class WorkflowFailed(_InstanceOutcome):
    """The instance ended in `failed`."""

    _verb = "failed"


class WorkflowCancelled(_InstanceOutcome):
    """The instance was cancelled."""

    _verb = "was cancelled"


class WorkflowTimedOut(_InstanceOutcome):
    """The instance passed the workflow's own deadline."""

    _verb = "timed out"


class WorkflowBlocked(_InstanceOutcome):
    """The instance cannot go on with the code or the plugins at hand; it keeps its journal."""

    _verb = "is blocked"


class StepFailed(OutcomeError):
    """A step's tries are spent. The same on the first run and on every replay.

    Attributes:
        step: the step's key.
        type: name of the exception that the last try raised.
        message: its text.
        attempts: how often the step was begun.
        facts: what else is known of it: the fields that `ErrorInfo` has for a process's death.
    """

    def __init__(
        self,
        step: str,
        type: str,
        message: str,
        attempts: int,
        traceback: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the step's key, the last error's type and message, and the number of attempts."""
        super().__init__(f"step {step!r} failed after {attempts} attempt{'s' * (attempts != 1)}: {type}: {message}")
        self.step = step
        self.type = type
        self.message = message
        self.attempts = attempts
        self.traceback = traceback
        self.facts = facts or {}


class StepTimeout(OutcomeError, TimeoutError):
    """One try of a step took longer than the step's `timeout`.

    Attributes:
        facts: what is known of where it stood: the fields that `ErrorInfo` has for a process's death.
    """

    facts: Mapping[str, Any] = MappingProxyType({})


class WaitTimeout(OutcomeError, TimeoutError):
    """A wait inside a workflow passed its `timeout`."""

    paddock_step: str | None = None


# --- ours and the machine's -----------------------------------------------------------------------------------------


class PluginSetupError(PaddockError):
    """A plugin's `setup` failed or outran `ready_timeout`; the message names the plugin."""

    def __init__(self, plugin: str, reason: str) -> None:
        """Name the plugin and say what happened."""
        super().__init__(f"plugin {plugin!r}: {reason}")
        self.plugin = plugin


class NonDeterminismError(PaddockError):
    """The code asks for something other than what the journal holds; the message names both."""

    paddock_step: str | None = None


class LeaseLost(PaddockError):
    """Another executor holds this instance now, or it has ended; this one must stop writing."""


class MachineError(PaddockError):
    """The machine, the disk or another process is in the way."""


class ServerAlreadyRunning(MachineError):
    """A living server holds this database.

    Attributes:
        pid: the process that holds it.
    """

    def __init__(self, database: str, pid: int) -> None:
        """Name the database and the pid of its server."""
        super().__init__(
            f"a server with pid {pid} runs on {database}; one database has one server at a time. "
            "Stop that one first, or give this one another file."
        )
        self.pid = pid


class ServerNotRunning(MachineError):
    """The call needs a started server."""


class RunDirectoryError(MachineError):
    """The run directory cannot hold our sockets: its path is too long, it is not ours alone, or another database's server works in it."""


class AddressUnavailable(MachineError):
    """The HTTP server cannot listen where it was told to; the message names the address."""


class DatabaseTooNew(MachineError):
    """The database was written by a later version of Paddock."""


class DatabaseDamaged(MachineError):
    """The file is not a database of ours, or it is damaged. It was left as it is."""


class DatabaseUnavailable(MachineError):
    """The database cannot be opened or written now: read-only, full, or failing. Nothing was acknowledged."""
