"""How a plugin reaches a child: its class by import path, its configuration as JSON, tried before it is needed."""

from __future__ import annotations

import importlib
import sys
from typing import Any, cast

import pydantic_core
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError

from ..base.errors import PluginConfigError, PluginSetupError
from ..base.values import describe_validation
from .plugins import Plugin

__all__ = ["PluginSpec", "describe_plugin", "rebuild_plugin"]


class PluginSpec(BaseModel):
    """What a child needs to rebuild a plugin. `config` is JSON text and may hold secrets: it is shown nowhere."""

    module: str
    qualname: str
    name: str
    config_type: tuple[str, str] | None = None
    config: SecretStr | None = None


def describe_plugin(plugin: Plugin[Any]) -> PluginSpec:
    """Return what a child needs to rebuild a plugin, after trying the round trip.

    Raises:
        PluginConfigError: the class cannot be imported by a child, or a value of the config would be lost or changed on the way;
            plugin and field are named.
    """
    kind = type(plugin)
    if "<locals>" in kind.__qualname__:
        raise PluginConfigError(
            f"plugin {plugin.name!r}: {kind.__qualname__} is defined inside a function; a child cannot import it. Move it to module level."
        )
    spec = PluginSpec(module=kind.__module__, qualname=kind.__qualname__, name=plugin.name)
    if plugin.config is None:
        return spec
    config_kind = type(plugin.config)
    config_type = None
    if config_kind.__module__ != "builtins":
        if "<locals>" in config_kind.__qualname__:
            raise PluginConfigError(
                f"plugin {plugin.name!r}: its config's class {config_kind.__qualname__} is defined inside a function"
            )
        config_type = (config_kind.__module__, config_kind.__qualname__)
    text = _config_text(plugin)
    _check_round_trip(plugin, text)
    return spec.model_copy(update={"config_type": config_type, "config": SecretStr(text)})


def _revealed(value: Any) -> Any:
    """Return plain values with the secrets in them by value: pydantic's own JSON would mask them."""
    if callable(reveal := getattr(value, "get_secret_value", None)):
        secret = reveal()
        return secret.decode() if isinstance(secret, bytes) else secret
    if isinstance(value, dict):
        return {key: _revealed(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_revealed(item) for item in value]
    return value


def _config_text(plugin: Plugin[Any]) -> str:
    config = plugin.config
    named: dict[Any, Any] = {"config": config}
    if isinstance(config, BaseModel):
        named = config.model_dump()
    elif isinstance(config, dict):
        named = config
    for name, value in named.items():
        try:
            pydantic_core.to_json(_revealed(value))
        except (pydantic_core.PydanticSerializationError, ValueError, TypeError) as error:
            raise PluginConfigError(
                f"plugin {plugin.name!r}: field {name!r} of its config cannot be sent to a child: {error}"
            ) from None
    plain = TypeAdapter(type(config)).dump_python(config, by_alias=True)
    return pydantic_core.to_json(_revealed(plain)).decode()


def _check_round_trip(plugin: Plugin[Any], text: str) -> None:
    config = plugin.config
    try:
        restored = TypeAdapter(type(config)).validate_json(text)
    except ValidationError as error:
        raise PluginConfigError(
            f"plugin {plugin.name!r}: its config does not survive JSON: {describe_validation(error)}"
        ) from None
    if restored == config:
        return
    fields = dict(config) if isinstance(config, BaseModel) else (config if isinstance(config, dict) else {})
    again = dict(restored) if isinstance(restored, BaseModel | dict) else {}
    changed = [name for name, value in fields.items() if again.get(name) != value]
    raise PluginConfigError(
        f"plugin {plugin.name!r}: field {', '.join(map(repr, changed)) or 'config'} of its config would change on its way to a child"
    )


def _lookup(module: str, qualname: str) -> Any:
    found: Any = sys.modules["__main__"] if module == "__main__" else importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def rebuild_plugin(spec: PluginSpec) -> Plugin[Any]:
    """Make a plugin from its description, in a child.

    Raises:
        PluginSetupError: it cannot be imported or made.
    """
    try:
        kind = _lookup(spec.module, spec.qualname)
        if spec.config is None:
            return cast("Plugin[Any]", kind())
        text = spec.config.get_secret_value()
        config = (
            pydantic_core.from_json(text)
            if spec.config_type is None
            else TypeAdapter(_lookup(*spec.config_type)).validate_json(text)
        )
        return cast("Plugin[Any]", kind(config))
    except Exception as error:
        raise PluginSetupError(spec.name, f"cannot be rebuilt in a child: {type(error).__name__}: {error}") from error
