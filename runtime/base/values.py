"""Payloads and their JSON form.

A value passes through its JSON form before the code sees it, on the first run as on a replay: `Schema.encode` gives the text
that is stored, `Schema.decode` what the code sees. What JSON cannot carry faithfully is refused at the door: NaN and
infinities, bytes, keys that collide once they are text, lone surrogates, circular structures.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, TypeVar, is_typeddict

import pydantic_core
from pydantic import BaseModel, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from .errors import InvalidInput, InvalidSignal, InvalidState, InvalidWorkflow, NotSerializable, PayloadTooLarge
from .round_trip import find_secret, holds_secrets, round_trip_fault

__all__ = ["ANY", "Schema", "describe_validation", "plain_json", "to_json", "unfit"]

Unfit = TypeVar("Unfit", InvalidInput, InvalidSignal, InvalidState)
DEFAULT_MAX_PAYLOAD = 4 * 2**20
_NO_NAN = "{} holds NaN or an infinity, which JSON has not; use None or text"
_NO_SECRETS = (
    "{}{} holds a secret, which is no payload: payloads stand in the database and in events. Pass a name or an id, "
    "and look the secret up in a step, or put it into a plugin's config"
)
_MASK = b"**********"
_MOST_FIELDS = 20
_NOTHING: Any = object()
_PLAIN: TypeAdapter[Any] = TypeAdapter(Any)


def to_json(value: Any, what: str) -> str:
    """Return the JSON text of any value that pydantic can serialise.

    Raises:
        NotSerializable: the value has no faithful JSON form; `what` names it in the message.
    """
    return _faithful(lambda: pydantic_core.to_json(value, inf_nan_mode="constants"), value, what, typed=False)


def _faithful(write: Callable[[], bytes], value: Any, what: str, *, typed: bool) -> str:
    """Return the text that `write` makes of a value, once it is sure that nothing is lost in it."""
    try:
        raw = write()
        try:
            plain = pydantic_core.from_json(raw, allow_inf_nan=False)
        except ValueError:
            if b"NaN" in raw or b"Infinity" in raw:
                raise NotSerializable(_NO_NAN.format(what)) from None
            raise
        if not _same(plain, value):  # more than plain JSON: what became of it?
            _check_lost(raw, plain, value, what, typed=typed)
        return raw.decode()
    except NotSerializable:
        raise
    except (pydantic_core.PydanticSerializationError, ValueError, RecursionError, TypeError, OverflowError) as error:
        if (
            "Secret" in str(error) and (path := find_secret(value)) is not None
        ):  # pydantic before 2.11 knows none of its own
            raise NotSerializable(_NO_SECRETS.format(what, f" ({path})" if path else "")) from None
        raise NotSerializable(f"{what} cannot be stored as JSON: {str(error)[:300]}") from None


def _same(plain: Any, value: Any) -> bool:
    try:
        return bool(plain == value)
    except Exception:  # noqa: BLE001  the `==` of a user's class
        return False


def _check_lost(raw: bytes, plain: Any, value: Any, what: str, *, typed: bool) -> None:
    if _MASK in raw and (path := find_secret(value)) is not None:
        raise NotSerializable(_NO_SECRETS.format(what, f" ({path})" if path else ""))
    if len(pydantic_core.to_json(plain)) != len(raw):
        raise NotSerializable(f"{what} has keys that are the same once they are text; use distinct string keys")
    if not typed and pydantic_core.to_json(value, inf_nan_mode="constants", bytes_mode="hex") != raw:
        raise NotSerializable(
            f"{what} holds bytes or an iterator, which JSON has not; use text (base64) or a list, or annotate the type"
        )
    if b"null" in raw and _hides_nan(value):
        raise NotSerializable(_NO_NAN.format(what))


def _hides_nan(value: Any) -> bool:
    """Tell whether a model or a dataclass holds NaN or an infinity: pydantic writes those as null."""
    raw = b""
    try:
        dumped = _PLAIN.dump_python(value, warnings=False)
        raw = pydantic_core.to_json(dumped, inf_nan_mode="constants", fallback=str)
        pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError:
        return b"NaN" in raw or b"Infinity" in raw
    return False


def plain_json(text: str) -> Any:
    """Return the plain Python value of a JSON text."""
    return pydantic_core.from_json(text)


def describe_validation(error: ValidationError) -> str:
    """Return pydantic's findings in one line, fields first, without the rejected values."""
    parts = []
    for item in error.errors(include_url=False, include_input=False, include_context=False)[:5]:
        where = ".".join(str(part) for part in item["loc"])
        told = str(item["msg"]).removeprefix("Value error, ")  # our own words
        parts.append(f"{where}: {told}" if where else told)
    more = error.error_count() - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def unfit(kind: type[Unfit], what: str, error: ValidationError) -> Unfit:
    """Return an error of ours that says what pydantic found, with the fields as data; `what` begins its message."""
    made = kind(f"{what}: {describe_validation(error)}")
    made.fields = tuple(
        (".".join(map(str, item["loc"])), str(item["msg"]).removeprefix("Value error, "))
        for item in error.errors(include_url=False, include_input=False, include_context=False)[:_MOST_FIELDS]
    )
    return made


@functools.lru_cache(maxsize=4096)
def _shared_adapter(annotation: Any) -> TypeAdapter[Any]:
    return _checked(annotation)


def _checked(annotation: Any) -> TypeAdapter[Any]:
    made: TypeAdapter[Any] = TypeAdapter(annotation)
    fault = round_trip_fault(made.core_schema)
    if fault is not None:
        raise InvalidWorkflow(f"{_name_of(annotation)} does not survive JSON: {fault}")
    return made


def _name_of(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)


def _adapter_of(annotation: Any) -> TypeAdapter[Any]:
    """Return one adapter for all that name the same type: building one takes 100 microseconds and more."""
    try:
        hash(annotation)
    except TypeError:  # metadata of an Annotated may have no hash
        return _checked(annotation)
    return _shared_adapter(annotation)


class Schema:
    """One type as a gate between Python values and JSON text; without a type, plain JSON.

    Adapters are made at the first use: building pydantic cores is the dearest part of importing a workflow.
    """

    __slots__ = ("_adapter", "_secret", "_unsaid", "annotation")

    def __init__(self, annotation: Any = None, default: Any = None) -> None:
        """Hold a type that pydantic's `TypeAdapter` takes; None, `Any` and a missing annotation mean plain JSON.

        `default` is what a value that nobody gives stands for; None for none.
        """
        self._unsaid = default
        self.annotation = None if annotation in (None, Any, inspect.Parameter.empty) else annotation
        self._adapter: TypeAdapter[Any] | None = annotation if isinstance(annotation, TypeAdapter) else None
        self._secret: bool | None = None

    @property
    def typed(self) -> bool:
        """Tell whether a type was named."""
        return self.annotation is not None

    def adapter(self) -> TypeAdapter[Any]:
        """Return the adapter, made at the first use.

        Raises:
            InvalidWorkflow: pydantic has no schema for the annotation, or its values would not survive JSON; field and remedy are named.
        """
        if self._adapter is None:
            try:
                self._adapter = _adapter_of(Any if self.annotation is None else self.annotation)
            except (PydanticSchemaGenerationError, PydanticUserError) as error:
                raise InvalidWorkflow(f"{self.annotation!r} cannot be a schema: {str(error).splitlines()[0]}") from None
        return self._adapter

    def encode(self, value: Any, what: str, limit: int = DEFAULT_MAX_PAYLOAD) -> str:
        """Return the JSON text that is stored for `value`.

        Raises:
            NotSerializable: the value has no faithful JSON form.
            PayloadTooLarge: the text is longer than `limit` bytes.
        """
        if not self.typed or isinstance(value, BaseModel):
            text = to_json(value, what)
        else:
            text = _faithful(lambda: self._write(value), value, what, typed=True)
        size = len(text) if text.isascii() else len(text.encode())
        if size > limit:
            raise PayloadTooLarge(what, size, limit)
        return text

    def _write(self, value: Any) -> bytes:
        try:
            return self.adapter().dump_json(value, by_alias=True, warnings=False)
        except (pydantic_core.PydanticSerializationError, ValueError, RecursionError, TypeError):
            # a value of another type than the annotation's: `decode` will name what does not fit
            return pydantic_core.to_json(value, inf_nan_mode="constants")

    def decode(self, text: str, what: str, *, strict: bool | None = None) -> Any:
        """Return the value that the code sees for a stored text; with `strict` nothing is converted, such as text to a number.

        Raises:
            InvalidInput: the text does not fit the type; `what` and the fields are named.
        """
        if not self.typed:
            return plain_json(text)
        try:
            return self.adapter().validate_json(text, strict=strict)
        except ValidationError as error:
            raise unfit(InvalidInput, f"{what} does not fit {self.name}", error) from None

    def unsaid(self) -> Any:
        """Return what a value that nobody gives stands for: the default, `{}` where every field of a model has one, else None."""
        if self._unsaid is None and _has_fields(self.annotation):
            try:
                self.adapter().validate_json("{}")
                self._unsaid = {}
            except ValidationError:
                self._unsaid = _NOTHING
        return None if self._unsaid is _NOTHING else self._unsaid

    def receive(self, text: str, what: str) -> Any:
        """Return the value that the code sees for a stored text, `null` being one that nobody gave; raises InvalidInput."""
        if text == "null" and (value := self.unsaid()) is not None:
            text = self.encode(value, what)
        return self.decode(text, what)

    @property
    def name(self) -> str:
        """Return the type's name for messages."""
        return _name_of(self.annotation)

    def refuse_secrets(self, value: Any, what: str) -> None:
        """Refuse a decoded value that holds a secret: it came in clear text, and would be stored so.

        Raises:
            InvalidInput: it does; the field is named.
        """
        if not self.typed:
            return
        if self._secret is None:
            self._secret = holds_secrets(self.adapter().core_schema)
        if self._secret and (path := find_secret(value)) is not None:
            raise InvalidInput(_NO_SECRETS.format(what, f" ({path})" if path else ""))

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of the type (`{}` for plain JSON)."""
        return self.adapter().json_schema() if self.typed else {}


def _has_fields(annotation: Any) -> bool:
    return inspect.isclass(annotation) and (
        issubclass(annotation, BaseModel) or is_dataclass(annotation) or is_typeddict(annotation)
    )


#: Plain JSON.
ANY = Schema()
