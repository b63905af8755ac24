"""Several sources of one context: what differs is named with both values and both sources, what is open is filled in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from pipelines.near.epoch.context_agreement import agreed_epoch_context, compare_contexts
from pipelines.near.epoch.given_context import GivenContextSource, read_context_file
from pipelines.near.epoch.node_context import OpenedNode, epoch_context_from_node, open_node
from pipelines.near.epoch.rpc_client import RpcClient, RpcLimits
from pipelines.near.epoch.rpc_context import RpcContextSource
from schemas.errors import ContextMismatchError, EpochNotReadyError, IntegrityError, InvalidInputError, SourceError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import CONTEXT_BYTES_MAX, EpochContext
from schemas.nearcore.shard_layout import ShardLayout
from tests.support.nodes import LOCALNET_EPOCH_ID, context_file, localnet_home, node_a
from tests.support.rpc_server import Fault, RecordedChain, changed_block, rpc_server, send

OTHER_HASH = CryptoHash(sha256(b"").digest())
QUICK = RpcLimits(timeout_s=120, requests_per_s=10_000, attempts_max=2, wait_first_s=0.001, wait_max_s=0.002)
EPOCH_5 = "B1MJukrtNDhujVkwT8kVEVpNckym36FWFZHE3QUu6Psm"


@pytest.fixture(scope="module")
def context() -> EpochContext:
    """A context of the real chain, with nothing open but parents."""
    return epoch_context_from_node(localnet_home(), "5")


Endpoint = Callable[..., RpcContextSource]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """Starts endpoints that end with the test."""
    with ExitStack() as running:

        def start(chain: RecordedChain | None = None, fault: Fault | None = None) -> RpcContextSource:
            return RpcContextSource(RpcClient(running.enter_context(rpc_server(chain, fault)).url, QUICK))

        yield start


def broken(handler: object, number: int) -> bool:
    """Fail whatever is asked."""
    send(handler, 503, b"")  # type: ignore[arg-type]
    return True


@pytest.fixture(scope="module")
def node() -> Iterator[OpenedNode]:
    """The real node."""
    with open_node(localnet_home()) as opened:
        yield opened


def first_shard(context: EpochContext, **changes: object) -> EpochContext:
    """Return a context with its first shard changed."""
    return replace(context, shards=(replace(context.shards[0], **changes), *context.shards[1:]))  # type: ignore[arg-type]


CHANGES: dict[str, Callable[[EpochContext], EpochContext]] = {
    "chain_id": lambda context: replace(context, chain_id="another"),
    "epoch_height": lambda context: replace(context, epoch_height=9),
    "epoch_id": lambda context: replace(context, epoch_id=OTHER_HASH),
    "sync_hash": lambda context: replace(context, sync_hash=OTHER_HASH),
    "protocol_version": lambda context: replace(context, protocol_version=75),
    "shard_uid of shard 0": lambda context: first_shard(context, shard_uid=ShardUId(7, 0)),
    "state_root of shard 0": lambda context: first_shard(context, state_root=OTHER_HASH),
    "flat_head_target of shard 0": lambda context: first_shard(context, flat_head_target=OTHER_HASH),
    "header of the sync block": lambda context: replace(context, block_headers=(b"\1", context.block_headers[1])),
    "header of the block before it": lambda context: replace(context, block_headers=(context.block_headers[0], b"\1")),
    "shard 3": lambda context: replace(context, shards=context.shards[:3]),
    "shard_layout": lambda context: replace(
        context, shard_layout=ShardLayout("V2", 0, shard_ids=(3, 1, 0, 2), boundary_accounts=("a", "b", "c"))
    ),
}


@pytest.mark.parametrize(("name", "change"), CHANGES.items(), ids=CHANGES.keys())
def test_every_field_is_compared(context: EpochContext, name: str, change: Callable[[EpochContext], EpochContext]) -> None:
    """The error names the field, both sources and what each says."""
    for left, right in ((change(context), context), (context, change(context))):
        with pytest.raises(ContextMismatchError) as caught:
            compare_contexts(left, "here", right, "there", of_given=False)
        error = caught.value
        assert error.field_name == name
        assert set(error.values) == {"here", "there"}
        assert error.values["here"] != error.values["there"]
        assert "here" in error.problem
        assert "there" in error.problem
        assert error.exit_code == 20


def test_parents_are_compared_where_both_are_known(context: EpochContext) -> None:
    """Not to know is no difference, nor is another version of the layout before, which may be gone."""
    one, other = (first_shard(context, parent_shard_uid=ShardUId(0, shard_id)) for shard_id in (8, 9))
    compare_contexts(one, "here", context, "there", of_given=False)
    compare_contexts(one, "here", first_shard(context, parent_shard_uid=ShardUId(3, 8)), "there", of_given=False)
    with pytest.raises(ContextMismatchError, match=r"parent_shard_uid of shard 0 is s8\.v0 in here and s9\.v0 in there"):
        compare_contexts(one, "here", other, "there", of_given=False)


def test_a_shard_layout_is_filled_in(context: EpochContext, node: OpenedNode) -> None:
    """A missing value is no difference; it is taken from a source that has it."""
    assert context.shard_layout is not None
    bare = GivenContextSource(replace(context, shard_layout=None), "file")
    assert agreed_epoch_context((bare,), "5").context.shard_layout is None
    assert agreed_epoch_context((bare, node), "5").context.shard_layout == context.shard_layout
    first = GivenContextSource(bare.context.only((0,)), "file")
    assert agreed_epoch_context((first, node), "5").context.shard_layout == context.shard_layout


def test_what_a_given_context_leaves_open_is_no_difference(context: EpochContext) -> None:
    """State roots, blocks and shards; but a difference in it is the user's to mend."""
    given = replace(first_shard(context, state_root=None, flat_head_target=None), block_headers=()).only((0, 2))
    compare_contexts(given, "file", context, "node", of_given=True)
    compare_contexts(context, "node", given, "file", of_given=True)
    with pytest.raises(InvalidInputError, match="epoch_height is 9 in file and 5 in node"):
        compare_contexts(replace(given, epoch_height=9), "file", context, "node", of_given=True)
    stranger = first_shard(given, shard_uid=ShardUId(0, 8))
    with pytest.raises(InvalidInputError, match="shard 8 is listed in file and not listed in node"):
        compare_contexts(stranger, "file", context, "node", of_given=True)


# node and JSON-RPC


def test_a_node_and_an_endpoint_that_agree(context: EpochContext, endpoint: Endpoint, node: OpenedNode) -> None:
    """It is the node's context."""
    agreed = agreed_epoch_context((node,), "5", (endpoint(),))
    assert (agreed.context, agreed.source_id) == (context, node.source_id)


def test_an_endpoint_that_contradicts_the_node_is_found(endpoint: Endpoint, node: OpenedNode) -> None:
    """By a word of its own, since what is hashed can't be changed."""
    rpc = endpoint(RecordedChain(epochs={EPOCH_5: {"epoch_height": 8}}))
    with pytest.raises(ContextMismatchError, match=r"epoch_height is 5 in node .* and 8 in JSON-RPC"):
        agreed_epoch_context((node,), EPOCH_5, (rpc,))


def test_an_endpoint_that_lies_is_never_left_out(endpoint: Endpoint, node: OpenedNode) -> None:
    """Though another one agrees."""
    liar = endpoint(RecordedChain(blocks={202: changed_block(202, lambda block: block["header"].update(height=7))}))
    with pytest.raises(IntegrityError, match="does not hash") as caught:
        agreed_epoch_context((node,), "5", (endpoint(), liar))
    assert liar.source_id in caught.value.where


def test_an_endpoint_of_another_chain_is_found_though_it_does_not_know_the_epoch(endpoint: Endpoint, node: OpenedNode) -> None:
    """As when the endpoint of a test network is given for a node of the main one; in either order."""
    other = endpoint(RecordedChain(final_height=150, chain_id="another"))
    with pytest.raises(ContextMismatchError, match=r"chain_id is test-chain-klplt in node .* and another in JSON-RPC"):
        agreed_epoch_context((node,), "6", (other,))
    with pytest.raises(ContextMismatchError, match="chain_id"):
        agreed_epoch_context((), "5", (other, endpoint()))


def test_latest_is_the_nodes(endpoint: Endpoint, node: OpenedNode) -> None:
    """An endpoint that lags behind has no objection."""
    agreed = agreed_epoch_context((node,), "latest", (endpoint(),))
    assert str(agreed.context.epoch_id) == LOCALNET_EPOCH_ID


def test_a_node_without_epochs_can_be_used_where_an_endpoint_knows(context: EpochContext, endpoint: Endpoint) -> None:
    """Its database has no epoch columns."""
    rpc = endpoint()
    with open_node(node_a()) as bare:
        agreed = agreed_epoch_context((bare,), "latest", (rpc,))
    assert (agreed.context, agreed.source_id) == (context, rpc.source_id)


def test_where_no_source_knows_each_says_why(endpoint: Endpoint) -> None:
    """With a remedy."""
    unknown = r"no source knows the epoch: .*the node does not know epoch 6.*not known yet"
    with open_node(node_a()) as bare, pytest.raises(EpochNotReadyError, match=unknown):
        agreed_epoch_context((bare,), "6", (endpoint(),))


# several endpoints


def test_endpoints_must_agree_with_each_other(endpoint: Endpoint) -> None:
    """Without any other source."""
    lying = RecordedChain(configs={EPOCH_5: {"protocol_version": 75}})
    with pytest.raises(ContextMismatchError, match=r"protocol_version is 74 in JSON-RPC .* and 75 in JSON-RPC"):
        agreed_epoch_context((), "5", (endpoint(), endpoint(lying)))


@pytest.mark.parametrize("order", [1, -1])
def test_an_endpoint_that_fails_is_left_out_and_named(context: EpochContext, endpoint: Endpoint, order: int) -> None:
    """While another one answers."""
    endpoints = (endpoint(fault=broken), endpoint())
    agreed = agreed_epoch_context((), "5", endpoints[::order])
    assert agreed.context == context
    (failure,) = agreed.unreachable
    assert endpoints[0].source_id in failure.where


def test_where_all_endpoints_fail_each_is_named(endpoint: Endpoint, node: OpenedNode) -> None:
    """Even though a node knows: the comparison was asked for."""
    endpoints = (endpoint(fault=broken), endpoint(fault=broken))
    with pytest.raises(SourceError, match="none of 2 endpoints") as caught:
        agreed_epoch_context((node,), "5", endpoints)
    assert all(failed.source_id in str(caught.value) for failed in endpoints)
    with pytest.raises(SourceError, match="HTTP 503"):
        agreed_epoch_context((node,), "5", endpoints[:1])


# a given context


def test_a_given_context_is_filled_in(context: EpochContext, endpoint: Endpoint, node: OpenedNode) -> None:
    """What a file can't say comes from the others."""
    bare = replace(first_shard(context, state_root=None, flat_head_target=None), block_headers=())
    for others, endpoints in (((node,), ()), ((), (endpoint(),))):
        agreed = agreed_epoch_context((GivenContextSource(bare, "file"), *others), "latest", endpoints)
        assert agreed.context == context
        assert agreed.source_id == "file"


def test_a_given_context_keeps_its_shards(context: EpochContext, node: OpenedNode) -> None:
    """Those that it lists."""
    agreed = agreed_epoch_context((GivenContextSource(context.only((1,)), "file"), node))
    assert [shard.shard_id for shard in agreed.context.shards] == [1]


@pytest.mark.parametrize("selector", ["6", LOCALNET_EPOCH_ID])
def test_a_given_context_is_the_epoch_that_is_meant(context: EpochContext, selector: str, node: OpenedNode) -> None:
    """Another one is not looked for elsewhere."""
    with pytest.raises(EpochNotReadyError, match="was asked for, the context is of epoch 5"):
        agreed_epoch_context((GivenContextSource(context, "file"), node), selector)


def test_a_given_context_checks_others_too(context: EpochContext) -> None:
    """In whichever order they are asked."""
    given = GivenContextSource(context, "file")
    assert given.check(context, "node") == context
    with pytest.raises(InvalidInputError, match="epoch_id"):
        given.check(replace(context, epoch_id=OTHER_HASH), "node")


def test_a_context_file_is_read(tmp_path: Path) -> None:
    """What is not there, too large or no context is the user's to mend."""
    assert read_context_file(node_a() / "context.json").context == context_file(node_a())
    (tmp_path / "large").write_bytes(b" " * (CONTEXT_BYTES_MAX + 1))
    for file in (tmp_path / "nowhere", tmp_path, tmp_path / "large"):
        with pytest.raises(InvalidInputError, match=str(file)):
            read_context_file(file)
