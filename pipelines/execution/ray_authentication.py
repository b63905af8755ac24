"""Who may run code on Ray: everyone who reaches one of its ports, unless it asks for a token.

An embedded Ray asks for a token of its own and listens on this machine's loopback alone. Of a cluster it is found out whether it asks.
Ray reads both settings from the environment and keeps what it read, so they are set while it starts and Ray reads them again.
Source: Ray 2.60, python/ray/_private/authentication/authentication_token_setup.py and python/ray/_private/services.py
(get_node_ip_address).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from pipelines.execution.ray_head import RayHead
from schemas.errors import InvalidInputError

MODE: Final = "RAY_AUTH_MODE"
TOKEN: Final = "RAY_AUTH_TOKEN"
TOKEN_PATH: Final = "RAY_AUTH_TOKEN_PATH"

HEAD_TIMEOUT_S: Final = 5.0
"""How long the head may take to answer a question."""

_CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Off, a Ray takes the loopback address for its machine's, as it does by default on those two systems."""

_KUBERNETES = "RAY_ENABLE_K8S_TOKEN_AUTH"
"""Lets Kubernetes judge tokens, which knows none of ours."""

_NO_PROXY = "no_grpc_proxy"
"""Hosts that gRPC reaches without a proxy; where it is set, ``no_proxy`` is not looked at (grpc, doc/environment_variables.md)."""

_LOOPBACK = "127.0.0.1,localhost,::1"

_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""A call of the head that does nothing (src/ray/protobuf/gcs_service.proto)."""


@contextmanager
def embedded_settings(token_file: Path) -> Iterator[None]:
    """Let a Ray that is started inside ask for the token in a file, and listen on loopback alone."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    # Read from the environment when Ray was imported, before it was known whether it would be embedded.
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _settings({MODE: "token", TOKEN: None, TOKEN_PATH: str(token_file), _CLUSTER: "0", _KUBERNETES: None}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def cluster_settings(address: str) -> Iterator[str]:
    """Let a connection that is made inside show the token that the environment names, if it names one; yield the head's address.

    Left to itself, what Ray does without ``RAY_AUTH_MODE`` depends on files that earlier runs left and on its version.

    Args:
        address: of the head, or ``auto`` for the one that the environment names or that was started on this machine.
    Raises:
        InvalidInputError: nothing answers at the address; the cluster does not take the token, or asks for one where there is none; or the token
            can't be read.
        ConnectionError, ValueError: of Ray, where ``auto`` finds none, or it is no address.
    """
    with _settings({MODE: _cluster_mode()}):
        head = _head_of(address)
        where = f"--ray-address {address}"
        if _can_be_asked(head) and not RayHead(head).is_there():
            # Ray by itself would try for minutes.
            raise InvalidInputError(
                problem=f"nothing answers at {head}", where=where, remedy="Check the address with `ray status --address …`."
            )
        token = _token() if os.environ[MODE] == "token" else ""
        if _answers(head, token) is False:
            raise InvalidInputError(
                problem="the Ray cluster does not take this token" if token else "the Ray cluster asks for a token, and there is none here",
                where=where,
                remedy=f"Set {MODE}=token, and {TOKEN_PATH} to a file with the token that the cluster was started with.",
            )
        yield head


def lets_anybody_in(address: str) -> bool | None:
    """Return whether a cluster runs the code of every client that reaches it; None if that can't be found out."""
    return _answers(address, "")


def _cluster_mode() -> str:
    from ray.exceptions import AuthenticationError

    given = os.environ.get(MODE, "").lower()
    if given not in ("", "disabled", "token"):
        raise InvalidInputError(problem=f"{given!r} is no way to authenticate", where=MODE, remedy="Write token or disabled.")
    if given:
        return given
    loader = _raylet().AuthenticationTokenLoader.instance()
    loader.reset_cache()
    try:
        return "token" if loader.has_token(ignore_auth_mode=True) else "disabled"
    except AuthenticationError as error:
        raise _unreadable(error) from error


def _token() -> str:
    from ray.exceptions import AuthenticationError

    try:
        token = str(_raylet().AuthenticationTokenLoader.instance().get_raw_token(ignore_auth_mode=True))
    except AuthenticationError as error:
        raise _unreadable(error) from error
    if not (token.isascii() and token.isprintable()):
        raise InvalidInputError(problem="the token of the Ray cluster has characters that no token has", where=MODE, remedy="Make another.")
    return token


def _unreadable(error: Exception) -> InvalidInputError:
    named = os.environ.get(TOKEN_PATH)
    return InvalidInputError(
        problem="the token of the Ray cluster can't be read",
        where=f"{TOKEN_PATH}={named}" if named else MODE,
        remedy="Name a file that holds the token and can be read by you.",
    )


def _answers(address: str, token: str) -> bool | None:
    """Return whether the head answers a caller with this token (empty: without); None where it can't be asked so, as with Ray's TLS."""
    import grpc

    if not _can_be_asked(address):
        return None
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    # A proxy would see the token; Ray itself uses none either.
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            channel.unary_unary(_CHECK_ALIVE)(b"", timeout=HEAD_TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            return False if error.code() is grpc.StatusCode.UNAUTHENTICATED else None
    return True


def _head_of(address: str) -> str:
    if address != "auto":
        return address
    found: str | None = import_module("ray._private.services").canonicalize_bootstrap_address(address)
    if found is None:
        raise ConnectionError("no running Ray cluster was found on this machine")
    return found


def _can_be_asked(address: str) -> bool:
    """Return whether an address is a head's host and port, and not one that Ray reaches by another way (``ray://``)."""
    return ":" in address and "://" not in address


@contextmanager
def _settings(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables, or unset them, and let Ray read them; afterwards they are as before, since only Ray's own need them.

    No proxy is between Ray and this machine, either: what Ray tells the agent beside it would go there otherwise.
    """
    direct = os.environ.get(_NO_PROXY) or os.environ.get("no_proxy", "")
    variables = {**variables, _NO_PROXY: ",".join(filter(None, (direct, _LOOPBACK)))}
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        _read_anew()
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _read_anew() -> None:
    # In this order: a thread of an earlier Ray that is still ending would else look for a token by settings of before.
    _raylet().Config.initialize("")
    _raylet().AuthenticationTokenLoader.instance().reset_cache()


def _raylet() -> Any:
    """Return Ray's native module, which says nothing of its types."""
    return import_module("ray._raylet")
