"""What a watchdog is told at its start.

It is one line of JSON on its standard input, because argv and environment are for all to read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ..ipc.address import Address, parse_address
from .policy import Thresholds

__all__ = ["Settings", "parse_settings"]


@dataclass(frozen=True)
class Settings:
    """A watchdog's settings.

    Attributes:
        address: where the hub listens, of this server and of the next.
        token: the hub's secret.
        beats_path: the beat table.
        trace_dir: where children write their stacks.
        thresholds: when to act.
        orphan_grace: seconds without a server after which the watchdog ends.
        server: pid and start time of the server that started it.
    """

    address: Address
    token: str = field(repr=False)
    beats_path: str
    trace_dir: str
    thresholds: Thresholds
    orphan_grace: float
    server: tuple[int, int]


def parse_settings(line: str) -> Settings:
    """Return the settings of one JSON line.

    Raises:
        ValueError: it cannot be used; the text names the field and quotes nothing.
    """
    try:
        raw: dict[str, Any] = json.loads(line)
        limits, server = raw["thresholds"], raw["server"]
        stall = limits["stall_timeout"]
        return Settings(
            address=parse_address(raw["address"]),
            token=str(raw["token"]),
            beats_path=str(raw["beats_path"]),
            trace_dir=str(raw["trace_dir"]),
            thresholds=Thresholds(
                interval=float(limits["interval"]),
                heartbeat_timeout=float(limits["heartbeat_timeout"]),
                stall_timeout=None if stall is None else float(stall),
                kill_grace=float(limits["kill_grace"]),
            ),
            orphan_grace=float(raw["orphan_grace"]),
            server=(int(server["pid"]), int(server["start_time"])),
        )
    except json.JSONDecodeError:
        raise ValueError("the watchdog's settings are no JSON") from None
    except KeyError as error:
        raise ValueError(f"the watchdog's settings lack {error}") from None
    except TypeError:
        raise ValueError("the watchdog's settings have a field of the wrong type") from None
