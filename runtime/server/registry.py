"""Registered workflows: what each may do, and where a child finds it."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..authoring.action import ACTIONS, Action, ActionWorkflow
from ..base.config import WorkflowsConfig
from ..base.duration import parse_duration
from ..base.errors import (
    ConfigError,
    InvalidInput,
    LimitNotEnforceable,
    WorkflowAlreadyRegistered,
    WorkflowNotFound,
    WorkflowNotImportable,
)
from ..base.ids import check_workflow_name
from ..base.limits import ProcessLimits
from ..child.main_module import importable
from ..child.spec import DefinitionPath
from ..engine.definition import Definition, WorkflowLike, check_schemas, definition_of
from .enforcement import check_enforceable

__all__ = ["Registered", "Registry", "locate"]


@dataclass(frozen=True, slots=True)
class Registered:
    """One registered workflow."""

    definition: Definition
    path: DefinitionPath
    isolated: bool
    limit: int
    on_limit: Literal["queue", "reject"]
    key: Callable[[Any], Any] | None = None
    rate: tuple[int, float] | None = None
    from_plugin: bool = False
    limits: ProcessLimits = field(default_factory=ProcessLimits)
    of_itself: bool = False  # an action, known since it was made; it may still be registered, with options

    def key_of(self, text: str) -> str | None:
        """Return the limit key of an input (JSON text); None without `key=`.

        Raises:
            InvalidInput: the key function raised.
        """
        if self.key is None:
            return None
        name = self.definition.name
        value = self.definition.input_schema.decode(text, f"the input of workflow {name!r}")
        try:
            return str(self.key(value))
        except Exception as error:  # noqa: BLE001  the user's function
            raise InvalidInput(f"workflow {name!r}: key= raised {type(error).__name__}: {error}") from None


class Registry:
    """The workflows of one server, by name.

    Args:
        config: how they are run.
        watched: whether a watchdog looks after their processes; None where there are none and limits bind nobody, as in tests.
    """

    def __init__(self, config: WorkflowsConfig, *, watched: bool | None) -> None:
        """Start empty."""
        self._config = config
        self._watched = watched
        self._known: dict[str, Registered] = {}

    def add(
        self,
        given: WorkflowLike,
        *,
        module: str | None,
        max_concurrent: int | None,
        on_limit: Literal["queue", "reject"],
        from_plugin: bool,
        key: Callable[[Any], Any] | None = None,
        rate: str | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> Registered:
        """Register a definition.

        Raises:
            WorkflowAlreadyRegistered: the name is taken.
            WorkflowNotImportable: a child could not import it.
            InvalidWorkflow: values of one of its types would not come back from JSON.
            ConfigError: an option cannot work.
            LimitNotEnforceable: this machine cannot keep one of the limits.
        """
        definition = definition_of(given)
        if not isinstance(definition, Definition):
            raise ConfigError(f"{given!r:.100} is no workflow; register what workflow(…)…build() returns")
        check_workflow_name(definition.name)
        check_schemas(definition)
        known = self._known.get(definition.name)
        if known is not None and not (known.of_itself and known.definition is definition):
            raise WorkflowAlreadyRegistered(
                f"a workflow {definition.name!r} is registered already; give this one another name"
            )
        if on_limit not in ("queue", "reject"):
            raise ConfigError(f'workflow {definition.name!r}: on_limit is "queue" or "reject", not {on_limit!r}')
        if not _is_limit(max_concurrent):
            raise ConfigError(
                f"workflow {definition.name!r}: max_concurrent is a whole number from 0 (unlimited), not {max_concurrent!r}"
            )
        isolated = definition.isolated and self._config.launcher != "inline"
        path = DefinitionPath(name=definition.name)
        if isolated and not from_plugin:
            path = locate(definition, module)
        bounds = self._limits(definition.name, limits or {}, isolated=isolated)
        limit = self._config.limit_for(definition.name, max_concurrent)
        found = self._known[definition.name] = Registered(
            definition, path, isolated, limit, on_limit, key, _rate(definition.name, rate), from_plugin, bounds
        )
        return found

    def _limits(self, name: str, options: Mapping[str, Any], *, isolated: bool) -> ProcessLimits:
        bounds = ProcessLimits.of(name, **options)
        if bounds and self._watched is not None:
            if not isolated:
                named = ", ".join(option for option, value in bounds if value is not None)
                raise LimitNotEnforceable(
                    f"workflow {name!r} runs inline, in the server's own process, which {named} would limit as a whole; "
                    "let it be isolated, or leave it out"
                )
            check_enforceable(name, bounds, watched=self._watched)
        return bounds

    def limits_of(self, name: str, parent: str | None) -> ProcessLimits:
        """Return what the processes of a workflow may use. An action's are those of the workflow that runs it, if it has none itself."""
        known = self._known[name]
        if not known.limits and isinstance(known.definition, ActionWorkflow) and parent in self._known:
            return self._known[parent].limits
        return known.limits

    def forget_plugins(self) -> None:
        """Drop what plugins registered: their setup does it again at the next start."""
        self._known = {name: known for name, known in self._known.items() if not known.from_plugin}

    def get(self, workflow: str | WorkflowLike) -> Registered:
        """Return a registered workflow by its name or definition.

        Raises:
            WorkflowNotFound: it is not registered.
        """
        wanted = definition_of(workflow)
        name = wanted if isinstance(wanted, str) else getattr(wanted, "name", wanted)
        found = self._known.get(name) if isinstance(name, str) else None
        if found is None or (not isinstance(wanted, str) and found.definition is not wanted):
            raise WorkflowNotFound(
                f"no workflow {name!r:.100} is registered; there are: {', '.join(sorted(self._known)) or 'none'}. "
                "Call server.workflows.register(definition) first."
            )
        return found

    def add_actions(self) -> None:
        """Know every action that has been made: an isolated one is an instance of a workflow of its own."""
        for made in list(ACTIONS.values()):
            definition = made.__paddock_definition__
            if definition.name in self._known:
                continue
            try:
                path = DefinitionPath(name=definition.name) if self._config.launcher == "inline" else locate(definition)
            except WorkflowNotImportable:
                continue  # a plugin brings it, or it only runs in the process that made it
            self._add_action(made, path)

    def add_plugin_action(self, made: Action[Any, Any]) -> None:
        """Know an action that a plugin's setup makes, here and in every child."""
        self._add_action(made, DefinitionPath(name=made.__paddock_definition__.name))

    def _add_action(self, made: Action[Any, Any], path: DefinitionPath) -> None:
        definition = made.__paddock_definition__
        isolated = self._config.launcher != "inline"
        limit = self._config.limit_for(definition.name, None)
        self._known[definition.name] = Registered(definition, path, isolated, limit, "queue", of_itself=True)

    def knows(self, name: str) -> bool:
        """Tell whether a name is registered, or that of an action that has been made."""
        if name not in self._known:
            self.add_actions()
        return name in self._known

    def __iter__(self) -> Iterator[Registered]:
        """Go through all of them."""
        return iter(self._known.values())

    def __contains__(self, name: object) -> bool:
        """Tell whether a name is registered."""
        return name in self._known

    @property
    def names(self) -> frozenset[str]:
        """Return the registered names."""
        return frozenset(self._known)

    def modules(self) -> list[str]:
        """Return the modules that children import their workflows from."""
        return list(dict.fromkeys(known.path.module for known in self._known.values() if known.path.module is not None))


def _rate(name: str, value: str | None) -> tuple[int, float] | None:
    """Return (count, seconds) of a rate such as "10/1min"; raises ConfigError."""
    if value is None:
        return None
    count, slash, window = str(value).partition("/")
    if slash and count.strip().isdigit() and int(count):
        seconds = parse_duration(window if window.strip()[:1].isdigit() else f"1{window.strip()}")
        if seconds > 0:
            return int(count), seconds
    raise ConfigError(f'workflow {name!r}: rate={value!r} is no rate; write "10/1min": ten starts a minute')


def locate(definition: Definition, module: str | None = None) -> DefinitionPath:
    """Return where a child finds a definition.

    Raises:
        WorkflowNotImportable: it is no attribute of an importable module; the message says what to do.
    """
    tried: list[str] = []
    for name in filter(None, (module or definition.module,)):
        tried.append(name)
        found = _module(name, definition) if module is not None else sys.modules.get(name)
        attribute = _attribute_of(found, definition)
        if attribute is not None:
            _check_importable(definition, name)
            return DefinitionPath(name=definition.name, module=name, attribute=attribute)
    for name, found in list(sys.modules.items()):  # built in one module, kept in another
        attribute = _attribute_of(found, definition)
        if attribute is not None and module is None:
            _check_importable(definition, name)
            return DefinitionPath(name=definition.name, module=name, attribute=attribute)
    raise WorkflowNotImportable(
        f"workflow {definition.name!r} is no attribute of module {' or '.join(map(repr, tried)) or '(unknown)'}, so a child process could "
        "not import it. Assign it to a name at module level (not inside a function), pass module=…, or build it with .isolated(False)."
    )


def _module(name: str, definition: Definition) -> types.ModuleType:
    """Return a module that the user named; it need not have been imported yet."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # noqa: BLE001  a module may raise anything
        raise WorkflowNotImportable(
            f"workflow {definition.name!r}: module {name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from None


def _is_limit(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def _attribute_of(module: object, definition: Definition) -> str | None:
    if not isinstance(module, types.ModuleType):  # anything may stand in sys.modules
        return None
    names: dict[str, Any] = vars(module)
    return next((name for name, value in list(names.items()) if definition_of(value) is definition), None)


def _check_importable(definition: Definition, module: str) -> None:
    if importable(module):
        return
    if module == "__main__":
        raise WorkflowNotImportable(
            f"workflow {definition.name!r} was made in an interactive session, which a child process cannot import; put it into a file"
        )
    raise WorkflowNotImportable(
        f"workflow {definition.name!r}: module {module!r} is loaded here, but nothing on sys.path leads a child process to it; "
        "put its folder on sys.path (or PYTHONPATH)"
    )
