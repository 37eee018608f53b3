"""The demonstration: run the audit, kill -9 its process and then its server, let it finish, and hold the journal against the ledger."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator

from rich.console import Console

from paddock import Event
from paddock.examples.audit.evidence import Evidence
from paddock.examples.audit.screen import Screen

__all__ = ["demonstrate"]

_KILL_CHILD_AFTER = 5
_KILL_SERVER_AFTER = 11
_TAKE_OVER = 2.5  # seconds in which a new watchdog relieves the old one


def demonstrate(source: str, out: str) -> int:
    """Run the demonstration; return the exit code: 0 only if it was as it should be."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    if os.path.exists(os.path.join(out, "audit.db")):
        console.print(f"[red]{out} holds an audit already; name another folder")
        return 2
    demo = _Demo(source, out, console)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with demo.screen:
            demo.play()
    except KeyboardInterrupt:
        console.print("[yellow]interrupted")
        return 130
    finally:
        demo.clean_up()
    return demo.conclude()


@contextlib.contextmanager
def _interrupted_later() -> Iterator[None]:
    """Deliver what is to interrupt the program when the block is over."""
    caught: list[int] = []
    handlers = {
        number: signal.signal(number, lambda caught_now, _frame: caught.append(caught_now))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in caught:
            signal.raise_signal(late)


class _Demo:
    """Two servers one after the other, what they tell, and what is done to them."""

    def __init__(self, source: str, out: str, console: Console) -> None:
        self._arguments = ["--source", source, "--out", out]
        self._source = source
        self._out = out
        self._console = console
        self.screen = Screen(console)
        self._evidence = Evidence(out)
        self._server: subprocess.Popen[str] | None = None
        self._child = 0
        self._child_killed = self._server_killed = self._alone = False

    def play(self) -> None:
        """Go through the whole piece."""
        self.screen.say(f"Auditing {self._source}", "bold")
        self.screen.say("A server runs the workflow; the work itself is done in a process of its own.")
        while True:
            if not self._follow(self._start_server()):
                return
            self._kill_server()
            self.screen.say("A new server starts on the same database.", "cyan")

    def _follow(self, lines: Iterable[str]) -> bool:
        """Follow a server's events; return True when it is time to kill it, False at its end."""
        for line in lines:
            if not line.startswith("{"):
                continue  # the server's own log
            data = json.loads(line)
            if "instance" in data:
                self._evidence.instance = data["instance"]
                return False
            self._take(Event.model_validate(data))
            if not self._child_killed and self._is_time(_KILL_CHILD_AFTER):
                self._kill_child()
            elif self._child_killed and not self._server_killed and self._is_time(_KILL_SERVER_AFTER):
                return True
        return False

    def _take(self, event: Event) -> None:
        if self._alone and event.name != "workflow.resumed":
            self.screen.say(f"Process {self._child} has worked on meanwhile; the new server takes it over.", "cyan")
        self._alone = False
        self._evidence.take(event)
        self.screen.take(event)
        if event.name in ("workflow.started", "workflow.resumed"):
            self._child = event.data["pid"]

    def _is_time(self, done: int) -> bool:
        """Tell whether so many batches are measured, and others are being measured now."""
        return len(self._evidence.measured) >= done and bool(self._evidence.measuring)

    def _kill_child(self) -> None:
        os.kill(self._child, signal.SIGKILL)
        self._child_killed = True
        self._evidence.killed.append(self._child)
        self.screen.clear_parts()
        self.screen.say(
            f"kill -9 {self._child}: the process that measures. Done: {len(self._evidence.measured)} batches; "
            f"in the middle of: {', '.join(self._evidence.in_flight)}",
            "bold red",
        )

    def _kill_server(self) -> None:
        if self._server is None:
            return
        self._server_killed = self._alone = True
        self._server.kill()
        self._server.wait()
        self._evidence.killed.append(self._server.pid)
        self.screen.say(
            f"kill -9 {self._server.pid}: the server. Done: {len(self._evidence.measured)} batches; "
            f"process {self._child} is on its own, in the middle of: {', '.join(self._evidence.in_flight)}",
            "bold red",
        )

    def _start_server(self) -> Iterable[str]:
        """Start a server; return the lines that it prints, one for each event after the last one seen."""
        command = [sys.executable, "-P", "-m", "paddock.examples.code_audit", *self._arguments]
        command += ["--events", str(self._evidence.cursor)]
        # an interruption in between would leave a server that nobody knows of
        with open(os.path.join(self._out, "server.log"), "a", encoding="utf-8") as log, _interrupted_later():
            self._server = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        return self._server.stdout or ()

    def clean_up(self) -> None:
        """Leave no process behind, whenever the play was interrupted."""
        signal.signal(signal.SIGINT, lambda *_: None)  # once is enough
        finished = self._evidence.instance is not None
        self._end_server(interrupt=not finished)
        if (
            self._alone and not finished
        ):  # what the killed server left waits for a server: let one take it over, and end
            next(iter(self._start_server()), None)
            time.sleep(_TAKE_OVER)
            self._end_server()

    def _end_server(self, *, interrupt: bool = True) -> None:
        if self._server is None or self._server.poll() is not None:
            return
        if interrupt:
            self._server.send_signal(signal.SIGINT)
        for _ in self._server.stdout or ():
            pass  # a pipe that nobody reads would hold it up
        self._server.wait()

    def conclude(self) -> int:
        """Show the table and the verdict; return the exit code."""
        return self._evidence.show(self._console)
