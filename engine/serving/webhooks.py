"""Webhooks: a message to an address that a client named, when its job has ended.

Messages and their signatures follow the Standard Webhooks specification (standardwebhooks.com), so that its libraries
verify them. A message is sent again, with growing delays, until the receiver answers with a status of 2xx; what is due
is in the database of the jobs, and is sent after a restart too.
"""

import base64
import hashlib
import hmac
import json
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from .jobs import Job, JobStore
from .logs import log

DELAYS_S = (0.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 10800.0)  # before each attempt
_TIMEOUT_S = 10.0  # of an answer
_POLL_S = 1.0
_AT_ONCE = 4  # messages


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Takes a redirection as a failure: it could lead to an address that is not allowed."""

    def redirect_request(self, *_: Any) -> None:
        return None


def signature(secret: bytes, identifier: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature` of a message."""
    signed = f"{identifier}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


class WebhookSender:
    """Sends the messages that are due in a store of jobs; a context manager whose thread ends with it.

    `facts_of` returns what a message says of a job, as JSON values.
    """

    def __init__(self, jobs: JobStore, secret: bytes, facts_of: Callable[[Job], dict[str, Any]]) -> None:
        self._jobs, self._secret, self._facts_of = jobs, secret, facts_of
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stvsr-webhooks")

    def __enter__(self) -> "WebhookSender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        with ThreadPoolExecutor(_AT_ONCE, "stvsr-webhook") as pool:
            while not self._ending.wait(_POLL_S):
                due = self._jobs.webhooks_due(time.time(), _AT_ONCE)
                for sent in [pool.submit(self._send, job, attempt) for job, attempt in due]:
                    sent.result()

    def _send(self, job: Job, attempt: int) -> None:
        """Make an attempt to send the message of a job, and note when the next one is due."""
        reason = self._attempt(job)
        if reason is None:
            self._jobs.settle_webhook(job.id)
            log.info("webhook sent", extra={"job": job.id})
        elif attempt >= len(DELAYS_S):
            self._jobs.settle_webhook(job.id)
            log.error("webhook given up", extra={"job": job.id, "attempts": attempt, "reason": reason})
        else:
            self._jobs.delay_webhook(job.id, time.time() + DELAYS_S[attempt])
            log.warning("webhook failed", extra={"job": job.id, "attempts": attempt, "reason": reason})

    def _attempt(self, job: Job) -> str | None:
        """Send a message; return None, or the reason why it was not received."""
        now = int(time.time())
        ended = datetime.fromtimestamp(job.finished or now, UTC).isoformat()
        message = {"type": f"job.{job.state}", "timestamp": ended, "data": self._facts_of(job)}
        body, identifier = json.dumps(message).encode(), f"msg_{job.id}"
        headers = {
            "content-type": "application/json",
            "user-agent": "stvsr",
            "webhook-id": identifier,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(self._secret, identifier, now, body),
        }
        request = urllib.request.Request(job.options["webhook"], body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S):
                return None
        except HTTPError as error:
            with error:
                return f"status {error.code}"
        except (OSError, HTTPException) as error:
            return str(error)
