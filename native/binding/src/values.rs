//! Rows of the State column that are values, into record batches: each byte is copied once, and each value hashed on the way.

use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, BinaryBuilder, FixedSizeBinaryBuilder};
use arrow_array::{Array, RecordBatch};
use arrow_pyarrow::ToPyArrow;
use pyo3::prelude::*;
use statecast_trie::sha256;

use crate::outputs::{HASH_BYTES, value_schema};

/// The reference count behind a payload (nearcore core/store/src/db/refcount.rs).
const COUNT_BYTES: usize = 8;

/// Bytes that a row counts beside its value: as `pipelines/near/record_batches.py`.
const FIXED_BYTES: usize = 40;

/// ValueBatches(record_batch_bytes_max)
#[pyclass(module = "statecast_kernel")]
pub(crate) struct ValueBatches {
    record_batch_bytes_max: usize,
    hashes: FixedSizeBinaryBuilder,
    values: BinaryBuilder,
    bytes: usize,
}

#[pymethods]
impl ValueBatches {
    #[new]
    fn new(record_batch_bytes_max: usize) -> Self {
        let (hashes, values) = (FixedSizeBinaryBuilder::new(HASH_BYTES), BinaryBuilder::new());
        Self { record_batch_bytes_max, hashes, values, bytes: 0 }
    }

    /// append(value_hash, row) -> (whether the row's payload has this hash; else it is not taken, the batch before it if that one is full)
    fn append(&mut self, py: Python<'_>, value_hash: &[u8], row: &[u8]) -> PyResult<(bool, Option<Py<PyAny>>)> {
        let payload = row.get(..row.len().saturating_sub(COUNT_BYTES)).unwrap_or_default();
        if sha256(payload) != value_hash {
            return Ok((false, None));
        }
        let bytes = FIXED_BYTES + payload.len();
        let full = (self.bytes > 0 && self.bytes + bytes > self.record_batch_bytes_max).then(|| self.take());
        self.bytes += bytes;
        self.hashes.append_value(value_hash).expect("a hash has 32 bytes");
        self.values.append_value(payload);
        Ok((true, full.map(|batch| batch.to_pyarrow(py)).transpose()?.map(Bound::unbind)))
    }

    /// finish() -> the last batch, if there is one
    fn finish(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if self.bytes == 0 {
            return Ok(None);
        }
        Ok(Some(self.take().to_pyarrow(py)?.unbind()))
    }
}

impl ValueBatches {
    /// Take the batch, and make room for one like it.
    fn take(&mut self) -> RecordBatch {
        let room = self.values.values_slice().len();
        let rows = self.values.len();
        let mut values = std::mem::replace(&mut self.values, BinaryBuilder::with_capacity(rows, room + room / 16));
        self.bytes = 0;
        let columns: Vec<Arc<dyn Array>> = vec![Arc::new(self.hashes.finish()), Arc::new(values.finish())];
        RecordBatch::try_new(value_schema(), columns).expect("the columns are those of the schema")
    }
}
