"""What the environment tells the clients of GCS, S3 and Azure beyond what they read of it themselves.

The names are GDAL's, which many tools over the same buckets take; each is read when a store is opened, in the process that opens it.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Final

from schemas.errors import InvalidInputError
from schemas.url import split_url

GCS_ANONYMOUS_VARIABLE: Final = "GS_NO_SIGN_REQUEST"
"""YES: GCS is asked without credentials, and none are looked for."""

GCS_USER_PROJECT_VARIABLE: Final = "GS_USER_PROJECT"
"""The Google project that pays for requests to GCS buckets whose requester pays."""

S3_ANONYMOUS_VARIABLE: Final = "AWS_NO_SIGN_REQUEST"
"""YES: S3 is asked without credentials, and none are looked for."""

S3_REQUEST_PAYER_VARIABLE: Final = "AWS_REQUEST_PAYER"
"""``requester``: whose credentials are used pays for requests to S3 buckets whose requester pays."""

AZURE_ANONYMOUS_VARIABLE: Final = "AZURE_NO_SIGN_REQUEST"
"""YES: Azure is asked without credentials, and none are looked for."""

_YES = {"yes", "true", "on", "1"}
_NO = {"", "no", "false", "off", "0"}


def is_set(variable: str) -> bool:
    """Tell whether a variable says yes.

    Raises:
        InvalidInputError: it says neither yes nor no.
    """
    value = os.environ.get(variable, "").strip().lower()
    if value not in _YES | _NO:
        raise InvalidInputError(problem="the variable says neither YES nor NO", where=variable, remedy="Set it to YES, or take it away.")
    return value in _YES


def gcs_user_project() -> str | None:
    """Return who pays for requests to GCS, where the requester is to."""
    return os.environ.get(GCS_USER_PROJECT_VARIABLE, "").strip() or None


def s3_requester_pays() -> bool:
    """Tell whether the requester agrees to pay for requests to S3.

    Raises:
        InvalidInputError: the variable has a value that S3 does not know.
    """
    value = os.environ.get(S3_REQUEST_PAYER_VARIABLE, "").strip()
    if value not in ("", "requester"):
        raise InvalidInputError(
            problem="S3 knows one payer: requester", where=S3_REQUEST_PAYER_VARIABLE, remedy="Set it to requester, or take it away."
        )
    return value == "requester"


def is_plain_http_elsewhere(endpoint_url: str) -> bool:
    """Tell whether an endpoint is asked without TLS on another machine than this."""
    parts = split_url(endpoint_url if "://" in endpoint_url else f"http://{endpoint_url}")
    host = parts.hostname or ""
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not is_here
