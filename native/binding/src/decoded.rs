//! Columns of decoded records, out of keys and values as Arrow columns.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, Decimal128Builder, Int64Builder, ListBuilder, StringBuilder, UInt64Builder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BinaryArray, UInt8Array, make_array};
use arrow_data::ArrayData;
use arrow_pyarrow::{FromPyArrow, ToPyArrow};
use arrow_schema::DataType;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use statecast_records::{AccessKey, Account, BASE58_TEXT_MAX, ContractData, access_key, account, base58, contract_data};

use crate::errors::{invalid_input, unwinding};

/// Amounts, as schemas/dataset/decoded_record.py has them.
const AMOUNT_TYPE: DataType = DataType::Decimal128(38, 0);

/// Records of one form, and the columns that are asked for.
struct Decoded {
    /// Which rows are of the form, ascending.
    rows: ArrayRef,
    columns: Vec<(String, ArrayRef)>,
}

fn binary(column: &Bound<'_, PyAny>) -> PyResult<BinaryArray> {
    let array = make_array(ArrayData::from_pyarrow_bound(column)?);
    array.as_binary_opt::<i32>().cloned().ok_or_else(|| invalid_input("a column has not the type binary", "keys, values"))
}

/// decode_rows(first_byte, keys, values, columns) -> (rows, columns by name)
///
/// Which rows are of the usual form of the kind with this first byte, and of those the columns; a column that the kind has not is left out.
/// Versions, contract kinds and permissions are numbers: places among all that there are.
#[pyfunction]
fn decode_rows<'py>(
    py: Python<'py>,
    first_byte: u8,
    keys: &Bound<'py, PyAny>,
    values: &Bound<'py, PyAny>,
    columns: Vec<String>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyDict>)> {
    let (keys, values) = (binary(keys)?, binary(values)?);
    if keys.len() != values.len() || keys.null_count() > 0 {
        return Err(invalid_input("each record has a key, and a value or null", "keys, values"));
    }
    let decoded = unwinding(py, || match first_byte {
        0 => decode(&keys, &values, columns, |key, value| account(key, value?), account_column),
        2 => decode(&keys, &values, columns, |key, value| access_key(key, value?), access_key_column),
        9 => decode(&keys, &values, columns, |key, _| contract_data(key), contract_data_column),
        _ => Decoded { rows: Arc::new(Int64Builder::new().finish()), columns: Vec::new() },
    })?;
    let found = PyDict::new(py);
    for (name, column) in decoded.columns {
        found.set_item(name, column.into_data().to_pyarrow(py)?)?;
    }
    Ok((decoded.rows.into_data().to_pyarrow(py)?, found))
}

fn decode<'a, T>(
    keys: &'a BinaryArray,
    values: &'a BinaryArray,
    columns: Vec<String>,
    read: impl Fn(&'a [u8], Option<&'a [u8]>) -> Option<T>,
    column: impl Fn(&[T], &str) -> Option<ArrayRef>,
) -> Decoded {
    let mut rows = Int64Builder::with_capacity(keys.len());
    let mut records = Vec::with_capacity(keys.len());
    for row in 0..keys.len() {
        if let Some(record) = read(keys.value(row), values.is_valid(row).then(|| values.value(row))) {
            rows.append_value(row as i64);
            records.push(record);
        }
    }
    let columns = columns.into_iter().filter_map(|name| column(&records, &name).map(|array| (name, array))).collect();
    Decoded { rows: Arc::new(rows.finish()), columns }
}

fn account_column(accounts: &[Account<'_>], name: &str) -> Option<ArrayRef> {
    Some(match name {
        "account_id" => texts(accounts, |account| Some(account.account_id)),
        "amount" => amounts(accounts, |account| Some(account.amount)),
        "locked" => amounts(accounts, |account| Some(account.locked)),
        "storage_usage" => numbers(accounts, |account| account.storage_usage),
        "account_version" => tags(accounts, |account| account.version - 1),
        "contract_kind" => tags(accounts, |account| account.contract.tag()),
        "code_hash" => base58_texts(accounts, "", |account| account.contract.code_hash()),
        "contract_account_id" => texts(accounts, |account| account.contract.account_id()),
        _ => return None,
    })
}

fn access_key_column(keys: &[AccessKey<'_>], name: &str) -> Option<ArrayRef> {
    Some(match name {
        "account_id" => texts(keys, |key| Some(key.account_id)),
        "public_key" => base58_texts(keys, "ed25519:", |key| Some(key.public_key)),
        "nonce" => numbers(keys, |key| key.nonce),
        "permission" => tags(keys, |key| u8::from(key.calls.is_none())),
        "allowance" => amounts(keys, |key| key.calls.as_ref()?.allowance),
        "allowance_is_unlimited" => flags(keys, |key| Some(key.calls.as_ref()?.allowance.is_none())),
        "receiver_id" => texts(keys, |key| Some(key.calls.as_ref()?.receiver_id)),
        "method_names" => method_names(keys),
        _ => return None,
    })
}

fn contract_data_column(records: &[ContractData<'_>], name: &str) -> Option<ArrayRef> {
    Some(match name {
        "account_id" => texts(records, |record| Some(record.account_id)),
        "data_key" => {
            let mut built = BinaryBuilder::with_capacity(records.len(), records.iter().map(|record| record.data_key.len()).sum());
            records.iter().for_each(|record| built.append_value(record.data_key));
            Arc::new(built.finish())
        }
        _ => return None,
    })
}

fn texts<T>(records: &[T], text: impl Fn(&T) -> Option<&str>) -> ArrayRef {
    let mut built = StringBuilder::with_capacity(records.len(), records.iter().map(|record| text(record).map_or(0, str::len)).sum());
    records.iter().for_each(|record| built.append_option(text(record)));
    Arc::new(built.finish())
}

fn base58_texts<T>(records: &[T], prefix: &str, bytes: impl Fn(&T) -> Option<&[u8; 32]>) -> ArrayRef {
    let width = prefix.len() + BASE58_TEXT_MAX;
    let mut built = StringBuilder::with_capacity(records.len(), records.len() * width);
    let mut text = String::with_capacity(width);
    for record in records {
        if let Some(bytes) = bytes(record) {
            text.clear();
            text.push_str(prefix);
            base58(bytes, &mut text);
            built.append_value(&text);
        } else {
            built.append_null();
        }
    }
    Arc::new(built.finish())
}

fn amounts<T>(records: &[T], amount: impl Fn(&T) -> Option<u128>) -> ArrayRef {
    let mut built = Decimal128Builder::with_capacity(records.len()).with_data_type(AMOUNT_TYPE);
    records.iter().for_each(|record| built.append_option(amount(record).map(|amount| i128::try_from(amount).expect("it fits its column"))));
    Arc::new(built.finish())
}

fn numbers<T>(records: &[T], number: impl Fn(&T) -> u64) -> ArrayRef {
    let mut built = UInt64Builder::with_capacity(records.len());
    records.iter().for_each(|record| built.append_value(number(record)));
    Arc::new(built.finish())
}

/// What a column says, as its place among all that it can say.
fn tags<T>(records: &[T], tag: impl Fn(&T) -> u8) -> ArrayRef {
    Arc::new(records.iter().map(|record| Some(tag(record))).collect::<UInt8Array>())
}

fn flags<T>(records: &[T], flag: impl Fn(&T) -> Option<bool>) -> ArrayRef {
    let mut built = BooleanBuilder::with_capacity(records.len());
    records.iter().for_each(|record| built.append_option(flag(record)));
    Arc::new(built.finish())
}

fn method_names(keys: &[AccessKey<'_>]) -> ArrayRef {
    let mut built = ListBuilder::with_capacity(StringBuilder::new(), keys.len());
    for key in keys {
        if let Some(calls) = &key.calls {
            calls.method_names().for_each(|name| built.values().append_value(name));
        }
        built.append(key.calls.is_some());
    }
    Arc::new(built.finish())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(decode_rows, module)?)
}
