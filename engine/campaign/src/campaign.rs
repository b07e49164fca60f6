//! A campaign: a plan, its points, and the directory that holds everything of it.
//!
//! ```text
//! campaign.sqlite    the store
//! lock               held by the living program (`flock`)
//! runs/              run directories, as far as the plan keeps them
//! report.html, …     what `tapestry campaign report` wrote
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use tapestry_lab::refuse::{Refusal, first_refusal};
use tapestry_lab::rundir::rfc3339;
use tapestry_topologies::plan::Plan;
use tapestry_topologies::{Diagnostics, Topology};

use crate::design::{self, DesignError, Settings, describe};
use crate::store::{self, Store, StoreError};

/// Where campaigns go unless `--out` says otherwise, relative to the working directory.
pub const CAMPAIGNS_ROOT: &str = "campaigns";
/// Run directories, in the campaign directory.
pub const RUNS: &str = "runs";

/// Why a campaign cannot be begun or gone on with.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The plan or its topology is wrong.
    #[error("{0}")]
    Plan(Box<Diagnostics>),
    /// The topology is wrong at a point of the design.
    #[error("the topology is wrong at point {point}")]
    Point {
        /// The settings.
        point: String,
        /// What is wrong.
        diagnostics: Box<Diagnostics>,
    },
    /// The design is wrong.
    #[error(transparent)]
    Design(#[from] DesignError),
    /// This machine, or this kind of time, cannot run a point.
    #[error("point {point}: {refusal}")]
    Refused {
        /// The settings.
        point: String,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// There is a campaign already.
    #[error(
        "{} holds a campaign already: go on with it (--resume), or choose another directory \
         (--out DIR)", .path.display()
    )]
    Exists {
        /// The campaign directory.
        path: PathBuf,
    },
    /// The plan is not the one that the campaign was begun with.
    #[error(
        "{what} is not what {} was begun with: undo the change, or begin a new campaign with --out DIR. \
         Nothing was changed", .path.display()
    )]
    Changed {
        /// What differs.
        what: String,
        /// The campaign directory.
        path: PathBuf,
    },
    /// There are runs of a campaign, but what came of them is gone.
    #[error(
        "{} is missing or empty, and {} holds run directories of a campaign: restore the store from a \
         copy, or begin a new campaign with --out DIR. Nothing was changed",
        .path.join(store::FILE).display(), .path.join(RUNS).display()
    )]
    Lost {
        /// The campaign directory.
        path: PathBuf,
    },
    /// There is something else.
    #[error(
        "{} is not empty: it holds {entry}, which is of no campaign. Choose a new directory (--out DIR)",
        .path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// A file or directory in it.
        entry: String,
    },
    /// Another program works on it.
    #[error("another program is running the campaign in {}", .path.display())]
    Busy {
        /// The campaign directory.
        path: PathBuf,
    },
    /// A file or directory could not be made, read or removed.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CampaignError {
    /// Whether the user asked for something wrong; else the machine lacks something.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Refused { refusal, .. } => refusal.is_usage(),
            Self::File { .. } => false,
            Self::Store(error) => !matches!(
                error,
                StoreError::Full { .. } | StoreError::Locked { .. } | StoreError::Sqlite { .. }
            ),
            _ => true,
        }
    }
}

/// A plan with its points, all of which can be run here.
#[derive(Debug)]
pub struct Prepared {
    /// The plan.
    pub plan: Plan,
    /// The points, in the order of the design.
    pub points: Vec<Settings>,
    /// A digest of everything that decides what runs are made.
    pub digest: String,
    /// What a reader of the plan may not expect.
    pub notes: Vec<String>,
    /// What the points ask of the host.
    pub needs: Vec<crate::capacity::Needs>,
}

/// Reads a plan and makes sure that every point of it can be run.
pub fn prepare(path: &Path) -> Result<Prepared, CampaignError> {
    let plan = crate::load_plan(path).map_err(|wrong| CampaignError::Plan(Box::new(wrong)))?;
    let points = design::points(&plan)?;
    let mut digest = Sha256::new();
    digest.update(decisive(&plan).to_string());
    let mut needs = Vec::with_capacity(points.len());
    for settings in &points {
        let topology = resolve(&plan, settings)?;
        // As `tapestry run` does; which way machines attach here changes no plan.
        if let Some(refusal) = first_refusal(&topology, plan.time) {
            let refusal = Box::new(refusal);
            return Err(CampaignError::Refused { point: describe(settings), refusal });
        }
        needs.push(crate::capacity::Needs::of(&plan, &topology));
        // What it is called decides nothing.
        let nameless = Topology { name: String::new(), description: String::new(), ..topology };
        digest.update(serde_json::to_vec(&nameless).unwrap_or_default());
    }
    let bytes: [u8; 32] = digest.finalize().into();
    let halves = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digest = halves.filter_map(|half| char::from_digit(u32::from(half), 16)).collect();
    let notes = design::merged(&plan, points.len());
    Ok(Prepared { plan, points, digest, notes, needs })
}

fn resolve(plan: &Plan, settings: &Settings) -> Result<Topology, CampaignError> {
    tapestry_topologies::load(&plan.topology, &design::sets(plan, settings)).map_err(|wrong| {
        CampaignError::Point { point: describe(settings), diagnostics: Box::new(wrong) }
    })
}

/// What of a plan is not as it was, in words.
fn changed(before: &Plan, now: &Plan) -> String {
    let keys = differing(before, now);
    if keys.is_empty() {
        return format!("the topology {} (or a file that it includes)", now.topology.display());
    }
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    format!("{} of the plan", keys.join(", "))
}

/// Keys of plans that decide which runs are made, and differ.
pub fn differing(before: &Plan, now: &Plan) -> Vec<String> {
    let (before, now) = (decisive(before), decisive(now));
    let keys = now.as_object().into_iter().flatten();
    keys.filter(|(key, value)| before.get(key) != Some(*value))
        .map(|(key, _)| key.clone())
        .collect()
}

/// What of a plan decides which runs are made. The rest may change while a campaign lasts; what
/// the parameters mean is in the points.
fn decisive(plan: &Plan) -> serde_json::Value {
    serde_json::json!({
        "time": plan.time, "params": plan.params, "factors": plan.factors, "design": plan.design,
        "replicates": plan.replicates, "stop": plan.stop, "order": plan.order,
        "warm_up": plan.warm_up, "seed": plan.seed, "time_limit": plan.time_limit,
        "retries": plan.retries,
    })
}

/// The directory of a campaign, ready to make its runs. Nobody else has it.
#[derive(Debug)]
pub struct Campaign {
    /// The plan and its points.
    pub prepared: Prepared,
    /// The directory, absolute.
    pub directory: PathBuf,
    /// What came of the runs.
    pub store: Store,
    _lock: Flock<File>,
}

/// The directory of a plan's campaign, unless the user names another.
pub fn directory(plan: &Plan) -> PathBuf {
    Path::new(CAMPAIGNS_ROOT).join(&plan.name)
}

impl Campaign {
    /// Begins a campaign in a directory, or goes on with the one that is there.
    pub fn open(prepared: Prepared, directory: &Path, resume: bool) -> Result<Self, CampaignError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| CampaignError::File { path, source }
        };
        let path = || directory.to_owned();
        // A campaign that was killed while its store was being made never began, and made no runs.
        let is_missing = match Store::read(directory) {
            Err(StoreError::Missing { .. }) => true,
            Err(error) => return Err(error.into()),
            Ok(_) => false,
        };
        if is_missing && has_entries(&directory.join(RUNS)) {
            return Err(CampaignError::Lost { path: path() });
        } else if !is_missing && !resume {
            return Err(CampaignError::Exists { path: path() });
        } else if resume && !directory.join(store::FILE).exists() {
            return Err(StoreError::Missing { path: path() }.into());
        } else if is_missing && let Some(entry) = foreign(directory) {
            return Err(CampaignError::Foreign { path: path(), entry });
        }
        fs::create_dir_all(directory).map_err(file(directory))?;
        let directory = fs::canonicalize(directory).map_err(file(directory))?;
        let lock_path = directory.join("lock");
        let mut options = File::options();
        let lock = options.create(true).append(true).open(&lock_path).map_err(file(&lock_path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| CampaignError::Busy { path: directory.clone() })?;
        let runs = directory.join(RUNS);
        fs::create_dir_all(&runs).map_err(file(&runs))?;
        let store = match Store::open(&directory) {
            Err(StoreError::Missing { .. }) => {
                let now = rfc3339(SystemTime::now());
                Store::create(&directory, &prepared.plan, &prepared.digest, &prepared.points, &now)?
            }
            Ok(store) => {
                store.check()?;
                if store.digest()? != prepared.digest {
                    let what = changed(&store.plan()?, &prepared.plan);
                    return Err(CampaignError::Changed { what, path: directory });
                }
                store
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self { prepared, directory, store, _lock: lock })
    }
}

/// What a directory holds that a campaign whose store was not finished cannot have left.
fn foreign(directory: &Path) -> Option<String> {
    let entries = fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let names = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry));
    let is_ours = |name: &str, entry: &fs::DirEntry| match name {
        RUNS => true,
        "lock" => entry.metadata().is_ok_and(|lock| lock.len() == 0),
        _ => name.starts_with(store::FILE),
    };
    names.filter(|(name, entry)| !is_ours(name, entry)).map(|(name, _)| name).min()
}

fn has_entries(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

/// Whether a program works on the campaign in a directory.
pub fn is_running(directory: &Path) -> bool {
    let Ok(file) = File::open(directory.join("lock")) else { return false };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

#[cfg(test)]
mod tests;
