"""Storage account and credentials of Azure: what Azure's own tools take from the environment, or none."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pipelines.stores.answers import shown
from pipelines.stores.client_environment import AZURE_ANONYMOUS_VARIABLE, is_plain_http_elsewhere, is_set
from schemas.errors import InvalidInputError, StoreDeniedError
from schemas.shown_text import shown_url

ACCOUNT_VARIABLES: Final = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
KEY_VARIABLES: Final = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY")
SAS_VARIABLE: Final = "AZURE_STORAGE_SAS_TOKEN"
CONNECTION_STRING_VARIABLE: Final = "AZURE_STORAGE_CONNECTION_STRING"
ENDPOINT_VARIABLE: Final = "AZURE_STORAGE_ENDPOINT"

SCOPE: Final = "https://storage.azure.com/.default"

_IDENTITY_VARIABLES: Final = ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE")
"""Setting one of these names an identity: that it can't be used is an error."""


@dataclass(frozen=True, slots=True)
class AzureAccount:
    """Where a storage account is and how to sign for it."""

    endpoint_url: str
    credential: Any | None
    """As azure-storage-blob takes it; None for no credentials."""


def find_account(endpoint_url: str | None, *, anonymous: bool) -> AzureAccount:
    """Return the account that the environment names.

    Args:
        endpoint_url: in place of the environment's; of the account, without a container.
    Raises:
        InvalidInputError: no account is named, a variable makes no sense, or a token would cross the network in clear.
        StoreDeniedError: an identity is named that can't be used.
    """
    connection = _parse_connection_string(os.environ.get(CONNECTION_STRING_VARIABLE, ""))
    name = connection.get("accountname") or _first_of(ACCOUNT_VARIABLES)
    url = endpoint_url or connection.get("blobendpoint") or os.environ.get(ENDPOINT_VARIABLE, "")
    if not url:
        if not name:
            raise InvalidInputError(problem="no storage account is named", where="az://", remedy=f"Set {ACCOUNT_VARIABLES[0]}.")
        protocol, suffix = connection.get("defaultendpointsprotocol", "https"), connection.get("endpointsuffix", "core.windows.net")
        url = f"{protocol}://{name}.blob.{suffix}"
    if anonymous or is_set(AZURE_ANONYMOUS_VARIABLE):
        return AzureAccount(url, None)
    return AzureAccount(url, _credential(url, name, connection))


def _credential(url: str, name: str, connection: dict[str, str]) -> Any | None:
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

    key = connection.get("accountkey") or _first_of(KEY_VARIABLES)
    if key:
        if not name:
            raise InvalidInputError(
                problem="an account's key needs its name", where=KEY_VARIABLES[0], remedy=f"Set {ACCOUNT_VARIABLES[0]}."
            )
        return AzureNamedKeyCredential(name, key)
    token = connection.get("sharedaccesssignature") or os.environ.get(SAS_VARIABLE, "").strip().lstrip("?")
    found = AzureSasCredential(token) if token else find_identity()
    # A key signs and stays here; a token is sent, and any holder of it may use it.
    if found is not None and is_plain_http_elsewhere(url):
        raise InvalidInputError(
            problem="this endpoint is asked without TLS, so that others on the network could read the token and use it",
            where=shown_url(url),
            remedy=f"Use https, or {AZURE_ANONYMOUS_VARIABLE}=YES where no credentials are needed.",
        )
    return found


def find_identity() -> Any | None:
    """Return the identity that azure-identity finds, None where there is none; looked for once for each state of the environment.

    Off Azure's machines one step asks a metadata server that is not there, for a second or so.

    Raises:
        StoreDeniedError: an identity is named that can't be used.
    """
    return _identity(tuple(sorted(item for item in os.environ.items() if item[0].startswith(("AZURE_", "IDENTITY_", "MSI_")))))


@lru_cache(maxsize=8)
def _identity(_environment: tuple[tuple[str, str], ...]) -> Any | None:
    import azure.identity
    from azure.core.exceptions import AzureError

    # Its account of every place that has no identity would go to standard error.
    logging.getLogger("azure.identity").addHandler(logging.NullHandler())
    try:
        identity = azure.identity.DefaultAzureCredential()
        identity.get_token(SCOPE)
    except (AzureError, ValueError, OSError) as error:
        named = next((variable for variable in _IDENTITY_VARIABLES if os.environ.get(variable)), None)
        if named is None:
            return None
        raise StoreDeniedError(
            problem=f"the identity can't be used: {shown(error)}", where=named, remedy="Name one that can, or take the variable away."
        ) from error
    return identity


def _first_of(variables: tuple[str, ...]) -> str:
    return next((value for variable in variables if (value := os.environ.get(variable, "").strip())), "")


def _parse_connection_string(text: str) -> dict[str, str]:
    """Return the fields of ``Name=value;…`` by their names in lower case."""
    return {name.strip().lower(): value.strip() for name, _, value in (field.partition("=") for field in text.split(";")) if value}
