"""Fork a process for each call of the `paddock` command, from one that has imported it: as real as a fresh one, without its start.

Reads a JSON line a call from stdin: `argv`, `cwd`, `env`, and the files for stdin, stdout and stderr; writes the exit code.
"""

import json
import os
import sys

from paddock.runtime.cli import line, main, offline, runner, snapshot, target, waiting

READY = (line, offline, runner, snapshot, target, waiting)


def become(call):
    os.chdir(call["cwd"])
    os.environ.clear()
    os.environ.update(call["env"])
    for number, (name, flags) in enumerate(
        ((call["stdin"], os.O_RDONLY), (call["stdout"], os.O_WRONLY), (call["stderr"], os.O_WRONLY))
    ):
        opened = os.open(name, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["paddock", *call["argv"]]
    code = 0
    try:
        main.main()
    except SystemExit as error:
        code = error.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve():
    for text in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            become(json.loads(text))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
