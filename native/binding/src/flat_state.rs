//! Rows of the FlatState column, as a database gives them to Python, into record batches: each byte is copied once.

use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, BinaryBuilder, FixedSizeBinaryBuilder, UInt32Builder};
use arrow_array::{Array, RecordBatch};
use arrow_pyarrow::ToPyArrow;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use statecast_trie::{INLINED_VALUE_BYTES_MAX, KEY_BYTES_MAX};

use crate::errors::invalid_input;
use crate::outputs::{HASH_BYTES, record_schema};

/// Longest referenced value (schemas/nearcore/flat_state_limits.py).
const VALUE_BYTES_MAX: u32 = 16 << 20;

/// Bytes that a row counts beside its key and value: as `pipelines/near/record_batches.py`.
const FIXED_BYTES: usize = 40;

/// A row beside its key: FlatStateValue (nearcore core/primitives/src/state.rs).
enum FlatStateValue<'a> {
    Ref { length: u32, hash: &'a [u8; HASH_BYTES as usize] },
    Inlined(&'a [u8]),
}

impl<'a> FlatStateValue<'a> {
    fn read(row: &'a [u8]) -> Option<Self> {
        let (&tag, rest) = row.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length);
        match tag {
            0 if length <= VALUE_BYTES_MAX => Some(Self::Ref { length, hash: rest.try_into().ok()? }),
            1 if length as usize == rest.len() && rest.len() <= INLINED_VALUE_BYTES_MAX => Some(Self::Inlined(rest)),
            _ => None,
        }
    }
}

/// A record batch on its way.
struct Pending {
    keys: BinaryBuilder,
    values: BinaryBuilder,
    lengths: UInt32Builder,
    hashes: FixedSizeBinaryBuilder,
    bytes: usize,
}

impl Pending {
    fn with_capacity(rows: usize, key_bytes: usize, value_bytes: usize) -> Self {
        Self {
            keys: BinaryBuilder::with_capacity(rows, key_bytes),
            values: BinaryBuilder::with_capacity(rows, value_bytes),
            lengths: UInt32Builder::with_capacity(rows),
            hashes: FixedSizeBinaryBuilder::with_capacity(rows, HASH_BYTES),
            bytes: 0,
        }
    }

    /// Take the batch, and make room for one like it.
    fn take(&mut self) -> RecordBatch {
        let next =
            Self::with_capacity(roomy(self.lengths.len()), roomy(self.keys.values_slice().len()), roomy(self.values.values_slice().len()));
        let mut full = std::mem::replace(self, next);
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(full.keys.finish()),
            Arc::new(full.values.finish()),
            Arc::new(full.lengths.finish()),
            Arc::new(full.hashes.finish()),
        ];
        RecordBatch::try_new(record_schema(), columns).expect("the columns are those of the schema")
    }
}

/// A sixteenth more, so that few batches outgrow the room that the one before took.
fn roomy(used: usize) -> usize {
    used + used / 16
}

/// FlatStateBatches(prefix_bytes, record_batch_bytes_max)
#[pyclass(module = "statecast_kernel")]
pub(crate) struct FlatStateBatches {
    prefix_bytes: usize,
    record_batch_bytes_max: usize,
    pending: Pending,
}

#[pymethods]
impl FlatStateBatches {
    #[new]
    fn new(prefix_bytes: usize, record_batch_bytes_max: usize) -> Self {
        Self { prefix_bytes, record_batch_bytes_max, pending: Pending::with_capacity(0, 0, 0) }
    }

    /// append(rows) -> batches that are full; `InvalidInputError` at a row that is none, from where on nothing is taken.
    fn append(&mut self, py: Python<'_>, rows: &Bound<'_, PyList>) -> PyResult<Vec<Py<PyAny>>> {
        let mut full = Vec::new();
        for row in rows.iter() {
            let row = row.cast_into::<PyTuple>()?;
            let (key, value) = (row.get_borrowed_item(0)?, row.get_borrowed_item(1)?);
            let (key, value) = (key.cast::<PyBytes>()?, value.cast::<PyBytes>()?);
            let (key, value) = (key.as_bytes(), value.as_bytes());
            let key = key.get(self.prefix_bytes..).filter(|key| key.len() <= KEY_BYTES_MAX);
            let (Some(key), Some(value)) = (key, FlatStateValue::read(value)) else {
                return Err(invalid_input("a row is no row of flat state within its limits", "rows"));
            };
            let inlined = if let FlatStateValue::Inlined(bytes) = value { bytes.len() } else { 0 };
            let bytes = FIXED_BYTES + key.len() + inlined;
            if self.pending.bytes > 0 && self.pending.bytes + bytes > self.record_batch_bytes_max {
                full.push(self.pending.take().to_pyarrow(py)?.unbind());
            }
            let pending = &mut self.pending;
            pending.bytes += bytes;
            pending.keys.append_value(key);
            match value {
                FlatStateValue::Inlined(bytes) => {
                    pending.values.append_value(bytes);
                    pending.lengths.append_value(bytes.len() as u32);
                    pending.hashes.append_null();
                }
                FlatStateValue::Ref { length, hash } => {
                    pending.values.append_null();
                    pending.lengths.append_value(length);
                    pending.hashes.append_value(hash).expect("a hash has 32 bytes");
                }
            }
        }
        Ok(full)
    }

    /// finish() -> the last batch, if there is one
    fn finish(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if self.pending.bytes == 0 {
            return Ok(None);
        }
        Ok(Some(self.pending.take().to_pyarrow(py)?.unbind()))
    }
}
