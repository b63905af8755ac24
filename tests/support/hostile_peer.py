"""BitTorrent peers that lie or flood, each at a loopback address of its own: a client that bans one by its address bans no other."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from schemas.address import Address

PEER_KINDS = (
    "silent",  # nothing after the handshake
    "garbage",  # what is no message
    "flood",  # messages without end
    "huge",  # a message of four gigabytes
    "wrong-pieces",  # has all, and sends other bytes
    "wrong-metadata",  # another torrent's info dictionary, of any length
    "endless-metadata",  # says that the info dictionary has a gigabyte
)

FLOOD_PAUSE_S = 0.01

_HANDSHAKE = b"\x13BitTorrent protocol"
_RESERVED = bytes([0, 0, 0, 0, 0, 0x10, 0, 0x04])  # extension protocol, fast extension
_UNCHOKE, _REQUEST, _PIECE, _HAVE, _HAVE_ALL, _EXTENDED = 1, 6, 7, 4, 14, 20
_METADATA_ID = 3


@contextmanager
def hostile_peers(kinds: tuple[str, ...] = PEER_KINDS) -> Iterator[tuple[Address, ...]]:
    """Run one peer of each kind in threads of this process."""
    with ExitStack() as stack:
        addresses = []
        for number, kind in enumerate(kinds):
            listening = stack.enter_context(socket.create_server((f"127.0.1.{number + 1}", 0)))
            threading.Thread(target=_listen, args=(listening, kind), daemon=True).start()
            addresses.append(Address(*listening.getsockname()))
        yield tuple(addresses)


def _listen(listening: socket.socket, kind: str) -> None:
    with suppress(OSError):
        while True:
            connected, _ = listening.accept()
            threading.Thread(target=_serve, args=(connected, kind), daemon=True).start()


def _serve(connected: socket.socket, kind: str) -> None:
    with suppress(OSError, EOFError, struct.error), connected:
        hello = _exactly(connected, 68)
        if not hello.startswith(_HANDSHAKE):
            # Encrypted; the client comes again in clear.
            return
        connected.sendall(_HANDSHAKE + _RESERVED + hello[28:48] + f"-XX0000-{kind:.12}".ljust(20, "x").encode())
        if kind == "garbage":
            connected.sendall(b"\0\0\0\x05\xff" + bytes(range(256)) * 4096)
        if kind == "huge":
            connected.sendall(b"\xff\xff\xff\xff\x07" + bytes(1 << 20))
        while kind == "flood":
            connected.sendall(_message(_HAVE, struct.pack(">I", 0)) * 4096 + b"\0\0\0\0" * 4096)
            # This process is the client's too: what is tried is the client, not who has the interpreter.
            time.sleep(FLOOD_PAUSE_S)
        if "metadata" in kind:
            size = 1 << 30 if kind == "endless-metadata" else 40_000
            connected.sendall(_message(_EXTENDED, b"\0" + b"d1:md11:ut_metadatai%dee13:metadata_sizei%dee" % (_METADATA_ID, size)))
        if kind == "wrong-pieces":
            connected.sendall(_message(_HAVE_ALL, b"") + _message(_UNCHOKE, b""))
        while True:
            (length,) = struct.unpack(">I", _exactly(connected, 4))
            message = _exactly(connected, length)
            if length and message[0] == _REQUEST:
                index, begin, size = struct.unpack(">III", message[1:])
                if kind == "wrong-pieces":
                    connected.sendall(_message(_PIECE, struct.pack(">II", index, begin) + b"\xa5" * size))
            elif length > 2 and message[0] == _EXTENDED and message[1] == _METADATA_ID and "metadata" in kind:
                piece = message[2:].partition(b"5:piecei")[2].partition(b"e")[0]
                answer = b"d8:msg_typei1e5:piecei%se10:total_sizei40000ee" % piece
                connected.sendall(_message(_EXTENDED, b"\x02" + answer + b"\xa5" * 16384))


def _message(kind: int, payload: bytes) -> bytes:
    return struct.pack(">IB", 1 + len(payload), kind) + payload


def _exactly(connected: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        received = connected.recv(min(size - len(data), 1 << 16))
        if not received:
            raise EOFError
        data += received
    return bytes(data)
