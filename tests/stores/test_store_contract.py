"""The store contract on every kind of store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from tests.stores.store_contract import SharedStoreContract, StoreContract
from tests.support.servers import (
    aws_environment,
    azure_environment,
    azurite_server,
    fake_gcs_server,
    make_azure_container,
    make_gcs_bucket,
    make_s3_bucket,
    moto_server,
    versitygw_server,
)

_folder_numbers = itertools.count()


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """A moto S3 server with a bucket."""
    with aws_environment(), moto_server() as url:
        make_s3_bucket(url, "moto-bucket")
        yield url


@pytest.fixture(scope="module")
def versitygw_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A versitygw server with a bucket."""
    with aws_environment(), versitygw_server(tmp_path_factory.mktemp("versitygw")) as url:
        make_s3_bucket(url, "versity-bucket")
        yield url


@pytest.fixture(scope="module")
def fake_gcs_url() -> Iterator[str]:
    """A fake-gcs-server with a bucket."""
    with fake_gcs_server() as url:
        make_gcs_bucket(url, "fake-bucket")
        yield url


@pytest.fixture(scope="module")
def azurite_url() -> Iterator[str]:
    """Azurite with a container."""
    with azure_environment(), azurite_server() as url:
        make_azure_container(url, "azurite-container")
        yield url


class TestFileStore(SharedStoreContract):
    """A local folder."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        """A folder that is not there yet."""
        return open_store(str(tmp_path / "deep" / "folder"))


class TestMemoryStore(StoreContract):
    """This process's memory."""

    @pytest.fixture
    def store(self) -> Store:
        """A fresh name."""
        return open_store(f"memory://contract/{next(_folder_numbers)}")


class TestS3StoreOnMoto(SharedStoreContract):
    """moto's model of S3."""

    @pytest.fixture
    def store(self, moto_url: str) -> Store:
        """A fresh folder of the bucket."""
        return open_store(f"s3://moto-bucket/chain/{next(_folder_numbers)}", endpoint_url=moto_url)


@pytest.mark.slow
class TestS3StoreOnVersitygw(SharedStoreContract):
    """A real S3 server over a folder."""

    @pytest.fixture
    def store(self, versitygw_url: str) -> Store:
        """A fresh folder of the bucket."""
        return open_store(f"s3://versity-bucket/chain/{next(_folder_numbers)}", endpoint_url=versitygw_url)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Sending a large body directly:ResourceWarning"
)  # gcsfs hands aiohttp bytes; Python hides this by default
class TestGcsStoreOnFakeGcsServer(SharedStoreContract):
    """A server that speaks GCS's JSON API and honours preconditions."""

    @pytest.fixture
    def store(self, fake_gcs_url: str) -> Store:
        """A fresh folder of the bucket."""
        return open_store(f"gs://fake-bucket/chain/{next(_folder_numbers)}", endpoint_url=fake_gcs_url, anonymous=True)


@pytest.mark.slow
class TestAzureStoreOnAzurite(SharedStoreContract):
    """Microsoft's own emulator of Azure Blob Storage."""

    @pytest.fixture
    def store(self, azurite_url: str) -> Store:
        """A fresh folder of the container."""
        return open_store(f"az://azurite-container/chain/{next(_folder_numbers)}", endpoint_url=azurite_url)
