"""The audit's demonstration, interrupted at moments that are hard to meet."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from paddock.examples.audit.demo import _Demo


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_being_started_is_known_when_the_demo_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals
):
    started = object()
    handlers = {one: signal.signal(one, signal.default_int_handler) for one in (signal.SIGINT, signal.SIGTERM)}

    def start(*_arguments: Any, **_options: Any) -> object:
        signal.raise_signal(number)
        return started

    monkeypatch.setattr(subprocess, "Popen", start)
    demo = _Demo("source", str(tmp_path), Console())
    try:
        with pytest.raises(KeyboardInterrupt):
            demo._start_server()
        assert demo._server is started
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
