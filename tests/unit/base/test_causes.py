"""Why a process died, from what is known of it."""

import pytest

from paddock.runtime.base.causes import Cause, Facts, judge, signal_name, tell


@pytest.mark.parametrize(
    ("facts", "cause", "words"),
    [
        (Facts(7, signal="SIGSEGV"), Cause.FATAL_SIGNAL, "process 7 crashed with SIGSEGV (a segmentation fault"),
        (Facts(7, signal="SIGABRT"), Cause.FATAL_SIGNAL, "crashed with SIGABRT (abort()"),
        (Facts(7, exit_code=0), Cause.EXIT, "exited with code 0 in the middle"),
        (Facts(7, exit_code=78), Cause.EXIT, "exited with code 78"),
        (Facts(7, signal="SIGKILL"), Cause.KILLED, "killed by SIGKILL from outside: by a person"),
        (Facts(7, signal="SIGTERM"), Cause.KILLED, "killed by SIGTERM from outside"),
        (Facts(7, signal="signal 77"), Cause.KILLED, "killed by signal 77"),
        (Facts(7, signal="SIGXCPU", cpu_limit=2.0), Cause.CPU_LIMIT, "its cpu_limit of 2s"),
        (Facts(7, signal="SIGKILL", cpu_limit=2.0, cpu_seconds=3.1), Cause.CPU_LIMIT, "its cpu_limit of 2s"),
        (Facts(7, signal="SIGKILL", cpu_limit=2.0, cpu_seconds=1.9), Cause.KILLED, "from outside"),
        (Facts(7, signal="SIGKILL", cpu_seconds=100.0), Cause.KILLED, "from outside"),
        (Facts(7, signal="SIGTERM", verdict=Cause.SILENT, since=30.4), Cause.SILENT, "without CPU time for 30s"),
        (Facts(7, signal="SIGKILL", verdict=Cause.STOPPED), Cause.STOPPED, "was stopped (SIGSTOP"),
        (Facts(7, exit_code=0, verdict=Cause.STALLED, since=0.2), Cause.STALLED, "did not turn its event loop, and"),
        (
            Facts(7, signal="SIGKILL", verdict=Cause.MEMORY_LIMIT, memory_limit=2**29, peak_memory=2**30),
            Cause.MEMORY_LIMIT,
            "held 1,024 MB, with all that it had started; its memory_limit is 512 MB",
        ),
        (Facts(7), Cause.UNKNOWN, "died while no server looked"),
    ],
)
def test_a_death_is_judged_and_told(facts: Facts, cause: Cause, words: str):
    assert judge(facts) is cause
    assert words in tell(facts)


def test_every_cause_has_its_sentence():
    for cause in Cause:
        assert tell(Facts(1, verdict=cause)).startswith("process 1 ")


def test_names_of_signals():
    assert (signal_name(None), signal_name(9), signal_name(200)) == (None, "SIGKILL", "signal 200")
