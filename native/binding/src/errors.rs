//! Turning refusals and panics into one Python exception.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use statecast_trie::TrieError;

pyo3::create_exception!(
    statecast_kernel,
    KernelError,
    PyException,
    "A refusal of the kernel; args are (class name of schemas.errors, problem, where)."
);

pub(crate) fn kernel_error(class_name: &str, problem: &str, place: &str) -> PyErr {
    KernelError::new_err((class_name.to_owned(), problem.to_owned(), place.to_owned()))
}

/// The caller gave something that no method takes.
pub(crate) fn invalid_input(problem: &str, place: &str) -> PyErr {
    kernel_error("InvalidInputError", problem, place)
}

/// Run without the interpreter lock; a panic is a broken invariant of ours, never a crash.
pub(crate) fn unwinding<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    let outcome: std::thread::Result<T> = py.detach(|| catch_unwind(AssertUnwindSafe(work)));
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        kernel_error("AssertionError", text.unwrap_or("the native kernel panicked"), "statecast_kernel")
    })
}

/// `unwinding`, and the crate's refusals as `KernelError`.
pub(crate) fn guarded<T: Send>(py: Python<'_>, work: impl FnOnce() -> statecast_trie::Result<T> + Send) -> PyResult<T> {
    let outcome: Result<T, TrieError> = unwinding(py, work)?;
    outcome.map_err(|error| kernel_error(error.kind.class_name(), &error.problem, &error.place))
}
