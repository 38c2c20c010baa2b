"""Addresses of inference servers, and the records of remote backends."""

from typing import Any

import pytest
from stvsr import Backend, BackendError
from stvsr.engine.backends.remote.address import Address, parse_address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:8000", Address("http", False, "host", 8000)),
        ("http://host", Address("http", False, "host", 80)),
        ("https://host/", Address("http", True, "host", 443)),
        ("https://host:1/triton/a/", Address("http", True, "host", 1, "/triton/a")),
        ("grpc://127.0.0.1:8001", Address("grpc", False, "127.0.0.1", 8001)),
        ("grpcs://[::1]:8001/", Address("grpc", True, "::1", 8001)),
    ],
)
def test_addresses_are_parsed(url: str, expected: Address) -> None:
    assert parse_address(url) == expected
    assert parse_address(str(expected)) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("host:8000", "'host:8000' is not the address"),
        ("", "'' is not the address"),
        ("ftp://host:8000", "write http://HOST:PORT or grpc://HOST:PORT"),
        ("http://", "is not the address"),
        ("http://host:port", "is not the address"),
        ("http://host:70000", "is not the address"),
        ("http://[::1", "is not the address"),
        ("http://ho st:1", "is not the address"),
        ("http://host:1\n", "is not the address"),
        ("grpc://host", "names no port"),
        ("grpc://host:1/path", "is more than the address"),
        ("http://host:1/?model=x", "is more than the address"),
    ],
)
def test_other_texts_are_refused(url: str, message: str) -> None:
    with pytest.raises(BackendError) as refused:
        parse_address(url)
    assert message in str(refused.value)


@pytest.mark.parametrize("url", ["http://user:secret@host:8000", "http://:secret@host:port", "user:secret@host"])
def test_a_password_is_not_repeated(url: str) -> None:
    with pytest.raises(BackendError, match="no user and no password") as refused:
        parse_address(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--backend remote needs the address of a server: add --url"),
        ({"url": "host"}, "'host' is not the address"),
        ({"url": "http://host", "timeout_s": 0}, "time limit is 0 s"),
        ({"url": "http://host", "timeout_s": float("nan")}, "time limit is nan s"),
        ({"url": "http://host", "device": "cpu"}, "--device has no effect with --backend remote"),
        ({"url": "http://host", "precision": "fp16"}, "--precision has no effect"),
        ({"url": "http://host", "library": "tensorrt"}, "--library has no effect"),
        ({"url": "http://host", "threads": 2}, "--threads has no effect"),
        ({"url": "http://host", "time_limit_s": 3.0}, "--time-limit has no effect"),
        ({"url": "http://host", "refit": True}, "refit has no effect"),
        ({"url": "http://host", "kind": "auto"}, "--url has no effect without --backend remote"),
        ({"timeout_s": 3.0, "kind": "ort"}, "--remote-timeout has no effect without --backend remote"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError) as refused:
        Backend(**{"kind": "remote", **options})
    assert message in str(refused.value)
