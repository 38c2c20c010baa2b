"""The settings of a server: what it accepts, and for how long it keeps it."""

import base64
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from pathlib import Path

from ..contract.errors import RequestError
from ..pipeline.memory_limit import check_limit
from .addresses import check_prefix

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
    task_s: float = 600.0  # of a segment, and of a window of a stream
    most_worker_bytes: int | None = None  # memory of each process that works for clients; None: no limit
    adapt_s: float | None = None  # for which a scene is learned at most; None: clients cannot ask for it
    webhook_prefixes: tuple[str, ...] = ()  # addresses that clients may name begin with one of these
    webhook_secret: bytes | None = None  # that webhooks are signed with
    url_prefixes: tuple[str, ...] = ()  # addresses of videos that clients may name begin with one of these
    most_fetch_s: float = 600.0  # of a video at an address
    files: str | None = None  # folder or address of the files for workers on other machines; None: the store
    most_streams: int = 8  # of frames, at once
    most_frames_bytes: int = 256 << 20  # of the frames in a request, and of those in its answer
    most_idle_s: float = 60.0  # of a client with an open stream, between two frames
    batch: int = 1  # windows of streams that are computed at once
    warm: tuple[str, ...] = ()  # models that are opened at the start

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise RequestError(
                f"Everybody who reaches {self.host} could use this server: give a token (--token-file), or serve on"
                " 127.0.0.1."
            )
        if self.adapt_s is not None and not 0 < self.adapt_s < self.task_s:
            raise RequestError(
                f"A scene is learned for {self.adapt_s:g} s at most, and a part of a video takes {self.task_s:g} s at"
                " most: give seconds above 0 and below that."
            )
        if self.most_worker_bytes is not None:
            check_limit(self.most_worker_bytes)
        for prefix in self.webhook_prefixes:
            check_prefix(prefix, "webhooks")
        for prefix in self.url_prefixes:
            check_prefix(prefix, "videos")
        if self.webhook_prefixes and self.webhook_secret is None:
            raise RequestError("Webhooks are signed: give a secret (--webhook-secret-file).")

    @property
    def most_message_bytes(self) -> int:
        """Return the size of the largest frame in a stream: raw, of 16 bits, or a PNG image that does not shrink it."""
        return 6 * self.most_pixels + (1 << 20)

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


def read_secret(path: Path) -> bytes:
    """Return the secret of webhooks in a file, as the Standard Webhooks specification has it. Raises RequestError."""
    kind, _, text = _read_line(path).partition("_")
    try:
        secret = base64.b64decode(text, validate=True)
    except ValueError:
        secret = b""
    if kind != "whsec" or not 24 <= len(secret) <= 64:
        raise RequestError(f"The secret in {path} is not 'whsec_' and 24 to 64 bytes as base64: write another.")
    return secret


def read_token(path: Path) -> str:
    """Return the token in a file. Raises RequestError."""
    token = _read_line(path)
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise RequestError(f"The token in {path} is not one line of 16 ASCII characters or more: write another.")
    return token


def _read_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RequestError(f"{path} cannot be read ({reason}): name a file of one line of text.") from error
