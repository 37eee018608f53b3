"""A certificate for TLS: the files that are named, looked at before anything is started."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from ..base.errors import ConfigError

__all__ = ["Certificate"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """The PEM files of a certificate with its chain, and of its private key; without `keyfile` both stand in one file.

    Raises:
        ConfigError: they cannot be read, do not belong together, or the key has a passphrase.
    """

    certfile: str
    keyfile: str | None = None

    def __post_init__(self) -> None:
        """Load them once."""
        files = self.certfile if self.keyfile is None else f"{self.certfile} and {self.keyfile}"
        try:
            # a passphrase would be asked for on a terminal, which a service has not
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certfile, self.keyfile, password=_refuse)
        except _NeedsPassphraseError:
            raise ConfigError(f"the key in {files} has a passphrase; a service needs one without") from None
        except ssl.SSLError as error:
            reason = (error.reason or str(error)).replace("_", " ").lower()
            raise ConfigError(f"{files} cannot serve as certificate and key: {reason}") from None
        except OSError as error:
            raise ConfigError(f"{files} cannot be read: {error.strerror or error}") from None


class _NeedsPassphraseError(Exception):
    pass


def _refuse() -> str:
    raise _NeedsPassphraseError
