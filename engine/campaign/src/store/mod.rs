//! The store of a campaign: one `SQLite` file in the campaign directory.
//!
//! Purpose: whatever happens to the program, every run that ended is in the store exactly once, whole
//! with its metrics, tasks and link counters. A run is one transaction, synchronised to the disk
//! before the next one is handed out; what is not there did not happen and is run again.
//!
//! Assumes one writer (see [`crate::campaign`]) and any number of readers. The layout is
//! `schema.sql`; its number stands in `user_version`, and a file with another number, or of another
//! program, is refused and left as it is.
//!
//! Reference: <https://sqlite.org/wal.html>, <https://sqlite.org/pragma.html>.

mod read;
mod record;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use tapestry_lab::host::HostFacts;
use tapestry_topologies::plan::Plan;

use crate::design::Settings;
use crate::levels::quantity;

pub(crate) use read::{Kind, Table};
pub use read::{Metric, Run, Session};
pub use record::{Record, State};
pub(crate) use record::{UNMET, wrong};

/// The file in the campaign directory.
pub const FILE: &str = "campaign.sqlite";
/// Number of the layout; grows when a reader must change.
pub const LAYOUT: i32 = 1;
/// Marks our files for `file(1)` and for us: `TPST`.
const APPLICATION: i32 = 0x5450_5354;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is none.
    #[error("there is no campaign in {}: `tapestry campaign run PLAN` begins one", .path.display())]
    Missing {
        /// The campaign directory.
        path: PathBuf,
    },
    /// It was written by a newer program.
    #[error(
        "{} has layout {found}, and this version of tapestry knows layouts up to {LAYOUT}; use the \
         version that wrote it. Nothing was changed", .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i32,
    },
    /// It is a database, but not ours.
    #[error("{} is not the store of a campaign; choose another directory with --out DIR", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is damaged.
    #[error(
        "{} is damaged ({reason}); nothing was changed. Restore it from a copy, save what is left with \
         `sqlite3 FILE .recover`, or begin anew with --out DIR", .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The disk is full.
    #[error(
        "the disk of {} is full: free some space, then go on with --resume; all runs that ended \
         before are safe", .path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Another program holds it for longer than one waits.
    #[error(
        "{} is locked by another program: end what has it open, then go on with --resume; all runs that \
         ended before are safe", .path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{}: {source}", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What `SQLite` says.
        source: rusqlite::Error,
    },
    /// A value in it is not what this version writes.
    #[error("{}: {what} cannot be read: {source}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
}

/// A `SQLite` error as one of ours.
fn error(path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path },
        // The files of WAL are mapped and resized; where that fails SQLite speaks of the disk only.
        Some(ErrorCode::SystemIoFailure) if disk_is_full(&path) => StoreError::Full { path },
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            StoreError::Corrupt { path, reason: source.to_string() }
        }
        None if matches!(source, rusqlite::Error::QueryReturnedNoRows) => {
            StoreError::Corrupt { path, reason: "the row of the campaign is missing".to_owned() }
        }
        _ => StoreError::Sqlite { path, source },
    }
}

impl Store {
    /// Makes the store of a new campaign in a directory that has none. It appears whole or not at
    /// all.
    pub fn create(
        directory: &Path,
        plan: &Plan,
        digest: &str,
        points: &[Settings],
        now: &str,
    ) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let wrong = |source| error(&path, source);
        let mut connection = Connection::open(&path).map_err(wrong)?;
        prepare(&connection).map_err(wrong)?;
        let transaction = connection.transaction().map_err(wrong)?;
        transaction.execute_batch(include_str!("schema.sql")).map_err(wrong)?;
        transaction
            .execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {LAYOUT};"
            ))
            .map_err(wrong)?;
        transaction
            .execute(
                "INSERT INTO campaign (name, plan, digest, created) VALUES (?1, ?2, ?3, ?4)",
                params![plan.name, json(plan), digest, now],
            )
            .map_err(wrong)?;
        {
            let mut point = transaction
                .prepare("INSERT INTO points (id, settings) VALUES (?1, ?2)")
                .map_err(wrong)?;
            let mut factor = transaction
                .prepare("INSERT INTO factors (point, name, value, number) VALUES (?1, ?2, ?3, ?4)")
                .map_err(wrong)?;
            for (id, settings) in points.iter().enumerate() {
                point.execute(params![id.cast_signed(), json(settings)]).map_err(wrong)?;
                for (name, value) in settings {
                    let number = quantity(value).map(|(_, number)| number);
                    factor
                        .execute(params![id.cast_signed(), name, value.to_string(), number])
                        .map_err(wrong)?;
                }
            }
        }
        transaction.commit().map_err(wrong)?;
        Ok(Self { connection, path })
    }

    /// Opens the store of a campaign to go on with it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = existing(directory)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&path, flags).map_err(|source| error(&path, source))?;
        Self::checked(connection, path, prepare)
    }

    /// Opens the store of a campaign to read it, also where nothing may be written.
    pub fn read(directory: &Path) -> Result<Self, StoreError> {
        let path = existing(directory)?;
        match Self::open(directory) {
            Err(StoreError::Sqlite { source, .. }) if cannot_write(&source) => {}
            done => return done,
        }
        // `immutable` looks at no log beside the file, and needs none of the files of WAL.
        let unfinished = path.with_added_extension("wal");
        let mode = match fs::metadata(&unfinished) {
            Ok(log) if log.len() > 0 => "mode=ro",
            _ => "immutable=1",
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(uri(&path, mode), flags)
            .map_err(|source| error(&path, source))?;
        Self::checked(connection, path, |_| Ok(()))
    }

    /// Makes sure that a connection leads to a store of ours with all that belongs to one.
    fn checked(
        connection: Connection,
        path: PathBuf,
        prepare: fn(&Connection) -> rusqlite::Result<()>,
    ) -> Result<Self, StoreError> {
        let wrong = |source| error(&path, source);
        let number = |pragma: &str| {
            connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0)).map_err(wrong)
        };
        let (application, layout) = (number("application_id")?, number("user_version")?);
        if application == 0 && layout == 0 && has_no_tables(&connection).map_err(wrong)? {
            // Killed while it was being made: nothing of it was ever there.
            let directory = path.parent().unwrap_or(Path::new("."));
            return Err(StoreError::Missing { path: directory.to_owned() });
        }
        if application != APPLICATION {
            return Err(StoreError::Foreign { path });
        }
        if layout > LAYOUT {
            return Err(StoreError::Newer { path, found: layout });
        }
        prepare(&connection).map_err(wrong)?;
        if let Some(reason) = lacking(&connection).map_err(wrong)? {
            return Err(StoreError::Corrupt { path, reason });
        }
        let store = Self { connection, path };
        store.plan()?;
        Ok(store)
    }

    /// Looks through the whole file for damage.
    pub fn check(&self) -> Result<(), StoreError> {
        let verdict: String = self
            .connection
            .pragma_query_value(None, "integrity_check", |row| row.get(0))
            .map_err(|source| error(&self.path, source))?;
        if verdict == "ok" {
            return Ok(());
        }
        Err(StoreError::Corrupt { path: self.path.clone(), reason: verdict })
    }

    /// Notes that the campaign is started or resumed; the session's number goes with its runs.
    pub fn begin_session(
        &self,
        now: &str,
        command: &[String],
        jobs: usize,
    ) -> Result<i64, StoreError> {
        self.connection
            .execute(
                "INSERT INTO sessions (started, command, tapestry, host, jobs)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    now,
                    json(&command),
                    env!("CARGO_PKG_VERSION"),
                    json(&HostFacts::read()),
                    jobs.cast_signed()
                ],
            )
            .map_err(|source| error(&self.path, source))?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Brings everything into the one file, so that it can be copied.
    pub fn settle(&self) -> Result<(), StoreError> {
        // Somebody who reads just now is no fault.
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|source| error(&self.path, source))
    }
}

/// Below this a run cannot even write its results.
const LEAST_FREE: u64 = 1 << 20;

/// Whether the disk is full that a file or directory is on, which may not even have been made.
pub(crate) fn disk_is_full(path: &Path) -> bool {
    path.ancestors()
        .find_map(|path| nix::sys::statvfs::statvfs(path).ok())
        .is_some_and(|fs| fs.blocks_available() * fs.fragment_size() <= LEAST_FREE)
}

/// The file in a campaign directory.
fn existing(directory: &Path) -> Result<PathBuf, StoreError> {
    let path = directory.join(FILE);
    if path.exists() { Ok(path) } else { Err(StoreError::Missing { path: directory.to_owned() }) }
}

/// Whether `SQLite` refuses because a file or directory cannot be written.
fn cannot_write(source: &rusqlite::Error) -> bool {
    let code = source.sqlite_error_code();
    matches!(code, Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied))
}

/// A file as a URI for `SQLite`, <https://sqlite.org/uri.html>.
fn uri(path: &Path, query: &str) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                uri.push(char::from(*byte));
            }
            other => {
                let _ = write!(uri, "%{other:02X}");
            }
        }
    }
    format!("{uri}?{query}")
}

/// What of the layout is not there: a table, a view, or a column of one.
fn lacking(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let whole = Connection::open_in_memory()?;
    whole.execute_batch(include_str!("schema.sql"))?;
    let mut objects =
        whole.prepare("SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL")?;
    let objects = objects.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for object in objects {
        let (kind, name): (String, String) = object?;
        // A view whose tables are gone has no columns either.
        let found = columns(connection, &name).unwrap_or_default();
        if found.is_empty() {
            return Ok(Some(format!("it has no {kind} `{name}`")));
        }
        if let Some(column) = columns(&whole, &name)?.iter().find(|it| !found.contains(it)) {
            return Ok(Some(format!("{kind} `{name}` has no column `{column}`")));
        }
    }
    Ok(None)
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut columns = connection.prepare_cached("SELECT name FROM pragma_table_info(?1)")?;
    columns.query_map([table], |row| row.get(0))?.collect()
}

/// What every connection needs.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A run counts when it is on the disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn has_no_tables(connection: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    Ok(tables == 0)
}

/// What cannot be written as JSON does not occur in our types.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

#[cfg(test)]
mod tests;
