//! Base58 of 32 bytes.
//!
//! The number's eight digits to the base 2^32 are turned into nine to the base 58^5 by a table of what each is worth, with no division of
//! long numbers; each of those is five base58 digits.

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const GROUP: u64 = 58u64.pow(5);
const GROUPS: usize = 9;
const DIGITS: usize = 5 * GROUPS;
const LIMBS: usize = 8;

/// Longest text of 32 bytes.
pub const BASE58_TEXT_MAX: usize = 44;

/// What a limb's one is worth, by limb, the highest first; digits to the base 58^5, the highest first.
const WORTH: [[u64; GROUPS]; LIMBS] = {
    let mut worth = [[0; GROUPS]; LIMBS];
    worth[LIMBS - 1][GROUPS - 1] = 1;
    let mut limb = LIMBS - 1;
    while limb > 0 {
        let (mut carry, mut group) = (0u64, GROUPS);
        while group > 0 {
            group -= 1;
            // Below 2^62: a digit is below 2^30, and so is what is carried.
            let sum = (worth[limb][group] << 32) + carry;
            worth[limb - 1][group] = sum % GROUP;
            carry = sum / GROUP;
        }
        limb -= 1;
    }
    worth
};

/// Append the text to a string.
pub fn base58(bytes: &[u8; 32], text: &mut String) {
    let mut groups = [0u64; GROUPS];
    for (limb, (chunk, worth)) in bytes.as_chunks::<4>().0.iter().zip(&WORTH).enumerate() {
        let digit = u64::from(u32::from_be_bytes(*chunk));
        for (group, worth) in groups.iter_mut().zip(worth) {
            *group += digit * worth;
        }
        // Four products of 2^62 each fit in 64 bits with what was carried before, eight do not.
        if limb == LIMBS / 2 - 1 || limb == LIMBS - 1 {
            carry(&mut groups);
        }
    }
    // Behind as many "1" as there may be leading zero bytes.
    let mut characters = [ALPHABET[0]; 32 + DIGITS];
    let digits = &mut characters[32..];
    for (group, digits) in groups.into_iter().zip(digits.as_chunks_mut::<5>().0) {
        let mut rest = group as u32;
        for digit in digits.iter_mut().rev() {
            *digit = (rest % 58) as u8;
            rest /= 58;
        }
    }
    // A leading zero byte is one leading "1"; zero digits beyond those are not written.
    let zero_bytes = bytes.iter().take_while(|&&byte| byte == 0).count();
    let zero_digits = digits.iter().take_while(|&&digit| digit == 0).count();
    digits.iter_mut().for_each(|digit| *digit = ALPHABET[usize::from(*digit)]);
    text.push_str(std::str::from_utf8(&characters[32 + zero_digits - zero_bytes..]).expect("the alphabet is ASCII"));
}

fn carry(groups: &mut [u64; GROUPS]) {
    for group in (1..GROUPS).rev() {
        groups[group - 1] += groups[group] / GROUP;
        groups[group] %= GROUP;
    }
}

#[cfg(test)]
mod tests {
    use super::base58;

    fn text(bytes: [u8; 32]) -> String {
        let mut text = String::new();
        base58(&bytes, &mut text);
        text
    }

    /// The plain way: the number is divided by 58 again and again.
    fn divided(bytes: [u8; 32]) -> String {
        let mut digits = Vec::new();
        let mut rest = bytes.to_vec();
        while rest.iter().any(|&byte| byte != 0) {
            let mut remainder = 0;
            for byte in &mut rest {
                let dividend = remainder * 256 + u32::from(*byte);
                *byte = (dividend / 58) as u8;
                remainder = dividend % 58;
            }
            digits.push(super::ALPHABET[remainder as usize]);
        }
        digits.extend(bytes.iter().take_while(|&&byte| byte == 0).map(|_| b'1'));
        digits.reverse();
        String::from_utf8(digits).unwrap()
    }

    #[test]
    fn any_number_is_what_dividing_gives() {
        let mut state = 7u64;
        for round in 0..2000 {
            let mut bytes = [0; 32];
            for byte in &mut bytes[round % 33..] {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *byte = (state >> 56) as u8;
            }
            assert_eq!(text(bytes), divided(bytes));
        }
    }

    #[test]
    fn the_smallest_and_the_largest() {
        assert_eq!(text([0; 32]), "1".repeat(32));
        assert_eq!(text([255; 32]), divided([255; 32]));
        assert_eq!(text([255; 32]).len(), super::BASE58_TEXT_MAX);
    }
}
