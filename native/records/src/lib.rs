//! Records of the usual form, taken apart: accounts of versions 1 and 2, access keys of ed25519, contract data.
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

/// Largest amount in a column (schemas/dataset/decoded_record.py).
pub const AMOUNT_MAX: u128 = 10u128.pow(38) - 1;

/// Stands in later encodings where version 1 has its amount.
const ACCOUNT_SENTINEL: u128 = u128::MAX;
const VERSION_2: u8 = 0;

/// What a record of an account says.
pub struct Account<'a> {
    pub account_id: &'a str,
    /// 1 or 2.
    pub version: u8,
    pub amount: u128,
    pub locked: u128,
    pub contract: Contract<'a>,
    pub storage_usage: u64,
}

/// Where an account's contract code is; in the order of nearcore's enum, which is the borsh tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contract<'a> {
    None,
    Local(&'a [u8; 32]),
    Global(&'a [u8; 32]),
    GlobalByAccount(&'a str),
}

impl<'a> Contract<'a> {
    pub fn tag(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::Local(_) => 1,
            Self::Global(_) => 2,
            Self::GlobalByAccount(_) => 3,
        }
    }

    pub fn code_hash(&self) -> Option<&'a [u8; 32]> {
        if let Self::Local(hash) | Self::Global(hash) = self { Some(hash) } else { None }
    }

    pub fn account_id(&self) -> Option<&'a str> {
        if let Self::GlobalByAccount(account_id) = self { Some(account_id) } else { None }
    }
}

/// What a record of contract data says.
pub struct ContractData<'a> {
    pub account_id: &'a str,
    pub data_key: &'a [u8],
}

/// An account of version 1 or 2 whose amounts fit their columns.
pub fn account<'a>(key: &'a [u8], value: &'a [u8]) -> Option<Account<'a>> {
    let mut rest = value;
    let first = u128::from_le_bytes(*take(&mut rest)?);
    let (version, amount, locked, storage_usage, contract);
    if first == ACCOUNT_SENTINEL {
        (*take(&mut rest)? == [VERSION_2]).then_some(())?;
        version = 2;
        amount = u128::from_le_bytes(*take(&mut rest)?);
        locked = u128::from_le_bytes(*take(&mut rest)?);
        storage_usage = u64::from_le_bytes(*take(&mut rest)?);
        contract = match *take(&mut rest)? {
            [0] => Contract::None,
            [1] => Contract::Local(take(&mut rest)?),
            [2] => Contract::Global(take(&mut rest)?),
            [3] => Contract::GlobalByAccount(account_id(byte_vec(&mut rest)?)?),
            _ => return None,
        };
    } else {
        (version, amount) = (1, first);
        locked = u128::from_le_bytes(*take(&mut rest)?);
        let code_hash = take(&mut rest)?;
        contract = if *code_hash == [0; 32] { Contract::None } else { Contract::Local(code_hash) };
        storage_usage = u64::from_le_bytes(*take(&mut rest)?);
    }
    (rest.is_empty() && amount <= AMOUNT_MAX && locked <= AMOUNT_MAX).then_some(())?;
    Some(Account { account_id: account_id(key.get(1..)?)?, version, amount, locked, contract, storage_usage })
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

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

/// Bytes with their number before them.
fn byte_vec<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(*take(bytes)?) as usize;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::{AMOUNT_MAX, Contract, account, contract_data};

    fn encoded(amount: u128, code: u8) -> Vec<u8> {
        [&amount.to_le_bytes()[..], &[0; 16], &[code; 32], &7u64.to_le_bytes()].concat()
    }

    #[test]
    fn an_account_is_taken_apart() {
        let value = encoded(AMOUNT_MAX, 0);
        let found = account(b"\0alice.near", &value).unwrap();
        assert_eq!((found.account_id, found.amount, found.storage_usage), ("alice.near", AMOUNT_MAX, 7));
        assert_eq!((found.version, found.contract), (1, Contract::None));
        assert_eq!(account(b"\0a", &encoded(1, 9)).unwrap().contract, Contract::Local(&[9; 32]));
    }

    #[test]
    fn contracts_of_version_2_are_taken_apart() {
        let head = [&[255; 16][..], b"\0", &5u128.to_le_bytes(), &6u128.to_le_bytes(), &7u64.to_le_bytes()].concat();
        let hashes = [&[9; 32][..], b""].concat();
        for (tail, wanted) in [
            (b"\0".to_vec(), Contract::None),
            ([b"\x01", &hashes[..]].concat(), Contract::Local(&[9; 32])),
            ([b"\x02", &hashes[..]].concat(), Contract::Global(&[9; 32])),
            (b"\x03\x01\0\0\0a".to_vec(), Contract::GlobalByAccount("a")),
        ] {
            let value = [&head[..], &tail].concat();
            let found = account(b"\0bob", &value).unwrap();
            assert_eq!((found.version, found.amount, found.locked, found.storage_usage, found.contract), (2, 5, 6, 7, wanted));
            assert!(account(b"\0bob", &value[..value.len() - 1]).is_none());
            assert!(account(b"\0bob", &[&value[..], b"\0"].concat()).is_none());
        }
        assert!(account(b"\0bob", &[&head[..], b"\x04"].concat()).is_none());
        assert!(account(b"\0bob", &[&head[..], b"\x03\0\0\0\0"].concat()).is_none());
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
