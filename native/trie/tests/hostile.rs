//! Nothing that comes from outside makes the crate panic, hang or allocate past its limits.

use proptest::collection::vec;
use proptest::prelude::*;
use statecast_trie::{ErrorKind, Hash, TrieError, ValueSource, apply, assemble, build, merge, seal, sha256, structure, validate};

fn encode(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for entry in entries {
        out.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        out.extend_from_slice(entry);
    }
    out
}

fn edges() -> [Vec<u8>; 2] {
    let keys: Vec<Vec<u8>> = (0..40u8).map(|at| vec![at / 7, at % 7 * 16, at]).collect();
    let edge = |keys: &[Vec<u8>], left: Option<&Vec<u8>>, right: Option<&Vec<u8>>| {
        let rows = keys.iter().map(|key| (key.as_slice(), 3, ValueSource::Inlined(&key[..3])));
        build(rows, keys.len(), std::iter::empty(), left.map(Vec::as_slice), right.map(Vec::as_slice), false, &[]).expect("in order").edge
    };
    [edge(&keys[..17], None, Some(&keys[17])), edge(&keys[17..], Some(&keys[16]), None)]
}

/// One valid part of a few records, and its root.
fn part() -> (Vec<u8>, Hash) {
    let keys: Vec<Vec<u8>> = (0..30u8).map(|at| vec![at / 5, at]).collect();
    let rows = keys.iter().map(|key| (key.as_slice(), 2, ValueSource::Inlined(key)));
    let built = build(rows, keys.len(), std::iter::empty(), None, None, true, &[]).expect("in order");
    (built.interior.expect("asked for"), seal(&[&built.edge]).expect("whole").state_root)
}

fn mutate(bytes: &mut Vec<u8>, changes: &[(prop::sample::Index, u8)], cut: Option<prop::sample::Index>) {
    for (at, byte) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len() + 1));
    }
}

/// A node's bytes around given references.
fn branch(children: &[Hash], memory_usage: u64) -> Vec<u8> {
    let mut out = vec![1];
    out.extend_from_slice(&((1u32 << children.len()) as u16).wrapping_sub(1).to_le_bytes());
    children.iter().for_each(|child| out.extend_from_slice(child));
    out.extend_from_slice(&memory_usage.to_le_bytes());
    out
}

fn leaf(encoded: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
    out.extend_from_slice(encoded);
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(&sha256(value));
    out.extend_from_slice(&150u64.to_le_bytes());
    out
}

fn extension(encoded: &[u8], child: &Hash) -> Vec<u8> {
    let mut out = vec![3];
    out.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
    out.extend_from_slice(encoded);
    out.extend_from_slice(child);
    out.extend_from_slice(&150u64.to_le_bytes());
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Changed edges merge, or are refused.
    #[test]
    fn changed_edges(changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<Option<prop::sample::Index>>(), which in 0..2usize) {
        let mut edges = edges();
        mutate(&mut edges[which], &changes, cut);
        let _ = merge(&edges[0], &edges[1]);
        let _ = seal(&[&edges[0], &edges[1]]);
        let _ = seal(&[&edges[which]]);
    }

    /// Changed parts are refused, as every byte of a part is under a hash.
    #[test]
    fn changed_parts(changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<Option<prop::sample::Index>>(), id in 0..3u64) {
        let (valid, root) = part();
        let mut changed = valid.clone();
        mutate(&mut changed, &changes, cut);
        let _ = assemble(Some(&changed), &[b"node"]);
        let verdict = validate(&changed, &root, id, 3);
        prop_assert!(verdict.is_err());
        // Applying walks in another order, so of two missing entries it may name the other one.
        let kind = |error: Option<TrieError>| error.map(|error| error.kind);
        prop_assert_eq!(kind(apply(&changed, &root, id, 3).err()), kind(verdict.err()));
        prop_assert_eq!(validate(&changed, &root, 0, 1).is_ok(), changed == valid);
    }

    /// Any bytes under any root: nodes that were never made by a trie are walked or refused.
    #[test]
    fn made_up_nodes(entries in vec(vec(any::<u8>(), 0..60), 0..6), id in 0..4u64) {
        let mut entries = entries;
        for at in 1..entries.len() {
            // Each entry is made to refer to the one before it, as a node of some kind.
            let child = sha256(&entries[at - 1]);
            let seed = entries[at].first().copied().unwrap_or(0);
            entries[at] = match seed % 3 {
                0 => branch(&vec![child; usize::from(seed) % 16], u64::from(seed) << (seed % 64)),
                1 => extension(&entries[at], &child),
                _ => leaf(&entries[at], &entries[at - 1].clone()),
            };
        }
        let root = entries.last().map_or([0; 32], |entry| sha256(entry));
        let _ = validate(&encode(&entries), &root, id, 4);
        let _ = apply(&encode(&entries), &root, id, 4);
    }
}

/// A few kilobytes that unfold to 16^40 nodes are refused at once.
#[test]
fn shared_subtrees_do_not_unfold() {
    let mut entries = vec![b"v".to_vec(), leaf(&[0x20], b"v")];
    for _ in 0..40 {
        let child = sha256(entries.last().expect("not empty"));
        entries.push(branch(&[child; 16], u64::MAX));
    }
    let root = sha256(entries.last().expect("not empty"));
    assert_eq!(validate(&encode(&entries), &root, 0, 1).map_err(|error| error.kind), Err(ErrorKind::PartLimit));
    // On the way to a boundary the memory usage does not add up, before any subtree is walked.
    assert_eq!(validate(&encode(&entries), &root, 1, 3).map_err(|error| error.kind), Err(ErrorKind::MalformedNode));
}

/// Equal subtrees that unfold to less than the limit are walked, and counted as a tree.
#[test]
fn shared_subtrees_below_the_limit_are_valid() {
    let mut entries = vec![b"v".to_vec(), leaf(&[0x20], b"v")];
    for _ in 0..4 {
        let child = sha256(entries.last().expect("not empty"));
        entries.push(branch(&[child; 16], u64::MAX));
    }
    let root = sha256(entries.last().expect("not empty"));
    assert_eq!(validate(&encode(&entries), &root, 0, 1), Ok(()));
    assert_eq!(apply(&encode(&entries), &root, 0, 1).map(|applied| applied.records.len()), Ok(16usize.pow(4)));
}

/// Equal subtrees that unfold to more than the state root has for the part are refused before a record is made, and so are those
/// under a root that claims whatever they unfold to.
#[test]
fn shared_subtrees_do_not_unfold_past_their_share() {
    let value = [7; 3900];
    for memory_usage in [1 << 20, 16u64.pow(6) * 4002 + 50 * (16u64.pow(6) - 1) / 15, u64::MAX] {
        let mut entries = vec![value.to_vec(), leaf(&[0x20], &value)];
        for _ in 0..6 {
            let child = sha256(entries.last().expect("not empty"));
            entries.push(branch(&[child; 16], memory_usage));
        }
        let root = sha256(entries.last().expect("not empty"));
        assert_eq!(apply(&encode(&entries), &root, 0, 1).map(|_| ()).map_err(|error| error.kind), Err(ErrorKind::PartLimit));
        assert_eq!(validate(&encode(&entries), &root, 0, 1).map_err(|error| error.kind), Err(ErrorKind::PartLimit));
    }
}

/// A chain of extensions without nibbles ends in an error, not in an endless trail.
#[test]
fn chains_without_nibbles_are_limited() {
    let mut entries = vec![b"v".to_vec(), leaf(&[0x20], b"v")];
    for _ in 0..6000 {
        let child = sha256(entries.last().expect("not empty"));
        entries.push(extension(&[0x00], &child));
    }
    let root = sha256(entries.last().expect("not empty"));
    assert_eq!(apply(&encode(&entries), &root, 0, 1).map(|_| ()).map_err(|error| error.kind), Err(ErrorKind::PartLimit));
    assert_eq!(validate(&encode(&entries), &root, 1, 2).map_err(|error| error.kind), Err(ErrorKind::PartLimit));
}

/// Counts that promise more than there is are refused before anything is allocated for them.
#[test]
fn counts_are_not_believed() {
    assert_eq!(validate(b"\0\xff\xff\xff\xff", &[1; 32], 0, 1).map_err(|error| error.kind), Err(ErrorKind::MalformedPart));
    assert_eq!(assemble(Some(b"\0\x01\0\0\0\xff\xff\xff\xff"), &[]).map_err(|error| error.kind), Err(ErrorKind::MalformedPart));
    let mut edge = edges()[0].clone();
    edge.truncate(20);
    edge.extend_from_slice(&[0xff; 40]);
    assert_eq!(merge(&edge, &edges()[1]).map_err(|error| error.kind), Err(ErrorKind::MalformedNode));
}

/// Keys out of order, doubled, outside their neighbours or too long are refused.
#[test]
fn key_order_is_checked() {
    let refused = |keys: &[&[u8]], left: Option<&[u8]>, right: Option<&[u8]>| {
        structure(keys.iter().map(|key| (*key, 1)), keys.len(), left, right).map(|_| ()).map_err(|error| error.kind)
    };
    assert_eq!(refused(&[b"a", b"b"], Some(b""), Some(b"ba")), Ok(()));
    assert_eq!(refused(&[b"b", b"a"], None, None), Err(ErrorKind::RecordOrder));
    assert_eq!(refused(&[b"a", b"a"], None, None), Err(ErrorKind::RecordOrder));
    assert_eq!(refused(&[b"aa", b"a"], None, None), Err(ErrorKind::RecordOrder));
    assert_eq!(refused(&[b"a"], Some(b"a"), None), Err(ErrorKind::RecordOrder));
    assert_eq!(refused(&[b"a"], None, Some(b"a")), Err(ErrorKind::RecordOrder));
    assert_eq!(refused(&[&[0; 2305]], None, None), Err(ErrorKind::PartLimit));
    assert_eq!(refused(&[&[0; 2304]], None, None), Ok(()));
    assert_eq!(refused(&[], None, None), Err(ErrorKind::Assertion));
}

/// Values are held to what their records say of them.
#[test]
fn values_are_checked() {
    let value = vec![7u8; 5000];
    let hash = sha256(&value);
    let verdict = |source: ValueSource<'_>, length: u32, values: &[(Hash, Vec<u8>)]| {
        let values = values.iter().map(|(hash, value)| (hash, value.as_slice()));
        let rows = [(b"key".as_slice(), length, source)].into_iter();
        build(rows, 1, values, None, None, true, &[]).map(|built| built.hashed_bytes).map_err(|error| error.kind)
    };
    let mismatch = Err(ErrorKind::ValueMismatch);
    assert!(verdict(ValueSource::Referenced(&hash), 5000, &[(hash, value.clone())]).is_ok_and(|bytes| bytes > 5000));
    assert_eq!(verdict(ValueSource::Referenced(&hash), 5000, &[]), mismatch);
    assert_eq!(verdict(ValueSource::Referenced(&hash), 4999, &[(hash, value.clone())]), mismatch);
    assert_eq!(verdict(ValueSource::Referenced(&hash), 5000, &[(hash, vec![8; 5000])]), mismatch);
    assert_eq!(verdict(ValueSource::Inlined(b"abc"), 4, &[]), mismatch);
    assert_eq!(verdict(ValueSource::Unclear, 0, &[]), mismatch);
    // What no record refers to is ignored.
    assert!(verdict(ValueSource::Inlined(b"abc"), 3, &[(hash, vec![0])]).is_ok());
}
