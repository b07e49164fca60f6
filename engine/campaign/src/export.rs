//! The store as tables that other programs read: CSV and Parquet.
//!
//! Purpose: `runs` has one row for each run with its factors and metrics as columns (`factor.NAME`,
//! `metric.NAME`); `tasks` and `links` have one row for each task and each end of a link of a run.
//! Every run is there, whatever it is worth; `state` and `purpose` say which ones count.
//!
//! Reference: RFC 4180 (CSV); <https://parquet.apache.org/docs/file-format/>.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use rusqlite::types::Value;

use crate::design::Settings;
use crate::store::{Store, StoreError, Table};

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file could not be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A Parquet file could not be written.
    #[error("cannot write {}: {source}", .path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the writer says.
        source: ParquetError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A format of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header line.
    Csv,
    /// Apache Parquet, compressed by Snappy.
    Parquet,
}

/// Writes all tables into a directory; returns their files.
pub fn write(store: &Store, directory: &Path, format: Format) -> Result<Vec<PathBuf>, ExportError> {
    fs::create_dir_all(directory)
        .map_err(|source| ExportError::Write { path: directory.to_owned(), source })?;
    let tables = [
        ("runs", runs(store)?),
        ("tasks", store.table("SELECT * FROM tasks ORDER BY run, place")?),
        ("links", store.table("SELECT * FROM link_counters ORDER BY run, link, endpoint")?),
    ];
    tables
        .into_iter()
        .map(|(name, table)| {
            let ending = if format == Format::Csv { "csv" } else { "parquet" };
            let path = directory.join(format!("{name}.{ending}"));
            match format {
                Format::Csv => write_csv(&table, &path)?,
                Format::Parquet => write_parquet(name, &table, &path)
                    .map_err(|source| ExportError::Parquet { path: path.clone(), source })?,
            }
            Ok(path)
        })
        .collect()
}

/// Runs with their factors and metrics as columns.
fn runs(store: &Store) -> Result<Table, ExportError> {
    let mut table = store.table("SELECT * FROM runs ORDER BY id")?;
    let points = store.points()?;
    let at = |table: &Table, name: &str| table.columns.iter().position(|column| column == name);
    let (id, point) = (at(&table, "id"), at(&table, "point"));
    let integer = |row: &[Value], column: Option<usize>| match column.and_then(|at| row.get(at)) {
        Some(Value::Integer(number)) => Some(*number),
        _ => None,
    };
    let settings_of = |row: &[Value]| -> Option<&Settings> {
        points.get(usize::try_from(integer(row, point)?).ok()?)
    };
    for factor in points.first().into_iter().flat_map(Settings::keys) {
        table.columns.push(format!("factor.{factor}"));
        for row in &mut table.rows {
            let value = settings_of(row).and_then(|settings| settings.get(factor));
            row.push(value.map_or(Value::Null, |value| match value {
                tapestry_topologies::expression::Value::Int(number) => Value::Integer(*number),
                tapestry_topologies::expression::Value::Float(number) => Value::Real(*number),
                other => Value::Text(other.to_string()),
            }));
        }
    }
    for (name, metric) in store.metrics()? {
        table.columns.push(format!("metric.{name}"));
        let values: BTreeMap<i64, f64> = metric.values.into_iter().collect();
        for row in &mut table.rows {
            let value = integer(row, id).and_then(|id| values.get(&id));
            row.push(value.map_or(Value::Null, |value| Value::Real(*value)));
        }
    }
    Ok(table)
}

fn write_csv(table: &Table, path: &Path) -> Result<(), ExportError> {
    let wrong = |source: io::Error| ExportError::Write { path: path.to_owned(), source };
    let mut out = csv::Writer::from_path(path).map_err(|error| wrong(error.into()))?;
    out.write_record(&table.columns).map_err(|error| wrong(error.into()))?;
    for row in &table.rows {
        out.write_record(row.iter().map(text)).map_err(|error| wrong(error.into()))?;
    }
    out.flush().map_err(wrong)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null | Value::Blob(_) => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
    }
}

/// What a column holds: the widest of its values.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Integer,
    Real,
    Text,
}

fn kind(table: &Table, column: usize) -> Kind {
    let of = |row: &Vec<Value>| match row[column] {
        Value::Integer(_) => Some(Kind::Integer),
        Value::Real(_) => Some(Kind::Real),
        Value::Text(_) => Some(Kind::Text),
        Value::Null | Value::Blob(_) => None,
    };
    table.rows.iter().filter_map(of).max().unwrap_or(Kind::Text)
}

fn write_parquet(name: &str, table: &Table, path: &Path) -> Result<(), ParquetError> {
    let kinds: Vec<Kind> = (0..table.columns.len()).map(|column| kind(table, column)).collect();
    let fields = table.columns.iter().zip(&kinds).map(|(column, kind)| {
        let (physical, converted) = match kind {
            Kind::Integer => (Physical::INT64, ConvertedType::NONE),
            Kind::Real => (Physical::DOUBLE, ConvertedType::NONE),
            Kind::Text => (Physical::BYTE_ARRAY, ConvertedType::UTF8),
        };
        let field = Type::primitive_type_builder(column, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_converted_type(converted);
        field.build().map(Arc::new)
    });
    let schema = Type::group_type_builder(name)
        .with_fields(fields.collect::<Result<Vec<_>, _>>()?)
        .build()?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer =
        SerializedFileWriter::new(File::create(path)?, Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for (column, kind) in kinds.iter().enumerate() {
        write_column(&mut group, table, column, *kind)?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}

fn write_column(
    group: &mut SerializedRowGroupWriter<'_, File>,
    table: &Table,
    column: usize,
    kind: Kind,
) -> Result<(), ParquetError> {
    let Some(mut writer) = group.next_column()? else { return Ok(()) };
    let cells = || table.rows.iter().map(move |row| &row[column]);
    // Absent values are not written, only their absence.
    let present: Vec<i16> =
        cells().map(|cell| i16::from(!matches!(cell, Value::Null | Value::Blob(_)))).collect();
    match kind {
        Kind::Integer => {
            let values: Vec<i64> = cells()
                .filter_map(|cell| if let Value::Integer(n) = cell { Some(*n) } else { None })
                .collect();
            writer.typed::<Int64Type>().write_batch(&values, Some(&present), None)?;
        }
        Kind::Real => {
            let values: Vec<f64> = cells()
                .filter_map(|cell| match cell {
                    Value::Integer(n) => Some(*n as f64),
                    Value::Real(n) => Some(*n),
                    _ => None,
                })
                .collect();
            writer.typed::<DoubleType>().write_batch(&values, Some(&present), None)?;
        }
        Kind::Text => {
            let values: Vec<ByteArray> = cells()
                .filter(|cell| !matches!(cell, Value::Null | Value::Blob(_)))
                .map(|cell| ByteArray::from(text(cell).into_bytes()))
                .collect();
            writer.typed::<ByteArrayType>().write_batch(&values, Some(&present), None)?;
        }
    }
    writer.close()
}

#[cfg(test)]
mod tests;
