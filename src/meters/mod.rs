//! The meters of a tenant, compiled and kept for the session, and raw events as they see them.
//!
//! Ingest, rollup and usage all measure through this room, so that one event has one meaning.

pub mod raw;

use std::cell::RefCell;
use std::rc::Rc;
use std::thread::LocalKey;

use pgrx::prelude::*;
use rustc_hash::FxHashMap;

use crate::core::key::Secret;
use crate::core::meter::{Definition, Meter};
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::scan::{self, Is, Reader, Table, Value};
use crate::pg::spi::{self, Row, See};

/// All versions of all meters of a tenant, by the name of the events they measure.
#[derive(Default)]
pub struct Meters {
    pub all: Vec<Rc<Meter>>,
    by_event: FxHashMap<String, Vec<usize>>,
}

impl Meters {
    /// Meters whose version counts an event of that name at that time.
    pub fn of<'a>(&'a self, event_name: &'a str, at: i64) -> impl Iterator<Item = &'a Meter> {
        let places = self.by_event.get(event_name).map_or(&[][..], Vec::as_slice);
        places.iter().map(|&i| &*self.all[i]).filter(move |meter| meter.applies(event_name, at))
    }

    fn push(&mut self, meter: Rc<Meter>) {
        self.by_event.entry(meter.event_name.clone()).or_default().push(self.all.len());
        self.all.push(meter);
    }
}

/// An error unless the tenant has such a meter, archived or not.
pub fn must_exist(tenant: &str, key: &str) -> Outcome<()> {
    static KEYS: Table = Table {
        name: "meters",
        parts: &[("meters", "meters_pkey")],
        key: &["tenant_id", "key"],
        columns: &["key"],
        ..Table::PLAIN
    };
    let terms = [(0, Is::Equal, Value::Text(tenant)), (1, Is::Equal, Value::Text(key))];
    if scan::any(&KEYS, &terms)? { Ok(()) } else { Err(unknown(tenant, key)) }
}

pub fn unknown(tenant: &str, key: &str) -> Fail {
    Fail::new(SqlState::ERRCODE_UNDEFINED_OBJECT, format!("meter \"{key}\" does not exist"))
        .detail(format!("Tenant {tenant:?} has no such meter."))
        .hint("SELECT key FROM meterflow.meters lists them; meterflow.tenant says whose they are.")
}

thread_local! {
    /// Meters of the tenants this session has written for, with the catalogue they were read from: its version, and
    /// the secret, which tells one CREATE EXTENSION from the next.
    static BY_TENANT: RefCell<FxHashMap<String, (Catalogue, Rc<Meters>)>> = RefCell::default();
    /// The same for readers, whose snapshot may be older than what has committed: all versions, by key.
    static READ: RefCell<FxHashMap<String, (Catalogue, Rc<Versions>)>> = RefCell::default();
    /// Compiled definitions by their text: a version never changes its definition, only its end.
    static COMPILED: RefCell<FxHashMap<String, Rc<Meter>>> = RefCell::default();
}

/// A state of the meter catalogue.
#[derive(Clone, Copy, PartialEq)]
pub struct Catalogue {
    pub secret: Secret,
    pub version: i64,
}

/// A version of a meter as a reader needs it.
pub struct Version {
    pub meter: Rc<Meter>,
    /// Events before this had been dropped when the version was made, Unix microseconds.
    pub complete_from: i64,
}

/// Versions of a tenant's meters by key, oldest first.
pub type Versions = FxHashMap<String, Vec<Version>>;

/// Columns of meter_versions that `read` takes, in order.
pub const COLUMNS: &str = "id, meter_key, event_name, aggregation, property, filters::text, dimensions, multiplier::text, \
     percentile::text, (extract(epoch FROM bucket_size) * 1000000)::bigint, approximate, valid_from, valid_to, complete_from";

/// The tenant's meters as committed by now; read again only when the catalogue has a newer version.
pub fn of_tenant(tenant: &str, catalogue: Catalogue) -> Outcome<Rc<Meters>> {
    let cached = BY_TENANT.with_borrow(|tenants| {
        tenants.get(tenant).filter(|(read_from, _)| *read_from == catalogue).map(|(_, meters)| meters.clone())
    });
    if let Some(meters) = cached {
        return Ok(meters);
    }
    let mut meters = Meters::default();
    let sql = format!(
        "SELECT {COLUMNS} FROM meterflow.meter_versions WHERE tenant_id = $1 AND valid_from < valid_to ORDER BY id"
    );
    spi::run(&sql, &[tenant.into()], See::Latest, |row| {
        meters.push(read(row)?);
        Ok(())
    })?;
    let meters = Rc::new(meters);
    keep(&BY_TENANT, tenant, catalogue, meters.clone());
    Ok(meters)
}

/// All versions of the tenant's meters in the statement's snapshot. `catalogue` is of the same snapshot: whoever changes
/// a meter holds the row that has the version, so equal versions mean equal meters.
pub fn versions(tenant: &str, catalogue: Catalogue) -> Outcome<Rc<Versions>> {
    let for_all = scan::reads_all("meter_versions")?;
    let cached = READ.with_borrow(|tenants| {
        tenants
            .get(tenant)
            .filter(|(read_from, _)| for_all && *read_from == catalogue)
            .map(|(_, versions)| versions.clone())
    });
    if let Some(versions) = cached {
        return Ok(versions);
    }
    let mut versions = Versions::default();
    let sql = format!("SELECT {COLUMNS} FROM meterflow.meter_versions WHERE tenant_id = $1 ORDER BY version");
    spi::run(&sql, &[tenant.into()], See::Statement, |row| {
        let version = Version { meter: read(row)?, complete_from: row.time(13)? };
        versions.entry(row.text(1)?).or_default().push(version);
        Ok(())
    })?;
    let versions = Rc::new(versions);
    // None at all may be a restore that has not come to them yet.
    if for_all && !versions.is_empty() {
        keep(&READ, tenant, catalogue, versions.clone());
    }
    Ok(versions)
}

fn keep<T>(
    cache: &'static LocalKey<RefCell<FxHashMap<String, (Catalogue, Rc<T>)>>>,
    tenant: &str,
    catalogue: Catalogue,
    read: Rc<T>,
) {
    cache.with_borrow_mut(|tenants| {
        // A tenant a connection: a pool that serves thousands must not keep them all.
        if tenants.len() >= 256 {
            tenants.clear();
        }
        tenants.insert(tenant.to_string(), (catalogue, read));
    });
}

/// Every version of a meter, oldest first, as the statement's snapshot has them.
pub fn versions_of(tenant: &str, key: &str) -> Outcome<Vec<Rc<Meter>>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM meterflow.meter_versions WHERE tenant_id = $1 AND meter_key = $2 ORDER BY version"
    );
    let mut versions = Vec::new();
    spi::run(&sql, &[tenant.into(), key.into()], See::Statement, |row| {
        versions.push(read(row)?);
        Ok(())
    })?;
    Ok(versions)
}

/// A row of COLUMNS as a meter.
pub fn read(row: &Row<'_>) -> Outcome<Rc<Meter>> {
    let id = row.int4(0)?;
    let key = row.text(1)?;
    let dimensions: Vec<String> = row.require(6)?;
    let text = |column: usize| if row.is_null(column) { Ok(None) } else { row.text(column).map(Some) };
    let (event_name, aggregation) = (row.text(2)?, row.text(3)?);
    let (property, filters, multiplier, percentile) = (text(4)?, text(5)?, text(7)?, text(8)?);
    let bucket_size: Option<i64> = row.get(9);
    let approximate = row.bool(10)?;
    let (valid_from, valid_to) = (row.time(11)?, row.time(12)?);
    let signature = format!(
        "{id}\0{event_name}\0{aggregation}\0{property:?}\0{filters:?}\0{dimensions:?}\0{multiplier:?}\0{percentile:?}\0{bucket_size:?}\0{approximate}\0{valid_from}\0{valid_to}"
    );
    if let Some(meter) = COMPILED.with_borrow(|compiled| compiled.get(&signature).cloned()) {
        return Ok(meter);
    }
    let definition = Definition {
        key: &key,
        event_name: &event_name,
        aggregation: &aggregation,
        property: property.as_deref(),
        filters: filters.as_deref(),
        dimensions: &dimensions,
        multiplier: multiplier.as_deref(),
        bucket_size,
        percentile: percentile.as_deref(),
        approximate,
    };
    let meter = Meter::compile(id, &definition, valid_from, valid_to).map_err(|error| {
        Fail::corrupt(format!("stored meter \"{key}\" is not sound: {}: {}", error.path, error.message))
    })?;
    let meter = Rc::new(meter);
    COMPILED.with_borrow_mut(|compiled| {
        if compiled.len() >= 4096 {
            compiled.clear();
        }
        compiled.insert(signature, meter.clone());
    });
    Ok(meter)
}

static ENGINE: Table =
    Table { name: "engine", parts: &[("engine", "engine_pkey")], key: &["singleton"], ..Table::PLAIN };

/// The catalogue in the statement's snapshot, read as the owner: readers need the secret and must not see it.
pub fn catalogue() -> Outcome<Catalogue> {
    let mut found = None;
    Reader::open_as_owner(&ENGINE)?.rows(&[(0, Is::Equal, Value::Bool(true))], |row| {
        found = Some(Catalogue { secret: secret_of(&row.bytes(1)?)?, version: row.int8(2)? });
        Ok(())
    })?;
    found.ok_or_else(|| Fail::corrupt("meterflow.engine is empty"))
}

pub fn secret() -> Outcome<Secret> {
    catalogue().map(|catalogue| catalogue.secret)
}

/// The secret as stored.
pub fn secret_of(bytes: &[u8]) -> Outcome<Secret> {
    bytes.try_into().map(Secret).map_err(|_| Fail::corrupt("the secret of meterflow.engine is not 16 bytes"))
}

#[pg_extern(sql = "")]
#[allow(clippy::too_many_arguments)]
fn check_meter(
    event_name: Option<&str>,
    aggregation: Option<&str>,
    property: Option<&str>,
    filters: Option<&str>,
    dimensions: Option<Vec<Option<String>>>,
    multiplier: Option<&str>,
    percentile: Option<&str>,
    bucket_size: Option<pgrx::datum::Interval>,
    approximate: Option<bool>,
) {
    let dimensions: Vec<String> = dimensions.unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect();
    if bucket_size.as_ref().is_some_and(|size| size.months() != 0) {
        raise::<()>(Err(unmeasurable("bucket_size", "months differ in length; write minutes, hours or days")));
    }
    let bucket_size = bucket_size.map(|size| i64::from(size.days()) * 86_400_000_000 + size.micros());
    let definition = Definition {
        key: "meter",
        event_name: event_name.unwrap_or_default(),
        aggregation: aggregation.unwrap_or_default(),
        property,
        filters,
        dimensions: &dimensions,
        multiplier,
        bucket_size,
        percentile,
        approximate: approximate.unwrap_or(false),
    };
    let compiled = Meter::compile(0, &definition, i64::MIN, i64::MAX);
    raise(compiled.map(|_| ()).map_err(|error| unmeasurable(&error.path, &error.message)));
}

fn unmeasurable(column: &str, why: &str) -> Fail {
    Fail::new(SqlState::ERRCODE_CHECK_VIOLATION, "this meter can not be measured")
        .detail(format!("{column}: {why}."))
        .hint("Correct that column; \\d+ meterflow.meters describes each.")
}
