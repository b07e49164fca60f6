use parquet::file::reader::{FileReader, SerializedFileReader};
use rusqlite::types::Value::{Integer, Null, Real, Text};

use std::fs::File;

use super::*;

fn table() -> Table {
    Table {
        columns: ["id", "metric.rtt", "errors", "none"].map(str::to_owned).to_vec(),
        kinds: vec![Kind::Integer, Kind::Real, Kind::Text, Kind::Integer],
        rows: vec![
            vec![Integer(1), Real(1.5), Text("a \"b\", c".to_owned()), Null],
            vec![Integer(2), Null, Text("two\nlines".to_owned()), Null],
            vec![Integer(3), Integer(7), Null, Null],
        ],
    }
}

#[test]
fn csv_is_quoted_as_it_should_be() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("t.csv");
    write_csv(&table(), File::create(&path).unwrap()).unwrap();
    let expected =
        "id,metric.rtt,errors,none\n1,1.5,\"a \"\"b\"\", c\",\n2,,\"two\nlines\",\n3,7,,\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
}

#[test]
fn parquet_is_read_back() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("t.parquet");
    write_parquet("t", &table(), File::create(&path).unwrap()).unwrap();
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    assert_eq!(reader.metadata().file_metadata().num_rows(), 3);
    let rows: Vec<String> =
        reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
    assert_eq!(rows[0], "{id: 1, metric.rtt: 1.5, errors: \"a \"b\", c\", none: null}");
    assert_eq!(rows[2], "{id: 3, metric.rtt: 7.0, errors: null, none: null}");
}

#[test]
fn a_table_without_rows_is_one() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("t.parquet");
    let table = Table { rows: Vec::new(), ..table() };
    write_parquet("t", &table, File::create(&path).unwrap()).unwrap();
    assert!(SerializedFileReader::new(File::open(&path).unwrap()).is_ok());
}

/// A column without a value, or a table without a row, has the type that it always has.
#[test]
fn types_of_columns_do_not_depend_on_the_runs() {
    let plan = crate::design::tests::plan(
        &[("a", crate::design::tests::list(&[1, 2]))],
        tapestry_topologies::plan::Design::FullFactorial,
    );
    let points = crate::design::points(&plan).unwrap();
    let place = tempfile::tempdir().unwrap();
    let store = Store::create(place.path(), &plan, "digest", &points, "now").unwrap();
    let files = super::write(&store, &place.path().join("out"), Format::Parquet).unwrap();
    let reader = SerializedFileReader::new(File::open(&files[0]).unwrap()).unwrap();
    let schema = reader.metadata().file_metadata().schema_descr();
    let of = |name: &str| {
        let mut columns = schema.columns().iter();
        columns.find(|column| column.name() == name).map(|column| column.physical_type())
    };
    assert_eq!(of("lateness_p99_ns"), Some(Physical::INT64));
    assert_eq!(of("virtual_seconds"), Some(Physical::DOUBLE));
    assert_eq!(of("reasons"), Some(Physical::BYTE_ARRAY));
    assert_eq!(of("factor.a"), Some(Physical::INT64));
    let left = std::fs::read_dir(place.path().join("out")).unwrap().count();
    assert_eq!(left, 3, "three tables and nothing else");
}
