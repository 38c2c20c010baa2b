"""The address of an inference server, parsed from a URL."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from ...contract.errors import BackendError

_SCHEMES: dict[str, tuple[Literal["http", "grpc"], bool]] = {
    "http": ("http", False),
    "https": ("http", True),
    "grpc": ("grpc", False),
    "grpcs": ("grpc", True),
}
_PORTS = {"http": 80, "https": 443}  # gRPC has no usual port
_FORMS = "write http://HOST:PORT or grpc://HOST:PORT, or https or grpcs for TLS"


@dataclass(frozen=True)
class Address:
    """A host and a port, and the protocol that is spoken there."""

    protocol: Literal["http", "grpc"]
    secure: bool  # by TLS
    host: str
    port: int
    path: str = ""  # in front of the protocol's own paths, without a slash at its end

    @property
    def netloc(self) -> str:
        """The host and the port: "host:8001", or "[::1]:8001"."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.protocol}{'s' * self.secure}://{self.netloc}{self.path}"


def parse_address(url: str) -> Address:
    """Parse a URL: http, https, grpc or grpcs. Raises BackendError, which repeats no password."""
    if "@" in url:
        raise BackendError(f"The address of an inference server holds no user and no password: {_FORMS}.")
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # a port that is no number, or a bracket without its other half
        raise BackendError(f"'{url}' is not the address of an inference server: {_FORMS}.") from None
    if parts.scheme not in _SCHEMES or not parts.hostname or not url.isascii() or not url.isprintable() or " " in url:
        raise BackendError(f"'{url}' is not the address of an inference server: {_FORMS}.")
    protocol, secure = _SCHEMES[parts.scheme]
    path = parts.path.rstrip("/")
    if port is None:
        raise BackendError(f"'{url}' names no port: {_FORMS}. Triton's is 8001 for gRPC.")
    if parts.query or parts.fragment or (path and protocol == "grpc"):
        raise BackendError(f"'{url}' is more than the address of an inference server: {_FORMS}.")
    return Address(protocol, secure, parts.hostname, port, path)
