"""Object store servers on loopback for tests: moto in this process, fake-gcs-server and versitygw as built binaries, Azurite by node.

The binaries are looked for in ``~/.cache/statecast/bin`` and on PATH; with STATECAST_BUILD_SERVERS=1 a missing one is built by Go
(some minutes each), and Azurite is installed by npm into the folder beside them. Where there is none, tests skip and say so.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

SERVER_MODULES = {
    "fake-gcs-server": "github.com/fsouza/fake-gcs-server@v1.56.1",
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
}
"""What `go install` takes for each server."""

AZURITE = "azurite@3.35.0"
"""What `npm install` takes."""

BINARIES = Path(os.path.expanduser("~")) / ".cache" / "statecast" / "bin"
BUILD_VARIABLE = "STATECAST_BUILD_SERVERS"
BUILD_TIMEOUT_S = 1800
START_TIMEOUT_S = 120

AZURITE_FOLDER = BINARIES.parent / "azurite"
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, the same everywhere."""

ACCESS_KEY = "statecasttest"
SECRET_KEY = "statecasttestsecret"


def find_server(name: str) -> str:
    """Return the path of a server's binary, or skip the test."""
    found = shutil.which(name, path=f"{BINARIES}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is not None:
        return found
    if os.environ.get(BUILD_VARIABLE) != "1" or shutil.which("go") is None:
        pytest.skip(f"{name} is not built: set {BUILD_VARIABLE}=1 with Go on PATH, or put it into {BINARIES}")
    BINARIES.mkdir(parents=True, exist_ok=True)
    built = subprocess.run(
        ["nice", "go", "install", SERVER_MODULES[name]],
        env={**os.environ, "GOBIN": str(BINARIES)},
        timeout=BUILD_TIMEOUT_S,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        pytest.skip(f"{name} can't be built here: {built.stderr[-400:]}")
    return str(BINARIES / name)


def find_azurite() -> str:
    """Return the path of Azurite's command, or skip the test."""
    found = AZURITE_FOLDER / "node_modules" / ".bin" / "azurite-blob"
    if shutil.which("node") is None:
        pytest.skip("azurite needs node, which is not here")
    if found.exists():
        return str(found)
    if os.environ.get(BUILD_VARIABLE) != "1" or shutil.which("npm") is None:
        pytest.skip(f"azurite is not installed: set {BUILD_VARIABLE}=1 with npm on PATH, or install it into {AZURITE_FOLDER}")
    AZURITE_FOLDER.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(AZURITE_FOLDER), AZURITE]
    installed = subprocess.run(command, timeout=BUILD_TIMEOUT_S, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        pytest.skip(f"azurite can't be installed here: {installed.stderr[-400:]}")
    return str(found)


@contextmanager
def moto_server() -> Iterator[str]:
    """Run moto's S3 in a thread; yield its URL.

    Writes are taken one after the other: moto looks at a request's condition first and stores later, which S3 does at once.
    """
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        assert server._server is not None
        answer, writing = server._server.app, threading.Lock()

        def answer_in_turn(environment: dict[str, Any], start_response: Any) -> Any:
            with writing if environment["REQUEST_METHOD"] in ("PUT", "POST", "DELETE") else nullcontext():
                return answer(environment, start_response)

        server._server.app = answer_in_turn
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def fake_gcs_server() -> Iterator[str]:
    """Run fake-gcs-server with its objects in memory; yield its URL."""
    port = _free_port()
    address = f"127.0.0.1:{port}"
    arguments = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-public-host", address]
    with _running([find_server("fake-gcs-server"), *arguments, "-external-url", f"http://{address}", "-log-level", "error"], port):
        yield f"http://{address}"


@contextmanager
def versitygw_server(folder: Path) -> Iterator[str]:
    """Run versitygw over a folder; yield its URL."""
    port = _free_port()
    with _running(
        [find_server("versitygw"), "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--port", f"127.0.0.1:{port}", "posix", str(folder)],
        port,
    ):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def azurite_server() -> Iterator[str]:
    """Run Azurite's blobs in memory; yield its account's URL."""
    port = _free_port()
    arguments = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent", "--disableTelemetry"]
    with _running([find_azurite(), *arguments, "--skipApiVersionCheck"], port):
        yield f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}"


@contextmanager
def azure_environment() -> Iterator[None]:
    """Set the account and the key that Azurite takes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AZURE_")]:
            patch.delenv(name)
        patch.setenv("AZURE_STORAGE_ACCOUNT_NAME", AZURITE_ACCOUNT)
        patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY)
        yield


@contextmanager
def aws_environment() -> Iterator[None]:
    """Set the credentials and the region that the test servers take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        patch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
        yield


def make_s3_bucket(endpoint_url: str, bucket: str, *, public: bool = False) -> None:
    """Create a bucket on an S3 server; a public one is read without credentials."""
    import boto3

    client = boto3.client("s3", endpoint_url=endpoint_url)
    client.create_bucket(Bucket=bucket)
    if public:
        resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        # On S3 GetObject covers HEAD; moto takes the action's name from the method.
        actions = ["s3:GetObject", "s3:HeadObject", "s3:ListBucket"]
        statement = {"Effect": "Allow", "Principal": "*", "Action": actions, "Resource": resources}
        client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def make_gcs_bucket(endpoint_url: str, bucket: str) -> None:
    """Create a bucket on a GCS server."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    storage.Client(project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": endpoint_url}).create_bucket(bucket)


def make_azure_container(endpoint_url: str, container: str, *, public: bool = False) -> None:
    """Create a container of an account of Azurite; a public one is read without credentials."""
    from azure.core.credentials import AzureNamedKeyCredential
    from azure.storage.blob import ContainerClient

    with ContainerClient(endpoint_url, container, credential=AzureNamedKeyCredential(AZURITE_ACCOUNT, AZURITE_KEY)) as client:
        client.create_container(public_access="container" if public else None)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _listens(port):
            assert server.poll() is None, f"{command[0]} ended with {server.returncode}"
            assert time.monotonic() < deadline, f"{command[0]} does not listen"
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def s3_bucket(server: AbstractContextManager[str] | None = None) -> Iterator[str]:
    """Run an S3 server, moto's unless another is given, that the environment names; yield the URL of a bucket there."""
    with pytest.MonkeyPatch.context() as patch, aws_environment(), server or moto_server() as url:
        patch.setenv("AWS_ENDPOINT_URL_S3", url)
        make_s3_bucket(url, "states")
        yield "s3://states"


@contextmanager
def gcs_bucket() -> Iterator[str]:
    """Run a GCS server that the environment names; yield the URL of a bucket there."""
    with pytest.MonkeyPatch.context() as patch, fake_gcs_server() as url:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        make_gcs_bucket(url, "states")
        yield "gs://states"
