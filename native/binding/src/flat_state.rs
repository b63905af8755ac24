//! Rows of the FlatState column, as a database gives them to Python, into record batches: each byte is copied once.

use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, BinaryBuilder, FixedSizeBinaryBuilder, UInt32Builder};
use arrow_array::{Array, RecordBatch};
use arrow_pyarrow::ToPyArrow;
use arrow_schema::Schema;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use statecast_trie::{INLINED_VALUE_BYTES_MAX, KEY_BYTES_MAX};

use crate::errors::invalid_input;
use crate::outputs::{HASH_BYTES, record_schema};

/// Longest referenced value (schemas/nearcore/flat_state_limits.py).
const VALUE_BYTES_MAX: u32 = 16 << 20;

/// Bytes that a row counts beside its key and value: as `pipelines/near/record_batches.py`.
const FIXED_BYTES: usize = 40;

/// Bytes of a short row, for the room that a first batch gets.
const ROW_BYTES: usize = 64;

/// Most room that is made before any row is seen.
const ROOM_BYTES_MAX: usize = 4 << 20;

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

/// Columns of a record batch on its way that not every batch has.
struct Values {
    values: BinaryBuilder,
    hashes: FixedSizeBinaryBuilder,
}

/// A record batch on its way.
struct Pending {
    keys: BinaryBuilder,
    lengths: UInt32Builder,
    /// None where keys and lengths are all that is wanted.
    values: Option<Values>,
    bytes: usize,
}

impl Pending {
    fn with_capacity(rows: usize, key_bytes: usize, value_bytes: Option<usize>) -> Self {
        Self {
            keys: BinaryBuilder::with_capacity(rows, key_bytes),
            lengths: UInt32Builder::with_capacity(rows),
            values: value_bytes.map(|bytes| Values {
                values: BinaryBuilder::with_capacity(rows, bytes),
                hashes: FixedSizeBinaryBuilder::with_capacity(rows, HASH_BYTES),
            }),
            bytes: 0,
        }
    }

    /// Take the batch, and make room for one like it.
    fn take(&mut self) -> RecordBatch {
        let value_bytes = self.values.as_ref().map(|columns| roomy(columns.values.values_slice().len()));
        let next = Self::with_capacity(roomy(self.lengths.len()), roomy(self.keys.values_slice().len()), value_bytes);
        let mut full = std::mem::replace(self, next);
        let (keys, lengths): (Arc<dyn Array>, Arc<dyn Array>) = (Arc::new(full.keys.finish()), Arc::new(full.lengths.finish()));
        let (schema, columns) = match full.values {
            None => (shape_schema(), vec![keys, lengths]),
            Some(mut columns) => {
                (record_schema(), vec![keys, Arc::new(columns.values.finish()), lengths, Arc::new(columns.hashes.finish())])
            }
        };
        RecordBatch::try_new(schema, columns).expect("the columns are those of the schema")
    }
}

/// A sixteenth more, so that few batches outgrow the room that the one before took.
fn roomy(used: usize) -> usize {
    used + used / 16
}

fn shape_schema() -> Arc<Schema> {
    Arc::new(record_schema().project(&[0, 2]).expect("the schema has these columns"))
}

/// FlatStateBatches(prefix_bytes, record_batch_bytes_max, with_values)
#[pyclass(module = "statecast_kernel")]
pub(crate) struct FlatStateBatches {
    prefix_bytes: usize,
    record_batch_bytes_max: usize,
    pending: Pending,
    last: Option<Py<PyTuple>>,
}

#[pymethods]
impl FlatStateBatches {
    #[new]
    fn new(prefix_bytes: usize, record_batch_bytes_max: usize, with_values: bool) -> Self {
        // Room that is not used is never touched, and room that is too small is copied again and again.
        let room = record_batch_bytes_max.min(ROOM_BYTES_MAX);
        let pending = Pending::with_capacity(room / ROW_BYTES, room / 2, with_values.then_some(room));
        Self { prefix_bytes, record_batch_bytes_max, pending, last: None }
    }

    /// The row that was taken last, or was refused; None before the first.
    #[getter]
    fn last<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyTuple>> {
        self.last.as_ref().map(|row| row.bind(py))
    }

    /// take(rows) -> the next batch, or None when there are no more rows; `InvalidInputError` at a row that is none. Rows are taken from the
    /// iterator until a batch is full: no more of them is in memory at once.
    fn take(&mut self, py: Python<'_>, rows: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        for row in rows.try_iter()? {
            let row = row?.cast_into::<PyTuple>()?;
            let full = self.push(&row);
            self.last = Some(row.unbind());
            if let Some(batch) = full? {
                return Ok(Some(batch.to_pyarrow(py)?.unbind()));
            }
        }
        if self.pending.bytes == 0 {
            return Ok(None);
        }
        let batch = self.pending.take();
        Ok(Some(batch.to_pyarrow(py)?.unbind()))
    }
}

impl FlatStateBatches {
    /// Take a row; give the batch before it if that one is full.
    #[inline]
    fn push(&mut self, row: &Bound<'_, PyTuple>) -> PyResult<Option<RecordBatch>> {
        let (key, value) = (row.get_borrowed_item(0)?, row.get_borrowed_item(1)?);
        let (key, value) = (key.cast::<PyBytes>()?, value.cast::<PyBytes>()?);
        let (key, value) = (key.as_bytes(), value.as_bytes());
        let key = key.get(self.prefix_bytes..).filter(|key| key.len() <= KEY_BYTES_MAX);
        let (Some(key), Some(value)) = (key, FlatStateValue::read(value)) else {
            return Err(invalid_input("a row is no row of flat state within its limits", "rows"));
        };
        let pending = &mut self.pending;
        let inlined = match value {
            FlatStateValue::Inlined(bytes) if pending.values.is_some() => bytes.len(),
            _ => 0,
        };
        let bytes = FIXED_BYTES + key.len() + inlined;
        let full = (pending.bytes > 0 && pending.bytes + bytes > self.record_batch_bytes_max).then(|| pending.take());
        pending.bytes += bytes;
        pending.keys.append_value(key);
        pending.lengths.append_value(match value {
            FlatStateValue::Inlined(bytes) => bytes.len() as u32,
            FlatStateValue::Ref { length, .. } => length,
        });
        if let Some(columns) = &mut pending.values {
            match value {
                FlatStateValue::Inlined(bytes) => {
                    columns.values.append_value(bytes);
                    columns.hashes.append_null();
                }
                FlatStateValue::Ref { hash, .. } => {
                    columns.values.append_null();
                    columns.hashes.append_value(hash).expect("a hash has 32 bytes");
                }
            }
        }
        Ok(full)
    }
}
