"""Paddock: durable workflows for Python, each instance in an operating-system process of its own.

Names are imported when they are first asked for: the watchdog and the fork server live under this package too, and start in a third
of the time without what they do not use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddock.runtime.authoring.action import Action, action
    from paddock.runtime.authoring.builder import branch, workflow
    from paddock.runtime.authoring.flow import Flow, flow
    from paddock.runtime.authoring.flow_context import ChildHandle, FlowContext
    from paddock.runtime.authoring.machine import StateMachine, state
    from paddock.runtime.authoring.standalone import Transition
    from paddock.runtime.authoring.waiting import Poll
    from paddock.runtime.base.config import SqlitePragmas, WatchdogConfig, WorkflowsConfig
    from paddock.runtime.base.errors import (
        AddressUnavailable,
        ConcurrencyLimitReached,
        ConfigError,
        DatabaseDamaged,
        DatabaseTooNew,
        DatabaseUnavailable,
        InstanceIdConflict,
        InstanceNotFound,
        InterruptError,
        InvalidInput,
        InvalidInstanceId,
        InvalidSignal,
        InvalidState,
        InvalidTransition,
        InvalidWorkflow,
        LeaseLost,
        LimitNotEnforceable,
        MachineError,
        NonDeterminismError,
        NotSerializable,
        OpenTransaction,
        OutcomeError,
        PaddockError,
        PayloadTooLarge,
        PluginConfigError,
        PluginSetupError,
        RunDirectoryError,
        ServerAlreadyRunning,
        ServerNotRunning,
        StepFailed,
        StepTimeout,
        UsageError,
        WaitTimeout,
        WorkflowAlreadyRegistered,
        WorkflowBlocked,
        WorkflowCancelled,
        WorkflowFailed,
        WorkflowNotFound,
        WorkflowNotImportable,
        WorkflowTimedOut,
    )
    from paddock.runtime.base.records import ErrorInfo, Event, Instance, LogRecord, Status, StepResult, StepStatus
    from paddock.runtime.engine.context import BlockingContext, Context
    from paddock.runtime.engine.plugins import Core, Plugin
    from paddock.runtime.engine.retry import Retry
    from paddock.runtime.server.app import AppServer
    from paddock.runtime.server.bus import Subscription
    from paddock.runtime.server.scheduler import Schedule
    from paddock.runtime.server.streams import Stream

__version__ = "0.1.0"

__all__ = [
    "Action",
    "AddressUnavailable",
    "AppServer",
    "BlockingContext",
    "ChildHandle",
    "ConcurrencyLimitReached",
    "ConfigError",
    "Context",
    "Core",
    "DatabaseDamaged",
    "DatabaseTooNew",
    "DatabaseUnavailable",
    "ErrorInfo",
    "Event",
    "Flow",
    "FlowContext",
    "Instance",
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
    "LogRecord",
    "MachineError",
    "NonDeterminismError",
    "NotSerializable",
    "OpenTransaction",
    "OutcomeError",
    "PaddockError",
    "PayloadTooLarge",
    "Plugin",
    "PluginConfigError",
    "PluginSetupError",
    "Poll",
    "Retry",
    "RunDirectoryError",
    "Schedule",
    "ServerAlreadyRunning",
    "ServerNotRunning",
    "SqlitePragmas",
    "StateMachine",
    "Status",
    "StepFailed",
    "StepResult",
    "StepStatus",
    "StepTimeout",
    "Stream",
    "Subscription",
    "Transition",
    "UsageError",
    "WaitTimeout",
    "WatchdogConfig",
    "WorkflowAlreadyRegistered",
    "WorkflowBlocked",
    "WorkflowCancelled",
    "WorkflowFailed",
    "WorkflowNotFound",
    "WorkflowNotImportable",
    "WorkflowTimedOut",
    "WorkflowsConfig",
    "__version__",
    "action",
    "branch",
    "flow",
    "state",
    "workflow",
]

_HOME = {
    "paddock.runtime.authoring.action": (
        "Action",
        "action",
    ),
    "paddock.runtime.authoring.builder": (
        "branch",
        "workflow",
    ),
    "paddock.runtime.authoring.flow": (
        "Flow",
        "flow",
    ),
    "paddock.runtime.authoring.flow_context": (
        "ChildHandle",
        "FlowContext",
    ),
    "paddock.runtime.authoring.machine": (
        "StateMachine",
        "state",
    ),
    "paddock.runtime.authoring.standalone": ("Transition",),
    "paddock.runtime.authoring.waiting": ("Poll",),
    "paddock.runtime.base.config": (
        "SqlitePragmas",
        "WatchdogConfig",
        "WorkflowsConfig",
    ),
    "paddock.runtime.base.errors": (
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
    ),
    "paddock.runtime.base.records": (
        "ErrorInfo",
        "Event",
        "Instance",
        "LogRecord",
        "Status",
        "StepResult",
        "StepStatus",
    ),
    "paddock.runtime.engine.context": (
        "BlockingContext",
        "Context",
    ),
    "paddock.runtime.engine.plugins": (
        "Core",
        "Plugin",
    ),
    "paddock.runtime.engine.retry": ("Retry",),
    "paddock.runtime.server.app": ("AppServer",),
    "paddock.runtime.server.bus": ("Subscription",),
    "paddock.runtime.server.scheduler": ("Schedule",),
    "paddock.runtime.server.streams": ("Stream",),
}
_MODULES = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
