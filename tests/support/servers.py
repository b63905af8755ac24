"""Object store servers on loopback for tests: moto in this process, fake-gcs-server and versitygw as built binaries.

The binaries are looked for in ``~/.cache/statecast/bin`` and on PATH; with STATECAST_BUILD_SERVERS=1 a missing one is built by Go
(some minutes each). Where there is none, tests skip and say so.
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
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

SERVER_MODULES = {
    "fake-gcs-server": "github.com/fsouza/fake-gcs-server@v1.56.1",
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
}
"""What `go install` takes for each server."""

BINARIES = Path(os.path.expanduser("~")) / ".cache" / "statecast" / "bin"
BUILD_VARIABLE = "STATECAST_BUILD_SERVERS"
BUILD_TIMEOUT_S = 1800
START_TIMEOUT_S = 120

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
    """Create a bucket on an S3 server; a public one is read by anybody."""
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
