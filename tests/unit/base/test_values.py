"""Payloads: what goes in comes out, or is refused."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    TypeAdapter,
    computed_field,
)
from typing_extensions import TypedDict

from paddock import InvalidInput, InvalidWorkflow, NotSerializable, PayloadTooLarge
from paddock.runtime.base.values import ANY, Schema, plain_json, to_json


class Colour(Enum):
    RED = "red"


class Inner(BaseModel):
    at: datetime
    colour: Colour = Colour.RED
    blob: bytes = b""


class Outer(BaseModel):
    inner: list[Inner] = []
    by_name: dict[str, float | None] = {}
    alias: int = Field(default=1, alias="an alias")


@dataclass
class Point:
    x: float
    label: str | None = None


class Typed(TypedDict):
    a: int
    b: list[str]


_NOW = datetime(2024, 2, 29, 12, 30, 59, 123456, tzinfo=UTC)
_ROUND = [
    (int, 7),
    (int | None, None),
    (float, -0.0),
    (str, "é\u2028🐎"),
    (bytes, b"text"),
    (datetime, _NOW),
    (Colour, Colour.RED),
    (Inner, Inner(at=_NOW)),
    (list[Inner], [Inner(at=_NOW), Inner(at=_NOW, blob=b"x")]),
    (Outer, Outer(inner=[Inner(at=_NOW)], by_name={"a": None, "b": 1.5})),
    (Point, Point(1.5)),
    (Typed, {"a": 1, "b": ["x"]}),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (dict[int, str], {1: "a", 2: "b"}),
    (Literal["a", "b"], "a"),
    (Annotated[int, PlainSerializer(lambda value: str(value))], 12),
    (Outer | Inner, Inner(at=_NOW)),
    (TypeAdapter(list[int]), [1]),
]


@pytest.mark.parametrize(("annotation", "value"), _ROUND, ids=[str(number) for number in range(len(_ROUND))])
def test_a_typed_value_comes_back_as_it_was(annotation, value):
    schema = Schema(annotation)
    back = schema.decode(schema.encode(value, "it"), "it")
    assert back == value
    assert type(back) is type(value)
    assert schema.typed


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=JSON)
def test_plain_json_comes_back_as_it_was(value):
    text = ANY.encode(value, "it")
    assert plain_json(text) == value
    assert json.loads(text) == value
    assert repr(plain_json(text)) == repr(value)  # types and signs too


def _holds(value):
    """Tell whether a value holds NaN or bytes, which its `repr` may only quote."""
    if isinstance(value, list | dict):
        return any(_holds(item) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, bytes) or (isinstance(value, float) and math.isnan(value))


@given(
    value=st.recursive(JSON, lambda inner: st.lists(inner | st.just(math.nan) | st.just(b"x"), min_size=1, max_size=3))
)
def test_plain_json_is_whole_or_refused(value):
    if _holds(value):
        with pytest.raises(NotSerializable, match="^it "):
            to_json(value, "it")
    else:
        assert json.loads(to_json(value, "it")) == value


@pytest.mark.parametrize(
    "annotation", [float, float | None, list[float | None], dict[str, Any], Outer, list[Outer], Any]
)
def test_nan_is_refused_wherever_it_hides(annotation):
    values = {
        float: math.nan,
        float | None: math.inf,
        Outer: Outer(by_name={"a": math.nan}),
    }
    inner = values.get(annotation, [Outer(by_name={"a": math.nan})] if annotation == list[Outer] else [math.nan])
    value = {"a": inner} if annotation == dict[str, Any] else inner
    with pytest.raises(NotSerializable, match="it holds NaN or an infinity"):
        Schema(annotation).encode(value, "it")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "null NaN"])
def test_text_about_nan_is_text(text):
    assert Schema(Point).decode(Schema(Point).encode(Point(1, text), "it"), "it") == Point(1, text)
    assert plain_json(ANY.encode([text, None], "it")) == [text, None]


def test_keys_that_collide_are_refused_with_a_type_too():
    for annotation in (None, dict[int | str, str]):
        with pytest.raises(NotSerializable, match="keys that are the same"):
            Schema(annotation).encode({1: "a", "1": "b"}, "it")


@pytest.mark.parametrize(("size", "fits"), [(98, True), (99, False)])
def test_the_limit_counts_bytes_of_the_text(size, fits):
    for text in ("x" * size, "é" * (size // 2) + "x" * (size % 2)):
        if fits:
            ANY.encode(text, "it", 100)
            continue
        with pytest.raises(PayloadTooLarge, match=r"it is 101 bytes as JSON; max_payload is 100") as caught:
            ANY.encode(text, "it", 100)
        assert (caught.value.size, caught.value.limit) == (101, 100)


def test_depth_that_is_accepted_can_be_read_again():
    found: Any = 1
    for depth in range(1, 300):
        found = [found]
        try:
            text = ANY.encode(found, "it")
        except NotSerializable:
            assert depth > 100
            break
        plain_json(text)
    else:
        raise AssertionError("no bound")


def test_what_does_not_fit_is_named_without_its_value():
    with pytest.raises(InvalidInput, match=r"it does not fit Inner: at: Field required; colour: .*'red'") as caught:
        Schema(Inner).decode('{"colour": "hunter2"}', "it")
    assert "hunter2" not in str(caught.value)
    many = json.dumps([{}] * 20)
    with pytest.raises(InvalidInput, match="and 15 more"):
        Schema(list[Inner]).decode(many, "it")


def test_a_value_of_another_type_is_found_when_it_is_read():
    schema = Schema(int)
    with pytest.raises(InvalidInput, match="it does not fit int"):
        schema.decode(schema.encode("many", "it"), "it")


def test_what_can_be_no_schema():
    with pytest.raises(InvalidWorkflow, match="cannot be a schema"):
        Schema(object()).adapter()


class Login(BaseModel):
    user: str
    password: SecretStr | None = None


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (SecretStr("hunter2"), "it holds"),
        ({"a": [SecretStr("hunter2")]}, "(a.0)"),
        (Login(user="ada", password="hunter2"), "(password)"),
        ([Login(user="ada", password="hunter2")], "(0.password)"),
    ],
)
def test_a_secret_is_no_payload(value, where):
    for schema in (ANY, Schema(type(value))):
        with pytest.raises(NotSerializable) as caught:
            schema.encode(value, "it")
        assert where in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_a_secret_in_clear_text_is_refused_and_an_empty_one_is_none():
    schema = Schema(Login)
    with pytest.raises(InvalidInput, match=r"password") as caught:
        schema.refuse_secrets(schema.decode('{"user": "ada", "password": "hunter2"}', "it"), "it")
    assert "hunter2" not in str(caught.value)
    for text in ('{"user":"ada","password":null}', '{"user":"ada","password":""}'):
        value = schema.decode(text, "it")
        schema.refuse_secrets(value, "it")
        assert schema.encode(value, "it") == text
    assert ANY.encode("**********", "asterisks of the user's own") == '"**********"'


class WrittenOtherwise(BaseModel):
    a: int = Field(serialization_alias="A")


class ReadOtherwise(BaseModel):
    b: int = Field(validation_alias="B")


class ReadFromDeep(BaseModel):
    b: int = Field(validation_alias=AliasPath("deep", "b"))


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    c: int

    @computed_field
    @property
    def twice(self) -> int:
        return 2 * self.c


class Excluded(BaseModel):
    d: int = Field(exclude=True)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (WrittenOtherwise, "WrittenOtherwise.a"),
        (list[WrittenOtherwise], "WrittenOtherwise.a"),
        (dict[str, WrittenOtherwise | None], "WrittenOtherwise.a"),
        (ReadOtherwise, "ReadOtherwise.b"),
        (ReadFromDeep, "ReadFromDeep.b"),
        (Computed, "Computed.twice"),
        (Excluded, "Excluded.d"),
    ],
)
def test_a_type_whose_values_json_would_lose_is_refused_and_names_the_field(kind, named):
    with pytest.raises(InvalidWorkflow, match=named):
        Schema(kind).adapter()


class Aliased(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper)
    a: int
    inner: "Aliased | None" = None


class ByEither(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    b: int = Field(validation_alias="B")


class Choices(BaseModel):
    c: int = Field(validation_alias=AliasChoices("c1", "C"), serialization_alias="C")


class ComputedOnly(BaseModel):
    d: int
    hidden: int = Field(default=0, exclude=True)

    @computed_field
    @property
    def twice(self) -> int:
        return 2 * self.d


@pytest.mark.parametrize(
    "value",
    [Aliased(A=1, INNER=Aliased(A=2)), ByEither(b=1), Choices(C=1), ComputedOnly(d=1)],
    ids=lambda value: type(value).__name__,
)
def test_what_both_sides_name_alike_survives(value):
    schema = Schema(type(value))
    assert schema.decode(schema.encode(value, "it"), "it") == value


def test_no_annotation_is_plain_json():
    for annotation in (None, Any):
        assert not Schema(annotation).typed
        assert Schema(annotation).json_schema() == {}
    assert Schema(Inner).json_schema()["type"] == "object"
