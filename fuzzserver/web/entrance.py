"""Where the server is reached and by whom: address, names, token and certificate, taken together."""

import ipaddress
import secrets
import socket
import ssl

from fuzzserver.access import Access
from fuzzserver.errors import InputError
from fuzzserver.web.gate import Gate, parse_authority

__all__ = ["Entrance"]

TOKEN_BYTES = 16


class Entrance:
    """What follows from the address that is listened on and from who may come in."""

    def __init__(self, listen_address: tuple[str, int], access: Access) -> None:
        """InputError if ``access`` names no usable certificate, or a host that is none."""
        host, port = listen_address
        # What else the name might mean, an IPv6 address above all, might be listened on by somebody else.
        self.address = ("127.0.0.1" if host == "localhost" else host, port)
        self.tls = _tls_context(access)
        """What HTTPS needs; None without it."""
        self.is_local = _is_loopback(self.address[0])
        """Whether only this machine can connect."""
        self.token = secrets.token_hex(TOKEN_BYTES) if access.token or not self.is_local else None
        """What a browser must know to come in; None if nothing."""
        self._allow_hosts = access.allow_hosts
        for each in access.allow_hosts:
            try:
                parse_authority(each)
            except ValueError as error:
                raise InputError(str(error)) from None

    @property
    def _scheme(self) -> str:
        return "http" if self.tls is None else "https"

    def url(self, bound: tuple[str, int], path: str = "/") -> str:
        """Where a browser finds the page, with the token that it needs.

        ``bound``: the address and port that are really listened on.
        """
        return f"{self._scheme}://{_authority(bound)}{path}" + (f"?token={self.token}" if self.token else "")

    def gate(self, bound: tuple[str, int]) -> Gate:
        """The gate for a server that listens there."""
        return Gate(
            scheme=self._scheme,
            hosts=("localhost", "127.0.0.1", "[::1]", _authority(bound)),
            allow_hosts=self._allow_hosts,
            port=bound[1],
            any_address=_address(bound[0]).is_unspecified,
            token=self.token,
        )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """As a browser writes it, which knows nothing of our network interfaces."""
    return ipaddress.ip_address(host.partition("%")[0])


def _authority(bound: tuple[str, int]) -> str:
    """Host and port of the address of the page. "Any address" is none that somebody could open."""
    address = _address(bound[0])
    if address.is_unspecified:
        return f"{socket.gethostname().lower()}:{bound[1]}"
    return f"[{address}]:{bound[1]}" if address.version == 6 else f"{address}:{bound[1]}"


def _is_loopback(host: str) -> bool:
    """Whether only this machine can connect. Of a name other than this one, who knows."""
    try:
        return ipaddress.ip_address(host).is_loopback
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
            f"cannot use '{access.tls_cert}' for TLS: it takes a certificate and an open key, as PEM"
        ) from error
    except OSError as error:
        which = access.tls_cert if not access.tls_cert.is_file() else access.tls_key
        raise InputError(f"cannot read '{which}' for TLS: {error.strerror}") from error
    return context
