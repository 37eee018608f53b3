"""What every test gets: a short place of its own for files, and a look at what it leaves behind."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypothesis
import pytest

pytest.register_assert_rewrite("auditor", "chaoskit", "contractkit", "crashkit", "ledger")

from leftovers import MARKER, Watch  # noqa: E402  before any of them is imported: their assertions are to explain themselves

_ROOT = "PADDOCK_TEST_ROOT"
_KEEP = "PADDOCK_TEST_KEEP"

# A busy machine is no failure, and a database of examples would be a file that outlives the test.
hypothesis.settings.register_profile("paddock", deadline=None, database=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("paddock")


@pytest.hookimpl(tryfirst=True)  # before pytest decides where tmp_path lies
def pytest_configure(config: pytest.Config) -> None:
    """Give this worker a folder for temporary files and one for tmp_path, both with short names.

    The path of a Unix socket ends at 107 bytes (103 on macOS), and the usual ones (/tmp/pytest-of-somebody/pytest-12/popen-gw0/…,
    /var/folders/…) spend most of them. A temporary folder per worker also tells whose a stray file is.
    """
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # as a shell's jobs in the background have it; Ctrl-C is tried here
        signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = getattr(config, "workerinput", {}).get("workerid")
    if worker is None:
        base = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
        os.environ[_ROOT] = tempfile.mkdtemp(prefix="pdk-", dir=base)
        config.add_cleanup(_remove_root)
    own = Path(os.environ[_ROOT], worker or "main")
    for name in ("tmp", "t"):
        (own / name).mkdir(parents=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(own / "tmp")
    if worker is not None or config.option.basetemp is None:
        config.option.basetemp = str(own / "t")


def pytest_report_header() -> str:
    """Say which Paddock is tested."""
    import paddock

    return f"paddock: {paddock.__file__}"


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the test inside tmp_path, and fail it if a process, thread, socket or file outlives it."""
    marker = uuid4().hex
    monkeypatch.setenv(MARKER, marker)
    monkeypatch.chdir(tmp_path)
    watch = Watch(marker, Path(tempfile.gettempdir()))
    yield
    if found := watch.leftovers():
        pytest.fail("the test left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """Run a PostgreSQL server for this worker: see `pgkit`."""
    import pgkit

    if not pgkit.GIVEN and pgkit.programs() is None:
        pytest.skip("no PostgreSQL on this machine: neither its programs nor PADDOCK_TEST_POSTGRES")
    with pgkit.cluster() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Any) -> Iterator[str]:
    """Give the URL of an empty schema."""
    import pgkit

    with pgkit.schema(postgres) as url:
        yield url


def _remove_root() -> None:
    if _KEEP not in os.environ:
        shutil.rmtree(os.environ[_ROOT], ignore_errors=True)
