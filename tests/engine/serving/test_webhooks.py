"""Webhooks: which addresses are allowed, signatures, attempts, and messages that survive a restart."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from stvsr import RequestError
from stvsr.engine.serving.jobs import JobStore
from stvsr.engine.serving.settings import Settings

from tests.support.commands import assert_one_clear_error, stvsr

pytest.importorskip("fastapi", reason="stvsr[serve] is not installed")

from stvsr.engine.serving import webhooks
from stvsr.engine.serving.addresses import is_allowed
from stvsr.engine.serving.webhooks import WebhookSender, signature

SECRET = b"a secret of 24 bytes, or more"


class Receiver(HTTPServer):
    """Keeps the messages that arrive, and answers with the statuses in `answers`, the last one for ever."""

    def __init__(self, *answers: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.messages = list(answers), list[tuple[dict[str, str], bytes]]()
        self.url = f"http://127.0.0.1:{self.server_port}/hooks/one"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.messages.append(({k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0])
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def receiving(*answers: int) -> Iterator[Receiver]:
    receiver = Receiver(*answers)
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobStore]:
    monkeypatch.setattr(webhooks, "_POLL_S", 0.01)
    monkeypatch.setattr(webhooks, "DELAYS_S", (0.0, 0.0, 0.0))
    with JobStore(tmp_path) as store:
        yield store


def ended_job(jobs: JobStore, url: str | None) -> str:
    job = jobs.create(jobs.new_id(), {"model": "toy", "webhook": url})
    assert jobs.end(job.id, "done", report={"frames_out": 3})
    return job.id


def send_all(jobs: JobStore) -> None:
    with WebhookSender(jobs, SECRET, lambda job: {"id": job.id, "state": job.state}):
        until = time.monotonic() + 20
        while jobs._database.execute("SELECT COUNT(*) FROM webhooks").fetchone()[0]:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_message_is_signed_and_sent_once(jobs: JobStore) -> None:
    with receiving(204) as receiver:
        identifier = ended_job(jobs, receiver.url)
        ended_job(jobs, None)
        send_all(jobs)
    [(headers, body)] = receiver.messages
    message = json.loads(body)
    assert (message["type"], message["data"]) == ("job.done", {"id": identifier, "state": "done"})
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = signature(SECRET, headers["webhook-id"], int(headers["webhook-timestamp"]), body)
    assert headers["webhook-signature"] == signed
    assert headers["content-type"] == "application/json"


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the Standard Webhooks specification."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_failures_are_tried_again_and_given_up(jobs: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    with receiving(500, 302, 200) as receiver:
        ended_job(jobs, receiver.url)
        send_all(jobs)
        assert len(receiver.messages) == 3, "a redirection is not followed"
        assert len({headers["webhook-id"] for headers, _ in receiver.messages}) == 1
    ended_job(jobs, receiver.url)  # nobody listens any more
    send_all(jobs)
    assert "webhook given up" in caplog.messages


def test_what_is_due_survives_a_restart(jobs: JobStore, tmp_path: Path) -> None:
    with receiving(200) as receiver:
        identifier = ended_job(jobs, receiver.url)
        jobs.close()
        with JobStore(tmp_path) as again:
            send_all(again)
            again.delete(identifier)
    assert len(receiver.messages) == 1


def test_a_deleted_job_sends_nothing(jobs: JobStore) -> None:
    with receiving(200) as receiver:
        jobs.delete(ended_job(jobs, receiver.url))
        send_all(jobs)
    assert receiver.messages == []


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://example.com/hooks/1", True),
        ("https://example.com/hooks", True),
        ("https://EXAMPLE.com/hooks/1?x=1", True),
        ("https://example.com:443/hooks/1", True),
        ("https://example.com/hookshop", False),
        ("https://example.com/", False),
        ("http://example.com/hooks/1", False),
        ("https://example.com:444/hooks/1", False),
        ("https://example.com.evil.org/hooks/1", False),
        ("https://user@example.com/hooks/1", False),
        ("https://example.com@evil.org/hooks/1", False),
        ("https://example.com/hooks/../admin", False),
        ("https://example.com/hooks/%2e%2e/admin", False),
        ("https://example.com/hooks/%252e%252e/admin", False),
        ("https://example.com/hooks\\..\\admin", False),
        ("https://example.com/hooks/a b", False),
        ("https://example.com/hooks/a\r\nHost: evil", False),
        ("https://example.com:port/hooks/1", False),
        ("file:///hooks/1", False),
        ("", False),
    ],
)
def test_only_addresses_below_a_prefix_are_allowed(url: str, allowed: bool) -> None:
    assert is_allowed(url, ("https://example.com/hooks/", "https://example.com/hooks")) is allowed
    assert not is_allowed(url, ())


@pytest.mark.parametrize("prefix", ["example.com", "https://example.com", "ftp://example.com/", "https://a@b/", "x"])
def test_a_prefix_has_a_host_and_a_path(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(RequestError, match="is no prefix of webhooks"):
        Settings(tmp_path, webhook_prefixes=(prefix,), webhook_secret=SECRET)


def test_the_command_asks_for_a_secret(tmp_path: Path) -> None:
    command = ("serve", "--store", tmp_path / "store", "--webhook-prefix", "https://example.com/")
    assert_one_clear_error(stvsr(*command), "--webhook-secret-file")
    (tmp_path / "secret").write_text("whsec_c2hvcnQ=")
    assert_one_clear_error(stvsr(*command, "--webhook-secret-file", tmp_path / "secret"), "24 to 64 bytes")
