//! The one error type of the crate.

use std::fmt;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The rows that a header is made of are not all there.
    MissingRow,
    /// Nothing is wrong with the rows, but this crate can't make a header of them.
    Unsupported,
    /// Bytes that can't be decoded, or that don't hash to what they must.
    Integrity,
    /// The caller's own rows failed; the caller knows why.
    Rows,
}

impl ErrorKind {
    /// The Python class (`schemas/errors.py`) that stands for this kind.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::MissingRow | Self::Unsupported => "SourceError",
            Self::Integrity => "IntegrityError",
            Self::Rows => "AssertionError",
        }
    }
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderError {
    pub kind: ErrorKind,
    /// A sentence without a full stop.
    pub problem: String,
    /// The row or the header's field; may be empty.
    pub place: String,
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, HeaderError>;

impl HeaderError {
    /// An error of any kind.
    pub fn new(kind: ErrorKind, problem: impl Into<String>, place: impl Into<String>) -> Self {
        Self { kind, problem: problem.into(), place: place.into() }
    }

    pub(crate) fn integrity(problem: impl Into<String>, place: impl Into<String>) -> Self {
        Self::new(ErrorKind::Integrity, problem, place)
    }

    pub(crate) fn missing(problem: impl Into<String>, place: impl Into<String>) -> Self {
        Self::new(ErrorKind::MissingRow, problem, place)
    }

    pub(crate) fn unsupported(problem: impl Into<String>, place: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, problem, place)
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} [{}]", self.kind.class_name(), self.problem, self.place)
    }
}

impl std::error::Error for HeaderError {}
