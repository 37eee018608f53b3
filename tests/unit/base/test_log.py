"""The runtime's own log lines."""

from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
import structlog

from paddock.runtime.base.log import get_logger


@pytest.fixture
def configured() -> Iterator[None]:
    """Have the application log in a way that does not work."""

    def broken(*_: Any) -> NoReturn:
        raise RuntimeError("no place to log to")

    structlog.configure(processors=[broken])
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("configured")
def test_an_application_whose_logging_raises_harms_itself_alone(capsys: pytest.CaptureFixture[str]):
    get_logger("x").error("a thing happened", where="here")
    said = capsys.readouterr().err
    assert "a thing happened" in said
    assert "here" in said
    assert "no place to log to" in said


def test_a_traceback_shows_no_values(capsys: pytest.CaptureFixture[str]):
    def work() -> None:
        token = "s3cr" + "et"
        raise ValueError(len(token))

    log = get_logger("x")
    try:
        work()
    except ValueError as error:
        log.exception("it failed")
        log.warning("it failed", exc_info=error)
        log.warning("it failed", exception="as text\nin lines")
    said = capsys.readouterr().err
    assert said.count("ValueError: 6") == 2
    assert "as text\nin lines" in said
    assert "s3cret" not in said
