//! Records of the usual form, taken apart: accounts of version 1, access keys of ed25519, contract data.
//!
//! Whatever is wrong or rare about a record gives `None`: `schemas/dataset/decoded_record.py` decodes every record, and what is decoded here
//! is the same. Source of the layouts: nearcore core/primitives-core/src/{account,trie_key}.rs.

#![forbid(unsafe_code)]

mod access_key;
mod base58;

pub use access_key::{AccessKey, FunctionCalls, access_key};
pub use base58::{BASE58_TEXT_MAX, base58};

/// Longest account id (schemas/nearcore/account.py).
const ACCOUNT_ID_BYTES_MAX: usize = 64;

/// Bytes of an account of version 1.
const ACCOUNT_V1_BYTES: usize = 72;

/// Largest amount in a column (schemas/dataset/decoded_record.py). What stands in later encodings in place of an amount is larger.
pub const AMOUNT_MAX: u128 = 10u128.pow(38) - 1;

/// What a record of an account says.
pub struct Account<'a> {
    pub account_id: &'a str,
    pub amount: u128,
    pub locked: u128,
    pub code_hash: Option<&'a [u8; 32]>,
    pub storage_usage: u64,
}

/// What a record of contract data says.
pub struct ContractData<'a> {
    pub account_id: &'a str,
    pub data_key: &'a [u8],
}

/// An account of version 1 whose amounts fit their columns.
pub fn account<'a>(key: &'a [u8], value: &'a [u8]) -> Option<Account<'a>> {
    let value: &[u8; ACCOUNT_V1_BYTES] = value.try_into().ok()?;
    let (amount, rest) = value.split_first_chunk::<16>()?;
    let (locked, rest) = rest.split_first_chunk::<16>()?;
    let (code_hash, rest) = rest.split_first_chunk::<32>()?;
    let (amount, locked) = (u128::from_le_bytes(*amount), u128::from_le_bytes(*locked));
    (amount <= AMOUNT_MAX && locked <= AMOUNT_MAX).then_some(())?;
    Some(Account {
        account_id: account_id(key.get(1..)?)?,
        amount,
        locked,
        code_hash: (*code_hash != [0; 32]).then_some(code_hash),
        storage_usage: u64::from_le_bytes(rest.try_into().ok()?),
    })
}

/// Contract data, whatever its value.
pub fn contract_data(key: &[u8]) -> Option<ContractData<'_>> {
    let rest = key.get(1..)?;
    let end = rest.iter().position(|&byte| byte == b',')?;
    Some(ContractData { account_id: account_id(&rest[..end])?, data_key: &rest[end + 1..] })
}

/// The text of an account id: ASCII within its limits.
fn account_id(bytes: &[u8]) -> Option<&str> {
    (!bytes.is_empty() && bytes.len() <= ACCOUNT_ID_BYTES_MAX && bytes.is_ascii()).then_some(())?;
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::{AMOUNT_MAX, account, contract_data};

    fn encoded(amount: u128, code: u8) -> Vec<u8> {
        [&amount.to_le_bytes()[..], &[0; 16], &[code; 32], &7u64.to_le_bytes()].concat()
    }

    #[test]
    fn an_account_is_taken_apart() {
        let value = encoded(AMOUNT_MAX, 0);
        let found = account(b"\0alice.near", &value).unwrap();
        assert_eq!((found.account_id, found.amount, found.storage_usage, found.code_hash), ("alice.near", AMOUNT_MAX, 7, None));
        assert_eq!(account(b"\0a", &encoded(1, 9)).unwrap().code_hash, Some(&[9; 32]));
    }

    #[test]
    fn what_is_not_of_the_usual_form_is_left() {
        assert!(account(b"\0alice.near", &encoded(AMOUNT_MAX + 1, 0)).is_none());
        assert!(account(b"\0", &encoded(1, 0)).is_none());
        assert!(account(b"\0\xc3\xa4", &encoded(1, 0)).is_none());
        assert!(account(b"\0a", &encoded(1, 0)[1..]).is_none());
        assert!(account(&[b'a'; 66], &encoded(1, 0)).is_none());
        assert!(contract_data(b"\x09alice.near").is_none());
        assert!(contract_data(b"\x09,key").is_none());
    }

    #[test]
    fn a_data_key_may_have_a_comma() {
        let found = contract_data(b"\x09alice.near,a,b").unwrap();
        assert_eq!((found.account_id, found.data_key), ("alice.near", &b"a,b"[..]));
    }
}
