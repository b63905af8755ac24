//! Access keys of ed25519 with full access or limited to function calls.

use crate::{AMOUNT_MAX, account_id, byte_vec, take};

/// The kind's first byte, and what stands between the account id and the public key.
const SEPARATOR: u8 = 2;
const ED25519: u8 = 0;
const FUNCTION_CALLS: u8 = 0;
const FULL_ACCESS: u8 = 1;

/// What a record of an access key says.
pub struct AccessKey<'a> {
    pub account_id: &'a str,
    pub public_key: &'a [u8; 32],
    pub nonce: u64,
    /// `None` for full access.
    pub calls: Option<FunctionCalls<'a>>,
}

/// Limits of a key that may only call functions.
pub struct FunctionCalls<'a> {
    /// `None` where it has no limit.
    pub allowance: Option<u128>,
    pub receiver_id: &'a str,
    names: &'a [u8],
}

impl<'a> FunctionCalls<'a> {
    /// The methods that may be called, in their order; none for any.
    pub fn method_names(&self) -> impl Iterator<Item = &'a str> {
        let mut rest = self.names;
        std::iter::from_fn(move || text(&mut rest))
    }
}

/// An access key whose allowance fits its column.
pub fn access_key<'a>(key: &'a [u8], value: &'a [u8]) -> Option<AccessKey<'a>> {
    let rest = key.get(1..)?;
    let end = rest.iter().position(|&byte| byte == SEPARATOR)?;
    let (&kind, public_key) = rest[end + 1..].split_first()?;
    (kind == ED25519).then_some(())?;
    let mut value = value;
    let nonce = u64::from_le_bytes(*take(&mut value)?);
    let calls = match *take(&mut value)? {
        [FULL_ACCESS] => None,
        [FUNCTION_CALLS] => Some(function_calls(&mut value)?),
        _ => return None,
    };
    value.is_empty().then_some(())?;
    Some(AccessKey { account_id: account_id(&rest[..end])?, public_key: public_key.try_into().ok()?, nonce, calls })
}

fn function_calls<'a>(value: &mut &'a [u8]) -> Option<FunctionCalls<'a>> {
    let allowance = match *take(value)? {
        [0] => None,
        [1] => Some(u128::from_le_bytes(*take(value)?)).filter(|&amount| amount <= AMOUNT_MAX).map(Some)?,
        _ => return None,
    };
    let receiver_id = text(value)?;
    let count = u32::from_le_bytes(*take(value)?);
    let mut rest = *value;
    for _ in 0..count {
        text(&mut rest)?;
    }
    let names = &value[..value.len() - rest.len()];
    *value = rest;
    Some(FunctionCalls { allowance, receiver_id, names })
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(byte_vec(bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use super::access_key;

    fn key() -> Vec<u8> {
        [&b"\x02bob\x02\x00"[..], &[2; 32]].concat()
    }

    fn limited() -> Vec<u8> {
        [&[0; 8][..], b"\x00\x01", &5u128.to_le_bytes(), b"\x04\0\0\0here\x02\0\0\0\x01\0\0\0a\0\0\0\0"].concat()
    }

    #[test]
    fn both_permissions_are_taken_apart() {
        let (key, value) = (key(), [&9u64.to_le_bytes()[..], b"\x01"].concat());
        let full = access_key(&key, &value).unwrap();
        assert_eq!((full.account_id, full.public_key, full.nonce), ("bob", &[2; 32], 9));
        assert!(full.calls.is_none());
        let value = limited();
        let calls = access_key(&key, &value).unwrap().calls.unwrap();
        assert_eq!((calls.allowance, calls.receiver_id), (Some(5), "here"));
        assert_eq!(calls.method_names().collect::<Vec<_>>(), ["a", ""]);
    }

    #[test]
    fn a_value_that_is_cut_or_grown_is_left() {
        let (key, value) = (key(), limited());
        for length in 0..value.len() {
            assert!(access_key(&key, &value[..length]).is_none(), "{length}");
        }
        assert!(access_key(&key, &[&value[..], b"\0"].concat()).is_none());
        assert!(access_key(&key[..key.len() - 1], &value).is_none());
        assert!(access_key(&[&key[..], b"\0\0"].concat(), &value).is_none());
    }
}
