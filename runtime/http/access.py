"""Who may ask: decided from the head of a request, before its body is read. Pure.

Three strangers are meant. A program of another user on this machine, or anybody on the network: a token keeps them out, and without one
only loopback is answered. A page of another site in this user's browser, which can send requests here but not read answers: its `Origin`
and `Sec-Fetch-Site` tell, and only JSON changes anything, which such a page cannot send unasked. A page whose name was pointed at this
machine (DNS rebinding), which could read answers: its `Host` is foreign.

A cookie is no token: it is a signed time, so what a browser holds (and sends to every port of this host) neither tells the token
nor lasts for ever.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from .problems import Problem

__all__ = ["SESSION_SECONDS", "Access", "Asking", "host_of", "is_loopback"]

SESSION_SECONDS = 7 * 86400
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_OWN = frozenset({"same-origin", "none"})
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Asking:
    """The head of a request. `path` is without the prefix under which the application is mounted."""

    method: str
    path: str
    headers: Mapping[str, bytes]
    peer: str | None
    scheme: str
    cookies: Mapping[str, str]
    now: float

    def text(self, name: str) -> str | None:
        """Return a header as text."""
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else None

    @property
    def is_public(self) -> bool:
        """Tell whether this is the page itself or the door, which need no token."""
        return self.path in ("", "/", "/api/session") or self.path.startswith("/assets/")


def is_loopback(host: str) -> bool:
    """Tell whether an address or a name is this machine's own loopback."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(netloc: str) -> tuple[str, int | None]:
    """Return name and port of `name:port`, lower case, without brackets; ("", None) for what is none."""
    try:
        parts = urlsplit(f"//{netloc}")
        return (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return "", None


class Access:
    """The rules of one application.

    Args:
        token: what callers must show; None answers loopback alone.
        hosts: names under which the application is reached beside loopback; "*" allows every name, and without a token every peer.
    """

    def __init__(self, token: str | None, hosts: Iterable[str] = ()) -> None:
        """Hold the rules."""
        named = [host_of(host)[0] if host != "*" else host for host in hosts]
        self._token = token.encode() if token else None
        self._any_host = "*" in named
        self._hosts = _LOOPBACK_NAMES | frozenset(named)
        self._key = hmac.digest(self._token, b"paddock session", "sha256") if self._token else b""
        self.cookie = f"paddock_{hmac.new(self._key, b'name', 'sha256').hexdigest()[:8]}"

    @property
    def needs_token(self) -> bool:
        """Tell whether callers must show a token."""
        return self._token is not None

    def check(self, asking: Asking) -> None:
        """Refuse a request that may not be answered.

        Raises:
            Problem: it may not; the status says why.
        """
        self._check_peer(asking)
        self._check_host(asking)
        self._check_origin(asking)
        if not asking.is_public and not self.knows(asking):
            raise Problem(
                401,
                "Unauthorized",
                "this needs the server's token: send it as `Authorization: Bearer …`",
                headers={"WWW-Authenticate": 'Bearer realm="paddock"'},
            )
        if asking.method not in _SAFE:
            _check_type(asking)

    def _check_peer(self, asking: Asking) -> None:
        if self._token is not None or self._any_host or asking.peer is None:
            return
        try:
            address = ipaddress.ip_address(asking.peer.partition("%")[0])
        except ValueError:  # no address: a Unix socket, a test client
            return
        mapped = getattr(address, "ipv4_mapped", None)
        if not (mapped or address).is_loopback:
            raise Problem(403, "ForeignPeer", "without a token only this machine is answered; give the server a token")

    def _check_host(self, asking: Asking) -> None:
        if self._any_host:
            return
        name, _ = host_of(asking.text("host") or "")
        if name not in self._hosts:
            raise Problem(
                403,
                "ForeignHost",
                "the request names a host that this server does not go by; allow it with --allow-host or allowed_hosts=",
            )

    def _check_origin(self, asking: Asking) -> None:
        origin = asking.text("origin")
        site = asking.text("sec-fetch-site")
        foreign = site is not None and site not in _OWN and not (asking.path in ("", "/") and asking.method in _SAFE)
        if origin is not None:
            foreign = not self._is_own(origin, asking)
        if foreign:
            raise Problem(403, "ForeignOrigin", "pages of another origin may not call this server")

    def _is_own(self, origin: str, asking: Asking) -> bool:
        try:
            scheme = urlsplit(origin).scheme
            netloc = urlsplit(origin).netloc
        except ValueError:
            return False
        name, port = host_of(netloc)
        if scheme not in _PORTS or not name:
            return False
        here, here_port = host_of(asking.text("host") or "")
        default = _PORTS[scheme]  # a proxy may speak https for us: the port that is left out is the origin's default
        if (name, port or default) == (here, here_port or default):
            return True
        return name in self._hosts - _LOOPBACK_NAMES

    # --- tokens ---

    def knows(self, asking: Asking) -> bool:
        """Tell whether a request shows the token, or a cookie that was given for it."""
        if self._token is None:
            return True
        kind, _, given = (asking.headers.get("authorization") or b"").partition(b" ")
        if kind.lower() == b"bearer" and self.is_token(given.strip()):
            return True
        return self._is_session(asking.cookies.get(self.cookie, ""), asking.now)

    def is_token(self, given: bytes) -> bool:
        """Compare with the token, in a time that tells neither its text nor its length."""
        if self._token is None:
            return False
        return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(self._token).digest())

    def session(self, now: float) -> str:
        """Return the cookie's value for somebody who has shown the token."""
        end = str(int(now) + SESSION_SECONDS)
        return f"{end}.{self._sign(end)}"

    def _sign(self, end: str) -> str:
        return hmac.new(self._key, end.encode(), "sha256").hexdigest()

    def _is_session(self, value: str, now: float) -> bool:
        end, _, signature = value.partition(".")
        if not (end.isascii() and end.isdigit() and len(end) < 16):  # noqa: PLR2004  far beyond any time of ours
            return False
        return hmac.compare_digest(signature.encode(), self._sign(end).encode()) and now < int(end)


def _check_type(asking: Asking) -> None:
    """Only JSON changes anything: a form of another site can send texts and forms unasked, JSON not."""
    kind = (asking.text("content-type") or "").partition(";")[0].strip().lower()
    empty = asking.text("content-length") in (None, "0") and "transfer-encoding" not in asking.headers
    if kind != "application/json" and not (empty and not kind):
        raise Problem(415, "UnsupportedMediaType", "send the body as `Content-Type: application/json`")
