"""What schemathesis holds our answers to beside its own checks; SCHEMATHESIS_HOOKS names this file."""

from typing import Any

import schemathesis

#: What more than JSON schema can say depends on: the instance's workflow, what it waits for, the machine's data; cron and time zones.
_BEYOND = {
    "POST /api/instances/{id}/fork": {"InvalidInput"},
    "POST /api/instances/{id}/signal": {"InvalidSignal"},
    "POST /api/instances/{id}/state": {"InvalidState"},
    "POST /api/schedules": {"InvalidInput", "ConfigError"},
}


@schemathesis.check
def refused_for_more_than_the_description_says(ctx: Any, response: Any, case: Any) -> None:
    """Let a body that is as described be refused for what cannot be described, and never as badly formed."""
    if response.status_code == 422 and case.meta is not None and case.meta.generation.mode.is_positive:
        code, label = response.json()["code"], case.operation.label
        assert code in _BEYOND.get(label, ()), (
            f"{label} refuses what is as described: {code}: {response.json()['detail']}"
        )
