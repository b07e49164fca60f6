-- Layout 1 of a campaign's store. Times are RFC 3339 in UTC, durations seconds unless the name says
-- otherwise; texts that are lists or maps are JSON.

-- The one campaign of this file.
CREATE TABLE campaign (
    name        TEXT NOT NULL,
    plan        TEXT NOT NULL,      -- the plan as it was read
    digest      TEXT NOT NULL,      -- of everything that decides what runs are made
    created     TEXT NOT NULL
);

-- One row for each time the campaign was started or resumed.
CREATE TABLE sessions (
    id          INTEGER PRIMARY KEY,
    started     TEXT NOT NULL,
    command     TEXT NOT NULL,
    tapestry    TEXT NOT NULL,      -- version
    host        TEXT NOT NULL,      -- the machine
    jobs        INTEGER NOT NULL
);

-- The points of the design.
CREATE TABLE points (
    id          INTEGER PRIMARY KEY,
    settings    TEXT NOT NULL       -- factor: level
);

-- Their settings again, one row a factor.
CREATE TABLE factors (
    point       INTEGER NOT NULL REFERENCES points,
    name        TEXT NOT NULL,
    value       TEXT NOT NULL,      -- as the topology gets it
    number      REAL,               -- in bit/s, seconds, bytes or as a share, if it is a quantity
    PRIMARY KEY (point, name)
) WITHOUT ROWID;

-- Every run that ended, whatever came of it. A run is written in one transaction with all that
-- belongs to it.
CREATE TABLE runs (
    id          INTEGER PRIMARY KEY,
    session     INTEGER NOT NULL REFERENCES sessions,
    point       INTEGER NOT NULL REFERENCES points,
    purpose     TEXT NOT NULL,      -- measure or warm-up
    replicate   INTEGER NOT NULL,   -- from 0
    attempt     INTEGER NOT NULL,   -- from 0; more than 0 repeats an invalid run
    seed        INTEGER NOT NULL,
    state       TEXT NOT NULL,      -- counted, failed, invalid, timed-out or crashed
    verdict     TEXT,               -- valid, degraded or invalid
    reasons     TEXT NOT NULL,      -- of the verdict
    outcome     TEXT,               -- passed, failed, inconclusive or interrupted
    errors      TEXT NOT NULL,      -- what went wrong; `expected …`: an expectation that does not hold
    started     TEXT NOT NULL,
    seconds     REAL NOT NULL,      -- from start to end, by the wall clock
    ready_seconds   REAL,           -- of these, until all nodes were ready
    virtual_seconds REAL,
    lateness_p99_ns INTEGER,
    cpu         REAL,               -- share of the host's CPU time that was busy
    steal       REAL,               -- share that the hypervisor took
    beside      INTEGER NOT NULL,   -- how many other runs were under way when it started
    directory   TEXT,               -- in the campaign directory, if anything of it was kept
    UNIQUE (point, purpose, replicate, attempt)
);

CREATE TABLE metrics (
    run         INTEGER NOT NULL REFERENCES runs,
    name        TEXT NOT NULL,
    value       REAL,               -- null where it is no number
    unit        TEXT NOT NULL,
    PRIMARY KEY (run, name)
) WITHOUT ROWID;

CREATE TABLE tasks (
    run         INTEGER NOT NULL REFERENCES runs,
    place       INTEGER NOT NULL,   -- from 0
    name        TEXT NOT NULL,
    state       TEXT NOT NULL,      -- ended, interrupted or not-run
    seconds     REAL NOT NULL,
    start_skew_ns INTEGER,
    commands    TEXT NOT NULL,      -- name, node, status, seconds, error of each
    PRIMARY KEY (run, place)
) WITHOUT ROWID;

CREATE TABLE link_counters (
    run         INTEGER NOT NULL REFERENCES runs,
    link        TEXT NOT NULL,
    endpoint    TEXT NOT NULL,
    counters    TEXT NOT NULL,      -- as in results.json
    PRIMARY KEY (run, link, endpoint)
) WITHOUT ROWID;

-- What enters means.
CREATE VIEW counted_metrics AS
    SELECT runs.id AS run, runs.point, runs.replicate, metrics.name, metrics.value, metrics.unit
    FROM runs JOIN metrics ON metrics.run = runs.id
    WHERE runs.purpose = 'measure' AND runs.state = 'counted' AND metrics.value IS NOT NULL;
