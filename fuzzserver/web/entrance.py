"""Where the server is reached and by whom: address, names, token and certificate, taken together."""

import ipaddress
import secrets
import socket
import ssl

from fuzzserver.access import Access
from fuzzserver.errors import InputError
from fuzzserver.web.gate import Gate

__all__ = ["Entrance"]

TOKEN_BYTES = 16


class Entrance:
    """What follows from the address that is listened on and from who may come in."""

    def __init__(self, listen_address: tuple[str, int], access: Access) -> None:
        """InputError if ``access`` names no usable certificate."""
        self.address = listen_address
        self.tls = _tls_context(access)
        """What HTTPS needs; None without it."""
        self.is_local = _is_loopback(listen_address[0])
        """Whether only this machine can connect."""
        self.token = secrets.token_hex(TOKEN_BYTES) if access.token or not self.is_local else None
        """What a browser must know to come in; None if nothing."""
        self._allow_hosts = access.allow_hosts
        # "Any address" is no address that somebody could open: our name is what others know.
        self._any_address = listen_address[0] in ("", "0.0.0.0", "::")
        self._name = socket.gethostname().lower() if self._any_address else _bracketed(listen_address[0])

    @property
    def _scheme(self) -> str:
        return "http" if self.tls is None else "https"

    def url(self, port: int) -> str:
        """Where a browser finds the page, with the token that it needs."""
        return f"{self._scheme}://{self._name}:{port}/" + (f"?token={self.token}" if self.token else "")

    def gate(self, port: int) -> Gate:
        """The gate for a server on this port."""
        return Gate(
            scheme=self._scheme,
            hosts=("localhost", "127.0.0.1", "[::1]", self._name, *self._allow_hosts),
            port=port,
            any_address=self._any_address,
            token=self.token,
        )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    """Whether only this machine can connect. Of a name other than this one, who knows."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls_context(access: Access) -> ssl.SSLContext | None:
    """What is needed for HTTPS; None if it is not wanted."""
    if access.tls_cert is None:
        if access.tls_key is not None:
            raise InputError(f"the TLS key '{access.tls_key}' needs a certificate: --tls-cert names it")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An encrypted key is refused; without this, OpenSSL would ask for its password.
        context.load_cert_chain(access.tls_cert, access.tls_key, password=lambda: "")
    except ssl.SSLError as error:
        raise InputError(
            f"cannot use '{access.tls_cert}' for TLS: {error.reason or error}; "
            "a certificate and its unencrypted key are needed, both as PEM"
        ) from error
    except OSError as error:
        which = access.tls_cert if not access.tls_cert.is_file() else access.tls_key
        raise InputError(f"cannot read '{which}' for TLS: {error.strerror}") from error
    return context
