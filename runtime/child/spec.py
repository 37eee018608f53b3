"""What a child is told when it is made: over a private channel, for it holds the hub's token and the plugins' secrets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...watchdog.tree import marker_of
from ..base.config import SqlitePragmas
from ..base.limits import ProcessLimits

__all__ = [
    "EXIT_GIVEN_BACK",
    "EXIT_LOST_GROUND",
    "EXIT_ORPHANED",
    "EXIT_STEP_TIMEOUT",
    "LEAVING",
    "MARKER",
    "SERVICE_MANAGER",
    "ChildSpec",
    "DefinitionPath",
    "Needs",
    "PluginText",
]

#: Exit codes that say more than that the process is gone (sysexits.h names the neighbourhood).
EXIT_LOST_GROUND = 70  # the database gave way: read again before writing again
EXIT_GIVEN_BACK = 75  # the instance is to go on in another process
EXIT_STEP_TIMEOUT = 77  # a step outran its timeout and could not be stopped otherwise
EXIT_ORPHANED = 78  # no server for `orphan_grace`

#: What a process notes as its step before it leaves with one of these codes, the code behind it. A handler's `os._exit` with such a
#: number says nothing, and is a crash. (No step's key begins with a #.)
LEAVING = "#leaving "

#: The environment variable that marks every program of an instance's tree: see `marker_of`.
MARKER = "PADDOCK_INSTANCE"

#: What a service manager says to the program that it started, and to no process below it: see sd_notify(3).
SERVICE_MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class DefinitionPath(_Frozen):
    """Where a definition is: an attribute of a module, or made by a plugin's setup (`module` is None)."""

    name: str
    module: str | None = None
    attribute: str | None = None


class PluginText(_Frozen):
    """A plugin's description as it travels: its config by value, secrets included."""

    module: str
    qualname: str
    name: str
    config_type: tuple[str, str] | None = None
    config: str | None = Field(default=None, repr=False)


class Needs(_Frozen):
    """What is known of a child's outfit before its order: it is the same for all children of a server."""

    database: str = Field(repr=False)
    pragmas: SqlitePragmas
    beats_path: str


class ChildSpec(_Frozen):
    """Everything that a child needs. Times are seconds, sizes bytes."""

    database: str = Field(repr=False)
    pragmas: SqlitePragmas
    instance: int
    epoch: int
    instance_id: str
    definition: DefinitionPath
    plugins: tuple[PluginText, ...] = ()
    config: dict[str, Any] = Field(default_factory=dict)
    address: str
    token: str = Field(repr=False)
    transport: Literal["unix", "tcp"] = "unix"
    run_dir: str
    slot: int
    beat_interval: float
    ready_timeout: float
    kill_grace: float
    orphan_grace: float
    suspend_after: float
    max_payload: int
    max_output: int
    limits: ProcessLimits = ProcessLimits()
    tasks_group: str | None = None
    out_position: int = 0
    err_position: int = 0

    @property
    def needs_main(self) -> bool:
        """Tell whether the server's `__main__` holds something that the child works with; else it is not imported."""
        places = [self.definition.module, *(plugin.module for plugin in self.plugins)]
        return "__main__" in [*places, *(plugin.config_type[0] for plugin in self.plugins if plugin.config_type)]

    @property
    def marker(self) -> str:
        """Return the value of `MARKER` for this execution."""
        return marker_of(self.beats_path, self.instance_id, self.epoch).removeprefix(f"{MARKER}=")

    @property
    def beats_path(self) -> str:
        """Return the path of the beat table."""
        return f"{self.run_dir}/beats"

    @property
    def bell_path(self) -> str:
        """Return the path of the bell that is rung after each commit."""
        return f"{self.run_dir}/bell.sock"

    @property
    def outputs(self) -> tuple[str, str]:
        """Return the files that catch this execution's stdout and stderr."""
        return output_paths(self.run_dir, self.instance, self.epoch)

    @property
    def trace_dir(self) -> str:
        """Return the directory into which stacks are written."""
        return f"{self.run_dir}/trace"


def output_paths(run_dir: str, instance: int, epoch: int) -> tuple[str, str]:
    """Return the files that catch an execution's stdout and stderr."""
    return f"{run_dir}/out/{instance}-{epoch}.out", f"{run_dir}/out/{instance}-{epoch}.err"
