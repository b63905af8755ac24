//! Rows of a database that is restored, as its writer takes them and its reader gives them: pairs of Python bytes.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use statecast_trie::{ValueSource, sha256};

use crate::columns::{RecordColumns, ReferenceColumns};
use crate::errors::{invalid_input, kernel_error};

const COUNT_BYTES: usize = 8;

type Row<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);

/// flat_state_rows(records, prefix) -> rows of the FlatState column (nearcore core/primitives/src/state.rs, FlatStateValue)
#[pyfunction]
fn flat_state_rows<'py>(py: Python<'py>, records: &Bound<'py, PyAny>, prefix: &[u8]) -> PyResult<Vec<Row<'py>>> {
    let columns = RecordColumns::from_python(records)?;
    let mut rows = Vec::with_capacity(columns.len());
    for (key, length, value) in columns.iter() {
        let (tag, bytes): (u8, &[u8]) = match value {
            ValueSource::Inlined(bytes) => (1, bytes),
            ValueSource::Referenced(hash) => (0, hash),
            ValueSource::Unclear => return Err(invalid_input("a record has neither value nor value_hash", "value")),
        };
        let row = PyBytes::new_with(py, 5 + bytes.len(), |out| {
            out[0] = tag;
            out[1..5].copy_from_slice(&length.to_le_bytes());
            out[5..].copy_from_slice(bytes);
            Ok(())
        })?;
        rows.push((prefixed(py, prefix, key)?, row));
    }
    Ok(rows)
}

fn prefixed<'py>(py: Python<'py>, prefix: &[u8], key: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, prefix.len() + key.len(), |out| {
        let (begin, end) = out.split_at_mut(prefix.len());
        begin.copy_from_slice(prefix);
        end.copy_from_slice(key);
        Ok(())
    })
}

/// StateRows(batches, prefix): nodes and values of several parts, each ascending by hash, merged into rows of the State column.
#[pyclass(frozen, module = "statecast_kernel")]
struct StateRows {
    batches: Vec<ReferenceColumns>,
    prefix: Vec<u8>,
    /// The first eight bytes of a hash, and its batch and row; ascending by hash.
    order: Vec<(u64, u32, u32)>,
}

#[pymethods]
impl StateRows {
    #[new]
    fn new(batches: Vec<Bound<'_, PyAny>>, prefix: Vec<u8>) -> PyResult<Self> {
        let batches = batches.iter().map(ReferenceColumns::from_python).collect::<PyResult<Vec<_>>>()?;
        let mut order = Vec::with_capacity(batches.iter().map(ReferenceColumns::len).sum());
        for (batch, columns) in batches.iter().enumerate() {
            let head = |row: usize| u64::from_be_bytes(*columns.hash(row).first_chunk().expect("32 bytes"));
            order.extend((0..columns.len()).map(|row| (head(row), batch as u32, row as u32)));
        }
        let hash = |place: &(u64, u32, u32)| batches[place.1 as usize].hash(place.2 as usize);
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| hash(a).cmp(hash(b))).then_with(|| a.1.cmp(&b.1)));
        Ok(Self { batches, prefix, order })
    }

    /// take(begin, count) -> (rows, sum of their references, where to go on): equal hashes are one row with the sum of their counts
    fn take<'py>(&self, py: Python<'py>, begin: usize, count: usize) -> PyResult<(Vec<Row<'py>>, i64, usize)> {
        let mut rows = Vec::with_capacity(count.min(self.order.len()));
        let (mut at, mut total) = (begin, 0i64);
        while at < self.order.len() && rows.len() < count {
            let (_, batch, row) = self.order[at];
            let columns = &self.batches[batch as usize];
            let hash = columns.hash(row as usize);
            let mut references = 0i64;
            while let Some(&(_, batch, row)) = self.order.get(at) {
                let columns = &self.batches[batch as usize];
                if columns.hash(row as usize) != hash {
                    break;
                }
                references = references.saturating_add(columns.references(row as usize));
                at += 1;
            }
            total = total.saturating_add(references);
            let payload = columns.payload(row as usize);
            let value = PyBytes::new_with(py, payload.len() + COUNT_BYTES, |out| {
                let (begin, end) = out.split_at_mut(payload.len());
                begin.copy_from_slice(payload);
                end.copy_from_slice(&references.to_le_bytes());
                Ok(())
            })?;
            rows.push((prefixed(py, &self.prefix, hash)?, value));
        }
        Ok((rows, total, at))
    }
}

/// check_state_rows(rows, prefix_bytes) -> sum of their references; `ValueMismatchError` names the first one that does not hash to its key
/// or has no reference
#[pyfunction]
fn check_state_rows(rows: &Bound<'_, PyList>, prefix_bytes: usize) -> PyResult<i64> {
    let mut total = 0i64;
    for row in rows.iter() {
        let row = row.cast_into::<PyTuple>()?;
        let (key, value) = (row.get_borrowed_item(0)?, row.get_borrowed_item(1)?);
        let (key, value) = (key.cast::<PyBytes>()?, value.cast::<PyBytes>()?);
        let hash = key.as_bytes().get(prefix_bytes..).unwrap_or_default();
        let references = value.as_bytes().split_last_chunk::<COUNT_BYTES>().and_then(|(payload, count)| {
            let count = i64::from_le_bytes(*count);
            (count >= 1 && sha256(payload) == *hash).then_some(count)
        });
        let Some(references) = references else {
            return Err(kernel_error("ValueMismatchError", "a State row does not hash to its key, or has no references", &hex(hash)));
        };
        total = total.saturating_add(references);
    }
    Ok(total)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<StateRows>()?;
    module.add_function(wrap_pyfunction!(flat_state_rows, module)?)?;
    module.add_function(wrap_pyfunction!(check_state_rows, module)?)?;
    Ok(())
}
