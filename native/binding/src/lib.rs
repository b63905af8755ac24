//! Python module `statecast_kernel`: statecast-trie and statecast-records over Arrow data, digests of objects, and statecast-state-header over rows that Python reads.
//!
//! Conversions only: record batches come in over the Arrow C data interface and buffers over the buffer protocol, both without a
//! copy; the interpreter lock is released around all work; every refusal, and every panic, becomes a `KernelError`.
//! Callers use it through `pipelines/kernel/native.py`, which also has pyarrow check the arrays before they come here.

mod columns;
mod decoded;
mod errors;
mod flat_state;
mod outputs;
mod state_header;
mod state_rows;
mod values;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use columns::{Bytes, RecordColumns, StructureColumns, ValueColumns, bytes_of, hash_of};
use errors::{KernelError, guarded, unwinding};
use outputs::OwnedBuffer;

/// Record batches of pyarrow.
type Batches = Vec<Py<PyAny>>;

/// structure(records, left_key, right_key) -> (edge, charges)
#[pyfunction]
#[pyo3(signature = (records, left_key, right_key))]
fn structure(
    py: Python<'_>,
    records: Vec<Bound<'_, PyAny>>,
    left_key: Option<&[u8]>,
    right_key: Option<&[u8]>,
) -> PyResult<(Py<PyBytes>, Py<PyAny>)> {
    let columns = records.iter().map(StructureColumns::from_python).collect::<PyResult<Vec<_>>>()?;
    let result = guarded(py, || {
        let count = columns.iter().map(StructureColumns::len).sum();
        statecast_trie::structure(columns.iter().flat_map(StructureColumns::iter), count, left_key, right_key)
    })?;
    Ok((PyBytes::new(py, &result.edge).unbind(), outputs::uint64_array(py, result.charges)?))
}

/// build(records, values, left_key, right_key, keep_interior, boundary_nodes) -> (edge, interior or None, node_count, hashed_bytes)
#[pyfunction]
#[pyo3(signature = (records, values, left_key, right_key, keep_interior, boundary_nodes))]
fn build(
    py: Python<'_>,
    records: Vec<Bound<'_, PyAny>>,
    values: Vec<Bound<'_, PyAny>>,
    left_key: Option<&[u8]>,
    right_key: Option<&[u8]>,
    keep_interior: bool,
    boundary_nodes: Vec<Bound<'_, PyBytes>>,
) -> PyResult<(Py<PyBytes>, Option<OwnedBuffer>, u64, u64)> {
    let records = records.iter().map(RecordColumns::from_python).collect::<PyResult<Vec<_>>>()?;
    let values = values.iter().map(ValueColumns::from_python).collect::<PyResult<Vec<_>>>()?;
    let boundary_nodes: Vec<&[u8]> = boundary_nodes.iter().map(|node| node.as_bytes()).collect();
    let result = guarded(py, || {
        let count = records.iter().map(RecordColumns::len).sum();
        let values = values.iter().flat_map(ValueColumns::iter);
        let records = records.iter().flat_map(RecordColumns::iter);
        statecast_trie::build(records, count, values, left_key, right_key, keep_interior, &boundary_nodes)
    })?;
    Ok((PyBytes::new(py, &result.edge).unbind(), result.interior.map(OwnedBuffer::new), result.node_count, result.hashed_bytes))
}

/// merge(left, right) -> edge
#[pyfunction]
fn merge(py: Python<'_>, left: &[u8], right: &[u8]) -> PyResult<Py<PyBytes>> {
    let merged = guarded(py, || statecast_trie::merge(left, right))?;
    Ok(PyBytes::new(py, &merged).unbind())
}

/// seal(edges) -> (state_root, memory_usage, root_node, boundary_nodes, charges)
#[pyfunction]
fn seal(py: Python<'_>, edges: Vec<Bound<'_, PyBytes>>) -> PyResult<Py<PyTuple>> {
    let edges: Vec<&[u8]> = edges.iter().map(|edge| edge.as_bytes()).collect();
    let sealed = guarded(py, || statecast_trie::seal(&edges))?;
    outputs::sealed(py, &sealed)
}

/// assemble(interior or None, nodes) -> buffer
#[pyfunction]
#[pyo3(signature = (interior, nodes))]
fn assemble(py: Python<'_>, interior: Option<Bound<'_, PyAny>>, nodes: Vec<Bound<'_, PyBytes>>) -> PyResult<OwnedBuffer> {
    let interior = interior.as_ref().map(Bytes::new).transpose()?;
    let nodes: Vec<&[u8]> = nodes.iter().map(|node| node.as_bytes()).collect();
    let part = guarded(py, || statecast_trie::assemble(interior.as_ref().map(Bytes::as_slice), &nodes))?;
    Ok(OwnedBuffer::new(part))
}

/// validate(partial_state, state_root, part_id, num_parts)
#[pyfunction]
fn validate(py: Python<'_>, partial_state: &Bound<'_, PyAny>, state_root: &[u8], part_id: u64, num_parts: u64) -> PyResult<()> {
    let part = Bytes::new(partial_state)?;
    let root = hash_of(state_root)?;
    guarded(py, || statecast_trie::validate(part.as_slice(), &root, part_id, num_parts))
}

/// validate_sorted(partial_state, state_root, part_id, num_parts) -> sha256 of partial_state
#[pyfunction]
fn validate_sorted(
    py: Python<'_>,
    partial_state: &Bound<'_, PyAny>,
    state_root: &[u8],
    part_id: u64,
    num_parts: u64,
) -> PyResult<Py<PyBytes>> {
    let part = Bytes::new(partial_state)?;
    let root = hash_of(state_root)?;
    let digest = guarded(py, || statecast_trie::validate_sorted(part.as_slice(), &root, part_id, num_parts))?;
    Ok(PyBytes::new(py, &digest).unbind())
}

/// digest_object(data, piece_length) -> (sha256, v1_pieces, v1_last_unpadded, v2_piece_layer, v2_root)
#[pyfunction]
fn digest_object(py: Python<'_>, data: &Bound<'_, PyAny>, piece_length: usize) -> PyResult<Py<PyTuple>> {
    let data = Bytes::new(data)?;
    let found = unwinding(py, || statecast_digests::digest_object(data.as_slice(), piece_length))?;
    let fields = (
        PyBytes::new(py, &found.sha256),
        PyBytes::new(py, found.v1_pieces.as_flattened()),
        PyBytes::new(py, found.v1_last_unpadded.as_ref().map_or(&[][..], |digest| digest)),
        PyBytes::new(py, found.v2_piece_layer.as_flattened()),
        PyBytes::new(py, found.v2_root.as_ref().map_or(&[][..], |root| root)),
    );
    Ok(fields.into_pyobject(py)?.unbind())
}

/// apply(partial_state, state_root, part_id, num_parts) -> (record batches, value batches)
#[pyfunction]
fn apply(
    py: Python<'_>,
    partial_state: &Bound<'_, PyAny>,
    state_root: &[u8],
    part_id: u64,
    num_parts: u64,
) -> PyResult<(Batches, Batches)> {
    let part = Bytes::new(partial_state)?;
    let root = hash_of(state_root)?;
    let (records, values) = guarded(py, || {
        let applied = statecast_trie::apply(part.as_slice(), &root, part_id, num_parts)?;
        Ok((outputs::record_batches(&applied), outputs::value_batches(&applied)))
    })?;
    Ok((outputs::to_pyarrow(py, records)?, outputs::to_pyarrow(py, values)?))
}

/// apply_counted(partial_state, state_root, part_id, num_parts, bucket_count) -> (record batches, reference batches)
#[pyfunction]
fn apply_counted(
    py: Python<'_>,
    partial_state: &Bound<'_, PyAny>,
    state_root: &[u8],
    part_id: u64,
    num_parts: u64,
    bucket_count: usize,
) -> PyResult<(Batches, Batches)> {
    let part = Bytes::new(partial_state)?;
    let root = hash_of(state_root)?;
    let (records, references) = guarded(py, || {
        let (applied, counts) = statecast_trie::apply_counted(part.as_slice(), &root, part_id, num_parts)?;
        Ok((outputs::record_batches(&applied), outputs::reference_batches(&applied, &counts, bucket_count)))
    })?;
    Ok((outputs::to_pyarrow(py, records)?, outputs::to_pyarrow(py, references)?))
}

/// sha256_floor(items): hash each item, one after the other on one core, and forget the hashes.
///
/// What any kernel at least has to spend on these bytes; benchmarks divide by it. `items` is an Arrow binary array or a list of
/// bytes-like objects.
#[pyfunction]
fn sha256_floor(py: Python<'_>, items: Bound<'_, PyAny>) -> PyResult<()> {
    let items = bytes_of(&items)?;
    guarded(py, || {
        let mut mixed = 0;
        items.for_each(|item| mixed ^= statecast_trie::sha256(item)[0]);
        std::hint::black_box(mixed);
        Ok(())
    })
}

/// Have glibc keep freed blocks of up to 32 MiB, the largest that it allows, until `malloc_trim` gives them back.
///
/// A part takes some hundred megabytes for a moment, and a worker makes one part after the other: getting these pages from the
/// operating system each time cost a third of `build` and a quarter of `validate` when it was measured.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_freed_memory() {
    // SAFETY: mallopt sets parameters of the allocator, at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 20);
    }
}

#[pymodule(gil_used = false)]
fn statecast_kernel(module: &Bound<'_, PyModule>) -> PyResult<()> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    keep_freed_memory();
    module.add("KernelError", module.py().get_type::<KernelError>())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<OwnedBuffer>()?;
    module.add_class::<flat_state::FlatStateBatches>()?;
    module.add_class::<values::ValueBatches>()?;
    module.add_function(wrap_pyfunction!(structure, module)?)?;
    module.add_function(wrap_pyfunction!(build, module)?)?;
    module.add_function(wrap_pyfunction!(merge, module)?)?;
    module.add_function(wrap_pyfunction!(seal, module)?)?;
    module.add_function(wrap_pyfunction!(assemble, module)?)?;
    module.add_function(wrap_pyfunction!(validate, module)?)?;
    module.add_function(wrap_pyfunction!(validate_sorted, module)?)?;
    module.add_function(wrap_pyfunction!(digest_object, module)?)?;
    module.add_function(wrap_pyfunction!(apply, module)?)?;
    module.add_function(wrap_pyfunction!(sha256_floor, module)?)?;
    module.add_function(wrap_pyfunction!(apply_counted, module)?)?;
    decoded::register(module)?;
    state_header::register(module)?;
    state_rows::register(module)?;
    Ok(())
}
