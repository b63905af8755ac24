"""Credentials for GCS: the identity that Google's own rules find, or none.

gcsfs's search is not used: it refuses every identity of another project than the one that it was given, goes on without any, asks the
metadata server twice as often, and does all of it again for each store that is opened.
"""

from __future__ import annotations

import logging
import os
import warnings
from functools import lru_cache
from typing import Any, Final

from schemas.errors import StoreDeniedError

SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
"""Reading, writing and deleting objects; what of it is allowed is up to the identity's roles."""

KEY_FILE_VARIABLE: Final = "GOOGLE_APPLICATION_CREDENTIALS"

_VARIABLES: Final = (KEY_FILE_VARIABLE, "CLOUDSDK_CONFIG", "NO_GCE_CHECK", "GCE_METADATA_HOST", "GCE_METADATA_IP", "HOME")
"""On these the answer depends; it is looked for again when one changes."""


def find_credentials() -> Any | None:
    """Return Google's application default credentials, None where there are none; looked for once a process.

    Off Google's machines the last step asks a metadata server that is not there, three times for three seconds at most; NO_GCE_CHECK=true
    leaves it out.

    Raises:
        StoreDeniedError: credentials are named that can't be used.
    """
    return _find(tuple(os.environ.get(name) for name in _VARIABLES))


@lru_cache(maxsize=8)
def _find(_environment: tuple[str | None, ...]) -> Any | None:
    import google.auth
    import google.auth.exceptions

    # Its warnings, one for each time that no metadata server answers, would go to standard error.
    logging.getLogger("google.auth").addHandler(logging.NullHandler())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Your application has authenticated using end user credentials", UserWarning)
            return google.auth.default(scopes=[SCOPE])[0]
    except google.auth.exceptions.DefaultCredentialsError as error:
        if not os.environ.get(KEY_FILE_VARIABLE):
            return None
        raise StoreDeniedError(
            problem=f"the credentials can't be used: {error}"[:400], where=KEY_FILE_VARIABLE, remedy="Name a key file, or take it away."
        ) from error
