"""The settings of a server: what it accepts, and for how long it keeps it."""

import hmac
import ipaddress
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from ..contract.errors import RequestError

GIB = 1 << 30


@dataclass(frozen=True)
class Settings:
    """Limits and access of a server.

    Raises RequestError for a server that others can reach without a token.
    """

    folder: Path  # of jobs and their files
    host: str = "127.0.0.1"
    token: str | None = None  # that clients send; None: only clients on this machine are served
    most_upload_bytes: int = 2 * GIB
    most_pixels: int = 3840 * 2160  # of an input frame
    most_frames: int = 200_000  # of an input
    most_queued: int = 100  # jobs
    keep_s: float = 24 * 3600.0  # after the end of a job
    task_s: float = 600.0  # of a segment
    webhook_prefixes: tuple[str, ...] = ()  # addresses that clients may name begin with one of these
    webhook_secret: bytes | None = None  # that webhooks are signed with

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise RequestError(
                f"Everybody who reaches {self.host} could use this server: give a token (--token-file), or serve on"
                " 127.0.0.1."
            )
        for prefix in self.webhook_prefixes:
            if not re.fullmatch(r"https?://[^/?#@\s]+/[^?#\s]*", prefix):
                raise RequestError(
                    f"'{prefix}' is no prefix of webhooks: write one such as https://example.com/hooks/."
                )
        if self.webhook_prefixes and self.webhook_secret is None:
            raise RequestError("Webhooks are signed: give a secret (--webhook-secret-file).")

    def admits(self, authorization: str | None) -> bool:
        """Return whether the value of an Authorization header has the token, in a time that does not depend on it."""
        if self.token is None:
            return True
        given = (authorization or "").encode("utf-8", "replace")
        return secrets.compare_digest(given, f"Bearer {self.token}".encode())

    def access_to(self, identifier: str) -> str | None:
        """Return what admits to reading one job, for players and links, which cannot send the token; None: no token."""
        if self.token is None:
            return None
        return hmac.new(self.token.encode(), f"read job {identifier}".encode(), "sha256").hexdigest()

    def admits_reading(self, identifier: str, access: str | None) -> bool:
        """Return whether an address has what admits to reading a job, in a time that does not depend on it."""
        expected = self.access_to(identifier)
        return expected is None or secrets.compare_digest((access or "").encode("utf-8", "replace"), expected.encode())


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
