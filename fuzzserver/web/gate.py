"""The gate that every request and every WebSocket passes: who may come in.

A server on the local machine is reached by every web page that its user visits. Four things keep them out:

* **Host** must be one of our names, with our port: a page that made its own name lead to this machine (DNS
  rebinding) sends that name.
* **Origin**, which browsers send along with what scripts start, must be that very host.
* **Sec-Fetch-Site**, from browsers that send it, must say that the request comes from our own page, or from
  the user. A link that leads here from elsewhere may be followed.
* The **token**, where there is one, keeps out other users and programs too.

All comparisons are of whole values, and every value that a client may send has an answer.
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

from fuzzserver.web.head import RequestHead

__all__ = ["BUILD_WEB_PATHS", "PAGE_PATHS", "Gate", "Refusal", "parse_authority"]

BUILD_WEB_PATHS = ("/build-web/", "/debug/build-web/")
"""Where the page of Zig 0.15 and later is, and what speaks its protocol."""
PAGE_PATHS = ("/", "/debug", "/debug/", *BUILD_WEB_PATHS)
"""Where pages are. Links may lead to it, and its address may hold the token."""

MAX_PORT = 65535
DEFAULT_PORTS = {"http": 80, "https": 443}

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_.-]{1,253})(?::(0|[1-9][0-9]{0,4}))?")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is turned away. The text holds nothing of the request."""

    status: HTTPStatus
    text: str


_HOST = Refusal(
    HTTPStatus.MISDIRECTED_REQUEST,
    "This server is not known by that name and port. Open the address that it printed, or start it with "
    "--allow-host and what stands in the address bar, such as --allow-host localhost:8080.",
)
_ORIGIN = Refusal(
    HTTPStatus.FORBIDDEN,
    "Requests from other web pages are not answered. Behind a proxy: it must pass on Host as it came.",
)
_TOKEN = Refusal(
    HTTPStatus.UNAUTHORIZED,
    "This server wants its token: open the whole address that it printed when it was started.",
)


class Gate:
    """Decides on requests by their heads. May be used from any thread."""

    def __init__(
        self,
        *,
        scheme: str,
        hosts: Iterable[str],
        allow_hosts: Iterable[str] = (),
        port: int,
        any_address: bool = False,
        token: str | None = None,
    ) -> None:
        """All hosts are ``HOST[:PORT]``; ValueError if one is not.

        Args:
        scheme: ``http`` or ``https``.
        hosts: our own names; without a port, ``port`` is meant.
        allow_hosts: what a tunnel or a proxy is called that leads here. Without a port, ``port`` is meant,
            or none. A proxy may speak TLS where we do not.
        any_address: whether each IP address is one of our names: nobody can make a name of it.
        """
        self._scheme = scheme
        self._port = port
        self._any_address = any_address
        self._token = token
        self._own = {(name, own_port or port) for name, own_port in map(parse_authority, hosts)}
        self._others = {
            (name, each)
            for name, own_port in map(parse_authority, allow_hosts)
            for each in ((port, None) if own_port is None else (own_port,))
        }

    @property
    def cookie_name(self) -> str:
        """Browsers do not keep the cookies of two ports apart."""
        return f"fuzzserver-{self._port}"

    def refusal(self, head: RequestHead) -> Refusal | None:
        """Why the request is turned away; None if it is not."""
        hosts = head.values("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return _HOST
        if head.authority is not None and not self._is_ours(head.authority):
            return _HOST
        origins = head.values("origin")
        if len(origins) > 1 or not all(self._is_origin(origin, hosts[0]) for origin in origins):
            return _ORIGIN
        if not _from_our_page_or_user(head):
            return _ORIGIN
        if self._token is not None and not any(map(self._is_token, self._offered(head))):
            return _TOKEN
        return None

    def cookie(self, head: RequestHead) -> str | None:
        """The cookie for a browser that came with the token in the address of the page."""
        if (
            self._token is None
            or head.path not in PAGE_PATHS
            or not any(map(self._is_token, _in_query(head)))
        ):
            return None
        secure = "; Secure" if self._scheme == "https" else ""
        # Lax, not strict: a reload of a page that was reached by a link counts as coming from elsewhere.
        return f"{self.cookie_name}={self._token}; Path=/; HttpOnly; SameSite=Lax{secure}"

    def _is_ours(self, text: str) -> bool:
        try:
            name, port = parse_authority(text)
        except ValueError:
            return False
        return self._is_own(name, port) or self._is_other(name, port)

    def _is_own(self, name: str, port: int | None) -> bool:
        port = port or DEFAULT_PORTS[self._scheme]
        return (name, port) in self._own or (self._any_address and port == self._port and _is_address(name))

    def _is_other(self, name: str, port: int | None) -> bool:
        ports = (None, *DEFAULT_PORTS.values()) if port is None else (port,)
        return any((name, each) in self._others for each in ports)

    def _is_origin(self, origin: str, host: str) -> bool:
        """Whether it is that of a page of ours that was reached under this host."""
        return origin == f"{self._scheme}://{host}" or (
            origin == f"https://{host}" and self._is_other(*parse_authority(host))
        )

    def _offered(self, head: RequestHead) -> list[str]:
        """All that might be the token, where it is looked for."""
        offered = [
            value.strip(" ")
            for cookies in head.values("cookie")
            for name, _, value in (cookie.partition("=") for cookie in cookies.split(";"))
            if name.strip(" ") == self.cookie_name
        ]
        for value in head.values("authorization"):
            scheme, _, credentials = value.partition(" ")
            if scheme.lower() == "bearer":
                offered.append(credentials.strip(" "))
        if head.path in PAGE_PATHS or head.upgrades:
            offered += _in_query(head)
        return offered

    def _is_token(self, text: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), self._token.encode())


def parse_authority(text: str) -> tuple[str, int | None]:
    """The host, in lower case, and the port of ``HOST[:PORT]``; ValueError if it is none."""
    match = _AUTHORITY.fullmatch(text.lower())
    port = None if match is None or match[2] is None else int(match[2])
    if match is None or (port is not None and port > MAX_PORT):
        raise ValueError(f"'{text}' is no host: give a name or an address, perhaps with :PORT")
    return match[1], port


def _in_query(head: RequestHead) -> list[str]:
    return parse_qs(head.query).get("token", [])


def _from_our_page_or_user(head: RequestHead) -> bool:
    """What the browser says about where the request comes from. Other programs say nothing."""
    sites = head.values("sec-fetch-site")
    if not sites or sites == ["same-origin"]:
        return True
    is_document = head.method in ("GET", "HEAD") and head.values("sec-fetch-dest") == ["document"]
    if sites == ["none"]:
        return is_document
    is_navigation = is_document and head.values("sec-fetch-mode") == ["navigate"] and not head.upgrades
    return is_navigation and sites in (["same-site"], ["cross-site"]) and head.path in PAGE_PATHS


def _is_address(host: str) -> bool:
    """Whether it is an IP address that a client can mean: not that of no machine in particular."""
    try:
        if not host.startswith("["):
            return not ipaddress.IPv4Address(host).is_unspecified
        address = ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return not (address.ipv4_mapped or address).is_unspecified
