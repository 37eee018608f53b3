"""What the kernel says of processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from paddock.watchdog.procstat import LINUX, children_of

#: More than one page of /proc holds the numbers of.
MANY = 900
PARENT = f"""
import os, signal, sys
line, held = os.pipe()
pids = []
for _ in range({MANY}):
    pid = os.fork()
    if not pid:
        os.close(held)
        os.read(line, 1)
        os._exit(0)
    pids.append(pid)
print(*pids, flush=True)
sys.stdin.read()
os.close(held)
for _ in pids: os.wait()
"""


@pytest.mark.skipif(not LINUX, reason="proc(5)")
def test_all_children_of_a_large_family_are_seen():
    with subprocess.Popen(
        [sys.executable, "-S", "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pids = list(map(int, parent.stdout.readline().split()))
        assert len(pids) == MANY
        assert sorted(children_of(parent.pid)) == sorted(pids)
