//! States on their way into `rollups`.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::core::state::{Kind, State, StateError};
use crate::pg::error::Outcome;
use crate::pg::spi::{self, See};

use super::FoldState;
use super::ladder::{self, Grain};

/// Rows per INSERT: large enough to amortise the call, small enough to keep its arrays in cache.
const ROWS_PER_INSERT: usize = 2_000;

/// A set that would grow past this (bytes) goes on in another part, so that folding into it stays cheap.
const PART_BYTES: i32 = 16 * 1024;

/// Folds that share a part: rewriting stays within a small multiple of what is added, parts stay few.
const FOLDS_PER_PART: i64 = 64;

/// Tenant, meter, customer, hour, group; names as numbers.
type Key = (u32, i32, u32, i64, u32);

/// Hour states, merged in memory before they meet the table.
#[derive(Default)]
pub struct Rollups {
    names: Vec<String>,
    numbers: FxHashMap<String, u32>,
    states: FxHashMap<Key, State>,
}

impl Rollups {
    pub fn merge(
        &mut self,
        tenant: &str,
        customer: &str,
        meter: i32,
        bucket: i64,
        group: &str,
        state: State,
    ) -> Result<(), StateError> {
        let key = self.key(tenant, customer, meter, bucket, group);
        match self.states.entry(key) {
            std::collections::hash_map::Entry::Occupied(mut merged) => merged.get_mut().merge(&state),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(state);
                Ok(())
            }
        }
    }

    fn key(&mut self, tenant: &str, customer: &str, meter: i32, bucket: i64, group: &str) -> Key {
        (self.number(tenant), meter, self.number(customer), bucket, self.number(group))
    }

    pub fn state(
        &mut self,
        tenant: &str,
        customer: &str,
        meter: i32,
        bucket: i64,
        group: &str,
        kind: Kind,
    ) -> &mut State {
        let key = self.key(tenant, customer, meter, bucket, group);
        self.states.entry(key).or_insert_with(|| State::empty(kind))
    }

    /// Tenants, customers and meters that these states are of.
    pub fn owners(&self) -> impl Iterator<Item = (&str, &str, i32)> {
        let owners: FxHashSet<_> =
            self.states.keys().map(|&(tenant, meter, customer, ..)| (tenant, customer, meter)).collect();
        let name = |number: u32| self.names[number as usize].as_str();
        owners.into_iter().map(move |(tenant, customer, meter)| (name(tenant), name(customer), meter))
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_string());
        self.numbers.insert(name.to_string(), number);
        number
    }

    /// Merges everything into the table: into its hour, and into its day and month where the day is closed already.
    pub fn write(self, fold: &FoldState) -> Outcome<()> {
        let mut coarser: FxHashMap<(u32, i32, u32, Grain, i64, u32), State> = FxHashMap::default();
        for ((tenant, meter, customer, bucket, group), state) in &self.states {
            for grain in [Grain::Day, Grain::Month] {
                if *bucket < fold.closed_day {
                    let start = ladder::floor(grain, *bucket);
                    match coarser.entry((*tenant, *meter, *customer, grain, start, *group)) {
                        std::collections::hash_map::Entry::Occupied(mut merged) => {
                            merged.get_mut().merge(state).map_err(super::fold::unreadable)?
                        }
                        std::collections::hash_map::Entry::Vacant(place) => {
                            place.insert(state.clone());
                        }
                    }
                }
            }
        }
        let hours = self.states.into_iter().map(|((tenant, meter, customer, bucket, group), state)| {
            ((tenant, meter, customer, Grain::Hour, bucket, group), state)
        });
        let mut rows: Vec<_> = hours.chain(coarser).collect();
        // In the order of the primary key, as far as numbers tell: neighbours meet the same index pages.
        rows.sort_unstable_by(|(a, _), (b, _)| {
            (a.0, a.1, a.3, &self.names[a.2 as usize], a.4).cmp(&(b.0, b.1, b.3, &self.names[b.2 as usize], b.4))
        });
        let (wide, narrow): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, state)| is_wide(state.kind()));
        for (rows, parted) in [(narrow, false), (wide, true)] {
            for chunk in rows.chunks(ROWS_PER_INSERT) {
                insert(&self.names, chunk, parted, fold)?;
            }
        }
        Ok(())
    }
}

/// Kinds whose states grow with the number of values they have seen.
fn is_wide(kind: Kind) -> bool {
    matches!(kind, Kind::Unique | Kind::Percentile | Kind::BucketSum | Kind::BucketMax)
}

type Row = ((u32, i32, u32, Grain, i64, u32), State);

fn insert(names: &[String], rows: &[Row], parted: bool, fold: &FoldState) -> Outcome<()> {
    let name = |number: u32| names[number as usize].clone();
    let tenants: Vec<String> = rows.iter().map(|(key, _)| name(key.0)).collect();
    let meters: Vec<i32> = rows.iter().map(|(key, _)| key.1).collect();
    let customers: Vec<String> = rows.iter().map(|(key, _)| name(key.2)).collect();
    let grains: Vec<String> = rows.iter().map(|(key, _)| ladder::letter(key.3).to_string()).collect();
    let buckets: Vec<i64> = rows.iter().map(|(key, _)| key.4).collect();
    let groups: Vec<String> = rows.iter().map(|(key, _)| name(key.5)).collect();
    let states: Vec<Vec<u8>> = rows
        .iter()
        .map(|(_, state)| {
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            bytes
        })
        .collect();
    let (part, join) = if parted {
        (
            "CASE WHEN octet_length(n.state) + coalesce(octet_length(e.state::bytea), 0) > $9 THEN $8 ELSE 0 END",
            "LEFT JOIN meterflow.rollups e ON e.tenant_id = n.tenant_id AND e.meter_id = n.meter_id AND e.grain = n.grain::\"char\" \
               AND e.customer_id = n.customer_id AND e.bucket = n.bucket AND e.group_key = n.group_key AND e.part = 0",
        )
    } else {
        ("CASE WHEN $8 + $9 IS NULL THEN 0 ELSE 0 END", "")
    };
    let sql = format!(
        "INSERT INTO meterflow.rollups AS r (tenant_id, meter_id, grain, customer_id, bucket, group_key, part, state) \
         SELECT n.tenant_id, n.meter_id, n.grain::\"char\", n.customer_id, n.bucket, n.group_key, {part}, n.state::meterflow.usage_state \
           FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::bytea[]) \
                AS n (tenant_id, meter_id, grain, customer_id, bucket, group_key, state) {join} \
         ON CONFLICT (tenant_id, meter_id, grain, customer_id, bucket, group_key, part) \
         DO UPDATE SET state = meterflow.merge_states(r.state, excluded.state)"
    );
    let epoch = i32::try_from(1 + fold.folds / FOLDS_PER_PART).unwrap_or(i32::MAX);
    spi::run(
        &sql,
        &[
            tenants.into(),
            meters.into(),
            grains.into(),
            customers.into(),
            spi::times(&buckets),
            groups.into(),
            states.into(),
            epoch.into(),
            PART_BYTES.into(),
        ],
        See::Write,
        |_| Ok(()),
    )?;
    Ok(())
}
