//! Made-up parts, edges, interiors and records by the million: no panic, no input over a second or 256 MiB.
//!
//! A small number of them runs with the other tests. `made_up_inputs` takes as long as it is told: `make fuzz`, or
//!
//! ```text
//! STATECAST_FUZZ_SECONDS=60 STATECAST_FUZZ_SEED=1 cargo test --package statecast-trie --test fuzz -- --ignored --nocapture
//! ```
//!
//! An input that fails is written to `tests/fixtures/fuzz/kernel`, whose files are all tried again by `kept_inputs`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use statecast_trie::{Hash, ValueSource, apply, assemble, build, decode_partial_state, merge, seal, sha256, structure, validate};

const INPUT_TIME_MAX: Duration = Duration::from_secs(1);
/// After so long an input is measured once more.
const SUSPICIOUS_TIME: Duration = Duration::from_millis(20);
const INPUT_MEMORY_MAX: usize = 256 << 20;
const INPUT_BYTES_MAX: usize = 1 << 16;
/// After so long an input is taken for one without an end.
const HANG: Duration = Duration::from_secs(20);

// --- memory ---------------------------------------------------------------------------------------------------------------------

struct Counting;

thread_local! {
    static USED: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

fn count(taken: usize, given_back: usize) {
    // A thread that ends frees what it has after its counters are gone.
    let _ = USED.try_with(|used| {
        let now = used.get().saturating_add(taken).saturating_sub(given_back);
        used.set(now);
        let _ = MOST.try_with(|most| most.set(most.get().max(now)));
    });
}

// SAFETY: all is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's own contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's own contract.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's own contract.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// --- an input, taken apart and tried ---------------------------------------------------------------------------------------------

const PART: u8 = 0;
const EDGES: u8 = 1;
const INTERIOR: u8 = 2;
const RECORDS: u8 = 3;

fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Byte strings with their lengths before them; a length is at most what is left.
fn pieces(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while rest.len() >= 4 {
        let (length, behind) = rest.split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        let (piece, behind) = behind.split_at(length.min(behind.len()));
        found.push(piece);
        rest = behind;
    }
    found
}

/// Try an input; return whether it was taken for sound.
fn try_input(input: &[u8]) -> bool {
    match input.split_first() {
        Some((&PART, rest)) => try_part(rest),
        Some((&EDGES, rest)) => try_edges(&pieces(rest)),
        Some((&INTERIOR, rest)) => try_interior(&pieces(rest)),
        Some((&RECORDS, rest)) => try_records(rest),
        _ => false,
    }
}

fn try_part(rest: &[u8]) -> bool {
    let Some((head, part)) = rest.split_at_checked(34) else { return false };
    let (part_id, num_parts) = (u64::from(head[0]), u64::from(head[1]));
    let root: Hash = head[2..].try_into().expect("32 bytes");
    let verdict = validate(part, &root, part_id, num_parts);
    let applied = apply(part, &root, part_id, num_parts);
    // A part may be valid and yet hold a key of half a byte.
    assert!(verdict.is_ok() || applied.is_err(), "what is not valid is not applied");
    let _ = decode_partial_state(part);
    verdict.is_ok()
}

fn try_edges(edges: &[&[u8]]) -> bool {
    for pair in edges.windows(2) {
        if let Ok(merged) = merge(pair[0], pair[1]) {
            let _ = seal(&[&merged]);
        }
    }
    for edge in edges {
        let _ = seal(&[edge]);
    }
    seal(edges).is_ok()
}

fn try_interior(pieces: &[&[u8]]) -> bool {
    let Some((interior, nodes)) = pieces.split_first() else { return assemble(None, &[]).is_ok() };
    assemble(Some(interior), nodes).is_ok()
}

/// A byte of flags, the two neighbours, then records: key, value, and a byte that says where the value is.
fn try_records(rest: &[u8]) -> bool {
    let Some((&flags, rest)) = rest.split_first() else { return false };
    let pieces = pieces(rest);
    let [left, right, records @ ..] = pieces.as_slice() else { return false };
    let (left, right) = ((flags & 1 != 0).then_some(*left), (flags & 2 != 0).then_some(*right));
    let hashes: Vec<Hash> = records.chunks_exact(3).map(|record| sha256(record[1])).collect();
    let values = records.chunks_exact(3).zip(&hashes).filter(|(record, _)| record[2].first() != Some(&3));
    let rows = records.chunks_exact(3).zip(&hashes).map(|(record, hash)| {
        let length = record[1].len() as u32;
        match record[2] {
            [] | [0, ..] => (record[0], length, ValueSource::Inlined(record[1])),
            [1 | 3, ..] => (record[0], length, ValueSource::Referenced(hash)),
            [2, ..] => (record[0], length, ValueSource::Unclear),
            [other, ..] => (record[0], length.wrapping_add(u32::from(*other)), ValueSource::Inlined(record[1])),
        }
    });
    let count = records.len() / 3;
    let _ = structure(rows.clone().map(|(key, length, _)| (key, length)), count, left, right);
    let Ok(built) = build(rows, count, values.map(|(record, hash)| (hash, record[1])), left, right, true, &[]) else { return false };
    if let (Ok(sealed), None, None) = (seal(&[&built.edge]), left, right) {
        let interior = built.interior.expect("asked for");
        assert_eq!(validate(&interior, &sealed.state_root, 0, 1), Ok(()), "what is built is valid");
        assert!(apply(&interior, &sealed.state_root, 0, 1).is_ok_and(|applied| applied.records.len() == count), "and holds its records");
    }
    true
}

// --- genuine inputs --------------------------------------------------------------------------------------------------------------

fn corpus() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for (count, step) in [(1u32, 1u32), (3, 70), (7, 40), (16, 9), (24, 300)] {
        let keys: Vec<Vec<u8>> = (0..count).map(|at| (at * step).to_be_bytes()[usize::from(at % 5 == 0)..].to_vec()).collect();
        let mut keys: Vec<Vec<u8>> = keys.into_iter().map(|key| if key.len() < 4 { [vec![1], key].concat() } else { key }).collect();
        keys.sort();
        keys.dedup();
        inputs.extend(of_keys(&keys));
    }
    let keys: Vec<Vec<u8>> = (0..10u8).map(|at| vec![b'k'; usize::from(at) + 1]).collect();
    inputs.extend(of_keys(&keys));
    inputs
}

fn of_keys(keys: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let values: Vec<Vec<u8>> = (0..keys.len()).map(|at| vec![at as u8; at % 9]).collect();
    let built = |begin: usize, end: usize| {
        let rows = (begin..end).map(|at| (keys[at].as_slice(), values[at].len() as u32, ValueSource::Inlined(&values[at])));
        let left = begin.checked_sub(1).map(|at| keys[at].as_slice());
        build(rows, end - begin, std::iter::empty(), left, keys.get(end).map(Vec::as_slice), true, &[]).expect("in order")
    };
    let whole = built(0, keys.len());
    let sealed = seal(&[&whole.edge]).expect("whole");
    let interior = whole.interior.expect("asked for");
    let mut inputs = vec![[&[PART, 0, 1], sealed.state_root.as_slice(), &interior].concat()];
    let mut records = vec![RECORDS, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (key, value) in keys.iter().zip(&values) {
        [key.as_slice(), value, &[value.len() as u8 % 2]].iter().for_each(|piece| push(&mut records, piece));
    }
    inputs.push(records);
    let mut edges = vec![EDGES];
    let middle = keys.len() / 2;
    if middle > 0 {
        let (first, second) = (built(0, middle), built(middle, keys.len()));
        push(&mut edges, &first.edge);
        push(&mut edges, &second.edge);
        // The two halves with the boundary nodes between them are parts, though not those of nearcore's boundaries.
        let sealed = seal(&[&first.edge, &second.edge]).expect("whole");
        let nodes: Vec<&[u8]> = sealed.boundary_nodes.iter().flatten().map(Vec::as_slice).collect();
        let mut united = vec![INTERIOR];
        push(&mut united, first.interior.as_deref().expect("asked for"));
        nodes.iter().for_each(|node| push(&mut united, node));
        inputs.push(united);
        let part = assemble(first.interior.as_deref(), &nodes).expect("sound");
        inputs.push([&[PART, 0, 2], sealed.state_root.as_slice(), &part].concat());
    } else {
        push(&mut edges, &whole.edge);
    }
    inputs.push(edges);
    inputs
}

// --- mutations -------------------------------------------------------------------------------------------------------------------

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound, 0 for the bound 0.
    fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

const NUMBERS: [u64; 14] =
    [0, 1, 2, 4, 16, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, i64::MAX as u64, 1 << 63, u64::MAX];

fn change_bytes(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(data.len() + 1);
    let end = (at + 1 + random.below(64)).min(data.len());
    match random.below(10) {
        0 | 1 if at < data.len() => data[at] ^= 1 << random.below(8),
        2 | 3 if at < data.len() => data[at] = *random.pick(&[0, 1, 2, 3, 0x10, 0x20, 0x30, 0x7F, 0xFF]),
        4 => data.truncate(at),
        5 => drop(data.drain(at..end)),
        6 => {
            let block = data[at..end].to_vec();
            let to = random.below(data.len() + 1);
            data.splice(to..to, block);
        }
        7 => {
            let begin = random.below(other.len() + 1);
            let block = other[begin..(begin + random.below(128)).min(other.len())].to_vec();
            data.splice(at..end, block);
        }
        8 if data.len() >= 4 => {
            // What reads as a length is made to lie.
            let begin = random.below(data.len() - 3);
            let length = |data: &[u8], at: usize| u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes")) as usize;
            let at = (begin..data.len() - 3).take(100).find(|at| length(data, *at) <= data.len() - at - 4).unwrap_or(begin);
            let (said, left) = (length(data, at), data.len() - at - 4);
            let lie =
                *random.pick(&[said.wrapping_add(1), said.wrapping_sub(1), left, left + 1, said.wrapping_mul(2), usize::MAX, 0, 1 << 31]);
            data[at..at + 4].copy_from_slice(&(lie as u32).to_le_bytes());
        }
        _ => {
            let width = *random.pick(&[1, 2, 4, 8]);
            let number = random.pick(&NUMBERS).to_le_bytes();
            data.splice(at..(at + width).min(data.len()), number[..width].iter().copied());
        }
    }
    data.truncate(INPUT_BYTES_MAX);
}

/// Where an entry refers to a hash, if it does: hashes stand one after another before the memory usage, a branch's value near its begin.
fn reference(entry: &[u8], hash: &Hash) -> Option<usize> {
    let from_end = (1..=16).map_while(|back| entry.len().checked_sub(8 + 32 * back));
    from_end.chain([5]).find(|at| entry.get(*at..at + 32) == Some(hash))
}

/// Change entries of a part, and all references to them up to the root, so that what hangs on hashes is reached.
fn change_entries(random: &mut Random, input: &mut Vec<u8>) -> Option<()> {
    let mut entries: Vec<Vec<u8>> = decode_partial_state(input.get(35..)?).ok()?.into_iter().map(<[u8]>::to_vec).collect();
    let mut root: Hash = input[3..35].try_into().expect("32 bytes");
    for _ in 0..1 + random.below(3) {
        let at = random.below(entries.len());
        let other = entries.get(random.below(entries.len()))?.clone();
        let mut renamed = vec![(at, sha256(&entries[at]))];
        if random.below(3) == 0 && entries[at].len() > 48 {
            // One more way to another entry, perhaps one above: that can't be, and is never found by its hash.
            let end = entries[at].len() - 8;
            entries[at][end - 32..end].copy_from_slice(&sha256(&other));
        } else {
            change_bytes(random, &mut entries[at], &other);
        }
        for _ in 0..200 {
            let Some((at, before)) = renamed.pop() else { break };
            let after = sha256(&entries[at]);
            if root == before {
                root = after;
            }
            for (index, entry) in entries.iter_mut().enumerate() {
                let Some(found) = reference(entry, &before) else { continue };
                renamed.push((index, sha256(entry)));
                entry[found..found + 32].copy_from_slice(&after);
            }
        }
    }
    entries.sort();
    entries.dedup();
    input.truncate(3);
    input.extend_from_slice(&root);
    input.push(0);
    input.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    entries.iter().for_each(|entry| push(input, entry));
    Some(())
}

/// The input of a number: the same for the same seed.
fn input_of(corpus: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ number.wrapping_mul(0x2545_F491_4F6C_DD1D));
    let mut input = random.pick(corpus).clone();
    if input[0] == PART && random.below(10) < 6 {
        let _ = change_entries(&mut random, &mut input);
        if random.below(4) == 0 {
            input[2] = 1 + random.below(5) as u8;
            input[1] = random.below(input[2] as usize) as u8;
        }
        return input;
    }
    let kind = input[0];
    let other = random.pick(corpus).clone();
    for _ in 0..1 + random.below(5) {
        change_bytes(&mut random, &mut input, &other);
    }
    match input.first_mut() {
        Some(first) => *first = kind,
        None => input.push(kind),
    }
    if kind == PART && input.len() > 2 && input[1] >= input[2] {
        (input[1], input[2]) = (0, 1);
    }
    input
}

// --- running -----------------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Tally {
    inputs: u64,
    sound: u64,
    slowest: Duration,
    largest: usize,
    failures: u64,
}

impl Tally {
    /// Try an input; return what is wrong with how that went.
    fn judge(&mut self, input: &[u8]) -> Option<String> {
        let before = USED.get();
        MOST.set(before);
        let begin = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| try_input(input)));
        let memory = MOST.get().saturating_sub(before);
        let mut taken = begin.elapsed();
        self.inputs += 1;
        self.sound += u64::from(matches!(outcome, Ok(true)));
        self.largest = self.largest.max(memory);
        if outcome.is_err() {
            return Some("panic".into());
        }
        if taken > SUSPICIOUS_TIME {
            // The machine may have had other work: what counts is this thread's own time.
            let begin = (own_time(), Instant::now());
            try_input(input);
            taken = own_time().zip(begin.0).map_or(begin.1.elapsed(), |(end, begin)| end.saturating_sub(begin));
        }
        self.slowest = self.slowest.max(taken);
        if taken > INPUT_TIME_MAX {
            return Some(format!("{} ms", taken.as_millis()));
        }
        (memory > INPUT_MEMORY_MAX).then(|| format!("{} MiB", memory >> 20))
    }
}

/// How long this thread has run on a processor, where the system tells.
fn own_time() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(told.split(' ').next()?.parse().ok()?))
}

fn kept() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fuzz/kernel")
}

fn keep(input: &[u8], problem: &str) {
    let name: String = sha256(input)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let path = kept().join(&name);
    std::fs::create_dir_all(kept()).and_then(|()| std::fs::write(&path, input)).expect("the folder can be written");
    eprintln!("{problem}; again: STATECAST_FUZZ_INPUT={name} cargo test --package statecast-trie --test fuzz -- --nocapture kept_inputs");
}

/// Genuine inputs are sound, or nothing that is made of them says anything.
#[test]
fn genuine_inputs_are_sound() {
    let corpus = corpus();
    let sound = corpus.iter().filter(|input| try_input(input)).count();
    let halves = corpus.iter().filter(|input| input.starts_with(&[PART, 0, 2])).count();
    assert!(sound >= corpus.len() - halves, "{sound} of {}", corpus.len());
}

/// What once failed does so no more.
#[test]
fn kept_inputs() {
    let only = std::env::var("STATECAST_FUZZ_INPUT").ok();
    for file in std::fs::read_dir(kept()).into_iter().flatten() {
        let path = file.expect("readable").path();
        if only.as_deref().is_none_or(|only| path.ends_with(only)) {
            let problem = Tally::default().judge(&std::fs::read(&path).expect("readable"));
            assert_eq!(problem, None, "{}", path.display());
        }
    }
}

/// A few of the inputs below, always the same.
#[test]
fn some_made_up_inputs() {
    let corpus = corpus();
    let mut tally = Tally::default();
    for number in 0..20_000 {
        let input = input_of(&corpus, 0, number);
        assert_eq!(tally.judge(&input), None, "input {number}");
    }
    assert!(tally.sound > 500, "{} of them are sound", tally.sound);
}

/// As many as the time allows, on as many threads as are asked for.
#[test]
#[ignore = "takes as long as it is told"]
fn made_up_inputs() {
    let number = |name: &str, otherwise: u64| std::env::var(name).map_or(otherwise, |text| text.parse().expect("a whole number"));
    let (seconds, most) = (number("STATECAST_FUZZ_SECONDS", 60), number("STATECAST_FUZZ_INPUTS", u64::MAX));
    let (seed, threads) = (number("STATECAST_FUZZ_SEED", 0), number("STATECAST_FUZZ_THREADS", 1));
    let corpus = Arc::new(corpus());
    let until = Instant::now() + Duration::from_secs(seconds);
    let next = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let total = Arc::new(Mutex::new(Tally::default()));
    let current: Vec<Arc<Mutex<(Instant, u64)>>> = (0..threads).map(|_| Arc::new(Mutex::new((Instant::now(), 0)))).collect();
    let watched = current.clone();
    let (watched_corpus, watched_end) = (Arc::clone(&corpus), Arc::clone(&ended));
    std::thread::spawn(move || {
        while !watched_end.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(500));
            for place in &watched {
                let (since, block) = *place.lock().expect("not poisoned");
                if since.elapsed() > HANG * BLOCK as u32 {
                    eprintln!("no end among the {BLOCK} inputs from number {block}, seed {seed}, of {} genuine ones", watched_corpus.len());
                    std::process::exit(1);
                }
            }
        }
    });
    let workers: Vec<_> = current
        .into_iter()
        .map(|place| {
            let (corpus, next, total) = (Arc::clone(&corpus), Arc::clone(&next), Arc::clone(&total));
            std::thread::spawn(move || {
                let mut tally = Tally::default();
                while Instant::now() < until && tally.failures < 20 {
                    let begin = next.fetch_add(BLOCK, Ordering::Relaxed);
                    *place.lock().expect("not poisoned") = (Instant::now(), begin);
                    for number in (begin..begin + BLOCK).take_while(|number| *number < most) {
                        let input = input_of(&corpus, seed, number);
                        if let Some(problem) = tally.judge(&input) {
                            tally.failures += 1;
                            keep(&input, &problem);
                        }
                    }
                    if begin >= most {
                        break;
                    }
                }
                let mut total = total.lock().expect("not poisoned");
                total.inputs += tally.inputs;
                total.sound += tally.sound;
                total.failures += tally.failures;
                total.slowest = total.slowest.max(tally.slowest);
                total.largest = total.largest.max(tally.largest);
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().expect("judges without a panic"));
    ended.store(true, Ordering::Relaxed);
    let total = total.lock().expect("not poisoned");
    eprintln!(
        "kernel: {} inputs, {} taken for sound, slowest {} ms, largest {} KiB, {} failed",
        total.inputs,
        total.sound,
        total.slowest.as_millis(),
        total.largest >> 10,
        total.failures
    );
    assert_eq!(total.failures, 0);
}

/// Inputs that a thread takes at once.
const BLOCK: u64 = 256;
