//! Keys as nibbles, high nibble first.

/// Nibble `at` of a key.
#[inline]
pub(crate) fn nibble(key: &[u8], at: usize) -> u8 {
    let byte = key[at / 2];
    if at.is_multiple_of(2) { byte >> 4 } else { byte & 15 }
}

/// Count of bytes that two slices share at their beginning.
#[inline]
fn common_bytes(left: &[u8], right: &[u8]) -> usize {
    let end = left.len().min(right.len());
    let mut at = 0;
    while at + 8 <= end {
        let a = u64::from_le_bytes(left[at..at + 8].try_into().expect("eight bytes"));
        let b = u64::from_le_bytes(right[at..at + 8].try_into().expect("eight bytes"));
        if a != b {
            return at + ((a ^ b).trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while at < end && left[at] == right[at] {
        at += 1;
    }
    at
}

/// Length of the longest common prefix in nibbles, and whether `left < right`.
#[inline]
pub(crate) fn lcp_ascending(left: &[u8], right: &[u8]) -> (usize, bool) {
    let bytes = common_bytes(left, right);
    match (left.get(bytes), right.get(bytes)) {
        (Some(a), Some(b)) => (2 * bytes + usize::from((a ^ b) < 16), a < b),
        (None, Some(_)) => (2 * bytes, true),
        _ => (2 * bytes, false),
    }
}

/// Append the encoded form of the nibbles `from..to` of a key.
#[inline]
pub(crate) fn push_encoded_key(out: &mut Vec<u8>, key: &[u8], from: usize, to: usize, leaf: bool) {
    let flag = if leaf { 0x20 } else { 0 };
    let mut at = from;
    if (to - from) % 2 == 1 {
        out.push(flag | 0x10 | nibble(key, at));
        at += 1;
    } else {
        out.push(flag);
    }
    if at.is_multiple_of(2) {
        out.extend_from_slice(&key[at / 2..to / 2]);
    } else {
        // The pairs lie across byte borders.
        out.extend((at..to).step_by(2).map(|i| (key[i / 2] << 4) | (key[i / 2 + 1] >> 4)));
    }
}

/// Bytes of the encoded form of a count of nibbles.
#[inline]
pub(crate) fn encoded_key_bytes(count: usize) -> usize {
    count / 2 + 1
}

/// Expand a key, or its first `count` nibbles, to one nibble a byte.
pub(crate) fn unpack(key: &[u8], count: usize) -> Vec<u8> {
    (0..count).map(|at| nibble(key, at)).collect()
}

/// Join an even count of nibbles to bytes; an odd last one stands alone in the high half.
pub(crate) fn pack(nibbles: &[u8]) -> Vec<u8> {
    nibbles.chunks(2).map(|pair| (pair[0] << 4) | pair.get(1).copied().unwrap_or(0)).collect()
}

/// Whether a key begins with a prefix of one nibble a byte.
pub(crate) fn starts_with(key: &[u8], prefix: &[u8]) -> bool {
    prefix.len() <= 2 * key.len() && prefix.iter().enumerate().all(|(at, &expected)| nibble(key, at) == expected)
}
