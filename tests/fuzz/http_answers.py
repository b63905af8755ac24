"""Clients of HTTP, each against a server that gives the input as its whole answer, byte for byte, whatever is asked, and hangs up."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from random import Random
from typing import Any, Final
from unittest import mock

import google_crc32c

from pipelines.fetching.http_source import HttpSource
from pipelines.fetching.source import Cancellation, WantedObject
from pipelines.fetching.throttle import Throttle
from pipelines.near.epoch.rpc_client import RpcClient, RpcLimits
from pipelines.producing.publish.kms_key import open_kms_signer
from pipelines.stores.answers import http_date
from pipelines.stores.azure_store import AzureStore
from pipelines.stores.bucket_folder import BucketFolder
from pipelines.stores.gcs_store import GcsStore
from pipelines.stores.http_folder import check_reply
from pipelines.stores.http_store import HttpStore
from pipelines.stores.s3_store import S3Store
from pipelines.stores.store import Store
from tests.fuzz.decoder import Decoder
from tests.fuzz.mutation import mutate_bytes, mutate_json

NAME: Final = "chain_id=x/latest.json"
"""The object that is asked for."""

BODY: Final = b"0123456789abcdef"

CONNECTIONS_MAX: Final = 40
"""Answers to one call: more are hung up on at once."""

WAITS_MAX: Final = 20
"""Most pauses of a client before it asks again, which take no time here; then its patience ends."""

SMOKE_INPUTS: Final = 12
"""A client's requests cost milliseconds."""

_IDLE_S: Final = 2.0


class AnsweringServer:
    """Gives one answer to every request, each on a connection of its own."""

    def __init__(self) -> None:
        self.answer = b""
        self.left = 0
        self.is_idle = threading.Event()
        """No connection is open here, so that a client sees that those it kept are closed."""
        self.is_idle.set()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connected, _ = self._listening.accept()
            self.is_idle.clear()
            with connected, suppress(OSError):
                self._exchange(connected)
            self.is_idle.set()

    def _exchange(self, connected: socket.socket) -> None:
        connected.settimeout(_IDLE_S)
        request = b""
        while b"\r\n\r\n" not in request:
            buffer = connected.recv(1 << 16)
            if not buffer:
                return
            request += buffer
        head, _, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        left = (int(length[1]) if length else 0) - len(body)
        # Who waits to be told to go on is answered at once.
        while left > 0 and b"100-continue" not in head.lower():
            left -= len(connected.recv(min(left, 1 << 16)))
        self.left -= 1
        if self.left < 0:
            return
        # An answer to HEAD has no body, whatever its length says.
        end = self.answer.rfind(b"\r\n\r\n") + 4
        connected.sendall(self.answer[:end] if head.startswith(b"HEAD ") and end > 3 else self.answer)


@lru_cache
def _server(pid: int) -> AnsweringServer:
    """The server of one process: forked ones work side by side."""
    return AnsweringServer()


@lru_cache
def _client(pid: int, kind: str) -> Any:
    return _CLIENTS[kind](_server(pid).url)


_ENVIRONMENT: Final = {
    "AWS_ACCESS_KEY_ID": "fuzz",
    "AWS_SECRET_ACCESS_KEY": "fuzz",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AZURE_STORAGE_ACCOUNT_NAME": "fuzz",
    "AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(b"fuzz").decode(),
}


@contextmanager
def _asked(data: bytes, kind: str) -> Iterator[Any]:
    """Yield a client of the kind whose requests are answered by ``data``; nothing waits before it asks again."""
    server = _server(os.getpid())
    server.is_idle.wait(_IDLE_S)
    server.answer, server.left = data, CONNECTIONS_MAX
    environment = {**_ENVIRONMENT, "AWS_ENDPOINT_URL": server.url, "STORAGE_EMULATOR_HOST": server.url}
    waits = iter(range(WAITS_MAX))

    def wait(_seconds: float) -> None:
        if next(waits, None) is None:
            raise TimeoutError("the client's patience")

    async def wait_beside(_seconds: float, result: object = None) -> object:
        # It lets others run, as one of no time does.
        wait(_seconds)
        return result

    with mock.patch.dict(os.environ, environment), mock.patch("time.sleep", wait), mock.patch("asyncio.sleep", wait_beside):
        yield _client(os.getpid(), kind)


def _kms(url: str) -> str:
    return "kms://aws/alias/fuzz"


_CLIENTS: Final[dict[str, Callable[[str], Any]]] = {
    "http source": lambda url: HttpSource(url, Throttle([])),
    "http store": lambda url: HttpStore.parse(f"{url}/near"),
    "s3": lambda url: S3Store(BucketFolder("s3", "bucket", "near"), endpoint_url=url),
    "gcs": lambda url: GcsStore(BucketFolder("gs", "bucket", "near"), endpoint_url=url, anonymous=True),
    "azure": lambda url: AzureStore(BucketFolder("az", "bucket", "near"), endpoint_url=url),
    "rpc": lambda url: RpcClient(url, RpcLimits(requests_per_s=1e9, attempts_max=1, timeout_s=30.0)),
    "aws key service": _kms,
}


def _stream(data: bytes) -> object:
    with _asked(data, "http source") as source:
        received = b""
        for buffer in source.stream(WantedObject(NAME, None, 1 << 20), 0, Cancellation()):
            received += buffer
            if len(received) > 1 << 20:
                break
        return received


def _get(kind: str) -> Callable[[bytes], object]:
    def decode(data: bytes) -> object:
        with _asked(data, kind) as store:
            found: bytes = store.get(NAME, 0, len(BODY))
            assert len(found) <= len(BODY)
            return found

    return decode


def _store_call(kind: str, call: Callable[[Store], object]) -> Callable[[bytes], object]:
    def decode(data: bytes) -> object:
        with _asked(data, kind) as store:
            return call(store)

    return decode


def _rpc(data: bytes) -> object:
    with _asked(data, "rpc") as client:
        return client.call("block", {"finality": "final"})


def _open_kms(data: bytes) -> object:
    with _asked(data, "aws key service") as url:
        return open_kms_signer(url).public_key


def _answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = (f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Date: Mon, 23 Nov 2026 08:30:00 GMT")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


_MD5: Final = hashlib.md5(BODY, usedforsecurity=False)
_CRC: Final = base64.b64encode(google_crc32c.value(BODY).to_bytes(4, "big")).decode()
_WHEN: Final = "Mon, 23 Nov 2026 08:30:00 GMT"
_TAGS: Final = (f'ETag: "{_MD5.hexdigest()}"', f"Last-Modified: {_WHEN}", f"Content-MD5: {base64.b64encode(_MD5.digest()).decode()}")


def _plain() -> list[bytes]:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n" + BODY + b"\r\n0\r\n\r\n"
    whole = _answer("200 OK", *_TAGS, body=BODY)
    return [whole, _answer("103 Early Hints", "Link: </x>") + whole, chunked]


def _range() -> list[bytes]:
    return [_answer("206 Partial Content", f"Content-Range: bytes 0-{len(BODY) - 1}/{len(BODY)}", *_TAGS, body=BODY), *_plain()[:2]]


def _s3_listing() -> list[bytes]:
    entry = f"<Contents><Key>near/{NAME}</Key><Size>16</Size><ETag>&quot;{_MD5.hexdigest()}&quot;</ETag><LastModified>2026-11-23T08:30:00.000Z</LastModified></Contents>"
    text = f"<?xml version='1.0'?><ListBucketResult><Name>bucket</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>{entry}</ListBucketResult>"
    return [_answer("200 OK", "Content-Type: application/xml", body=text.encode())]


def _gcs_object() -> dict[str, Any]:
    return {
        "kind": "storage#object",
        "name": f"near/{NAME}",
        "bucket": "bucket",
        "size": str(len(BODY)),
        "generation": "17",
        "crc32c": _CRC,
        "md5Hash": base64.b64encode(_MD5.digest()).decode(),
        "updated": "2026-11-23T08:30:00.000Z",
        "timeCreated": "2026-11-23T08:30:00.000Z",
        "etag": "CBE=",
    }


def _json_answer(document: object) -> bytes:
    return _answer("200 OK", "Content-Type: application/json", body=json.dumps(document).encode())


def _azure_listing() -> list[bytes]:
    properties = f"<Properties><Content-Length>16</Content-Length><Etag>0x1</Etag><Last-Modified>{_WHEN}</Last-Modified><BlobType>BlockBlob</BlobType></Properties>"
    blob = f"<Blob><Name>near/{NAME}</Name>{properties}</Blob>"
    text = f"<?xml version='1.0' encoding='utf-8'?><EnumerationResults ContainerName='bucket'><Blobs>{blob}</Blobs><NextMarker/></EnumerationResults>"
    return [_answer("200 OK", "Content-Type: application/xml", body=text.encode())]


def _rpc_answers() -> list[bytes]:
    result = {"jsonrpc": "2.0", "id": "statecast", "result": {"header": {"height": 5, "hash": "x" * 44}, "chunks": []}}
    error = {"jsonrpc": "2.0", "id": "statecast", "error": {"code": -32000, "name": "HANDLER_ERROR", "cause": {"name": "UNKNOWN_BLOCK"}}}
    return [_json_answer(result), _json_answer(error)]


@lru_cache
def _kms_answers() -> tuple[bytes, ...]:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = derive_private_key(17, SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    document = {
        "KeyId": "fuzz",
        "PublicKey": base64.b64encode(public).decode(),
        "KeySpec": "ECC_NIST_P256",
        "KeyUsage": "SIGN_VERIFY",
        "SigningAlgorithms": ["ECDSA_SHA_256"],
    }
    return (_json_answer(document),)


_CODES: Final = (
    *(100, 101, 102, 103, 199, 200, 200, 201, 202, 204, 205, 206, 207, 226, 299, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401),
    *(402, 403, 404, 405, 407, 408, 409, 410, 411, 412, 413, 416, 417, 421, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503),
    *(504, 505, 507, 508, 510, 511, 520, 599, 600, 999),
)
_STATUS_LINES: Final = (
    *(
        b"HTTP/1.1 99 x",
        b"HTTP/1.1 1000 x",
        b"HTTP/1.1 -1 x",
        b"HTTP/1.1 abc x",
        b"HTTP/9.9 200 OK",
        b"HTTP/0.9 200",
        b"ICY 200 OK",
        b"HTTP/1.1",
    ),
    *(
        b"",
        b"HTTP/1.1 \xc2\xb200 OK",
        b"HTTP/1.1 200",
        b"http/1.1 200 ok",
        b"HTTP/1.1  200  OK",
        b"HTTP/1.1 200 " + b"x" * 70_000,
        b"HTTP/2 200",
    ),
    *(b"HTTP/1.1 200 \xff\x00\x1b]0;x\x07", b"HTTP/1.0 200 OK", b"\x16\x03\x01\x00\x05hello", b"HTTP/1.1 000 x", b"HTTP/1.1 +200 OK"),
)
_NUMBERS: Final = (
    "",
    "0",
    "-1",
    "+5",
    "5, 5",
    "5;",
    "1e3",
    "²",
    "٣",
    "0x10",
    "9" * 20,
    "9" * 5000,
    " 16",
    "16 ",
    "15",
    "17",
    "1_6",
    "nan",
    "1" * 18,
)
_DATES: Final = (
    *(
        _WHEN,
        "Mon, 23 Nov 20260000000000000000 08:30:00 GMT",
        "x",
        "0",
        "Thu, 01 Jan 1970 00:00:00 +9999",
        "Fri, 31 Dec 9999 23:59:59 -2359",
    ),
    *("Mon, 23 Nov 2026 99:99:99 GMT", "Mon, 00 Nov 0000 00:00:00 GMT", "2026-11-23", "Mon, 23 Nov 2026", "²3 Nov 2026 08:30:00 GMT"),
)
_PLACES: Final = (
    *(
        "http://[::1/x",
        "http://:80/x",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1:x/",
        "file:///etc/hostname",
        "//x:1:2/",
        "",
        "/a",
        "?b",
        "#c",
    ),
    *(
        "http://127.0.0.1:1/x",
        "http://user:word@127.0.0.1:1/",
        "http://\x00/",
        "http://%zz/",
        "http://127.0.0.1:0/",
        "ftp://127.0.0.1:1/",
        "http:x",
    ),
    *("/" + "a" * 9000, "http://[v1.x]/", "http://127.0.0.1\\@x:1/", "data:,x", "/%", "/\xff", "http://127.0.0.1:1/\u2028"),
)
_VALUES: Final[dict[str, tuple[str, ...]]] = {
    "Content-Length": _NUMBERS,
    "Transfer-Encoding": ("chunked", "gzip, chunked", "CHUNKED", "identity", "x", "", "chunked, chunked"),
    "Content-Encoding": ("gzip", "deflate", "br", "zstd", "gzip, gzip", "identity", "x", "", "aws-chunked", "GZIP"),
    "Content-Range": (
        *("bytes 0-15/16", "bytes 5-4/5", "bytes */16", "bytes */²", "bytes 0-15/*", "items 0-4/5", "bytes ²-3/5", f"bytes 0-{'9' * 30}/9"),
        *("bytes 1-16/16", "", "bytes", "bytes 0-15/16, bytes 0-15/16", "bytes -1-5/6"),
    ),
    "Location": _PLACES,
    "Retry-After": (*_NUMBERS, *_DATES),
    "Last-Modified": _DATES,
    "Date": _DATES,
    "ETag": ('"x"', "x", "", '"', 'W/"x"', "²", '"' * 99, "\xff", '"' + "0" * 32 + '"', '"' + "0" * 32 + '-1"', "0x8D"),
    "Connection": ("keep-alive", "close", "upgrade", "x"),
    "Content-Type": (
        "application/json",
        "application/xml",
        "text/html; charset=x",
        "application/json; charset=utf-7",
        "",
        "multipart/mixed",
        "x/\x00",
    ),
    "Content-MD5": ("", "x", "²", "AAAAAAAAAAAAAAAAAAAAAA=="),
    "x-goog-hash": ("crc32c=", "crc32c=²", "md5=x", f"crc32c={_CRC}", "x", ",,,", "crc32c"),
    "x-goog-generation": _NUMBERS,
    "X-Goog-Stored-Content-Length": _NUMBERS,
    "x-amz-request-id": ("x", "\xff"),
    "x-amz-bucket-region": ("eu-central-1", "x", "²", "", "a/b", "a.b:1@c"),
    "x-amz-mp-parts-count": _NUMBERS,
    "x-amz-delete-marker": ("true", "x"),
    "x-amz-checksum-crc32": ("x", "AAAAAA==", "²"),
    "x-amz-restore": ("x",),
    "x-ms-error-code": ("BlobNotFound", "ServerBusy", "²", "", "x" * 9000, "Md5Mismatch"),
    "x-ms-blob-type": ("BlockBlob", "x", "PageBlob"),
    "x-ms-creation-time": _DATES,
    "x-ms-meta-hdi_isfolder": ("true",),
    "x-ms-blob-content-length": _NUMBERS,
    "x-ms-version-id": ("x",),
    "x-ms-tag-count": _NUMBERS,
    "WWW-Authenticate": ("Basic", "Bearer error=x", "x" * 9000, ""),
    "Set-Cookie": ("a=b; expires=x", "=", "a=b; domain=\xff"),
    "Upgrade": ("h2c", "websocket"),
    "Content-Disposition": ("attachment", "x"),
    "": ("x",),
}
_ODD_LINES: Final = (
    b"no colon",
    b": x",
    b" folded",
    b"\tfolded",
    b"a\x00b: c",
    b"X: " + b"y" * 70_000,
    b"\xff\xfe: z",
    b"X :y",
    b"\r",
    b"A: b\nC: d",
)


def mutate_answer(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Change an answer: its status line, its headers, its body, or all of its bytes; its length is often made right again."""
    if random.random() < 0.1:
        return mutate_bytes(random, data, corpus)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    if random.random() < 0.4:
        first = random.choice(_STATUS_LINES) if random.random() < 0.3 else b"HTTP/1.1 %d x" % random.choice(_CODES)
    for _ in range(int(random.expovariate(0.7))):
        name = random.choice(tuple(_VALUES))
        value = f"{name}: {random.choice(_VALUES[name])}".encode("utf-8", "surrogateescape")
        at = random.randrange(len(lines) + 1)
        match random.randrange(5):
            case 0:
                lines.insert(at, random.choice(_ODD_LINES))
            case 1:
                del lines[at:]
            case 2:
                # In the place of one of the same name.
                lines = [line for line in lines if not line.lower().startswith(name.lower().encode() + b":")]
                lines.append(value)
            case _:
                lines.insert(at, value)
    if random.random() < 0.4:
        change = mutate_json if body[:1] in (b"{", b"[") and random.random() < 0.8 else mutate_bytes
        body = change(random, body, [one.partition(b"\r\n\r\n")[2] for one in corpus])
        if random.random() < 0.8:
            lines = [line for line in lines if not line.lower().startswith(b"content-length:")] + [b"Content-Length: %d" % len(body)]
    if random.random() < 0.05:
        lines *= random.choice((2, 60))
    answer = b"\r\n".join((first, *lines)) + b"\r\n\r\n" + body
    return answer + random.choice(corpus) if random.random() < 0.05 else answer


def decoders() -> tuple[Decoder, ...]:
    """Return the table."""

    def client(
        name: str, decode: Callable[[bytes], object], corpus: Callable[[], Sequence[bytes]], *covers: Callable[..., object]
    ) -> Decoder:
        return Decoder(name, decode, corpus, covers, mutate_answer, SMOKE_INPUTS)

    def info(store: Store) -> object:
        return store.info(NAME)

    def listed(store: Store) -> object:
        return list(store.list("chain_id=x"))

    def put(store: Store) -> object:
        return store.put(NAME, BODY, create_only=True)

    def swapped(store: Store) -> object:
        return store.swap("latest.json", BODY, None)

    def deleted(store: Store) -> None:
        store.delete(NAME)

    stat = [_answer("200 OK", *_TAGS, "x-ms-blob-type: BlockBlob", body=BODY)]
    gcs_object = _json_answer(_gcs_object())
    return (
        client("http answer to a source", _stream, _plain, HttpSource.stream, check_reply),
        client("http answer to a store", _get("http store"), _range, HttpStore.get),
        client("http answer about an object", _store_call("http store", info), lambda: stat, HttpStore.info, http_date),
        client("http answer to an rpc client", _rpc, _rpc_answers, RpcClient.call),
        client("s3 object", _get("s3"), _range, S3Store.get),
        client("s3 answer about an object", _store_call("s3", info), lambda: stat, S3Store.info),
        client("s3 listing", _store_call("s3", listed), _s3_listing, S3Store.list),
        client("s3 answer to a put", _store_call("s3", put), lambda: [_answer("200 OK", *_TAGS, body=b"<a>012345678</a>")], S3Store.put),
        client("s3 answer to a deletion", _store_call("s3", deleted), lambda: [_answer("204 No Content")], S3Store.delete),
        client("gcs object", _get("gcs"), _range, GcsStore.get),
        client("gcs answer about an object", _store_call("gcs", info), lambda: [gcs_object], GcsStore.info),
        client(
            "gcs listing",
            _store_call("gcs", listed),
            lambda: [_json_answer({"kind": "storage#objects", "items": [_gcs_object()]})],
            GcsStore.list,
        ),
        client("gcs answer to a swap", _store_call("gcs", swapped), lambda: [gcs_object], GcsStore.swap),
        client("gcs answer to a deletion", _store_call("gcs", deleted), lambda: [_answer("204 No Content")], GcsStore.delete),
        client("azure object", _get("azure"), lambda: _range()[:1], AzureStore.get),
        client("azure answer about an object", _store_call("azure", info), lambda: stat, AzureStore.info),
        client("azure listing", _store_call("azure", listed), _azure_listing, AzureStore.list),
        client("azure answer to a deletion", _store_call("azure", deleted), lambda: [_answer("202 Accepted")], AzureStore.delete),
        client("aws key service", _open_kms, _kms_answers, open_kms_signer),
    )
