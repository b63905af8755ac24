"""Values of a genesis file's records, from JSON to the bytes that are in the state.

Source: nearcore core/primitives/src/{state_record,receipt}.rs, core/primitives/src/action/mod.rs, core/primitives-core/src/account.rs
(their serde and borsh forms).
Actions of kinds that are not listed here are refused by name. Nothing here knows of tries or files.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, Never

from schemas.errors import InvalidInputError, SourceError
from schemas.ids import ZERO_HASH, CryptoHash, base58_decode
from schemas.nearcore.access_key import AccessKey, FunctionCallLimits, GasKeyInfo, PermissionKind
from schemas.nearcore.account import (
    ACCOUNT_ID_BYTES_MAX,
    ACCOUNT_SENTINEL,
    NO_CONTRACT,
    Account,
    AccountContract,
    AccountVersion,
    ContractKind,
    is_account_id,
    local_contract,
)
from schemas.nearcore.borsh import BorshWriter

_KEY_TYPES: Final = {"ed25519": (0, 32), "secp256k1": (1, 64)}
# In receipts; of an ML-DSA-65 key a trie key has the hash alone.
_RECEIPT_KEY_TYPES: Final = {**_KEY_TYPES, "ml-dsa-65": (2, 1952)}
_SIGNATURE_TYPES: Final = {"ed25519": (0, 64), "secp256k1": (1, 65), "ml-dsa-65": (2, 3309)}
_LISTED_MAX: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class GenesisReceipt:
    """What making the state needs of a receipt."""

    kind: str
    """Name of the ReceiptEnum variant."""
    receiver_id: str
    receipt_id: CryptoHash
    input_data_ids: tuple[CryptoHash, ...]
    """Of receipts with actions."""
    encoded: bytes


class JsonFields:
    """Takes typed fields out of a record's JSON, naming the field in every complaint."""

    def __init__(self, document: object, where: str) -> None:
        """Wrap a JSON object.

        Raises:
            SourceError: it is no object.
        """
        self.where = where
        if not isinstance(document, dict):
            self.fail("a JSON object is expected")
        self._document: dict[str, Any] = document

    def fail(self, problem: str) -> Never:
        """Raise with the record's place."""
        raise SourceError(problem=problem, where=self.where)

    def has(self, name: str) -> bool:
        """Return whether a field is there and not null."""
        return self._document.get(name) is not None

    def value(self, name: str) -> Any:
        """Return a field as it is."""
        if name not in self._document:
            self.fail(f"field {name} is missing")
        return self._document[name]

    def text(self, name: str) -> str:
        """Return a text."""
        value = self.value(name)
        if not isinstance(value, str) or not _is_unicode(value):
            self.fail(f"field {name} must be text")
        return value

    def account_id(self, name: str) -> str:
        """Return an account id."""
        value = self.text(name)
        if not is_account_id(value):
            self.fail(f"field {name}: {value[: ACCOUNT_ID_BYTES_MAX + 1]!r} is no account id")
        return value

    def number(self, name: str, bits: int) -> int:
        """Return a whole number; large ones are text in NEAR's JSON."""
        value = self.value(name)
        if isinstance(value, str) and value.isdecimal() and len(value) <= 40:
            value = int(value)
        if isinstance(value, Decimal) and value == value.to_integral_value():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**bits:
            self.fail(f"field {name} must be a whole number of {bits} bits")
        return value

    def hash(self, name: str) -> CryptoHash:
        """Return a hash in base58."""
        try:
            return CryptoHash.from_base58(self.text(name))
        except InvalidInputError as error:
            self.fail(f"field {name}: {error.problem}")

    def data(self, name: str) -> bytes:
        """Return bytes in base64."""
        try:
            return base64.b64decode(self.text(name), validate=True)
        except (binascii.Error, ValueError) as error:
            self.fail(f"field {name} is not base64: {error}")

    def data_items(self) -> list[tuple[bytes, bytes]]:
        """Return all names and values, both bytes in base64."""
        return [(JsonFields({"key": name}, self.where).data("key"), self.data(name)) for name in self._document]

    def public_key(self, name: str) -> bytes:
        """Return a public key in borsh: its type and bytes."""
        return self._tagged(name, "public key", _KEY_TYPES)

    def receipt_public_key(self, name: str) -> bytes:
        """Return a public key in borsh as receipts have it, whole whatever its type is."""
        return self._tagged(name, "public key", _RECEIPT_KEY_TYPES)

    def signature(self, name: str) -> bytes:
        """Return a signature in borsh: its type and bytes."""
        return self._tagged(name, "signature", _SIGNATURE_TYPES)

    def _tagged(self, name: str, what: str, types: Mapping[str, tuple[int, int]]) -> bytes:
        prefix, _, encoded = self.text(name).rpartition(":")
        tag, length = types.get(prefix or "ed25519", (0, 0))
        try:
            data = base58_decode(encoded) if length and len(encoded) <= 2 * length else b""
        except InvalidInputError:
            data = b""
        if not length or len(data) != length:
            self.fail(f"field {name} is no {what} of the kinds {', '.join(types)}")
        return bytes([tag]) + data

    def items(self, name: str, length_max: int = _LISTED_MAX) -> list[Any]:
        """Return a list."""
        value = self.value(name)
        if not isinstance(value, list) or len(value) > length_max:
            self.fail(f"field {name} must be a list of at most {length_max}")
        return value

    def fields(self, name: str) -> JsonFields:
        """Return a nested object."""
        return JsonFields(self.value(name), f"{self.where}, {name}")

    def only_variant(self) -> tuple[str, Any]:
        """Return the one key and its value, as enums are written."""
        if len(self._document) != 1:
            self.fail("an object with one key is expected")
        return next(iter(self._document.items()))


def account_from_json(fields: JsonFields) -> Account:
    """Read an account; its storage usage is left at 0, since nearcore computes it again from the account's records.

    Raises:
        SourceError: a field is missing or of the wrong form.
    """
    version = fields.text("version") if fields.has("version") else "V1"
    has_global = fields.has("global_contract_hash") or fields.has("global_contract_account_id")
    is_uninitialized = version == "UNINITIALIZED"
    if (
        version not in ("V1", "V2", "UNINITIALIZED")
        or fields.has("permanent_storage_bytes")
        or fields.has("bootstrap_nonce") is not is_uninitialized
        or (version != "V2" and has_global)
    ):
        fields.fail(f"an account of version {version:.20} with these fields is not known")
    amount = fields.number("amount", 128)
    if amount == ACCOUNT_SENTINEL:
        fields.fail("field amount is the number that marks an account's later encodings")
    account = Account(AccountVersion(version.lower()), amount, fields.number("locked", 128), 0, _account_contract(fields))
    if not is_uninitialized:
        return account
    if account.locked or account.contract != NO_CONTRACT:
        fields.fail("an uninitialized account has neither a stake nor a contract")
    return replace(account, bootstrap_nonce=fields.number("bootstrap_nonce", 64))


def _account_contract(fields: JsonFields) -> AccountContract:
    code_hash = fields.hash("code_hash")
    given = (code_hash != ZERO_HASH) + fields.has("global_contract_hash") + fields.has("global_contract_account_id")
    if given > 1:
        fields.fail("an account has one contract at most")
    if fields.has("global_contract_hash"):
        return AccountContract(ContractKind.GLOBAL, fields.hash("global_contract_hash"))
    if fields.has("global_contract_account_id"):
        return AccountContract(ContractKind.GLOBAL_BY_ACCOUNT, account_id=fields.account_id("global_contract_account_id"))
    return local_contract(code_hash)


def access_key_from_json(fields: JsonFields) -> AccessKey:
    """Read an access key.

    Raises:
        SourceError: a field is missing or of the wrong form, or a permission that is not known.
    """
    nonce = fields.number("nonce", 64)
    permission = fields.value("permission")
    if permission == "FullAccess":
        return AccessKey(nonce, PermissionKind.FULL_ACCESS)
    kind, body = JsonFields(permission, fields.where).only_variant()
    if kind == "FunctionCall":
        return AccessKey(nonce, PermissionKind.FUNCTION_CALL, _limits(JsonFields(body, fields.where)))
    if kind == "GasKeyFullAccess":
        return AccessKey(nonce, PermissionKind.GAS_KEY_FULL_ACCESS, gas_key=_gas_key(JsonFields(body, fields.where)))
    if kind != "GasKeyFunctionCall":
        fields.fail(f"access keys with permission {kind:.40} are not known")
    if not isinstance(body, list) or len(body) != 2:
        fields.fail("a gas key that only calls functions is a pair: the gas key and its limits")
    gas_key, limits = (JsonFields(item, fields.where) for item in body)
    return AccessKey(nonce, PermissionKind.GAS_KEY_FUNCTION_CALL, _limits(limits), _gas_key(gas_key))


def _limits(call: JsonFields) -> FunctionCallLimits:
    return FunctionCallLimits(
        allowance=call.number("allowance", 128) if call.has("allowance") else None,
        # Free text: the first records of a chain hold receivers that are no account ids.
        receiver_id=call.text("receiver_id"),
        method_names=tuple(_text(name, call) for name in call.items("method_names")),
    )


def _gas_key(fields: JsonFields) -> GasKeyInfo:
    return GasKeyInfo(fields.number("balance", 128), fields.number("num_nonces", 16))


def received_data_from_json(fields: JsonFields) -> bytes:
    """Return a ReceivedData in borsh: an optional byte string."""
    writer = BorshWriter()
    return writer.option(fields.data("data") if fields.has("data") else None, writer.byte_vec).to_bytes()


def receipt_from_json(fields: JsonFields) -> GenesisReceipt:
    """Read a receipt, V0 or (with a priority) V1.

    Raises:
        SourceError: a field is missing or of the wrong form, or a kind of receipt or action that is not known.
    """
    writer = BorshWriter()
    if fields.has("priority"):
        writer.u8(1)
    receiver_id = fields.account_id("receiver_id")
    receipt_id = fields.hash("receipt_id")
    writer.byte_vec(fields.account_id("predecessor_id").encode()).byte_vec(receiver_id.encode()).fixed(receipt_id)
    kind, body = fields.fields("receipt").only_variant()
    if kind not in _RECEIPT_KINDS:
        fields.fail(f"receipts of kind {kind:.40} are not known in a genesis")
    writer.u8(_RECEIPT_KINDS.index(kind))
    content = JsonFields(body, f"{fields.where}, receipt {receipt_id} ({kind})")
    if kind in ("Action", "PromiseYield", "ActionV2", "PromiseYieldV2"):
        input_data_ids = _write_action_receipt(writer, content, has_refund_to=kind.endswith("V2"))
    elif kind == "GlobalContractDistribution":
        input_data_ids = ()
        _write_distribution(writer, content)
    else:
        input_data_ids = ()
        writer.fixed(content.hash("data_id")).option(content.data("data") if content.has("data") else None, writer.byte_vec)
    if fields.has("priority"):
        writer.u64(fields.number("priority", 64))
    return GenesisReceipt(kind, receiver_id, receipt_id, input_data_ids, writer.to_bytes())


_RECEIPT_KINDS: Final = ("Action", "Data", "PromiseYield", "PromiseResume", "GlobalContractDistribution", "ActionV2", "PromiseYieldV2")


def _write_action_receipt(writer: BorshWriter, content: JsonFields, *, has_refund_to: bool) -> tuple[CryptoHash, ...]:
    writer.byte_vec(content.account_id("signer_id").encode())
    if has_refund_to:
        writer.option(content.account_id("refund_to").encode() if content.has("refund_to") else None, writer.byte_vec)
    writer.fixed(content.receipt_public_key("signer_public_key")).u128(content.number("gas_price", 128))
    receivers = [JsonFields(item, f"{content.where}, output_data_receivers") for item in content.items("output_data_receivers")]
    _write_list(writer, receivers, lambda item: writer.fixed(item.hash("data_id")).byte_vec(item.account_id("receiver_id").encode()))
    input_data_ids = tuple(
        JsonFields({"input_data_ids": item}, content.where).hash("input_data_ids") for item in content.items("input_data_ids")
    )
    _write_list(writer, list(input_data_ids), writer.fixed)
    _write_list(writer, content.items("actions"), lambda action: _write_action(writer, action, content.where))
    return input_data_ids


def _write_distribution(writer: BorshWriter, content: JsonFields) -> None:
    version, body = content.only_variant()
    if version not in ("V1", "V2"):
        content.fail(f"version {version:.40} of this receipt is not known")
    fields = JsonFields(body, content.where)
    _write_contract_identifier(writer.u8(0 if version == "V1" else 1), fields.fields("id")).u64(fields.number("target_shard", 64))
    delivered = [JsonFields({"shard": shard}, fields.where).number("shard", 64) for shard in fields.items("already_delivered_shards")]
    _write_list(writer, delivered, writer.u64).byte_vec(fields.data("code"))
    if version == "V2":
        writer.u64(fields.number("nonce", 64))


def _write_contract_identifier(writer: BorshWriter, fields: JsonFields) -> BorshWriter:
    kind, _ = fields.only_variant()
    # The names of before 2025 and those of today.
    if kind in ("CodeHash", "hash"):
        return writer.u8(0).fixed(fields.hash(kind))
    if kind not in ("AccountId", "account_id"):
        fields.fail(f"global contracts named by {kind:.40} are not known")
    return writer.u8(1).byte_vec(fields.account_id(kind).encode())


def _write_delegate(writer: BorshWriter, fields: JsonFields) -> None:
    delegate = fields.fields("delegate_action")
    _write_delegated(writer, delegate, lambda: writer.u64(delegate.number("nonce", 64)))
    writer.fixed(fields.signature("signature"))


def _write_delegate_v2(writer: BorshWriter, fields: JsonFields) -> None:
    payload = fields.fields("delegate_action")
    version, body = payload.only_variant()
    if version != "V2":
        payload.fail(f"version {version:.40} of delegated actions is not known")
    delegate = JsonFields(body, payload.where)
    _write_delegated(writer.u8(0), delegate, lambda: _write_transaction_nonce(writer, delegate.fields("nonce")))
    writer.fixed(fields.signature("signature"))


def _write_delegated(writer: BorshWriter, delegate: JsonFields, write_nonce: Callable[[], object]) -> None:
    writer.byte_vec(delegate.account_id("sender_id").encode()).byte_vec(delegate.account_id("receiver_id").encode())
    actions = delegate.items("actions")
    named = (action if isinstance(action, dict) else {action} if isinstance(action, str) else () for action in actions)
    if not _DELEGATES.isdisjoint(name for names in named for name in names):
        delegate.fail("a delegated action delegates no further")
    _write_list(writer, actions, lambda action: _write_action(writer, action, delegate.where))
    write_nonce()
    writer.u64(delegate.number("max_block_height", 64)).fixed(delegate.receipt_public_key("public_key"))


_DELEGATES: Final = frozenset(("Delegate", "DelegateV2"))


def _write_transaction_nonce(writer: BorshWriter, fields: JsonFields) -> None:
    kind, body = fields.only_variant()
    nonce = JsonFields(body, fields.where)
    if kind == "Nonce":
        writer.u8(0).u64(nonce.number("nonce", 64))
    elif kind == "GasKeyNonce":
        writer.u8(1).u64(nonce.number("nonce", 64)).u16(nonce.number("nonce_index", 16))
    else:
        fields.fail(f"nonces of kind {kind:.40} are not known")


def _write_state_init(writer: BorshWriter, fields: JsonFields) -> None:
    version, body = fields.fields("state_init").only_variant()
    if version != "V1":
        fields.fail(f"version {version:.40} of a state init is not known")
    state_init = JsonFields(body, f"{fields.where}, state_init")
    _write_contract_identifier(writer.u8(0), state_init.fields("code"))
    # nearcore's map is sorted by its keys' bytes.
    entries = sorted(state_init.fields("data").data_items())
    _write_list(writer, entries, lambda entry: writer.byte_vec(entry[0]).byte_vec(entry[1]))
    writer.u128(fields.number("deposit", 128))


def _write_deploy_global(writer: BorshWriter, fields: JsonFields) -> None:
    mode = fields.text("deploy_mode")
    if mode not in _DEPLOY_MODES:
        fields.fail(f"the mode {mode[:40]!r} of a global contract is not known")
    writer.byte_vec(fields.data("code")).u8(_DEPLOY_MODES.index(mode))


_DEPLOY_MODES: Final = ("CodeHash", "AccountId")


def _write_action(writer: BorshWriter, action: object, where: str) -> None:
    # A variant without fields may be written as its bare name.
    kind, body = (action, {}) if isinstance(action, str) else JsonFields(action, where).only_variant()
    fields = JsonFields(body, f"{where}, action {kind:.40}")
    if kind not in _ACTIONS:
        fields.fail("actions of this kind are not known in a genesis")
    writer.u8(list(_ACTIONS).index(kind))
    _ACTIONS[kind](writer, fields)


# In the order of nearcore's enum, which is their borsh tag.
_ACTIONS: Final[dict[str, Callable[[BorshWriter, JsonFields], object]]] = {
    "CreateAccount": lambda writer, fields: None,
    "DeployContract": lambda writer, fields: writer.byte_vec(fields.data("code")),
    "FunctionCall": lambda writer, fields: (
        writer.byte_vec(fields.text("method_name").encode())
        .byte_vec(fields.data("args"))
        .u64(fields.number("gas", 64))
        .u128(fields.number("deposit", 128))
    ),
    "Transfer": lambda writer, fields: writer.u128(fields.number("deposit", 128)),
    "Stake": lambda writer, fields: writer.u128(fields.number("stake", 128)).fixed(fields.receipt_public_key("public_key")),
    "AddKey": lambda writer, fields: writer.fixed(fields.receipt_public_key("public_key")).fixed(
        access_key_from_json(fields.fields("access_key")).to_bytes()
    ),
    "DeleteKey": lambda writer, fields: writer.fixed(fields.receipt_public_key("public_key")),
    "DeleteAccount": lambda writer, fields: writer.byte_vec(fields.account_id("beneficiary_id").encode()),
    "Delegate": _write_delegate,
    "DeployGlobalContract": _write_deploy_global,
    "UseGlobalContract": lambda writer, fields: _write_contract_identifier(writer, fields.fields("contract_identifier")),
    "DeterministicStateInit": _write_state_init,
    "TransferToGasKey": lambda writer, fields: writer.fixed(fields.receipt_public_key("public_key")).u128(fields.number("deposit", 128)),
    "WithdrawFromGasKey": lambda writer, fields: writer.fixed(fields.receipt_public_key("public_key")).u128(fields.number("amount", 128)),
    "DelegateV2": _write_delegate_v2,
    "UniversalStateInit": lambda writer, fields: writer.byte_vec(fields.data("state_init")).u128(fields.number("deposit", 128)),
}


def _write_list(writer: BorshWriter, items: list[Any], write_item: Callable[[Any], object]) -> BorshWriter:
    writer.u32(len(items))
    for item in items:
        write_item(item)
    return writer


def _text(value: object, fields: JsonFields) -> str:
    if not isinstance(value, str) or not _is_unicode(value):
        fields.fail("a text is expected")
    return value


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone half of a surrogate pair, which JSON can name and UTF-8 can't write."""
    return re.search("[\ud800-\udfff]", text) is None
