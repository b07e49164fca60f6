//! Reading what is in a store.

use indexmap::IndexMap;
use rusqlite::{Row, ToSql};
use serde::de::DeserializeOwned;
use tapestry_lab::host::HostFacts;
use tapestry_topologies::plan::Plan;

use super::{State, Store, StoreError, error};
use crate::design::{Job, Purpose, Settings};

/// One time the campaign was started or resumed.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// When.
    pub started: String,
    /// By which command.
    pub command: Vec<String>,
    /// Version of Tapestry.
    pub tapestry: String,
    /// On which machine.
    pub host: HostFacts,
    /// With how many runs side by side at most.
    pub jobs: usize,
}

/// A run without its metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its number in the store.
    pub id: i64,
    /// Which run of the plan it was.
    pub job: Job,
    /// Its seed.
    pub seed: u64,
    /// What it is worth.
    pub state: State,
    /// `valid`, `degraded` or `invalid`; empty if it left no results.
    pub verdict: String,
    /// Reasons of the verdict.
    pub reasons: Vec<String>,
    /// `passed`, `failed`, …; empty if it left no results.
    pub outcome: String,
    /// What went wrong.
    pub errors: Vec<String>,
    /// When it began.
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// How many others were under way when it began.
    pub beside: usize,
    /// Its directory relative to the campaign's.
    pub directory: Option<String>,
}

impl Run {
    /// Whether its metrics enter statistics.
    pub fn counts(&self) -> bool {
        self.job.purpose == Purpose::Measure && self.state == State::Counted
    }
}

/// A metric over all runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metric {
    /// Its unit; empty for a bare number.
    pub unit: String,
    /// Run number and value.
    pub values: Vec<(i64, f64)>,
}

impl Store {
    /// The plan as it was read when the campaign began.
    pub fn plan(&self) -> Result<Plan, StoreError> {
        let text: String = self.one("SELECT plan FROM campaign")?;
        self.parse("the plan", &text)
    }

    /// The digest of everything that decides what runs are made.
    pub fn digest(&self) -> Result<String, StoreError> {
        self.one("SELECT digest FROM campaign")
    }

    /// The points, in order.
    pub fn points(&self) -> Result<Vec<Settings>, StoreError> {
        let texts: Vec<String> =
            self.all("SELECT settings FROM points ORDER BY id", |row| row.get(0))?;
        texts.iter().map(|text| self.parse("a point", text)).collect()
    }

    /// All sessions, in order.
    pub fn sessions(&self) -> Result<Vec<Session>, StoreError> {
        let rows: Vec<(String, String, String, String, i64)> = self.all(
            "SELECT started, command, tapestry, host, jobs FROM sessions ORDER BY id",
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )?;
        let session =
            |(started, command, tapestry, host, jobs): (String, String, String, String, i64)| {
                Ok(Session {
                    started,
                    command: self.parse("a command", &command)?,
                    tapestry,
                    host: self.parse("a host", &host)?,
                    jobs: usize::try_from(jobs).unwrap_or(0),
                })
            };
        rows.into_iter().map(session).collect()
    }

    /// All runs, in the order in which they ended.
    pub fn runs(&self) -> Result<Vec<Run>, StoreError> {
        let rows = self.all(
            "SELECT id, point, purpose, replicate, attempt, seed, state, verdict, reasons, outcome,
                 errors, started, seconds, beside, directory
             FROM runs ORDER BY id",
            |row| {
                let text = |at| row.get::<_, Option<String>>(at).map(Option::unwrap_or_default);
                Ok((run(row)?, text(8)?, text(10)?))
            },
        )?;
        rows.into_iter()
            .map(|(run, reasons, errors)| {
                let reasons = self.parse("reasons of a run", &reasons)?;
                Ok(Run { reasons, errors: self.parse("errors of a run", &errors)?, ..run })
            })
            .collect()
    }

    /// All metrics of all runs, in the order in which runs first had them.
    pub fn metrics(&self) -> Result<IndexMap<String, Metric>, StoreError> {
        let mut metrics: IndexMap<String, Metric> = IndexMap::new();
        let mut query = self
            .connection
            .prepare(
                "SELECT run, name, value, unit FROM metrics WHERE value IS NOT NULL ORDER BY run",
            )
            .map_err(|source| error(&self.path, source))?;
        let mut rows = query.query([]).map_err(|source| error(&self.path, source))?;
        while let Some(row) = rows.next().map_err(|source| error(&self.path, source))? {
            let mut read = || -> rusqlite::Result<()> {
                let name = row.get_ref(1)?.as_str()?;
                if !metrics.contains_key(name) {
                    let unit = row.get(3)?;
                    metrics.insert(name.to_owned(), Metric { unit, values: Vec::new() });
                }
                if let Some(metric) = metrics.get_mut(name) {
                    metric.values.push((row.get(0)?, row.get(2)?));
                }
                Ok(())
            };
            read().map_err(|source| error(&self.path, source))?;
        }
        Ok(metrics)
    }

    /// The values of one metric in runs that count: point, replicate, value.
    pub fn values(&self, metric: &str) -> Result<Vec<(usize, u32, f64)>, StoreError> {
        self.all_with(
            "SELECT point, replicate, value FROM counted_metrics WHERE name = ?1
             ORDER BY point, replicate",
            &[&metric],
            |row| Ok((row.get::<_, i64>(0)? as usize, row.get(1)?, row.get(2)?)),
        )
    }

    /// A whole table, for exports. The kinds of its columns are those of the layout.
    pub(crate) fn table(&self, name: &str, order: &str) -> Result<Table, StoreError> {
        let wrong = |source| error(&self.path, source);
        let (columns, kinds): (Vec<String>, Vec<Kind>) = self
            .all_with("SELECT name, type FROM pragma_table_info(?1)", &[&name], |row| {
                let kind = match row.get_ref(1)?.as_str()? {
                    "INTEGER" => Kind::Integer,
                    "REAL" => Kind::Real,
                    _ => Kind::Text,
                };
                Ok((row.get(0)?, kind))
            })?
            .into_iter()
            .unzip();
        let query = format!("SELECT * FROM {name} ORDER BY {order}");
        let mut statement = self.connection.prepare(&query).map_err(wrong)?;
        let count = columns.len();
        let rows = statement
            .query_map([], |row| (0..count).map(|at| row.get(at)).collect())
            .and_then(Iterator::collect)
            .map_err(wrong)?;
        Ok(Table { columns, kinds, rows })
    }

    fn one(&self, query: &str) -> Result<String, StoreError> {
        self.connection
            .query_row(query, [], |row| row.get(0))
            .map_err(|source| error(&self.path, source))
    }

    fn all<T>(
        &self,
        query: &str,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.all_with(query, &[], read)
    }

    fn all_with<T>(
        &self,
        query: &str,
        parameters: &[&dyn ToSql],
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let wrong = |source| error(&self.path, source);
        let mut statement = self.connection.prepare(query).map_err(wrong)?;
        let rows = statement.query_map(parameters, read).map_err(wrong)?;
        rows.collect::<Result<_, _>>().map_err(wrong)
    }

    fn parse<T: DeserializeOwned>(&self, what: &'static str, text: &str) -> Result<T, StoreError> {
        serde_json::from_str(text).map_err(|source| StoreError::Content {
            path: self.path.clone(),
            what,
            source,
        })
    }
}

/// What a column holds; each kind can hold what the ones before it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Integer,
    Real,
    Text,
}

/// A table with all its rows.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) rows: Vec<Vec<rusqlite::types::Value>>,
}

fn run(row: &Row<'_>) -> rusqlite::Result<Run> {
    let text = |at| row.get::<_, Option<String>>(at).map(Option::unwrap_or_default);
    let purpose = text(2)?;
    let state: String = row.get(6)?;
    Ok(Run {
        id: row.get(0)?,
        job: Job {
            purpose: if purpose == Purpose::WarmUp.as_str() {
                Purpose::WarmUp
            } else {
                Purpose::Measure
            },
            point: row.get::<_, i64>(1)? as usize,
            replicate: row.get(3)?,
            attempt: row.get(4)?,
        },
        seed: row.get::<_, i64>(5)?.cast_unsigned(),
        // A word that this version does not know is no reason to count a run.
        state: State::parse(&state).unwrap_or(State::Invalid),
        verdict: text(7)?,
        reasons: Vec::new(),
        outcome: text(9)?,
        errors: Vec::new(),
        started: row.get(11)?,
        seconds: row.get(12)?,
        beside: row.get::<_, i64>(13)? as usize,
        directory: row.get(14)?,
    })
}
