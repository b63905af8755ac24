//! State headers over rows that Python reads.

use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use statecast_state_header::{ErrorKind, HeaderError, Layouts, RowKind, Rows, Verified};
use statecast_trie::Hash;

use crate::columns::hash_of;
use crate::errors::{kernel_error, unwinding};

/// A Python function `(column name, key) -> row or None`.
struct PythonRows {
    read: Py<PyAny>,
    /// What the function raised; it goes back to the caller as it is.
    raised: Mutex<Option<PyErr>>,
}

impl PythonRows {
    fn call(&self, kind: RowKind, key: &[u8]) -> PyResult<Option<Vec<u8>>> {
        Python::attach(|py| self.read.call1(py, (kind.name(), PyBytes::new(py, key)))?.extract(py))
    }
}

impl Rows for PythonRows {
    fn get(&self, kind: RowKind, key: &[u8]) -> statecast_state_header::Result<Option<Vec<u8>>> {
        self.call(kind, key).map_err(|error| {
            *self.raised.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
            HeaderError::new(ErrorKind::Rows, "a row could not be read", kind.name())
        })
    }
}

fn run<T: Send>(
    py: Python<'_>,
    read: Py<PyAny>,
    chain_id: &str,
    genesis_layout: Option<&str>,
    work: impl FnOnce(&dyn Rows, &Layouts) -> statecast_state_header::Result<T> + Send,
) -> PyResult<T> {
    let rows = PythonRows { read, raised: Mutex::new(None) };
    let outcome = unwinding(py, || work(&rows, &Layouts::new(chain_id, genesis_layout)?))?;
    if let Some(raised) = rows.raised.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        return Err(raised);
    }
    outcome.map_err(|error: HeaderError| kernel_error(error.kind.class_name(), &error.problem, &error.place))
}

/// compute_state_header(read_row, sync_hash, shard_id, chain_id, genesis_layout or None) -> header
#[pyfunction]
#[pyo3(signature = (read_row, sync_hash, shard_id, chain_id, genesis_layout))]
fn compute_state_header(
    py: Python<'_>,
    read_row: Py<PyAny>,
    sync_hash: &[u8],
    shard_id: u64,
    chain_id: &str,
    genesis_layout: Option<&str>,
) -> PyResult<Py<PyBytes>> {
    let sync_hash: Hash = hash_of(sync_hash)?;
    let header =
        run(py, read_row, chain_id, genesis_layout, |rows, layouts| statecast_state_header::compute(rows, layouts, &sync_hash, shard_id))?;
    Ok(PyBytes::new(py, &header).unbind())
}

/// verify_state_header(header, read_row, sync_hash, shard_id, chain_id, genesis_layout or None)
///     -> (version, chunk_hash, height_included, state_root, memory_usage, blocks, receipts)
#[pyfunction]
#[pyo3(signature = (header, read_row, sync_hash, shard_id, chain_id, genesis_layout))]
#[allow(clippy::too_many_arguments, clippy::type_complexity)]
fn verify_state_header(
    py: Python<'_>,
    header: &[u8],
    read_row: Py<PyAny>,
    sync_hash: &[u8],
    shard_id: u64,
    chain_id: &str,
    genesis_layout: Option<&str>,
) -> PyResult<(u8, Py<PyBytes>, u64, Py<PyBytes>, u64, usize, usize)> {
    let sync_hash: Hash = hash_of(sync_hash)?;
    let found: Verified = run(py, read_row, chain_id, genesis_layout, |rows, layouts| {
        statecast_state_header::verify(rows, layouts, &sync_hash, shard_id, header)
    })?;
    Ok((
        found.version,
        PyBytes::new(py, &found.chunk_hash).unbind(),
        found.height_included,
        PyBytes::new(py, &found.state_root).unbind(),
        found.memory_usage,
        found.blocks,
        found.receipts,
    ))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(compute_state_header, module)?)?;
    module.add_function(wrap_pyfunction!(verify_state_header, module)?)?;
    Ok(())
}
