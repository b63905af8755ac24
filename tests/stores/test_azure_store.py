"""What only the Azure store does: its identity, uploads in blocks, marks of folders, errors of its client."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.storage.blob import ContainerClient, ContainerSasPermissions, generate_container_sas

from pipelines.stores import azure_credentials, azure_store
from pipelines.stores.azure_store import AzureStore
from pipelines.stores.bucket_folder import BucketFolder
from pipelines.stores.open_store import open_store
from schemas.errors import (
    InvalidInputError,
    ObjectExistsError,
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    TransientStoreError,
)
from tests.support.servers import AZURITE_ACCOUNT, AZURITE_KEY, azure_environment, azurite_server, make_azure_container
from tests.support.stored_bytes import stored_bytes

CONTAINER = "azure-container"
PUBLIC = "public-container"


@pytest.fixture(scope="module")
def azurite_url() -> Iterator[str]:
    """Azurite with a container, and with one that everybody may read and that has an object."""
    with azure_environment(), azurite_server() as url:
        make_azure_container(url, CONTAINER)
        make_azure_container(url, PUBLIC, public=True)
        open_store(f"az://{PUBLIC}", endpoint_url=url).put("object", b"public")
        yield url


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No account, no credentials, and no identity to be found."""
    for name in [name for name in os.environ if name.startswith(("AZURE_", "IDENTITY_", "MSI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(azure_credentials, "find_identity", lambda: None)


def _container(url: str) -> ContainerClient:
    return ContainerClient(url, CONTAINER, credential=AzureNamedKeyCredential(AZURITE_ACCOUNT, AZURITE_KEY))


def _sas(permission: str) -> str:
    until = datetime.now(UTC) + timedelta(hours=1)
    allowed = ContainerSasPermissions.from_string(permission)
    return str(generate_container_sas(AZURITE_ACCOUNT, CONTAINER, account_key=AZURITE_KEY, permission=allowed, expiry=until))


@pytest.mark.slow
@pytest.mark.usefixtures("nobody")
def test_a_public_container_needs_no_credentials(azurite_url: str) -> None:
    """It is read without credentials; a refused write says that none were used."""
    store = open_store(f"az://{PUBLIC}", endpoint_url=azurite_url, retry=None)
    assert stored_bytes(store, "object") == b"public"
    assert [info.name for info in store.list()] == ["object"]
    with pytest.raises(StoreDeniedError, match="No credentials were used"):
        store.put("other", b"x")


@pytest.mark.slow
@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("variables", ["key", "key as az names it", "connection string"])
def test_credentials_come_from_the_variables_of_azures_tools(azurite_url: str, monkeypatch: pytest.MonkeyPatch, variables: str) -> None:
    """An account's name and key with its endpoint, or one string with all three."""
    match variables:
        case "key":
            monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", AZURITE_ACCOUNT)
            monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY)
            monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", azurite_url)
        case "key as az names it":
            monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", AZURITE_ACCOUNT)
            monkeypatch.setenv("AZURE_STORAGE_KEY", AZURITE_KEY)
            monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", azurite_url)
        case _:
            fields = {"AccountName": AZURITE_ACCOUNT, "AccountKey": AZURITE_KEY, "BlobEndpoint": azurite_url}
            text = ";".join(f"{name}={value}" for name, value in fields.items())
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    store = open_store(f"az://{CONTAINER}/by-variables", retry=None)
    store.put("object", b"x")
    assert stored_bytes(store, "object") == b"x"


@pytest.mark.slow
@pytest.mark.usefixtures("nobody")
def test_a_sas_token_that_may_create_and_not_replace_is_enough_to_publish(azurite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes under a taken name are success also for who is denied to replace them; what it may not do at all is denied."""
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "?" + _sas("rc"))
    store = open_store(f"az://{CONTAINER}/by-token", endpoint_url=azurite_url, retry=None)
    store.put("object", b"x", create_only=True)
    assert store.put("object", b"x", create_only=True) == store.info("object")
    with pytest.raises(ObjectExistsError):
        store.put("object", b"y", create_only=True)
    with pytest.raises(StoreDeniedError):
        list(store.list())


@pytest.mark.slow
@pytest.mark.parametrize("is_rival_killed", [True, False])
def test_two_uploads_in_blocks_do_not_mix(azurite_url: str, monkeypatch: pytest.MonkeyPatch, is_rival_killed: bool) -> None:
    """Another's blocks, sent between ours and our end, are never part of our object; the first who ends has the name."""
    monkeypatch.setattr(azure_store, "MULTIPART_BYTES_MIN", 3 << 20)
    monkeypatch.setattr(azure_store, "BLOCK_BYTES", 1 << 20)
    ours, theirs = (Random(seed).randbytes(4 << 20) for seed in (1, 2))
    folder = BucketFolder("az", CONTAINER, f"mixed-{is_rival_killed}")
    store, rival = (AzureStore(folder, azurite_url) for _ in range(2))
    client = type(store._blob("large"))
    commit = client.commit_block_list

    def killed(*_: object, **__: object) -> None:
        raise ConnectionResetError("injected")

    def commit_after_the_rival(self: Any, blocks: Any, **options: Any) -> Any:
        monkeypatch.setattr(client, "commit_block_list", killed if is_rival_killed else commit)
        with suppress(TransientStoreError):
            rival.put("large", theirs, create_only=True)
        return commit(self, blocks, **options)

    monkeypatch.setattr(client, "commit_block_list", commit_after_the_rival)
    if is_rival_killed:
        store.put("large", ours, create_only=True)
    else:
        with pytest.raises((ObjectExistsError, TransientStoreError)):
            store.put("large", ours, create_only=True)
    assert stored_bytes(store, "large") == (ours if is_rival_killed else theirs)


@pytest.mark.slow
def test_a_broken_upload_in_blocks_shows_nothing(azurite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks are no object, and harmless."""
    monkeypatch.setattr(azure_store, "MULTIPART_BYTES_MIN", 3 << 20)
    monkeypatch.setattr(azure_store, "BLOCK_BYTES", 1 << 20)
    store = AzureStore(BucketFolder("az", CONTAINER, "broken"), azurite_url)
    data = Random(3).randbytes(4 << 20)

    def fail(*_: object, **__: object) -> None:
        raise ConnectionResetError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(type(store._blob("large")), "commit_block_list", fail)
        with pytest.raises(TransientStoreError):
            store.put("large", data, create_only=True)
    assert (store.info("large"), list(store.list())) == (None, [])
    store.put("large", data, create_only=True)
    assert stored_bytes(store, "large") == data


@pytest.mark.slow
def test_the_mark_of_a_folder_is_no_object(azurite_url: str) -> None:
    """Accounts with a hierarchical namespace keep one for each folder."""
    with _container(azurite_url) as client:
        client.upload_blob("marked/folder", b"", metadata={"hdi_isfolder": "true"})
    store = open_store(f"az://{CONTAINER}/marked", endpoint_url=azurite_url)
    store.put("folder/object", b"x")
    assert [info.name for info in store.list()] == ["folder/object"]
    assert store.info("folder") is None


@pytest.mark.slow
def test_a_missing_container_is_no_missing_object(azurite_url: str) -> None:
    """A write says so, and never creates it."""
    with pytest.raises(StoreError, match="no such container") as caught:
        open_store("az://no-such-container", endpoint_url=azurite_url, retry=None).put("object", b"x")
    assert not isinstance(caught.value, ObjectNotFoundError)


@pytest.mark.usefixtures("nobody")
def test_an_account_must_be_named() -> None:
    """A container alone is no place."""
    with pytest.raises(InvalidInputError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        stored_bytes(open_store("az://container", retry=None), "object")


@pytest.mark.usefixtures("nobody")
def test_a_token_does_not_go_out_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SAS token belongs to its holder; it is not sent over plain HTTP to another machine."""
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2026&sig=hidden")
    with pytest.raises(InvalidInputError, match="without TLS") as caught:
        stored_bytes(open_store("az://container", endpoint_url="http://storage.example/account", retry=None), "object")
    assert "hidden" not in str(caught.value)


@pytest.mark.usefixtures("nobody")
def test_an_identity_that_is_named_and_broken_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request goes without credentials by mistake."""
    monkeypatch.undo()
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    monkeypatch.setenv("AZURE_TENANT_ID", "not a tenant")
    monkeypatch.setenv("AZURE_CLIENT_ID", "id")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "hidden")
    with pytest.raises(StoreDeniedError, match="AZURE_CLIENT_ID") as caught:
        azure_credentials.find_identity()
    assert "hidden" not in str(caught.value)


def test_azure_without_its_packages_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the line that installs what is missing."""
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)
    with pytest.raises(InvalidInputError, match=r"statecast\[azure\]"):
        open_store("az://container/folder")


def _answer(status: int, code: str, message: str = "message") -> HttpResponseError:
    """Return the client's error for a server's answer."""
    error = HttpResponseError(message)
    error.status_code, error.error_code = status, code
    return error


ERRORS: list[tuple[Exception, type[StoreError]]] = [
    (_answer(404, "BlobNotFound"), ObjectNotFoundError),
    (_answer(403, "AuthorizationPermissionMismatch"), StoreDeniedError),
    (_answer(401, "NoAuthenticationInformation"), StoreDeniedError),
    (_answer(409, "BlobImmutableDueToPolicy"), StoreDeniedError),
    (ClientAuthenticationError("no token"), StoreDeniedError),
    (_answer(412, "ConditionNotMet"), azure_store._ConditionFailed),
    (_answer(409, "BlobAlreadyExists"), azure_store._ConditionFailed),
    (_answer(403, "UnauthorizedBlobOverwrite"), StoreDeniedError),
    (_answer(409, "LeaseAlreadyPresent"), TransientStoreError),
    (_answer(400, "Md5Mismatch"), TransientStoreError),
    (_answer(400, "InvalidBlockList"), TransientStoreError),
    (_answer(503, "ServerBusy"), TransientStoreError),
    (_answer(500, "InternalError"), TransientStoreError),
    (_answer(429, "TooManyRequests"), TransientStoreError),
    (_answer(507, "InsufficientStorage"), StoreFullError),
    (_answer(400, "InvalidHeaderValue"), StoreError),
    (HttpResponseError("the connection broke off"), TransientStoreError),
    (ServiceRequestError("refused"), TransientStoreError),
    (ServiceResponseError("reset"), TransientStoreError),
    (ServiceRequestError("CERTIFICATE_VERIFY_FAILED"), StoreError),
    (ValueError("other"), StoreError),
]


@pytest.mark.parametrize(("error", "expected"), ERRORS, ids=lambda value: getattr(value, "__name__", repr(value)[:60]))
def test_errors_of_azure(error: Exception, expected: type[StoreError]) -> None:
    """Only transient faults are worth another try."""
    assert type(azure_store._store_error(error, "az://c/o")) is expected
