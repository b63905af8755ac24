//! Results as Python objects, large ones without a copy.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, FixedSizeBinaryBuilder, Int64Builder, UInt32Builder};
use arrow_array::{Array, RecordBatch, UInt64Array};
use arrow_pyarrow::ToPyArrow;
use arrow_schema::{DataType, Field, Schema};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use statecast_trie::{Applied, Sealed};

pub(crate) const HASH_BYTES: i32 = 32;

/// Most records of a record batch.
const BATCH_ROWS_MAX: usize = 1 << 16;

/// Bytes of keys and values after which a record batch ends; far below the 2 GiB that its offsets reach.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Bytes made here, read by Python through the buffer protocol.
#[pyclass(frozen, module = "statecast_kernel")]
pub(crate) struct OwnedBuffer {
    bytes: Vec<u8>,
}

impl OwnedBuffer {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }
}

#[pymethods]
impl OwnedBuffer {
    fn __len__(&self) -> usize {
        self.bytes.len()
    }

    /// # Safety
    /// `view` is either null or points to a Py_buffer that may be written, as the buffer protocol says.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let bytes = &slf.get().bytes;
        let length = isize::try_from(bytes.len()).map_err(|_| PyBufferError::new_err("too long"))?;
        const READ_ONLY: c_int = 1;
        // SAFETY: the view holds a reference to `slf`, which is frozen, so the bytes neither move nor change while it lives.
        let filled =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), bytes.as_ptr().cast_mut().cast::<c_void>(), length, READ_ONLY, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

pub(crate) fn uint64_array(py: Python<'_>, values: Vec<u64>) -> PyResult<Py<PyAny>> {
    Ok(UInt64Array::from(values).into_data().to_pyarrow(py)?.unbind())
}

fn bytes_tuple<'py>(py: Python<'py>, items: &[Vec<u8>]) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, items.iter().map(|item| PyBytes::new(py, item)))
}

pub(crate) fn sealed(py: Python<'_>, sealed: &Sealed) -> PyResult<Py<PyTuple>> {
    let boundary_nodes = sealed.boundary_nodes.iter().map(|nodes| bytes_tuple(py, nodes)).collect::<PyResult<Vec<_>>>()?;
    let charges = sealed.charges.iter().map(|list| PyTuple::new(py, list.iter().map(|(key, usage)| (PyBytes::new(py, key), *usage))));
    let fields = (
        PyBytes::new(py, &sealed.state_root),
        sealed.memory_usage,
        PyBytes::new(py, &sealed.root_node),
        PyTuple::new(py, boundary_nodes)?,
        PyTuple::new(py, charges.collect::<PyResult<Vec<_>>>()?)?,
    );
    Ok(fields.into_pyobject(py)?.unbind())
}

pub(crate) fn record_schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Binary, false),
        Field::new("value", DataType::Binary, true),
        Field::new("value_length", DataType::UInt32, false),
        Field::new("value_hash", DataType::FixedSizeBinary(HASH_BYTES), true),
    ]))
}

pub(crate) fn value_schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("value_hash", DataType::FixedSizeBinary(HASH_BYTES), false),
        Field::new("value", DataType::Binary, false),
    ]))
}

/// Cut items into runs that fill a record batch each.
fn batches<T>(items: &[T], size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut runs = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, item) in items.iter().enumerate() {
        if at > start && (at - start == BATCH_ROWS_MAX || bytes + size(item) > BATCH_BYTES_MAX) {
            runs.push(&items[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += size(item);
    }
    if start < items.len() {
        runs.push(&items[start..]);
    }
    runs
}

pub(crate) fn record_batches(applied: &Applied<'_>) -> Vec<RecordBatch> {
    let schema = record_schema();
    let rows: Vec<usize> = (0..applied.records.len()).collect();
    let value_of = |row: usize| {
        let entry = applied.records[row].entry as usize;
        (entry, applied.entries[entry])
    };
    let inlined_bytes = |row: usize| Some(value_of(row).1.len()).filter(|_| Applied::is_inlined(value_of(row).1)).unwrap_or(0);
    let runs = batches(&rows, |&row| applied.key(row).len() + value_of(row).1.len());
    let batch = |run: &[usize]| {
        let mut keys = BinaryBuilder::with_capacity(run.len(), run.iter().map(|&row| applied.key(row).len()).sum());
        let mut values = BinaryBuilder::with_capacity(run.len(), run.iter().map(|&row| inlined_bytes(row)).sum());
        let mut lengths = UInt32Builder::with_capacity(run.len());
        let mut hashes = FixedSizeBinaryBuilder::with_capacity(run.len(), HASH_BYTES);
        for &row in run {
            let (entry, value) = value_of(row);
            keys.append_value(applied.key(row));
            lengths.append_value(value.len() as u32);
            if Applied::is_inlined(value) {
                values.append_value(value);
                hashes.append_null();
            } else {
                values.append_null();
                hashes.append_value(applied.hashes[entry]).expect("a hash has 32 bytes");
            }
        }
        let columns: Vec<Arc<dyn Array>> =
            vec![Arc::new(keys.finish()), Arc::new(values.finish()), Arc::new(lengths.finish()), Arc::new(hashes.finish())];
        RecordBatch::try_new(schema.clone(), columns).expect("the columns are those of the schema")
    };
    runs.into_iter().map(batch).collect()
}

pub(crate) fn value_batches(applied: &Applied<'_>) -> Vec<RecordBatch> {
    let schema = value_schema();
    let runs = batches(&applied.referenced, |&entry| applied.entries[entry as usize].len());
    let batch = |run: &[u32]| {
        let mut hashes = FixedSizeBinaryBuilder::with_capacity(run.len(), HASH_BYTES);
        let mut values = BinaryBuilder::new();
        for &entry in run {
            hashes.append_value(applied.hashes[entry as usize]).expect("a hash has 32 bytes");
            values.append_value(applied.entries[entry as usize]);
        }
        let columns: Vec<Arc<dyn Array>> = vec![Arc::new(hashes.finish()), Arc::new(values.finish())];
        RecordBatch::try_new(schema.clone(), columns).expect("the columns are those of the schema")
    };
    runs.into_iter().map(batch).collect()
}

/// Entries that are referred to, ascending by hash, with their counts: a record batch a bucket of hashes.
pub(crate) fn reference_batches(applied: &Applied<'_>, counts: &[u32], bucket_count: usize) -> Vec<RecordBatch> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("hash", DataType::FixedSizeBinary(HASH_BYTES), false),
        Field::new("references", DataType::Int64, false),
        Field::new("payload", DataType::Binary, false),
    ]));
    let mut referred: Vec<(u64, usize)> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(entry, _)| (u64::from_be_bytes(*applied.hashes[entry].first_chunk().expect("32 bytes")), entry))
        .collect();
    referred.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| applied.hashes[a.1].cmp(&applied.hashes[b.1])));
    let bucket_of = |head: u64| ((head >> 48) as usize * bucket_count) >> 16;
    let mut rest = &referred[..];
    let batch = |bucket: usize| {
        let run;
        (run, rest) = rest.split_at(rest.partition_point(|&(head, _)| bucket_of(head) <= bucket));
        let mut hashes = FixedSizeBinaryBuilder::with_capacity(run.len(), HASH_BYTES);
        let mut references = Int64Builder::with_capacity(run.len());
        let mut payloads = BinaryBuilder::with_capacity(run.len(), run.iter().map(|&(_, entry)| applied.entries[entry].len()).sum());
        for &(_, entry) in run {
            hashes.append_value(applied.hashes[entry]).expect("a hash has 32 bytes");
            references.append_value(i64::from(counts[entry]));
            payloads.append_value(applied.entries[entry]);
        }
        let columns: Vec<Arc<dyn Array>> = vec![Arc::new(hashes.finish()), Arc::new(references.finish()), Arc::new(payloads.finish())];
        RecordBatch::try_new(schema.clone(), columns).expect("the columns are those of the schema")
    };
    (0..bucket_count).map(batch).collect()
}

pub(crate) fn to_pyarrow(py: Python<'_>, batches: Vec<RecordBatch>) -> PyResult<Vec<Py<PyAny>>> {
    batches.iter().map(|batch| Ok(batch.to_pyarrow(py)?.unbind())).collect()
}
