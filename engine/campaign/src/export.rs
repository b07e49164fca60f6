//! The store as tables that other programs read: CSV and Parquet.
//!
//! Purpose: `runs` has one row for each run with its factors and metrics as columns (`factor.NAME`,
//! `metric.NAME`); `tasks` and `links` have one row for each task and each end of a link of a run.
//! Every run is there, whatever it is worth; `state` and `purpose` say which ones count.
//!
//! Reference: RFC 4180 (CSV); <https://parquet.apache.org/docs/file-format/>.

use std::collections::BTreeMap;
use std::fs;
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
use crate::store::{Kind, Store, StoreError, Table};
use crate::whole;

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
        ("tasks", store.table("tasks", "run, place")?),
        ("links", store.table("link_counters", "run, link, endpoint")?),
    ];
    tables
        .into_iter()
        .map(|(name, table)| {
            let ending = if format == Format::Csv { "csv" } else { "parquet" };
            let path = directory.join(format!("{name}.{ending}"));
            let wrong = |source| ExportError::Write { path: path.clone(), source };
            whole::write(&path, |file| {
                let out = io::BufWriter::new(file);
                match format {
                    Format::Csv => write_csv(&table, out),
                    Format::Parquet => write_parquet(name, &table, out).map_err(io::Error::other),
                }
            })
            .map_err(wrong)?;
            Ok(path)
        })
        .collect()
}

/// Runs with their factors and metrics as columns.
fn runs(store: &Store) -> Result<Table, ExportError> {
    let mut table = store.table("runs", "id")?;
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
        table.kinds.push(kind(points.iter().filter_map(|settings| settings.get(factor))));
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
        table.kinds.push(Kind::Real);
        let values: BTreeMap<i64, f64> = metric.values.into_iter().collect();
        for row in &mut table.rows {
            let value = integer(row, id).and_then(|id| values.get(&id));
            row.push(value.map_or(Value::Null, |value| Value::Real(*value)));
        }
    }
    Ok(table)
}

/// The kind of a factor's column: that of its levels in the design, whatever was run of it.
fn kind<'a>(levels: impl Iterator<Item = &'a tapestry_topologies::expression::Value>) -> Kind {
    use tapestry_topologies::expression::Value;
    let of = |level: &Value| match level {
        Value::Int(_) => Kind::Integer,
        Value::Float(_) => Kind::Real,
        Value::Bool(_) | Value::Text(_) => Kind::Text,
    };
    levels.map(of).max().unwrap_or(Kind::Text)
}

fn write_csv(table: &Table, out: impl io::Write) -> io::Result<()> {
    let mut out = csv::Writer::from_writer(out);
    out.write_record(&table.columns)?;
    for row in &table.rows {
        out.write_record(row.iter().map(text))?;
    }
    out.flush()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null | Value::Blob(_) => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
    }
}

fn write_parquet(
    name: &str,
    table: &Table,
    out: impl io::Write + Send,
) -> Result<(), ParquetError> {
    let fields = table.columns.iter().zip(&table.kinds).map(|(column, kind)| {
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
    let mut writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for (column, kind) in table.kinds.iter().enumerate() {
        write_column(&mut group, table, column, *kind)?;
    }
    group.close()?;
    // Also what the operating system says of the last bytes.
    writer.into_inner()?.flush()?;
    Ok(())
}

fn write_column<W: io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
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
