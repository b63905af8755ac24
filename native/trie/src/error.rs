//! The one error type of the crate.

use std::fmt;

/// Which of the project's error classes (`schemas/errors.py`) an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller broke an invariant of ours.
    Assertion,
    /// Keys not strictly ascending, or not between the neighbours.
    RecordOrder,
    /// A referenced value is missing or not what its reference says.
    ValueMismatch,
    /// A part lacks an entry that its proof needs.
    MissingTrieValue,
    /// A part has an entry that its proof never visits.
    UnexpectedTrieValue,
    /// Bytes that should be a node or an edge can't be decoded.
    MalformedNode,
    /// Bytes that should be a part can't be decoded.
    MalformedPart,
    /// A size, count or depth is over its limit.
    PartLimit,
}

impl ErrorKind {
    /// The Python class that stands for this kind.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Assertion => "AssertionError",
            Self::RecordOrder => "RecordOrderError",
            Self::ValueMismatch => "ValueMismatchError",
            Self::MissingTrieValue => "MissingTrieValueError",
            Self::UnexpectedTrieValue => "UnexpectedTrieValueError",
            Self::MalformedNode => "MalformedNodeError",
            Self::MalformedPart => "MalformedPartError",
            Self::PartLimit => "PartLimitError",
        }
    }
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrieError {
    /// Its class.
    pub kind: ErrorKind,
    /// A sentence without a full stop.
    pub problem: String,
    /// The key, entry or node; may be empty.
    pub place: String,
}

impl TrieError {
    pub(crate) fn new(kind: ErrorKind, problem: impl Into<String>, place: impl Into<String>) -> Self {
        Self { kind, problem: problem.into(), place: place.into() }
    }
}

impl fmt::Display for TrieError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} [{}]", self.kind.class_name(), self.problem, self.place)
    }
}

impl std::error::Error for TrieError {}

/// Hex of a key or hash for messages, cut so that a message stays short.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 64;
    let mut text: String = bytes.iter().take(SHOWN_BYTES_MAX).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > SHOWN_BYTES_MAX {
        text.push_str("...");
    }
    text
}
