//! A server that a test starts, kills and throws away, made by tests/cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postgres::error::SqlState;
use postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// Handles may be cloned into threads; the last one to go removes the server, unless its test has failed.
#[derive(Clone)]
pub struct Server(Arc<Home>);

struct Home {
    name: String,
    settings: Vec<String>,
    place: Mutex<Place>,
}

/// What `tests/cluster env` prints. The port may change in a restart.
#[derive(Clone)]
pub struct Place {
    pub host: String,
    pub port: u16,
    pub data: PathBuf,
    pub bin: PathBuf,
    pub os_user: String,
}

impl Server {
    pub fn start(test: &str, settings: &[&str]) -> Server {
        let outer = std::env::var("MF_CLUSTER").unwrap_or_else(|_| "client".to_string());
        let name = format!("{outer}-{test}");
        cluster(&["destroy".to_string(), name.clone()]);
        // Small, as five of them may be there at once.
        let mut wanted = vec!["shared_buffers=256MB".to_string()];
        wanted.extend(settings.iter().map(|setting| setting.to_string()));
        let place = launch(&name, &wanted).unwrap_or_else(|error| panic!("{error}"));
        Server(Arc::new(Home { name, settings: wanted, place: Mutex::new(place) }))
    }

    pub fn place(&self) -> Place {
        self.0.place.lock().expect("no thread panics with it").clone()
    }

    /// Starts the server again after a crash; leftover processes of the old one may be in the way for a while.
    pub fn start_again(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match launch(&self.0.name, &self.0.settings) {
                Ok(place) => {
                    *self.0.place.lock().expect("no thread panics with it") = place;
                    return;
                }
                Err(error) if Instant::now() > deadline => panic!("{error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    pub fn stop(&self, mode: &str) {
        cluster(&["stop".to_string(), "-m".to_string(), mode.to_string(), self.0.name.clone()]);
    }

    pub fn try_connect(&self, database: &str, application: &str) -> Result<Client, postgres::Error> {
        self.place().try_connect(database, application)
    }

    pub fn connect(&self, database: &str) -> Client {
        self.try_connect(database, "test").unwrap_or_else(|error| panic!("{database}: {}", shown(&error)))
    }

    pub fn create_database(&self, name: &str) -> Client {
        run(&mut self.connect("postgres"), &format!("CREATE DATABASE {name}"));
        let mut client = self.connect(name);
        run(&mut client, "CREATE EXTENSION meterflow");
        client
    }

    /// Changes settings that need no restart, and waits until the server has read them.
    pub fn set(&self, settings: &[&str]) {
        let mut client = self.connect("postgres");
        for setting in settings {
            run(&mut client, &format!("ALTER SYSTEM SET {setting}"));
        }
        let loaded = "SELECT pg_conf_load_time()";
        let before = one(&mut client, loaded);
        run(&mut client, "SELECT pg_reload_conf()");
        until("the server reads its settings", || one(&mut self.connect("postgres"), loaded) != before);
        // Other sessions get the signal at about the same time, and heed it between two statements.
        std::thread::sleep(Duration::from_millis(300));
    }

    pub fn postmaster(&self) -> u32 {
        let file = self.place().data.join("postmaster.pid");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        text.lines().next().and_then(|line| line.parse().ok()).expect("a process id")
    }
}

impl Place {
    pub fn try_connect(&self, database: &str, application: &str) -> Result<Client, postgres::Error> {
        let mut config = Config::new();
        config.host(&self.host).port(self.port).user("postgres").dbname(database).application_name(application);
        config.connect(NoTls)
    }

    /// A command of PostgreSQL's, aimed at this server.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.env("PGHOST", &self.host).env("PGPORT", self.port.to_string()).env("PGUSER", "postgres");
        command
    }

    /// A command of PostgreSQL's that must run as the system user that owns the server.
    pub fn tool_as_owner(&self, name: &str) -> Command {
        let root = std::fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
        let mut command = if root {
            let mut command = Command::new("runuser");
            command.args(["-u", &self.os_user, "--"]).arg(self.bin.join(name));
            command
        } else {
            Command::new(self.bin.join(name))
        };
        command
            .current_dir("/")
            .env("PGHOST", &self.host)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres");
        command
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let place = self.place.lock().map(|place| place.host.clone()).unwrap_or_default();
            eprintln!(
                "the server of this test is left for a look: tests/cluster env {}; its log: {place}/log",
                self.name
            );
            cluster(&["stop".to_string(), "-m".to_string(), "immediate".to_string(), self.name.clone()]);
        } else {
            cluster(&["destroy".to_string(), self.name.clone()]);
        }
    }
}

fn launch(name: &str, settings: &[String]) -> Result<Place, String> {
    let mut args = vec!["start".to_string()];
    for setting in settings {
        args.extend(["-c".to_string(), setting.clone()]);
    }
    args.push(name.to_string());
    let output = cluster(&args);
    if !output.status.success() {
        return Err(format!("tests/cluster start {name}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("export {key}=")));
        line.unwrap_or_else(|| panic!("tests/cluster did not print {key}")).to_string()
    };
    Ok(Place {
        host: value("PGHOST"),
        port: value("PGPORT").parse().expect("a port"),
        data: value("MF_PGDATA").into(),
        bin: value("MF_PG_BIN").into(),
        os_user: value("MF_OS_USER"),
    })
}

pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cluster(args: &[String]) -> Output {
    let script = project().join("tests/cluster");
    Command::new(&script).args(args).output().unwrap_or_else(|error| panic!("{}: {error}", script.display()))
}

/// Runs a command that must succeed and say nothing on stderr.
#[track_caller]
pub fn quietly(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{command:?}: {}\n{said}", output.status);
}

/// Kills one process, which the caller knows to be of its own server, and waits until it is gone.
pub fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
    let remains = PathBuf::from(format!("/proc/{pid}"));
    until("a killed process is gone", || !remains.exists());
}

#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "waited a minute in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Microseconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_micros() as i64)
}

pub fn shown(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => {
            let detail = error.detail().map(|it| format!("\n  detail: {it}")).unwrap_or_default();
            format!("{} {}{detail}", error.code().code(), error.message())
        }
        None => error.to_string(),
    }
}

pub fn has_code(error: &postgres::Error, code: &SqlState) -> bool {
    error.code() == Some(code)
}

/// Rows as text; the error is the caller's.
pub fn try_rows(client: &mut Client, sql: &str) -> Result<Vec<Vec<Option<String>>>, postgres::Error> {
    let messages = client.simple_query(sql)?;
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_string)).collect()),
            _ => None,
        })
        .collect())
}

#[track_caller]
pub fn rows(client: &mut Client, sql: &str) -> Vec<Vec<Option<String>>> {
    try_rows(client, sql).unwrap_or_else(|error| panic!("{}\n{sql}", shown(&error)))
}

#[track_caller]
pub fn run(client: &mut Client, sql: &str) {
    rows(client, sql);
}

/// The one value of a query; what is null is "".
#[track_caller]
pub fn one(client: &mut Client, sql: &str) -> String {
    let mut rows = rows(client, sql);
    assert!(rows.len() == 1 && rows[0].len() == 1, "one value expected: {sql}\n{rows:?}");
    rows.remove(0).remove(0).unwrap_or_default()
}

/// A string as SQL literal.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[track_caller]
pub fn assert_verified(client: &mut Client) {
    let found = rows(client, "SELECT * FROM meterflow.verify()");
    assert!(
        found.is_empty(),
        "verify() found {} differences, the first: {:?}",
        found.len(),
        &found[..found.len().min(3)]
    );
}

/// What ingest says of a batch.
#[derive(Debug)]
pub struct Outcome {
    pub accepted: i32,
    pub duplicates: i32,
    /// Index and code.
    pub failed: Vec<(usize, String)>,
}

pub fn ingest(client: &mut impl postgres::GenericClient, events: &str) -> Result<Outcome, postgres::Error> {
    let row = client.query_one(&format!("SELECT {OUTCOME} FROM meterflow.ingest($1::text::json)"), &[&events])?;
    Ok(outcome(&row))
}

/// The columns that `outcome` reads.
pub const OUTCOME: &str = "accepted, duplicates, \
    ARRAY(SELECT (f->>'index')::int FROM jsonb_array_elements(failed) f), ARRAY(SELECT f->>'code' FROM jsonb_array_elements(failed) f)";

pub fn outcome(row: &postgres::Row) -> Outcome {
    let (indexes, codes): (Vec<i32>, Vec<String>) = (row.get(2), row.get(3));
    Outcome {
        accepted: row.get(0),
        duplicates: row.get(1),
        failed: indexes.into_iter().map(|index| index as usize).zip(codes).collect(),
    }
}
