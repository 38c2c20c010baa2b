"""A store of objects on this machine, which speaks the protocol of S3."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a server with an empty bucket, yield the bucket's address, and let this process and its children use it.

    Skips the test if a package is not installed.
    """
    pytest.importorskip("s3fs", reason="stvsr[s3] is not installed")
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3
    import s3fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "name",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # instances have the address of an earlier server
    bucket = f"videos-{secrets.token_hex(4)}"  # servers of one process share their buckets
    boto3.client("s3").create_bucket(Bucket=bucket)
    try:
        yield f"s3://{bucket}"
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


def objects_below(address: str) -> list[str]:
    """Return the names of all objects below an address, sorted."""
    import fsspec

    files, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
    return sorted(path.removeprefix(root).lstrip("/") for path in files.find(root))
