"""Credentials in the environment of a server, which processes that decode what strangers send do not get."""

import re
from collections.abc import MutableMapping

_NAMES = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|APIKEY|(^|_)KEY(_|$)|^AWS_", re.IGNORECASE)
_VALUES = re.compile(r"://[^/\s@]*:[^/\s@]+@")  # a password in an address
_OF_STORES = re.compile(r"^(AWS|AZURE|GOOGLE|GCLOUD|GCS|FSSPEC|S3|RAY)_", re.IGNORECASE)


def drop_credentials(environment: MutableMapping[str, str], *, keep_stores: bool) -> None:
    """Remove what is, by its name or its value, a credential.

    With `keep_stores` those stay with which workers reach files at an address, and the nodes of a cluster each other.
    """
    for name, value in list(environment.items()):
        if keep_stores and _OF_STORES.search(name):
            continue
        if _NAMES.search(name) or _VALUES.search(value):
            del environment[name]
