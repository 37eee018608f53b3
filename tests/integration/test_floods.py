"""A process that prints without end, while its own loop reads nothing: it takes its share of the disk, and no more."""

import os
import sys

import pytest
from crashkit import Stage, finished, line, until

from paddock.runtime.base.sparse import extent, punch
from paddock.runtime.child.output import read_leftover

MANY = 160 * 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="holes are punched on Linux only")
async def test_what_is_printed_takes_a_bounded_share_of_the_disk(stage: Stage):
    run_dir = stage.folder / "run"
    async with stage.server(run_dir=run_dir, max_output=1_000_000) as server:
        await server.workflows.start("flooding", {"until": str(stage.flag), "most": MANY}, id="one")
        await line("begin", key="flood")
        await until(lambda: list((run_dir / "out").glob("*.out")))
        (out,) = (run_dir / "out").glob("*.out")
        await until(lambda: out.stat().st_size > MANY, "the flood")
        await until(lambda: out.stat().st_blocks * 512 < 64 * 2**20, "a file that was trimmed")
        stage.let_go()
        found = await finished(server, "one")
        assert (found.status, found.executions) == ("completed", 1)
        records = await server.logs.query(instance_id="one", limit=10_000)
    printed = [record.message for record in records if record.source == "stdout"]
    assert printed[0] == "the beginning"
    assert len("".join(printed)) < 1_100_000
    assert not [text for text in printed if "\0" in text]


def test_what_a_death_left_unread_is_read_around_the_hole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"first\n" + b"." * 99_994 + b"last\n")
    with open(path, "r+b") as file:
        if not punch(file.fileno(), 10_000, 90_000):
            pytest.skip("this file system punches no holes")
    first, last = read_leftover(str(path), 0, 200_000)
    assert (first, last[-5:]) == ("first", ".last")
    assert (
        len(last) == (12_288 - 6) + (100_005 - 86_016) - 1
    )  # what stands before and behind the hole, without the newline
    assert "\0" not in last
    assert read_leftover(str(path), 50_000, 10) == ["." * 10]
    assert read_leftover(str(path), 100_005, 10) == []


def test_a_hole_is_seen_by_nobody_but_the_disk(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a" * 100_000)
    descriptor = os.open(path, os.O_RDWR)
    try:
        if not punch(descriptor, 10_000, 90_000):
            pytest.skip("this file system punches no holes")
        assert os.fstat(descriptor).st_size == 100_000
        data = os.pread(descriptor, 200_000, 0)
        assert (data[:10_000], data[90_000:]) == (b"a" * 10_000, b"a" * 10_000)
        assert data.count(0) == 86_016 - 12_288  # whole blocks only
        assert extent(descriptor, 20_000) == (86_016, 100_000, False)
        assert extent(descriptor, 5_000) == (5_000, 12_288, True)
        assert extent(descriptor, 100_000) == extent(descriptor, 200_000) == (100_000, 100_000, False)
        assert not punch(descriptor, 100, 200)
    finally:
        os.close(descriptor)
