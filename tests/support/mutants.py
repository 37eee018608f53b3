"""Mutants: Paddock with one line of its safety taken out, and the test that must notice.

A mutant is made in a copy of the installed package, in a temporary folder that stands first on `PYTHONPATH` of a test run of its own; its
children, fork servers and watchdogs find the copy the same way. Nothing of this is in the shipped code. A mutant whose line is not there
any more, or not once, is an error: the table has to follow the code.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
_PARTS = {"": "paddock", "ipc": "paddock.ipc", "watchdog": "paddock.watchdog", "runtime": "paddock.runtime"}


@dataclass(frozen=True)
class Mutant:
    """One line less.

    Attributes:
        name: what is taken out.
        guarantee: whose line it is.
        file: the module's file, below the package.
        old: what stands there, once.
        new: what stands there in the mutant.
        test: the test that must fail, as pytest names it, below `tests/`.
        fast: it is tried with the other tests; the rest by `make mutation`.
    """

    name: str
    guarantee: str
    file: str
    old: str
    new: str
    test: str
    fast: bool = False


_QUEUE = "conformance/test_store_queue.py::"
_TURNS = "conformance/test_sqlite_turns.py::"
_PG = "conformance/test_postgres_turns.py::"
_FILES = "conformance/test_sqlite_files.py::"
_FLUSH = "conformance/test_sqlite_flush.py::"
_INTEGRATION = "integration/"

MUTANTS = [
    # --- G1 ---
    Mutant(
        "the journal's look-up", "G1", "runtime/engine/execution.py",
        'await self.replay.in_order(row)\n        if row is not None and row.status == "completed":',
        'await self.replay.in_order(row)\n        if row is not None and row.status == "never":',
        "unit/engine/test_graph_crashes.py", fast=True,
    ),
    Mutant(
        "one transaction for the end of a step and what comes with it", "G1", "runtime/store/journal.py",
        "    for op in ops:\n        apply(op, tx, lease.instance, now)\n",
        '    for op in ops:\n        apply(op, tx, lease.instance, now)\n        tx.execute("COMMIT")\n        tx.execute("BEGIN IMMEDIATE")\n',
        f"{_QUEUE}test_a_commit_is_all_or_nothing", fast=True,
    ),
    Mutant(
        "a commit for what one turn notes", "G1", "runtime/engine/writer.py",
        "batch, self._pending = self._pending, []", "batch, self._pending = self._pending[:1], self._pending[1:]",
        "unit/engine/test_writer.py::test_what_one_turn_notes_is_one_commit",
    ),
    Mutant(
        "a crash spends no retry", "G1", "runtime/engine/execution.py",
        "        elif call.at_most_once:\n            await self.fail(row, ProcessDied",
        "        elif row.attempts and setattr(row, 'failures', row.failures + 1):\n            pass\n"
        "        elif call.at_most_once:\n            await self.fail(row, ProcessDied",
        "unit/engine/test_steps.py::test_the_count_of_tries_outlives_a_crash",
    ),
    # --- G2 ---
    Mutant(
        "the fence of the epoch", "G2", "runtime/store/journal.py",
        "row = tx.execute(_LEASE, (lease.instance,)).fetchone()\n    if row is None or row[0] != lease.epoch:",
        "row = tx.execute(_LEASE, (lease.instance,)).fetchone()\n    if row is None:",
        f"{_QUEUE}test_a_stale_epoch_writes_nothing", fast=True,
    ),
    Mutant(
        "the fence at the load", "G2", "runtime/store/journal.py",
        "if row is None or row[10] != lease.epoch or row[2] != Status.RUNNING:", "if row is None:",
        f"{_QUEUE}test_a_stale_epoch_writes_nothing",
    ),
    Mutant(
        "an epoch that rises", "G2", "runtime/store/admission.py",
        "SET epoch = epoch + 1 WHERE seq = ?", "SET epoch = 1 WHERE seq = ?",
        f"{_QUEUE}test_a_stale_epoch_writes_nothing",
    ),
    Mutant(
        "the confirmation of a death before the slot is released", "G2", "runtime/server/supervisor.py",
        "await ended(identity)", "await asyncio.sleep(0.02); child.exited.done() or child.exited.set_result(None)",
        f"{_INTEGRATION}test_limits.py::test_a_child_that_has_ended_but_not_exited_holds_its_slot",
    ),
    Mutant(
        "the end of a dead child's family before its successor", "G2", "runtime/child/forkserver.py",
        "            if pid not in self._children and pid not in self._retired and", "            if False and",
        f"{_INTEGRATION}test_ending.py::test_the_family_is_gone_before_the_instance_is_resumed",
    ),
    Mutant(
        "a lease that names its process before anything else", "G2", "runtime/store/admission.py",
        "    if death.unborn and row[1] is not None:\n", "    if False:\n",
        f"{_INTEGRATION}test_server_crashes.py::test_a_child_that_was_born_unseen",
    ),
    # --- G3 ---
    Mutant(
        "the cursor", "G3", "runtime/store/events.py",
        "WHERE e.id > ? AND e.id < ?{where}", "WHERE e.id >= ? AND e.id < ?{where}",
        "conformance/test_store_records.py::test_a_cursor_misses_nothing_and_repeats_nothing",
    ),
    Mutant(
        "a subscriber that goes on from the table when it was slow", "G3", "runtime/server/feeds.py",
        "            self._behind = True  # it goes on from its cursor in the store\n", "            pass\n",
        "acceptance/contract/test_events.py::test_a_slow_handler_holds_up_nobody_and_misses_nothing",
    ),
    Mutant(
        "the subscriber's own cursor", "G3", "runtime/server/feeds.py",
        "if self.cursor is not None and event.id <= self.cursor:", "if False:",
        "unit/server/test_bus.py::test_what_a_subscriber_has_read_ahead_of_the_bus_does_not_come_again", fast=True,
    ),
    # --- G4 ---
    Mutant(
        "the count of what runs", "G4", "runtime/store/admission.py",
        "        busy[name] = count\n", "        busy[name] = 0\n",
        f"{_QUEUE}test_racing_claims_never_pass_the_limit", fast=True,
    ),
    Mutant(
        "the count over all workflows", "G4", "runtime/store/admission.py",
        "        processes += isolated or 0\n", "        processes += 0\n",
        f"{_QUEUE}test_capacity_bounds_isolated_instances_over_all_workflows",
    ),
    Mutant(
        "first come, first served", "G4", "runtime/store/admission.py",
        "    for _, seq, ident, name in sorted(queue):\n", "    for _, seq, ident, name in sorted(queue, reverse=True):\n",
        f"{_QUEUE}test_one_claim_keeps_that_order_too",
    ),
    Mutant(
        "the release of a slot", "G4", "runtime/store/admission.py",
        "    tx.execute(_RELEASE, (lease.instance, lease.epoch))\n", "    pass\n",
        f"{_INTEGRATION}test_limits.py::test_a_limit_that_was_reached_in_a_crash_is_free_again",
    ),
    # --- G5 ---
    Mutant(
        "the take-over of what the last server left", "G5", "runtime/server/running.py",
        "        await self.supervisor.take_over()\n", "        pass\n",
        f"{_INTEGRATION}test_server_crashes.py::test_a_child_that_died_while_no_server_looked",
    ),
    Mutant(
        "an instance that lost its process goes back to the queue", "G5", "runtime/store/admission.py",
        "        settlement = _crashed(tx, lease, death, max_resumes, now)\n", "        pass\n",
        f"{_QUEUE}test_a_planned_end_is_no_crash", fast=True,
    ),
    Mutant(
        "another fork server after the first", "G5", "runtime/server/nursery.py",
        "        while not self._stopping.is_set():\n            born", "        for _ in range(1):\n            born",
        f"{_INTEGRATION}test_server_crashes.py::test_the_fork_server_killed_while_it_is_idle_and_while_children_run",
    ),
    Mutant(
        "a look after the last promise of one", "G5", "runtime/server/rounds.py",
        "        if self._timer is None:\n", "        if self._timer is None and self._quiet < _QUIET:\n",
        "unit/server/test_rounds.py::test_what_is_noted_as_the_promise_is_taken_back_is_heard",
    ),
    # --- G6 ---
    Mutant(
        "the adoption of the living", "G6", "runtime/server/takeover.py",
        "            if held.status is Status.RUNNING:\n", "            if False:\n",
        f"{_INTEGRATION}test_server_crashes.py::test_the_next_server_adopts_the_children",
    ),
    Mutant(
        "the end of who cannot end itself without a server", "G6", "watchdog/process.py",
        "                    self._end_all()\n", "                    pass\n",
        f"{_INTEGRATION}test_server_crashes.py::test_without_a_next_server_all_is_gone_after_the_grace",
    ),
    # --- G7 ---
    Mutant(
        "the check of an identity before a signal", "G7", "watchdog/identity.py",
        "            alive = is_alive(identity)\n", "            alive = True\n",
        "unit/watchdog/test_identity.py", fast=True,
    ),
    Mutant(
        "the start time in an identity", "G7", "watchdog/identity.py",
        "return stat.start_time == identity.start_time and stat.state not in _GONE", "return stat.state not in _GONE",
        "unit/watchdog/test_identity.py",
    ),
    Mutant(
        "a process is one until its last thread is gone", "G7", "watchdog/procstat.py",
        '    if state == "Z" and int(fields[17]) > 1:\n', "    if False:\n",
        "unit/watchdog/test_identity.py::test_a_process_without_its_main_thread_lives_until_it_is_ended",
    ),
    Mutant(
        "the boot in an identity", "G7", "watchdog/identity.py",
        "    if identity.boot_id != boot_id():\n        return False\n    try:\n        stat", "    try:\n        stat",
        "unit/watchdog/test_identity.py",
    ),
    # --- G8 ---
    Mutant(
        "the look at the CPU time of who is silent", "G8", "watchdog/policy.py",
        "if now - max(track.thread_since, track.idle_since) >= silence_allowed(sample, thresholds):",
        "if now - track.thread_since >= silence_allowed(sample, thresholds):",
        "unit/watchdog/test_policy.py", fast=True,
    ),
    Mutant(
        "the grace of an observer that overslept", "G8", "watchdog/policy.py",
        "    return now - last > max(MIN_INTERVALS * thresholds.interval, thresholds.heartbeat_timeout / 3)\n", "    return False\n",
        "unit/watchdog/test_observer.py::test_an_overslept_observer_begins_again",
    ),
    Mutant(
        "the stacks before the kill", "G8", "watchdog/ender.py",
        "        stack = _stacks_of(finding, handle, table, trace_dir)\n",
        '        stack = ""\n',
        f"{_INTEGRATION}test_watching.py::test_a_stopped_child_is_ended_with_its_stacks_and_resumed",
    ),
    # --- G9 ---
    Mutant(
        "the marker of an instance's programs", "G9", "watchdog/tree.py",
        "            if self.marker in markers:\n", "            if False:\n",
        "integration/watchdog/test_tree.py",
    ),
    Mutant(
        "SIGKILL after the grace", "G9", "runtime/server/supervisor.py",
        "                await self._end_process(child)\n                grace = _INSIST", "                grace = _INSIST",
        f"{_INTEGRATION}test_ending.py::test_cancel_whatever_the_handler_does[block]",
    ),
    # --- G10 ---
    Mutant(
        "a sleep's end that is fixed when it begins", "G10", "runtime/engine/waits.py",
        'await execution.suspension.park(row.wake_at)\n    execution.complete(row, "null")',
        'await execution.suspension.park(execution.clock.now() + seconds)\n    execution.complete(row, "null")',
        "unit/engine/test_graph.py::test_a_sleeps_time_of_waking_is_fixed_when_it_begins",
    ),
    Mutant(
        "a retry's delay that is kept", "G10", "runtime/engine/execution.py",
        "            if row.wake_at is not None:\n                await self.suspension.park(row.wake_at)\n", "            pass\n",
        "unit/engine/test_steps.py::test_a_short_delay_is_waited_for_again_only_for_the_rest",
    ),
    # --- G11 ---
    Mutant(
        "the guard of what has ended", "G11", "runtime/store/lifecycle.py",
        "    if target not in TRANSITIONS[source]:\n", "    if False:\n",
        f"{_QUEUE}test_the_table_decides_every_change", fast=True,
    ),
    Mutant(
        "the fence of the status", "G11", "runtime/store/journal.py",
        "    if row[1] != Status.RUNNING:\n", "    if False:\n",
        f"{_QUEUE}test_nothing_is_written_after_the_end", fast=True,
    ),
    Mutant(
        "a cancel that finds the end there already", "G11", "runtime/store/outside.py",
        "    if current in TERMINAL:\n        return False, []\n", "",
        f"{_QUEUE}test_cancel_works_in_every_status_and_sticks",
    ),
    Mutant(
        "one commit for the end of a family", "G11", "runtime/store/outside.py",
        "        leases += end(tx, child, Status.CANCELLED, now, None)[1]\n", "        pass\n",
        "conformance/test_store_steering.py::test_an_end_from_outside_takes_along_what_was_started",
    ),
    # --- G12 ---
    Mutant(
        "the count of crashes", "G12", "runtime/store/admission.py",
        "    count = count + 1 if (crash_step, crash_mark) == (key, mark) else 1\n", "    count = 1\n",
        f"{_QUEUE}test_crashes_without_progress_back_off_and_end_as_a_crash_loop", fast=True,
    ),
    Mutant(
        "progress resets it", "G12", "runtime/store/admission.py",
        "    count = count + 1 if (crash_step, crash_mark) == (key, mark) else 1\n", "    count = count + 1\n",
        f"{_QUEUE}test_progress_resets_the_count",
    ),
    # --- G13 ---
    Mutant(
        "the limit of a payload", "G13", "runtime/base/values.py",
        "        if size > limit:\n", "        if False:\n",
        "unit/base/test_values.py::test_the_limit_counts_bytes_of_the_text",
    ),
    Mutant(
        "NaN is no JSON", "G13", "runtime/base/values.py",
        "plain = pydantic_core.from_json(raw, allow_inf_nan=False)", "plain = pydantic_core.from_json(raw)",
        "unit/base/test_values.py::test_nan_is_refused_wherever_it_hides",
    ),
    Mutant(
        "the same id for something else", "G13", "runtime/store/instances.py",
        "        if found[2] != new.workflow_name or (held and plain_json(held[0]) != plain_json(new.input)):\n", "        if False:\n",
        f"{_QUEUE}test_the_same_id_for_something_else_is_a_conflict",
    ),
    # --- G14 ---
    Mutant(
        "BEGIN IMMEDIATE", "G14", "runtime/store/worker.py",
        'connection.execute("BEGIN IMMEDIATE")\n        self.writes', 'connection.execute("BEGIN")\n        self.writes',
        f"{_TURNS}test_a_transaction_does_not_begin_before_it_may_write",
    ),
    Mutant(
        "the write lock of the checkpoint", "G14", "runtime/store/checkpoint.py",
        'self._holder.execute("BEGIN IMMEDIATE")', 'self._holder.execute("BEGIN")',
        f"{_FILES}test_a_checkpoint_holds_the_write_lock",
    ),
    Mutant(
        "no checkpoint but the one", "G14", "runtime/store/worker.py",
        '        connection.execute("PRAGMA wal_autocheckpoint = 0")\n', "",
        f"{_FILES}test_how_every_connection_is_opened",
    ),
    Mutant(
        "a commit that is on the disk", "G14", "runtime/store/worker.py",
        'connection.execute(f"PRAGMA synchronous = {pragmas.synchronous}")', 'connection.execute("PRAGMA synchronous = OFF")',
        f"{_FILES}test_how_every_connection_is_opened",
    ),
    Mutant(
        "a child's commit that is on the disk", "G14", "runtime/store/flush.py",
        "        if self._syncs:\n            _fdatasync(descriptor)\n", "        pass\n",
        f"{_FLUSH}test_each_commit_waits_for_the_disk_once",
    ),
    Mutant(
        "nothing is told that is not on the disk", "G14", "runtime/store/sqlite.py",
        "self._position.up_to if self._position is not None else None", "None",
        f"{_FLUSH}test_events_are_told_up_to_where_a_child_has_synced",
    ),
    Mutant(
        "nothing is shown that is not on the disk", "G14", "runtime/store/worker.py",
        "            self._await_disk(self._position, read_mark(self._connection))\n", "            pass\n",
        f"{_FLUSH}test_a_look_syncs_first_what_a_dead_child_has_left_unsynced",
    ),
    Mutant(
        "writers take turns", "G14", "runtime/store/worker.py",
        "                with self._turn or contextlib.nullcontext():\n                    return self._transaction(batch)",
        "                return self._transaction(batch)",
        f"{_TURNS}test_a_writer_waits_for_its_turn",
    ),
    Mutant(
        "one server for a database", "G14", "runtime/server/running.py",
        "        self._lock.serve(os.getpid())\n", "",
        "acceptance/contract/test_life.py::test_a_second_server_in_another_process_is_refused_with_the_pid",
    ),
    Mutant(
        "writers take turns on PostgreSQL", "G14", "runtime/store/postgres/worker.py",
        "; SELECT pg_advisory_xact_lock({key})", "; SELECT {key}",
        f"{_PG}test_many_writers_pass_no_limit_and_events_come_in_the_order_of_their_ids",
    ),
    Mutant(
        "a commit that is looked up", "G14", "runtime/store/postgres/worker.py",
        "                if self._was_committed():\n", "                if False:\n",
        f"{_PG}test_a_server_finds_out_whether_its_commit_has_happened",
    ),
    Mutant(
        "one server for a PostgreSQL database", "G14", "runtime/store/postgres/lock.py",
        'while not made.script(f"SELECT pg_try_advisory_lock({key})")[0]:', "while False:",
        f"{_PG}test_a_server_that_was_cut_off_does_not_write_once_another_has_come",
    ),
    # --- G15 ---
    Mutant(
        "the cap of a frame", "G15", "ipc/frames.py",
        "            if size > self.max_frame:\n", "            if False:\n",
        "unit/ipc/test_frames.py", fast=True,
    ),
    Mutant(
        "the deadline of a hello", "G15", "ipc/listener.py",
        "async with asyncio.timeout(self._handshake_timeout):", "async with asyncio.timeout(None):",
        "unit/ipc/test_listener.py::test_wrong_token_and_silence",
    ),
    Mutant(
        "the bound of what waits for a peer that does not read", "G15", "ipc/connection.py",
        "backlog > self._max_buffer", "False",
        "unit/ipc/test_listener.py::test_a_peer_that_does_not_read_is_dropped",
    ),
    # --- G16 ---
    Mutant(
        "the check of the token", "G16", "ipc/handshake.py",
        "if not hmac.compare_digest(hello.token.encode(), token.encode()):", "if False:",
        "unit/ipc/test_handshake.py", fast=True,
    ),
    Mutant(
        "the check of the peer's user", "G16", "ipc/handshake.py",
        "if peer_uid is not None and peer_uid != own_uid:", "if False:",
        "unit/ipc/test_handshake.py",
    ),
    Mutant(
        "the mode of the run directory", "G16", "runtime/server/rundir.py",
        "    if found.st_mode & 0o077:\n", "    if False:\n",
        "acceptance/contract/test_life.py::test_run_directories_that_will_not_do",
    ),
    Mutant(
        "the mode of the socket", "G16", "ipc/listener.py",
        "        os.fchmod(sock.fileno(), 0o600)\n    sock.bind(path)\n    os.chmod(path, 0o600)\n", "        pass\n    sock.bind(path)\n    os.chmod(path, 0o666)\n",
        "acceptance/contract/test_life.py::test_files_are_for_their_owner_alone_and_go_with_the_server",
    ),
]  # fmt: skip


def copy_package(target: Path) -> Path:
    """Copy the installed package to `target`/paddock, wherever its parts lie; return that folder."""
    root = target / "paddock"
    for part, name in _PARTS.items():
        module = sys.modules.get(name) or __import__(name, fromlist=["__path__"])
        source = Path(next(iter(module.__path__)))
        shutil.copytree(source, root / part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("examples"))
    return root


def mutate(root: Path, mutant: Mutant) -> None:
    """Take the line out.

    Raises:
        LookupError: it is not there, or not once.
    """
    path = root / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.file} holds the line of {mutant.name!r} {text.count(mutant.old)} times")
    text = text.replace(mutant.old, mutant.new)
    compile(text, str(path), "exec")  # a mutant that cannot be imported proves nothing
    path.write_text(text)


def run(folder: Path, tests: list[str], *more: str) -> tuple[int, str]:
    """Run tests with the package of a folder; return pytest's exit code and what it said."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PADDOCK_TEST", "PYTEST"))}
    environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "pytest", "-x", "-p", "no:cacheprovider", "--timeout=60", "-rf"),
            *("-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "xdist.plugin"),  # others take seconds to import
            *more,
            *(str(TESTS / test) for test in tests),
        ],
        env=environ, cwd=TESTS.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def survives(mutant: Mutant, folder: Path) -> str | None:
    """Return what is wrong where a mutant's test does not fail for it, None where it does."""
    mutate(copy_package(folder), mutant)
    code, said = run(folder, [mutant.test])
    if str(folder) not in said:
        return f"{mutant.name}: the tests did not run with the mutant\n{said[-2000:]}"
    if code == 0:
        return (
            f"{mutant.name} ({mutant.guarantee}) can be taken out of {mutant.file}, and {mutant.test} does not notice"
        )
    if code != 1 or "\nFAILED " not in said:
        return f"{mutant.name}: {mutant.test} did not fail but break off ({code})\n{said[-2000:]}"
    return None
