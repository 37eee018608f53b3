"""`paddock serve`, driven as a service manager drives it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from paddock import AddressUnavailable, ConfigError
from paddock.runtime.base.errors import UsageError
from paddock.runtime.cli.target import load_server
from paddock.runtime.cli.token import find_token
from paddock.runtime.http.certificate import Certificate
from paddock.runtime.http.serving import bind, check_address

SUPPORT = Path(__file__).resolve().parents[2] / "support"
TOKEN = "a token that is not in any list of words"


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    for name in ("PADDOCK_DB", "PADDOCK_TOKEN", "PADDOCK_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


def command(*arguments):
    return [sys.executable, "-P", "-m", "paddock", "serve", *arguments]


@contextlib.contextmanager
def serving(*arguments, **environment):
    """Start a server at a free port; give the process and its address, once it answers."""
    process = subprocess.Popen(
        command(*arguments, "--port", "0"), stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        yield process, told(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def told(process):
    """Return the address that the server names on its standard error."""
    for line in process.stderr:
        if line.startswith("serving on "):
            return line.split()[2].rstrip(",")
    raise AssertionError(f"it ended with {process.wait(60)}")


def ask(url, path, body=None, token=None):
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=60) as response:
        return json.load(response)


@pytest.mark.slow
def test_a_module_of_workflows_until_sigterm():
    with serving("httpflows", "--db", "app.db") as (process, url):
        assert ask(url, "/api/workflows/greet/run", {"input": "Ada"})["output"] == "Hello, Ada!"
        assert ask(url, "/api/overview")["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.slow
def test_a_restart_in_place_keeps_address_and_work():
    with serving(str(SUPPORT / "httpflows.py"), "--db", "app.db") as (process, url):
        ident = ask(url, "/api/workflows/drip/start", {"input": 100_000})["id"]
        pid = None
        while pid is None:
            pid = ask(url, f"/api/instances/{ident}")["pid"]
        process.send_signal(signal.SIGHUP)
        assert told(process) == url
        found = ask(url, f"/api/instances/{ident}")
        assert (found["pid"], found["executions"], found["status"]) == (pid, 1, "running")
        assert ask(url, f"/api/instances/{ident}/cancel", {})["cancelled"] is True


@pytest.mark.slow
def test_the_token_is_kept_secret():
    with serving("httpflows:greet", "--db", "app.db", PADDOCK_TOKEN=TOKEN) as (process, url):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(url, "/api/overview")
        rows = ask(url, "/api/processes", token=TOKEN)["processes"]
        assert {row["role"] for row in rows} >= {"server", "watchdog", "fork-server"}
        for row in rows:
            assert TOKEN.encode() not in Path(f"/proc/{row['pid']}/cmdline").read_bytes()
            if row["pid"] != process.pid:
                assert TOKEN.encode() not in Path(f"/proc/{row['pid']}/environ").read_bytes()


@pytest.fixture
def certificate(tmp_path):
    """Make a certificate for localhost that nobody has signed."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("no openssl is here to make a certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout {key} -out {cert}"
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([openssl, *made.split(), *named], check=True, capture_output=True)
    return cert, key


@pytest.mark.slow
def test_over_tls_and_again_after_a_restart_in_place(certificate):
    cert, key = map(str, certificate)
    trusting = ssl.create_default_context(cafile=cert)
    files = ("--ssl-certfile", cert, "--ssl-keyfile", key)
    with serving("httpflows:greet", "--db", "app.db", *files, PADDOCK_TOKEN=TOKEN) as (process, url):
        assert url.startswith("https://127.0.0.1:")
        for again in (True, False):
            request = urllib.request.Request(f"{url}/api/overview", headers={"Authorization": f"Bearer {TOKEN}"})
            with urllib.request.urlopen(request, timeout=60, context=trusting) as response:
                assert json.load(response)["ok"] is True
            if again:
                process.send_signal(signal.SIGHUP)
                assert told(process) == url


@pytest.mark.slow
def test_a_restart_in_place_waits_until_all_can_be_loaded(certificate, tmp_path):
    cert, key = certificate
    whole = cert.read_bytes()
    trusting = ssl.create_default_context(cafile=str(cert))
    module = tmp_path / "shop.py"
    module.write_text("from httpflows import greet\n")
    files = ("--ssl-certfile", str(cert), "--ssl-keyfile", str(key))
    with serving("shop:greet", "--db", "app.db", *files, PADDOCK_TOKEN=TOKEN) as (process, url):

        def started_at():
            request = urllib.request.Request(f"{url}/api/overview", headers={"Authorization": f"Bearer {TOKEN}"})
            with urllib.request.urlopen(request, timeout=60, context=trusting) as response:
                return json.load(response)["started_at"]

        first = started_at()
        cert.write_bytes(whole[: len(whole) // 2])
        process.send_signal(signal.SIGHUP)
        refused = next(line for line in process.stderr if "not restarted" in line)
        assert f"{cert} and {key} cannot serve as certificate and key" in refused
        cert.write_bytes(whole)
        module.write_text("from httpflows import gone\n")
        process.send_signal(signal.SIGHUP)
        refused = next(line for line in process.stderr if "not restarted" in line)
        assert "module 'shop' cannot be imported: ImportError: cannot import name 'gone'" in refused
        assert f"{module}, line 1" in refused
        assert started_at() == first
        module.write_text("from httpflows import greet\n")
        process.send_signal(signal.SIGHUP)
        assert told(process) == url
        assert started_at() != first


def test_a_certificate_that_cannot_serve_is_refused(certificate):
    cert, key = certificate
    Certificate(str(cert), str(key))
    subprocess.run(
        ["openssl", "ec", "-aes128", "-passout", "pass:word", "-in", key, "-out", "locked.pem"],
        check=True,
        capture_output=True,
    )
    for files, words in (
        ((str(cert), None), "cannot serve as certificate and key"),
        ((str(key), str(cert)), "cannot serve as certificate and key"),
        (("missing.pem", str(key)), "cannot be read"),
        ((str(cert), "locked.pem"), "has a passphrase"),
    ):
        with pytest.raises(ConfigError, match=words):
            Certificate(*files)


def test_beyond_loopback_it_wants_a_token():
    found = subprocess.run(
        command("httpflows", "--db", "app.db", "--host", "0.0.0.0"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert "give a token" in found.stderr
    assert "Traceback" not in found.stderr
    assert not os.path.exists("app.db")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "localhost.invalid"])
def test_addresses_beyond_loopback(host):
    with pytest.raises(ConfigError):
        check_address(host, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_addresses_of_loopback(host):
    check_address(host, None)


def test_an_address_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressUnavailable, match=f"cannot listen on 127.0.0.1 port {port}"):
            bind("127.0.0.1", port)
    with pytest.raises(AddressUnavailable):
        bind("203.0.113.77", 0)


def test_what_can_be_served(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SUPPORT))
    (tmp_path / "two.py").write_text("from paddock import AppServer\na, b = AppServer('a.db'), AppServer('b.db')\n")
    (tmp_path / "one.py").write_text(
        "from paddock import AppServer\ndef make(): return AppServer('a.db')\nserver = make()\n"
    )
    assert {one.definition.name for one in load_server("httpflows", "x.db").workflows.registry} >= {
        "greet",
        "lamp",
        "order",
    }
    assert load_server("httpflows:greet", "x.db").workflows.registry.names == {"greet"}
    assert load_server("one.py", None).asgi() is not None
    assert load_server("httpflows", None).asgi() is not None  # on a new app.db
    assert load_server("one:make", None).asgi() is not None
    for target, db, words in (
        ("httpflows:Verdict", "x.db", "neither a server nor a workflow"),
        ("httpflows:nothing", "x.db", "has no 'nothing'"),
        ("nowhere:server", None, "no module 'nowhere'"),
        ("two", None, "holds 2 servers"),
        ("one:server", "x.db", "leave --db out"),
        (":server", None, "names no server"),
    ):
        with pytest.raises(UsageError, match=words):
            load_server(target, db)


def test_where_the_token_comes_from(monkeypatch, tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert find_token(None, str(file)) == TOKEN
    assert find_token(None, None) is None
    monkeypatch.setenv("PADDOCK_TOKEN", TOKEN)
    assert find_token(None, None) == TOKEN
    assert "PADDOCK_TOKEN" not in os.environ
    file.write_text("\n")
    for given, path in ((" ", None), (None, str(file)), (None, "missing"), (TOKEN, str(file))):
        with pytest.raises(UsageError):
            find_token(given, path)
