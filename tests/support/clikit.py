"""Drive the real `paddock` command and a real server for it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from leftovers import MARKER

from paddock.runtime.base.records import TERMINAL
from paddock.runtime.store.reading import open_reader

SUPPORT = Path(__file__).resolve().parent
MODULE = [sys.executable, "-P", "-m", "paddock"]
LIMIT = 60.0


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name not in ("PADDOCK_DB", "NO_COLOR", "COLUMNS")}
    return {**kept, "PYTHONPATH": str(SUPPORT), **more}


class Zygote:
    """A process that forks one for each call of the command."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(SUPPORT / "cli_zygote.py")],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, folder, arguments, stdin, env):
        with tempfile.TemporaryDirectory(prefix="call-") as place:
            files = {name: os.path.join(place, name) for name in ("stdin", "stdout", "stderr")}
            for name, path in files.items():
                Path(path).write_text(stdin or "" if name == "stdin" else "", encoding="utf-8")
            call = {"argv": arguments, "cwd": str(folder), "env": env, **files}
            self.process.stdin.write(json.dumps(call) + "\n")
            self.process.stdin.flush()
            code = int(self.process.stdout.readline())
            out, err = (Path(files[name]).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(arguments, code, out, err)

    def close(self):
        self.process.stdin.close()
        self.process.wait(LIMIT)
        self.process.stdout.close()


class Command:
    """The command in one folder."""

    def __init__(self, folder, zygote):
        self.folder = folder
        self._zygote = zygote

    def __call__(self, *arguments, stdin=None, **more):
        return self._zygote.call(self.folder, arguments, stdin, environment(**more))

    def ok(self, *arguments, **more):
        found = self(*arguments, **more)
        assert found.returncode == 0, found
        return found.stdout

    def clean(self, *arguments, **more):
        """Return the output of a call that has nothing to say besides."""
        found = self(*arguments, **more)
        assert (found.returncode, found.stderr) == (0, ""), found
        return found.stdout

    def json(self, *arguments):
        return json.loads(self.ok(*arguments, "--json"))

    def lines(self, *arguments):
        return [json.loads(line) for line in self.ok(*arguments, "--json").splitlines()]

    def refused(self, *arguments, **more):
        """Return the one sentence with which a call is refused."""
        found = self(*arguments, **more)
        assert (found.returncode, found.stdout) == (2, ""), found
        assert found.stderr.startswith("error: ")
        assert found.stderr.count("\n") == 1
        return found.stderr

    def misused(self, *arguments):
        """Return what the option parser says of a call that it refuses."""
        found = self(*arguments)
        assert (found.returncode, found.stdout) == (2, ""), found
        assert "Traceback" not in found.stderr
        return found.stderr

    def popen(self, *arguments, **options):
        return subprocess.Popen(
            [*MODULE, *arguments], cwd=self.folder, env=environment(), stdout=subprocess.PIPE, text=True, **options
        )

    def until(self, ident, *statuses):
        """Wait until an instance has one of these statuses, and return it."""
        deadline = time.monotonic() + LIMIT
        while True:
            with open_reader(os.path.realpath(self.folder / "app.db")) as reader:
                found = reader.get(ident)
            if found.status in statuses:
                return found
            assert found.status not in TERMINAL, found
            assert time.monotonic() < deadline, found
            time.sleep(0.05)


class ServerProcess:
    """The program `cli_server.py` on `app.db` of a folder."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(SUPPORT / "cli_server.py"), "app.db"],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(LIMIT)
        self.process.stdout.close()


class DetachedServer:
    """The same program for many tests: no descendant of theirs, for it makes and ends processes as it pleases.

    What the tests' own watch does not see then is looked at here: nothing of it outlives its stop.
    """

    def __init__(self, folder):
        self._mark = f"PADDOCK_CLI_SERVER={uuid4().hex}"
        name, value = self._mark.split("=")
        env = {key: text for key, text in environment().items() if key != MARKER} | {name: value}
        program = [sys.executable, "-P", str(SUPPORT / "cli_server.py"), "app.db"]
        line = f"{shlex.join(program)} >{shlex.quote(str(folder / 'ready'))} 2>&1 </dev/null & echo $!"
        found = subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True, check=True)
        self.pid = int(found.stdout)
        assert wait_for_text(folder / "ready") == "ready\n"

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + LIMIT
        while left := self._left():
            assert time.monotonic() < deadline, f"the server has left {left}"
            time.sleep(0.05)

    def _left(self):
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                environ = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            if self._mark.encode() in environ.split(b"\0"):
                found.append(int(entry))
        return found


def answered(look):
    """Return the first snapshot for which the server has answered: one look gives it two seconds."""
    deadline = time.monotonic() + LIMIT
    while "server" in (found := look())["trouble"]:
        assert time.monotonic() < deadline, found
    return found


def wait_for_text(path):
    deadline = time.monotonic() + LIMIT
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.02)
    return path.read_text()
