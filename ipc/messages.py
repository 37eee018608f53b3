"""Every message between Paddock's processes, as data.

| message | from → to | when |
|---|---|---|
| `Hello`, `Welcome`, `Refused` | anyone ↔ hub | the first words of a connection, see `handshake` |
| `Ready` | child → server | its plugins are set up |
| `Committed` | child → server | events up to this id are in the store; the server reads them there (where no bell can be rung) |
| `Finished` | child → server | its last commit stands, it is about to exit |
| `Cancel`, `Drain`, `Nudge` | server → child | end now; end at a step boundary; look at the store again |
| `Stale`, `Killed` | watchdog → server | about to end a process, the store should know first; it is ended |
| `StaleAck`, `Policy` | server → watchdog | the store knows; new thresholds |
| `Boot`, `Warm`, `Fork`, `Shutdown` | server → fork server | once; again at a registration; one per child; end |
| `Warmed`, `Forked`, `ForkFailed`, `Exited` | fork server → server | one per `Boot`, `Warm`, `Fork`, child's end |
| `Ask`, `Answer` | control ↔ server | a person's wish from the command line, and what became of it |

No message carries an event, a result or a log of an instance: those are committed to the store, and messages only say
that there is something to read. So a lost message costs time, never data. Times are seconds, sizes bytes. Secrets are kept out of
every `repr` and of the errors of bad messages.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticSerializationError

from .errors import ProtocolError
from .frames import encode

__all__ = [
    "Answer",
    "Ask",
    "Boot",
    "Cancel",
    "Committed",
    "Drain",
    "Exited",
    "Finished",
    "Fork",
    "ForkFailed",
    "Forked",
    "Hello",
    "Killed",
    "Message",
    "Nudge",
    "Policy",
    "Ready",
    "Refused",
    "Role",
    "Shutdown",
    "Stale",
    "StaleAck",
    "Warm",
    "Warmed",
    "Welcome",
    "decode_message",
    "encode_message",
]

Role = Literal["child", "watchdog", "client", "control"]

#: A count, pid, tick or id: never negative, and never more than what fits the store's and the kernel's integers.
_Natural = Annotated[int, Field(ge=0, le=2**63 - 1)]
_Seconds = Annotated[float, Field(ge=0)]


class _Message(BaseModel):
    # An input is never quoted in an error: a malformed hello would put its token into a log.
    # What a process neither sends nor gets it does not build: that would take a tenth of each one's start.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True, defer_build=True
    )


# --- the hub's handshake --------------------------------------------------------------------------------------------


class Hello(_Message):
    """Introduce oneself; the first message of every connection to the hub."""

    type: Literal["hello"] = "hello"
    version: int
    role: Role
    token: str = Field(repr=False)
    pid: _Natural
    start_time: _Natural
    instance_id: str | None = None
    epoch: _Natural | None = None


class Welcome(_Message):
    """Accept a hello."""

    type: Literal["welcome"] = "welcome"
    version: int
    server_pid: _Natural


class Refused(_Message):
    """Refuse a hello; the connection closes after it."""

    type: Literal["refused"] = "refused"
    reason: str


# --- child and server -----------------------------------------------------------------------------------------------


class Committed(_Message):
    """Tell that events up to `event_id` are in the store."""

    type: Literal["committed"] = "committed"
    event_id: _Natural


class Ready(_Message):
    """Tell that the plugins are set up."""

    type: Literal["ready"] = "ready"


class Finished(_Message):
    """Tell that the child's last commit stands and which status it left."""

    type: Literal["finished"] = "finished"
    status: str


class Cancel(_Message):
    """Ask a child to end within `grace` seconds, in the middle of a step."""

    type: Literal["cancel"] = "cancel"
    reason: str
    grace: _Seconds


class Drain(_Message):
    """Ask a child to end at its next step boundary, within `grace` seconds."""

    type: Literal["drain"] = "drain"
    grace: _Seconds


class Nudge(_Message):
    """Ask a child to look at the store again."""

    type: Literal["nudge"] = "nudge"


# --- watchdog and server --------------------------------------------------------------------------------------------


class Stale(_Message):
    """Tell that a process is about to be ended, and why."""

    type: Literal["stale"] = "stale"
    slot: _Natural
    pid: _Natural
    start_time: _Natural
    instance_id: str
    epoch: _Natural
    reason: str
    silent_for: _Seconds
    timeout: _Seconds


class Killed(_Message):
    """Tell that a stale process is gone, with the stacks it had and the signal that ended it."""

    type: Literal["killed"] = "killed"
    slot: _Natural
    pid: _Natural
    start_time: _Natural
    instance_id: str
    epoch: _Natural
    reason: str
    stack: str | None = None
    signal: int | None = None


class StaleAck(_Message):
    """Tell that a `Stale` is in the store; the watchdog may go on."""

    type: Literal["stale_ack"] = "stale_ack"
    slot: _Natural


class Policy(_Message):
    """Set the watchdog's thresholds, in seconds."""

    type: Literal["policy"] = "policy"
    interval: _Seconds
    heartbeat_timeout: _Seconds
    stall_timeout: _Seconds | None = None
    kill_grace: _Seconds


# --- server and fork server -----------------------------------------------------------------------------------------


class Boot(_Message):
    """Tell a fork server where it is, before anything else. `needs` is JSON that only a standby reads."""

    type: Literal["boot"] = "boot"
    sys_path: list[str]
    main_path: str | None = None
    main_module: str | None = None
    modules: list[str]
    beats_path: str
    cwd: str
    argv: list[str] = []
    needs: str | None = Field(default=None, repr=False)


class Warm(_Message):
    """Ask for more modules to be imported."""

    type: Literal["warm"] = "warm"
    modules: list[str]


class Fork(_Message):
    """Ask for a child. `spec` is JSON that only the child reads.

    A spawned one runs in the interpreter `python`, by default the fork server's own, with the environment `environ`, by
    default the fork server's own; its values may be secrets.
    """

    type: Literal["fork"] = "fork"
    request_id: _Natural
    mode: Literal["fork", "spawn"]
    slot: _Natural
    instance_id: str
    epoch: _Natural
    spec: str = Field(repr=False)
    python: str | None = None
    environ: dict[str, str | None] | None = Field(default=None, repr=False)


class Shutdown(_Message):
    """Ask the fork server to end."""

    type: Literal["shutdown"] = "shutdown"


class Warmed(_Message):
    """Tell how the imports went.

    `threads` are alive after them and make forking unsafe; `failures` maps a module to its error.
    """

    type: Literal["warmed"] = "warmed"
    ok: bool
    threads: list[str]
    failures: dict[str, str]


class Forked(_Message):
    """Tell that a child exists, and which."""

    type: Literal["forked"] = "forked"
    request_id: _Natural
    pid: _Natural
    start_time: _Natural


class ForkFailed(_Message):
    """Tell that no child was made, and why."""

    type: Literal["fork_failed"] = "fork_failed"
    request_id: _Natural
    reason: str


class Exited(_Message):
    """Tell how a child ended. Times in seconds of CPU, `max_rss` in bytes."""

    type: Literal["exited"] = "exited"
    pid: _Natural
    start_time: _Natural
    instance_id: str
    epoch: _Natural
    exit_code: int | None = None
    signal: int | None = None
    max_rss: _Natural
    user_time: _Seconds
    system_time: _Seconds
    core: bool = False


# --- control and server ---------------------------------------------------------------------------------------------


class Ask(_Message):
    """Ask the server to do something. `arguments` is a JSON object; see `runtime/server/control.py`."""

    type: Literal["ask"] = "ask"
    id: _Natural
    operation: str
    arguments: str = Field(repr=False)


class Answer(_Message):
    """Answer the `Ask` of the same id: `result` is JSON, or `error` says what was wrong and `error_type` names it."""

    type: Literal["answer"] = "answer"
    id: _Natural
    result: str | None = Field(default=None, repr=False)
    error_type: str | None = None
    error: str | None = None


Message = (
    Hello
    | Welcome
    | Refused
    | Committed
    | Ready
    | Finished
    | Cancel
    | Drain
    | Nudge
    | Stale
    | Killed
    | StaleAck
    | Policy
    | Boot
    | Warm
    | Fork
    | Shutdown
    | Warmed
    | Forked
    | ForkFailed
    | Exited
    | Ask
    | Answer
)

_KINDS: dict[object, type[Message]] = {kind.model_fields["type"].default: kind for kind in get_args(Message)}
_TYPE = re.compile(rb'\{"type":"(\w+)"')  # as `encode_message` writes it
_MAX_COMPLAINT = 300


def encode_message(msg: Message) -> bytes:
    """Return the message as one frame.

    Raises:
        FrameTooLarge: its JSON is longer than `MAX_FRAME` bytes.
        ProtocolError: a text in it is not valid Unicode and has no JSON form.
    """
    try:
        payload = msg.model_dump_json().encode()
    except (PydanticSerializationError, UnicodeEncodeError):
        raise ProtocolError(f"a {msg.type!r} message holds text that is not valid Unicode") from None
    return encode(payload)


def decode_message(payload: bytes) -> Message:
    """Return the message that a frame's payload holds.

    Raises:
        ProtocolError: it is no JSON, of no known type, or its fields are wrong. The error quotes no value.
    """
    kind = _kind_of(payload)
    try:
        return kind.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in (kind.model_fields["type"].default, *first["loc"]))
        complaint = f"{place}: {first['type']}"
    raise ProtocolError(f"not a message of ours: {complaint[:_MAX_COMPLAINT]}")


def _kind_of(payload: bytes) -> type[Message]:
    found = _TYPE.match(payload)
    if found is not None and (kind := _KINDS.get(found[1].decode())) is not None:
        return kind
    try:
        whole = pydantic_core.from_json(payload)
    except ValueError:
        raise ProtocolError("not a message of ours: no JSON") from None
    named = whole.get("type") if isinstance(whole, dict) else None
    kind = _KINDS.get(named) if isinstance(named, str) else None
    if kind is None:
        raise ProtocolError("not a message of ours: no known type")
    return kind
