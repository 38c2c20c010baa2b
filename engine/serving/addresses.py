"""Addresses that clients name: which of them the operator has allowed, and connections that reach nothing else."""

import ipaddress
import re
import socket
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from ..contract.errors import RequestError

_PREFIX = re.compile(r"https?://[^/?#@\s]+/[^?#\s]*")
_PORTS = {"http": 80, "https": 443}


def check_prefix(prefix: str, purpose: str) -> None:
    """Raise RequestError for text that is no prefix of the addresses for a purpose, such as "webhooks"."""
    if not _PREFIX.fullmatch(prefix):
        raise RequestError(f"'{prefix}' is no prefix of {purpose}: write one such as https://example.com/{purpose}/.")


def is_allowed(url: str, prefixes: Sequence[str]) -> bool:
    """Return whether an address is below one of the prefixes, such as `https://example.com/hooks/`."""
    try:
        parts, port = urlsplit(url), port_of(urlsplit(url))
    except ValueError:
        return False
    if parts.username is not None or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        return False
    if ".." in _decoded(parts.path).replace("\\", "/").split("/"):
        return False
    for prefix in prefixes:
        allowed = urlsplit(prefix)
        if (parts.scheme, parts.hostname, port) != (allowed.scheme, allowed.hostname, port_of(allowed)):
            continue
        if parts.path == allowed.path or parts.path.startswith(allowed.path.rstrip("/") + "/"):
            return True
    return False


def port_of(parts: SplitResult) -> int | None:
    """Return the port of an address; None for a scheme without a usual one. Raises ValueError."""
    return parts.port or _PORTS.get(parts.scheme)


def connect(parts: SplitResult, timeout_s: float) -> HTTPConnection:
    """Return a connection to the host of an allowed address, not open yet.

    It refuses a name that resolves to a private network, with a PermissionError. The operator allows a host in one by
    its address, or by `localhost`.
    """
    assert parts.hostname is not None
    kind = _SecureConnection if parts.scheme == "https" else _Connection
    return kind(parts.hostname, port_of(parts), timeout=timeout_s)


class _Connection(HTTPConnection):
    """A connection to an address that was checked, so that a name cannot resolve to another one meanwhile."""

    def connect(self) -> None:
        """Open the connection."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        if not _is_literal(self.host) and not all(_is_public(entry[4][0]) for entry in found):
            raise PermissionError(None, "its address is in a private network")
        self.sock: Any = _connected(found, self.timeout)


class _SecureConnection(HTTPSConnection, _Connection):
    """A connection that is checked as `_Connection` is, by which `HTTPSConnection` opens it, and encrypted."""


def _connected(found: Sequence[tuple[Any, ...]], timeout_s: float | None) -> socket.socket:
    """Return a connection to the first of some addresses that accepts one."""
    failure = OSError(None, "it has no address")
    for family, kind, protocol, _, address in found:
        opened = socket.socket(family, kind, protocol)
        try:
            opened.settimeout(timeout_s)
            opened.connect(address)
        except OSError as error:
            failure = error
            opened.close()
        else:
            return opened
    raise failure


def _is_literal(host: str) -> bool:
    """Return whether a host is an address, or the name of this machine, which the operator has written down."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def _is_public(address: str | int) -> bool:
    ip = ipaddress.ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_global and not ip.is_multicast


def _decoded(path: str) -> str:
    """Return a path without any percent-encoding, which servers may decode more than once."""
    while (decoded := unquote(path)) != path:
        path = decoded
    return path
