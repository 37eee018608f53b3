"""The scheduler: starts instances by the clock, durably. What was due while no server ran is caught up as the schedule says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict

from ..base.clock import Clock, as_datetime
from ..base.duration import DurationLike, parse_duration
from ..base.errors import ConfigError
from ..base.log import get_logger
from ..base.values import plain_json
from ..store.instances import NewInstance
from ..store.schedules import ScheduleRow
from ..store.sql_store import SqlStore
from .registry import Registry

__all__ = ["Schedule", "Scheduler", "first_tick"]

CatchUp = Literal["one", "all", "skip"]

_LATE = 10.0
_AT_MOST = 1000
_log = get_logger("paddock.scheduler")


class Schedule(BaseModel):
    """A durable schedule, as users see it. `every` is in seconds; times are UTC."""

    model_config = ConfigDict(frozen=True)

    id: str
    workflow_name: str
    cron: str | None
    every: float | None
    tz: str
    catch_up: str
    input: Any
    created_at: datetime
    next_at: datetime
    last_at: datetime | None
    last_instance_id: str | None

    @classmethod
    def of(cls, row: ScheduleRow) -> Schedule:
        """Return the public form of a row."""
        return cls(
            id=row.id,
            workflow_name=row.workflow_name,
            cron=row.cron,
            every=row.every,
            tz=row.tz,
            catch_up=row.catch_up,
            input=plain_json(row.input),
            created_at=datetime.fromtimestamp(row.created_at, UTC),
            next_at=datetime.fromtimestamp(row.next_at, UTC),
            last_at=as_datetime(row.last_at),
            last_instance_id=row.last_instance_id,
        )


def first_tick(
    cron: str | None, every: DurationLike | None, tz: str, catch_up: str, now: float
) -> tuple[float | None, float]:
    """Check a schedule and return (interval in seconds or None, its first tick in seconds since the epoch).

    Raises:
        ConfigError: not exactly one of `cron` and `every`, a cron expression that is none or never fires, an unknown zone or policy.
    """
    if (cron is None) == (every is None):
        raise ConfigError("give a schedule exactly one of cron= and every=")
    if catch_up not in ("one", "all", "skip"):
        raise ConfigError(f'catch_up is "one", "all" or "skip", not {catch_up!r}')
    zone = _zone(tz)
    if every is not None:
        seconds = parse_duration(every)
        if seconds <= 0:
            raise ConfigError("every= must be more than 0 seconds")
        return seconds, now + seconds
    try:
        return None, next(CronSim(cron or "", datetime.fromtimestamp(now, zone))).timestamp()
    except CronSimError as error:
        raise ConfigError(
            f'{cron!r} is no cron expression that can fire: {error}; write minute, hour, day, month and weekday, such as "30 9 * * 1-5"'
        ) from None
    except StopIteration:
        raise ConfigError(f"cron expression {cron!r} never fires: no such day comes") from None


def _zone(name: str) -> tzinfo:
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f'there is no time zone {name!r}; use an IANA name such as "Europe/Berlin"') from None


class Scheduler:
    """Fire what is due."""

    def __init__(self, store: SqlStore, clock: Clock, registry: Registry) -> None:
        """Hold the parts."""
        self._store = store
        self._clock = clock
        self._registry = registry

    async def tick(self) -> float | None:
        """Start what is due; return when the next schedule is, in seconds since the epoch."""
        now = self._clock.now()
        rows, following = await self._store.due_schedules(now)
        for row in rows:
            times, next_at = _missed(row, now)
            starts = [self._start(row, at) for at in _chosen(row, times, now)]
            if await self._store.fire(row, starts, next_at, now) and not starts:
                _log.info("a missed tick was skipped", schedule=row.id, workflow=row.workflow_name)
            following = min(following or next_at, next_at)
        return following

    def _start(self, row: ScheduleRow, at: float) -> NewInstance:
        stamp = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%S")
        fraction = f".{int(at * 1000) % 1000:03d}" if row.every is not None and row.every < 1 else ""
        key = None
        if row.workflow_name in self._registry:
            key = self._registry.get(row.workflow_name).key_of(row.input)
        return NewInstance(f"{row.id}@{stamp}{fraction}", row.workflow_name, row.input, limit_key=key)


def _ticks(row: ScheduleRow) -> Iterator[float]:
    """Go through a schedule's ticks from the one that is due."""
    yield row.next_at
    if row.every is not None:
        count = 1
        while True:
            yield row.next_at + count * row.every
            count += 1
    zone = _zone(row.tz)
    for moment in CronSim(row.cron or "", datetime.fromtimestamp(row.next_at, zone)):
        yield moment.timestamp()


def _missed(row: ScheduleRow, now: float) -> tuple[list[float], float]:
    """Return the ticks up to now, the latest of them at most, and the first after now."""
    if row.every is not None and now - row.next_at > _AT_MOST * row.every:
        behind = int((now - row.next_at) // row.every)
        first = row.next_at + (behind - _AT_MOST + 1) * row.every
        return [first + count * row.every for count in range(_AT_MOST)], row.next_at + (behind + 1) * row.every
    times: list[float] = []
    for at in islice(_ticks(row), 1_000_000):
        if at > now:
            return times[-_AT_MOST:], at
        times.append(at)
    return times[-_AT_MOST:], now + 1


def _chosen(row: ScheduleRow, times: list[float], now: float) -> list[float]:
    """Return the ticks that start an instance: one that is on time always does, a late one as `catch_up` says."""
    if row.catch_up == "all":
        return times
    if row.catch_up == "skip":
        return [at for at in times[-1:] if now - at < _LATE]
    return times[-1:]
