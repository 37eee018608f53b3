"""Limits as data: what they accept, how they travel, which environment they make."""

from datetime import timedelta
from pathlib import Path

import pytest

from paddock import ConfigError
from paddock.runtime.base.limits import ProcessLimits, environment


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("512MB", 2**29),
        ("2 gb", 2**31),
        ("1.5GiB", 3 * 2**29),
        ("2048k", 2**21),
        (2**24, 2**24),
        ("2000000", 2_000_000),
    ],
)
def test_sizes(value: object, size: int):
    assert ProcessLimits.of("x", memory_limit=value).memory_limit == size


def test_durations_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    limits = ProcessLimits.of("x", cpu_limit=timedelta(minutes=2), cwd="here", python="sh")
    assert limits.cpu_limit == 120.0
    assert limits.cwd == f"{tmp_path}/here"
    assert limits.python is not None
    assert limits.python.endswith("/sh")


def test_they_travel_and_hide_their_values():
    limits = ProcessLimits.of("x", env={"TOKEN": "hush", "A_*": None}, memory_limit="1GB")
    assert ProcessLimits.model_validate_json(limits.model_dump_json()) == limits
    assert "hush" not in repr(limits)


def test_nothing_is_nothing():
    assert not ProcessLimits()
    assert not ProcessLimits.of("x", nice=None)
    assert ProcessLimits.of("x", nice=0)
    assert ProcessLimits.of("x", env=[])


def test_an_unknown_option_is_refused():
    with pytest.raises(ConfigError, match="workflow 'x': speed"):
        ProcessLimits.of("x", speed=3)


HERE = {"PATH": "/bin", "HOME": "/root", "AWS_KEY": "k", "AWS_ID": "i", "OTHER": "o", "PADDOCK_X": "x"}
KEPT = {"PATH": "/bin", "HOME": "/root", "PADDOCK_X": "x"}


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (None, HERE),
        ([], KEPT),
        (["OTHER"], {**KEPT, "OTHER": "o"}),
        (("AWS_*",), {**KEPT, "AWS_KEY": "k", "AWS_ID": "i"}),
        ({"AWS_*": None, "AWS_KEY": "mine"}, {**KEPT, "AWS_KEY": "mine", "AWS_ID": "i"}),
        ({"PATH": "/opt"}, {**KEPT, "PATH": "/opt"}),
        ({"MISSING": None, "NEW": ""}, {**KEPT, "NEW": ""}),
    ],
)
def test_the_environment(rule: object, found: dict[str, str]):
    assert environment(ProcessLimits.of("x", env=rule).env, HERE) == found
