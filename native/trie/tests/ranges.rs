//! However a shard is cut into ranges, the root, the memory usage and the parts are the same.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use statecast_trie::{
    Build, Hash, Sealed, ValueSource, apply, assemble, build, decode_partial_state, merge, seal, sha256, structure, validate,
};

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Keys out of few bytes, so that many are prefixes of others and many paths are long; the empty key and empty values too.
fn records() -> impl Strategy<Value = Records> {
    let byte = prop_oneof![Just(0x00u8), Just(0x01), Just(0x10), Just(0x11), Just(0xff), any::<u8>()];
    let value = prop_oneof![vec(any::<u8>(), 0..4), vec(any::<u8>(), 0..80)];
    btree_map(vec(byte, 0..7), value, 1..60).prop_map(|map: BTreeMap<_, _>| map.into_iter().collect())
}

fn cut(records: &Records, cuts: &[prop::sample::Index]) -> Vec<std::ops::Range<usize>> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(records.len())).chain([0, records.len()]).collect();
    ends.sort_unstable();
    ends.dedup();
    ends.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

fn neighbours<'a>(records: &'a Records, range: &std::ops::Range<usize>) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
    let left = range.start.checked_sub(1).map(|at| records[at].0.as_slice());
    (left, records.get(range.end).map(|(key, _)| key.as_slice()))
}

fn build_range(records: &Records, range: &std::ops::Range<usize>, keep_interior: bool) -> Build {
    let (left, right) = neighbours(records, range);
    let rows = records[range.clone()].iter().map(|(key, value)| (key.as_slice(), value.len() as u32, ValueSource::Inlined(value)));
    build(rows, range.len(), std::iter::empty(), left, right, keep_interior, &[]).expect("records are in order")
}

fn structure_range(records: &Records, range: &std::ops::Range<usize>) -> (Vec<u8>, Vec<u64>) {
    let (left, right) = neighbours(records, range);
    let rows = records[range.clone()].iter().map(|(key, value)| (key.as_slice(), value.len() as u32));
    let found = structure(rows, range.len(), left, right).expect("records are in order");
    (found.edge, found.charges)
}

fn seal_all(edges: &[Vec<u8>]) -> Sealed {
    seal(&edges.iter().map(Vec::as_slice).collect::<Vec<_>>()).expect("edges are adjacent")
}

/// Charges of all records from the structure of ranges, and the memory usage of the root.
fn charges_of(records: &Records, ranges: &[std::ops::Range<usize>]) -> (Vec<u64>, u64) {
    let (edges, lists): (Vec<_>, Vec<_>) = ranges.iter().map(|range| structure_range(records, range)).unzip();
    let sealed = seal_all(&edges);
    let mut charges = lists.concat();
    for (key, usage) in sealed.charges.iter().flatten() {
        let at = records.binary_search_by(|record| record.0.cmp(key)).expect("a charge is on a key of its range");
        charges[at] += usage;
    }
    (charges, sealed.memory_usage)
}

/// The parts of a shard, each built from the records between its boundaries.
fn parts_of(records: &Records, num_parts: u64) -> (Vec<Vec<u8>>, Hash) {
    let (charges, total) = charges_of(records, std::slice::from_ref(&(0..records.len())));
    let starts = |part_id: u64| {
        let threshold = total / num_parts * part_id + part_id.min(total % num_parts);
        let mut sum = 0;
        charges.iter().position(|charge| {
            sum += charge;
            sum > threshold
        })
    };
    let mut ends: Vec<usize> = (1..num_parts).map(|part_id| starts(part_id).unwrap_or(records.len())).collect();
    ends.insert(0, 0);
    ends.push(records.len());
    let mut ranges: Vec<_> = ends.windows(2).map(|pair| pair[0]..pair[1]).collect();
    ranges.dedup();
    let built: Vec<_> =
        ranges.iter().filter(|range| !range.is_empty()).map(|range| (range.clone(), build_range(records, range, true))).collect();
    let sealed = seal_all(&built.iter().map(|(_, build)| build.edge.clone()).collect::<Vec<_>>());
    let nodes_at = |end: usize| {
        let found = built.iter().position(|(range, _)| range.start == end);
        found.map_or(&[][..], |at| sealed.boundary_nodes[at].as_slice())
    };
    let part = |pair: &[usize]| {
        let interior = built.iter().find(|(range, _)| *range == (pair[0]..pair[1])).and_then(|(_, build)| build.interior.as_deref());
        let nodes: Vec<&[u8]> = nodes_at(pair[0]).iter().chain(nodes_at(pair[1])).map(Vec::as_slice).collect();
        assemble(interior, &nodes).expect("interiors are sorted")
    };
    (ends.windows(2).map(part).collect(), sealed.state_root)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Root, memory usage and the edge of the whole do not depend on the cuts, nor on the order in which edges are merged.
    #[test]
    fn cuts_do_not_matter(records in records(), cuts in vec(any::<prop::sample::Index>(), 0..6)) {
        let whole = build_range(&records, &(0..records.len()), false);
        let ranges = cut(&records, &cuts);
        let edges: Vec<_> = ranges.iter().map(|range| build_range(&records, range, false).edge).collect();
        let left_first = edges[1..].iter().fold(edges[0].clone(), |merged, edge| merge(&merged, edge).expect("adjacent"));
        let right_first = edges.iter().rev().skip(1).fold(edges[edges.len() - 1].clone(), |merged, edge| merge(edge, &merged).expect("adjacent"));
        prop_assert_eq!(&left_first, &whole.edge);
        prop_assert_eq!(&right_first, &whole.edge);
        let (sealed, alone) = (seal_all(&edges), seal_all(&[whole.edge]));
        prop_assert_eq!(sealed.state_root, alone.state_root);
        prop_assert_eq!(sealed.memory_usage, alone.memory_usage);
        prop_assert_eq!(sha256(&sealed.root_node), sealed.state_root);
    }

    /// Merging two edges inside a shard gives the edge of the united range.
    #[test]
    fn a_merge_is_the_edge_of_the_united_range(records in records(), cuts in vec(any::<prop::sample::Index>(), 3)) {
        let ranges = cut(&records, &cuts);
        for three in ranges.windows(2) {
            let united = build_range(&records, &(three[0].start..three[1].end), false).edge;
            let parts = [build_range(&records, &three[0], false).edge, build_range(&records, &three[1], false).edge];
            prop_assert_eq!(merge(&parts[0], &parts[1]).expect("adjacent"), united);
        }
    }

    /// Each record's charge is the same however the range is cut, and all of them make up the root's memory usage.
    #[test]
    fn charges_do_not_depend_on_cuts(records in records(), cuts in vec(any::<prop::sample::Index>(), 0..6)) {
        let (whole, total) = charges_of(&records, std::slice::from_ref(&(0..records.len())));
        let (charges, memory_usage) = charges_of(&records, &cut(&records, &cuts));
        prop_assert_eq!(whole.iter().sum::<u64>(), total);
        prop_assert_eq!(charges, whole);
        prop_assert_eq!(memory_usage, total);
        prop_assert_eq!(seal_all(&[build_range(&records, &(0..records.len()), false).edge]).memory_usage, total);
    }

    /// Parts are valid as what they are, and apply to exactly the records, each once.
    #[test]
    fn parts_prove_and_hold_their_records(records in records(), num_parts in 1u64..9) {
        let (parts, root) = parts_of(&records, num_parts);
        let mut applied: Records = Vec::new();
        for (part_id, part) in parts.iter().enumerate() {
            prop_assert_eq!(validate(part, &root, part_id as u64, num_parts), Ok(()));
            let found = apply(part, &root, part_id as u64, num_parts).expect("the part is valid");
            let value = |row: usize| found.entries[found.records[row].entry as usize].to_vec();
            applied.extend((0..found.records.len()).map(|row| (found.key(row).to_vec(), value(row))));
        }
        prop_assert_eq!(applied, records);
    }

    /// A part that lacks an entry, or has one too many, is invalid.
    #[test]
    fn a_part_is_exact(records in records(), num_parts in 1u64..5, which in any::<prop::sample::Index>()) {
        let (parts, root) = parts_of(&records, num_parts);
        for (part_id, part) in parts.iter().enumerate() {
            let entries = decode_partial_state(part).expect("just made");
            if entries.is_empty() {
                continue;
            }
            let dropped = which.index(entries.len());
            let lacking: Vec<&[u8]> = entries.iter().enumerate().filter(|(at, _)| *at != dropped).map(|(_, entry)| *entry).collect();
            prop_assert!(validate(&encode(&lacking), &root, part_id as u64, num_parts).is_err());
            let doubled = [entries.as_slice(), &[entries[dropped]]].concat();
            prop_assert!(validate(&encode(&doubled), &root, part_id as u64, num_parts).is_err());
            let reversed: Vec<&[u8]> = entries.iter().rev().copied().collect();
            prop_assert_eq!(validate(&encode(&reversed), &root, part_id as u64, num_parts), Ok(()));
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// An interior has the same entries as sorting and deduplicating them plainly, also where many begin alike.
    #[test]
    fn an_interior_is_sorted_and_unique(values in vec(vec(prop_oneof![Just(0u8), Just(3), Just(255)], 0..40), 1..3000)) {
        let records: Records = values.into_iter().enumerate().map(|(at, value)| ((at as u32).to_be_bytes().to_vec(), value)).collect();
        let part = build_range(&records, &(0..records.len()), true).interior.expect("asked for");
        let entries = decode_partial_state(&part).expect("just made");
        prop_assert!(entries.is_sorted_by(|a, b| a < b));
        let root = parts_of(&records, 1).1;
        prop_assert_eq!(validate(&part, &root, 0, 1), Ok(()));
    }
}

fn encode(entries: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for entry in entries {
        out.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        out.extend_from_slice(entry);
    }
    out
}
