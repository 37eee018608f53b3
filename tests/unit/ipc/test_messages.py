"""Every message survives the wire; nothing else does."""

from __future__ import annotations

import contextlib
import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from paddock.ipc import messages as m
from paddock.ipc.errors import FrameTooLarge, ProtocolError
from paddock.ipc.frames import MAX_FRAME, FrameDecoder

IDS = {"slot": 3, "pid": 41, "start_time": 99, "instance_id": "i-1", "epoch": 2}
EXAMPLES: list[m.Message] = [
    m.Hello(version=1, role="child", token="s3cret", pid=1, start_time=2, instance_id="i", epoch=1),
    m.Hello(version=1, role="watchdog", token="", pid=1, start_time=2),
    m.Welcome(version=1, server_pid=4),
    m.Refused(reason="no"),
    m.Committed(event_id=2**63 - 1),
    m.Ready(),
    m.Finished(status="completed"),
    m.Cancel(reason="käse", grace=0.5),
    m.Drain(grace=0),
    m.Nudge(),
    m.Stale(**IDS, reason="silent", silent_for=30.2, timeout=30),
    m.Killed(**IDS, reason="silent", stack="File x\n世", signal=9),
    m.Killed(**IDS, reason="stopped", stack=None, signal=None),
    m.StaleAck(slot=3),
    m.Policy(interval=1, heartbeat_timeout=30, stall_timeout=None, kill_grace=5),
    m.Boot(sys_path=["/a", ""], main_path=None, main_module="x", modules=["a.b"], beats_path="/b", cwd="/"),
    m.Warm(modules=[]),
    m.Fork(request_id=1, mode="fork", slot=0, instance_id="i", epoch=1, spec='{"secret": 1}'),
    m.Shutdown(),
    m.Warmed(ok=False, threads=["pump"], failures={"mod": "ImportError: x"}),
    m.Forked(request_id=1, pid=5, start_time=6),
    m.ForkFailed(request_id=1, reason="EAGAIN"),
    m.Exited(
        pid=5, start_time=6, instance_id="i", epoch=1, exit_code=None, signal=11, max_rss=2**33, user_time=0.25,
        system_time=0, core=True,
    ),
    m.Ask(id=1, operation="cancel", arguments='{"id": "a"}'),
    m.Answer(id=1, error_type="InstanceNotFound", error="no instance has the id 'a'"),
]  # fmt: skip


def through_the_wire(message: m.Message) -> m.Message:
    [payload] = FrameDecoder().feed(m.encode_message(message))
    return m.decode_message(payload)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.type)
def test_round_trip(message: m.Message):
    again = through_the_wire(message)
    assert again == message
    assert type(again) is type(message)


def test_the_examples_are_all_messages():
    assert {type(example) for example in EXAMPLES} == set(get_args(m.Message))
    kinds = [model.model_fields["type"].default for model in get_args(m.Message)]
    assert len(set(kinds)) == len(kinds)


@given(text=st.text(), number=st.integers(0, 2**63 - 1))
def test_any_text_and_number(text: str, number: int):
    message = m.Killed(**{**IDS, "pid": number}, reason=text, stack=text, signal=None)
    assert through_the_wire(message) == message


@given(st.binary(max_size=200))
def test_hostile_bytes(payload: bytes):
    with contextlib.suppress(ProtocolError):
        assert isinstance(m.decode_message(payload), BaseModel)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"type": "nudge"',
        b'{"type": "unknown"}',
        b'{"type": ["nudge"]}',
        b'{"type": "nudge", "more": 1}',
        b'{"type": "committed"}',
        b'{"type": "committed", "event_id": "1"}',
        b'{"type": "committed", "event_id": -1}',
        b'{"type": "committed", "event_id": 9223372036854775808}',
        b'{"type": "committed", "event_id": true}',
        b'{"type": "drain", "grace": NaN}',
        b'{"type": "drain", "grace": 1e999}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_message(payload: bytes):
    with pytest.raises(ProtocolError):
        m.decode_message(payload)


def test_secrets_stay_out_of_reprs_and_errors():
    hello, fork = EXAMPLES[0], next(example for example in EXAMPLES if isinstance(example, m.Fork))
    assert "s3cret" not in f"{hello!r}{hello}"
    assert "secret" not in f"{fork!r}{fork}"
    raw = json.loads(hello.model_dump_json()) | {"pid": "x", "extra": "s3cret"}
    with pytest.raises(ProtocolError) as caught:
        m.decode_message(json.dumps(raw).encode())
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(ValidationError) as built:
        m.Hello(version=1, role="child", token=b"s3cret", pid=1, start_time=1)  # type: ignore[arg-type]
    assert "s3cret" not in str(built.value)


def test_messages_are_frozen():
    with pytest.raises(ValidationError):
        m.Refused(reason="a").reason = "b"  # type: ignore[misc]


def test_what_cannot_be_sent():
    with pytest.raises(FrameTooLarge):
        m.encode_message(m.Refused(reason="x" * MAX_FRAME))
    with pytest.raises((ProtocolError, ValidationError)):
        m.encode_message(m.Refused(reason="\ud800"))
