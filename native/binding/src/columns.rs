//! Arrow columns and buffers of Python, borrowed as slices.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt32Type};
use arrow_array::{Array, ArrayRef, BinaryArray, FixedSizeBinaryArray, Int64Array, RecordBatch, UInt32Array, make_array};
use arrow_data::ArrayData;
use arrow_pyarrow::FromPyArrow;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;
use statecast_trie::{Hash, ValueSource};

use crate::errors::invalid_input;

const HASH_BYTES: i32 = 32;

/// A Python object's bytes for as long as this lives. As with every Arrow buffer, they must not change meanwhile.
pub(crate) struct Bytes {
    buffer: PyUntypedBuffer,
}

impl Bytes {
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        if !buffer.is_c_contiguous() {
            return Err(invalid_input("bytes must lie in one piece", "buffer"));
        }
        Ok(Self { buffer })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        if self.buffer.len_bytes() == 0 {
            return &[];
        }
        // SAFETY: the buffer is exported (so neither moved nor freed) while `self.buffer` lives, contiguous and of `len_bytes` bytes;
        // as with every Arrow buffer, the caller guarantees that it does not change while the interpreter lock is released.
        unsafe { std::slice::from_raw_parts(self.buffer.buf_ptr().cast(), self.buffer.len_bytes()) }
    }
}

pub(crate) fn hash_of(bytes: &[u8]) -> PyResult<Hash> {
    bytes.try_into().map_err(|_| invalid_input("a hash has 32 bytes", "state_root"))
}

fn column(batch: &RecordBatch, name: &str) -> PyResult<ArrayRef> {
    batch.column_by_name(name).cloned().ok_or_else(|| invalid_input("a record batch lacks a column", name))
}

fn without_nulls<A: Array + Clone>(array: &A, name: &str) -> PyResult<A> {
    if array.null_count() > 0 {
        return Err(invalid_input("a column that may have no nulls has one", name));
    }
    Ok(array.clone())
}

fn wrong_type(name: &str, array: &ArrayRef) -> PyErr {
    invalid_input(&format!("a column has the type {}, not that of its schema", array.data_type()), name)
}

fn binary(batch: &RecordBatch, name: &str) -> PyResult<BinaryArray> {
    let array = column(batch, name)?;
    array.as_binary_opt::<i32>().cloned().ok_or_else(|| wrong_type(name, &array))
}

fn lengths(batch: &RecordBatch) -> PyResult<UInt32Array> {
    let array = column(batch, "value_length")?;
    let found = array.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong_type("value_length", &array))?;
    without_nulls(found, "value_length")
}

fn hashes(batch: &RecordBatch) -> PyResult<FixedSizeBinaryArray> {
    let array = column(batch, "value_hash")?;
    let found = array.as_fixed_size_binary_opt().filter(|found| found.value_length() == HASH_BYTES);
    found.cloned().ok_or_else(|| wrong_type("value_hash", &array))
}

fn hash_at(hashes: &FixedSizeBinaryArray, row: usize) -> &Hash {
    hashes.value(row).try_into().expect("the column has 32 bytes a row")
}

/// What `structure` needs of a record batch.
pub(crate) struct StructureColumns {
    keys: BinaryArray,
    lengths: UInt32Array,
}

impl StructureColumns {
    pub(crate) fn from_python(batch: &Bound<'_, PyAny>) -> PyResult<Self> {
        let batch = RecordBatch::from_pyarrow_bound(batch)?;
        Ok(Self { keys: without_nulls(&binary(&batch, "key")?, "key")?, lengths: lengths(&batch)? })
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], u32)> {
        (0..self.len()).map(|row| (self.keys.value(row), self.lengths.value(row)))
    }
}

/// A record batch of `RECORD_SCHEMA`.
pub(crate) struct RecordColumns {
    shape: StructureColumns,
    values: BinaryArray,
    hashes: FixedSizeBinaryArray,
}

impl RecordColumns {
    pub(crate) fn from_python(batch: &Bound<'_, PyAny>) -> PyResult<Self> {
        let shape = StructureColumns::from_python(batch)?;
        let batch = RecordBatch::from_pyarrow_bound(batch)?;
        Ok(Self { shape, values: binary(&batch, "value")?, hashes: hashes(&batch)? })
    }

    pub(crate) fn len(&self) -> usize {
        self.shape.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], u32, ValueSource<'_>)> {
        self.shape.iter().enumerate().map(|(row, (key, length))| {
            let source = match (self.values.is_valid(row), self.hashes.is_valid(row)) {
                (true, false) => ValueSource::Inlined(self.values.value(row)),
                (false, true) => ValueSource::Referenced(hash_at(&self.hashes, row)),
                _ => ValueSource::Unclear,
            };
            (key, length, source)
        })
    }
}

/// A record batch of `VALUE_SCHEMA`.
pub(crate) struct ValueColumns {
    hashes: FixedSizeBinaryArray,
    values: BinaryArray,
}

impl ValueColumns {
    pub(crate) fn from_python(batch: &Bound<'_, PyAny>) -> PyResult<Self> {
        let batch = RecordBatch::from_pyarrow_bound(batch)?;
        let hashes = without_nulls(&hashes(&batch)?, "value_hash")?;
        Ok(Self { hashes, values: without_nulls(&binary(&batch, "value")?, "value")? })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Hash, &[u8])> {
        (0..self.values.len()).map(|row| (hash_at(&self.hashes, row), self.values.value(row)))
    }
}

/// A record batch of nodes and values with their references.
pub(crate) struct ReferenceColumns {
    hashes: FixedSizeBinaryArray,
    references: Int64Array,
    payloads: BinaryArray,
}

impl ReferenceColumns {
    pub(crate) fn from_python(batch: &Bound<'_, PyAny>) -> PyResult<Self> {
        let batch = RecordBatch::from_pyarrow_bound(batch)?;
        let hashes = column(&batch, "hash")?;
        let sized = hashes.as_fixed_size_binary_opt().filter(|found| found.value_length() == HASH_BYTES);
        let references = column(&batch, "references")?;
        let counts = references.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong_type("references", &references))?;
        Ok(Self {
            hashes: without_nulls(sized.ok_or_else(|| wrong_type("hash", &hashes))?, "hash")?,
            references: without_nulls(counts, "references")?,
            payloads: without_nulls(&binary(&batch, "payload")?, "payload")?,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(crate) fn hash(&self, row: usize) -> &Hash {
        hash_at(&self.hashes, row)
    }

    pub(crate) fn references(&self, row: usize) -> i64 {
        self.references.value(row)
    }

    pub(crate) fn payload(&self, row: usize) -> &[u8] {
        self.payloads.value(row)
    }
}

/// Byte strings for the benchmarks' floor.
pub(crate) enum Items {
    Array(BinaryArray),
    List(Vec<Bytes>),
}

impl Items {
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&[u8])) {
        match self {
            Self::Array(array) => (0..array.len()).for_each(|row| visit(array.value(row))),
            Self::List(list) => list.iter().for_each(|item| visit(item.as_slice())),
        }
    }
}

pub(crate) fn bytes_of(items: &Bound<'_, PyAny>) -> PyResult<Items> {
    if !items.hasattr("__arrow_c_array__")? {
        let objects: Vec<Bound<'_, PyAny>> = items.extract()?;
        return Ok(Items::List(objects.iter().map(Bytes::new).collect::<PyResult<_>>()?));
    }
    let array = make_array(ArrayData::from_pyarrow_bound(items)?);
    array.as_binary_opt::<i32>().cloned().map(Items::Array).ok_or_else(|| wrong_type("items", &array))
}
