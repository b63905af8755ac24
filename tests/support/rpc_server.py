"""A JSON-RPC endpoint on loopback that replays what a real node answered, and misbehaves on request."""

from __future__ import annotations

import copy
import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from schemas.nearcore.block import chunk_headers_root, decode_block_header, read_chunk_header
from schemas.nearcore.borsh import BorshReader
from tests.support.blocks import encode_block_header, encode_chunk_header
from tests.support.nodes import localnet

Json = dict[str, Any]


@lru_cache
def recorded_calls() -> tuple[Json, ...]:
    """Return the real node's calls: method, params, and result or error."""
    return tuple(json.loads(gzip.decompress((localnet() / "rpc.json.gz").read_bytes())))


@lru_cache
def recorded_block(height: int) -> Json:
    """Return a recorded block. It must not be changed."""
    return next(
        call["result"]
        for call in recorded_calls()
        if call["method"] == "block" and call.get("result", {}).get("header", {}).get("height") == height
    )


@dataclass
class RecordedChain:
    """What a node would answer that stands at ``final_height`` of the recorded chain; tests change its answers at will."""

    final_height: int = 241
    first_height: int = 0
    """Blocks below are gone."""
    blocks: dict[int, Json | None] = field(default_factory=dict)
    """By height, in place of the recorded ones; None where a height has no block."""
    configs: dict[str, Json] = field(default_factory=dict)
    """Protocol configurations by epoch id, in place of the recorded one."""
    epochs: dict[str, Json] = field(default_factory=dict)
    """Fields of epochs by epoch id, in place of the recorded ones."""
    chain_id: str = ""
    as_recorded: bool = False
    """Whether nothing is answered but the very calls that were recorded: blocks by height, the configuration of the final block."""

    def answer(self, method: str, params: Json) -> Json:
        """Return ``result`` or ``error``."""
        if self.as_recorded and params not in [call["params"] for call in recorded_calls() if call["method"] == method]:
            return error("UNKNOWN_BLOCK")
        match method:
            case "block":
                return self._block(self.final_height if "finality" in params else params["block_id"])
            case "validators":
                return self._epoch(params["epoch_id"])
            case "EXPERIMENTAL_protocol_config":
                return self._config(params)
        return error("METHOD_NOT_FOUND")

    def _block(self, block_id: int | str) -> Json:
        for height in range(self.final_height, max(self.first_height, 111) - 1, -1):
            block = self.blocks.get(height, recorded_block(height))
            if block is not None and block_id in (height, block["header"]["hash"], recorded_block(height)["header"]["hash"]):
                return {"result": block}
        return error("UNKNOWN_BLOCK")

    def _epoch(self, epoch_id: str) -> Json:
        for call in recorded_calls():
            if call["method"] == "validators" and call["params"]["epoch_id"] == epoch_id:
                return {"result": {**call["result"], **self.epochs.get(epoch_id, {})}}
        return error("UNKNOWN_EPOCH")

    def _config(self, params: Json) -> Json:
        found = self._block(params.get("block_id", self.final_height))
        if "error" in found:
            return found
        config = next(call["result"] for call in recorded_calls() if call["method"] == "EXPERIMENTAL_protocol_config")
        own = self.configs.get(found["result"]["header"]["epoch_id"], {})
        return {"result": {**config, **own, **({"chain_id": self.chain_id} if self.chain_id else {})}}


def error(name: str) -> Json:
    """Return an error as nearcore words it."""
    cause = {"name": name, "info": {}}
    return {"error": {"name": "HANDLER_ERROR", "cause": cause, "code": -32000, "message": "Server error", "data": "as the node says"}}


def relinked(heights: Sequence[int], missed: Mapping[int, Sequence[int]]) -> dict[int, Json | None]:
    """Return a chain that begins with the recorded block of the first height and goes on at other heights, well hashed.

    Args:
        missed: by height, the shard indices whose chunk is not new there.
    """
    chain: dict[int, Json | None] = dict.fromkeys(range(heights[0], heights[-1] + 1))
    previous = chain[heights[0]] = recorded_block(heights[0])
    for height in heights[1:]:
        block = copy.deepcopy(recorded_block(height))
        header, before = block["header"], previous["header"]
        header.update(height=height, prev_hash=before["hash"], prev_height=before["height"])
        for index, chunk in enumerate(block["chunks"]):
            if index in missed.get(height, ()):
                block["chunks"][index] = copy.deepcopy(previous["chunks"][index])
            else:
                chunk.update(height_created=height, height_included=height, prev_block_hash=before["hash"])
        headers = []
        for chunk in block["chunks"]:
            encoded = encode_chunk_header(chunk, "V3.3")
            headers.append(read_chunk_header(BorshReader(encoded), encoded))
            chunk["chunk_hash"] = str(headers[-1].chunk_hash)
        header["chunk_headers_root"] = str(chunk_headers_root(headers))
        header["hash"] = str(decode_block_header(encode_block_header(header, 5), "relinked").hash)
        chain[height] = previous = block
    return chain


def changed_block(height: int, change: Callable[[Json], None]) -> Json:
    """Return a copy of a recorded block with something else in it."""
    block = copy.deepcopy(recorded_block(height))
    change(block)
    return block


Fault = Callable[[BaseHTTPRequestHandler, int], bool]
"""Takes a request and its number, from 0; answers it itself and returns True, or leaves it alone."""


@dataclass
class RunningRpc:
    """An endpoint that runs."""

    url: str
    requests: list[tuple[str, Any]] = field(default_factory=list)
    """Method and params of what was asked, in order; also of what a fault answered."""
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def rpc_server(chain: RecordedChain | None = None, fault: Fault | None = None) -> Iterator[RunningRpc]:
    """Serve a chain in a thread."""
    told = chain or RecordedChain()
    running = RunningRpc("")
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(running.requests)
                running.requests.append((request["method"], request["params"]))
                running.headers.append(dict(self.headers.items()))
                running.paths.append(self.path)
            if fault is None or not fault(self, number):
                document = {"jsonrpc": "2.0", "id": request["id"], **told.answer(request["method"], request["params"])}
                send(self, 200, json.dumps(document).encode())

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    running.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    """Answer a request."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def reset(handler: BaseHTTPRequestHandler) -> None:
    """End the connection in the middle, so that the client's system says reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True
