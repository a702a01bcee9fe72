//! The settings of metering. Each says its unit, its default, why that default, and when to change it.

use std::ffi::CString;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

/// Tenant of the session. Applications serving many tenants set it per connection or transaction.
static TENANT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"default"));

/// How old an event may be when it arrives, in seconds. 34 days: a month of billing and a few days of grace. It is
/// also how long transaction ids are remembered, so widening it costs key storage.
static BACKDATE_WINDOW: GucSetting<i32> = GucSetting::<i32>::new(34 * 86_400);

/// How far ahead of the server's clock an event may be, in seconds. One day: senders whose local time is taken for
/// UTC are within it, and a mistyped year is not.
static FUTURE_WINDOW: GucSetting<i32> = GucSetting::<i32>::new(86_400);

/// Span of one partition of events, in seconds. One day keeps a partition's indexes in memory at tens of millions of
/// events a day. Changing it affects new partitions only.
static PARTITION_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(86_400);

/// Partitions made ahead of the current one. Three: a worker may be away over a weekend.
static PARTITIONS_AHEAD: GucSetting<i32> = GucSetting::<i32>::new(3);

/// Days raw events are kept; 0 keeps them for ever (default: only you know what an audit may ask for).
static RETENTION_DAYS: GucSetting<i32> = GucSetting::<i32>::new(0);

/// Days after which hour rollups are kept as days only; 0 keeps them. 400: a year back by the hour stays possible.
static HOUR_ROLLUP_DAYS: GucSetting<i32> = GucSetting::<i32>::new(400);

/// Days after which day rollups are kept as months only; 0 keeps them (default: they are small).
static DAY_ROLLUP_DAYS: GucSetting<i32> = GucSetting::<i32>::new(0);

/// Largest event, in bytes of JSON. 64 kB: far beyond any usage event, far below what would hurt a batch.
static MAX_EVENT_BYTES: GucSetting<i32> = GucSetting::<i32>::new(64 * 1024);

/// Groups (combinations of dimension values) a meter of a tenant may have. 10,000: more is nearly always an id used
/// as a dimension. Events that would add one more fail as too_many_groups.
static MAX_GROUPS: GucSetting<i32> = GucSetting::<i32>::new(10_000);

/// Age of a key generation, in seconds, at which the next is opened. 7 days: five generations to probe for the
/// default window. Shorten it when one generation's index outgrows half of shared_buffers.
static DEDUP_GENERATION: GucSetting<i32> = GucSetting::<i32>::new(7 * 86_400);

/// Longest time to render a document, in seconds. 30: an invoice takes a twentieth of a second, one of
/// two hundred pages six.
static DOCUMENT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(30);

/// How long messages of the outbox are kept once no consumer needs them any more, in seconds. One day: long enough to see
/// why a message came, short enough for an outbox that is written thousands of times a second.
static OUTBOX_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(86_400);

/// How many days before it expires a grant is announced as grant_expiring; 0 never. 7: a week to use the credit or to
/// renew it.
static GRANT_EXPIRING_DAYS: GucSetting<i32> = GucSetting::<i32>::new(7);

/// Grants that one sum of expiring credit is of at most. 512: where some have expired and others have not they are read one by
/// one, in a tenth of a millisecond; and ten thousand grants are in some fifty sums, which every verb writes anew.
static GRANTS_PER_SUM: GucSetting<i32> = GucSetting::<i32>::new(512);

pub fn define() {
    let unit = GucFlags::UNIT_S;
    GucRegistry::define_string_guc(
        c"meterflow.tenant",
        c"Tenant of this session.",
        c"Every verb and view works on this tenant unless told another.",
        &TENANT,
        GucContext::Userset,
        GucFlags::default(),
    );
    int(
        c"meterflow.backdate_window",
        c"How old an event may be when it arrives.",
        c"Also how long transaction ids are remembered.",
        &BACKDATE_WINDOW,
        60,
        i32::MAX,
        GucContext::Sighup,
        unit,
    );
    int(
        c"meterflow.future_window",
        c"How far ahead of the server's clock an event may be.",
        c"",
        &FUTURE_WINDOW,
        0,
        366 * 86_400,
        GucContext::Sighup,
        unit,
    );
    int(
        c"meterflow.partition_interval",
        c"Span of one partition of meterflow.events.",
        c"A divisor of a day, or whole days. Affects new partitions.",
        &PARTITION_INTERVAL,
        3_600,
        366 * 86_400,
        GucContext::Sighup,
        unit,
    );
    int(
        c"meterflow.partitions_ahead",
        c"Partitions made ahead of the current one.",
        c"",
        &PARTITIONS_AHEAD,
        1,
        1_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"meterflow.retention_days",
        c"Days raw events are kept; 0 keeps them.",
        c"Never less than the backdate window. Usage already rolled up stays.",
        &RETENTION_DAYS,
        0,
        36_500,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"meterflow.hour_rollup_days",
        c"Days after which hour rollups become days; 0 keeps them.",
        c"",
        &HOUR_ROLLUP_DAYS,
        0,
        36_500,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"meterflow.day_rollup_days",
        c"Days after which day rollups become months; 0 keeps them.",
        c"",
        &DAY_ROLLUP_DAYS,
        0,
        36_500,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"meterflow.max_event_bytes",
        c"Largest event accepted, in bytes of JSON.",
        c"",
        &MAX_EVENT_BYTES,
        128,
        16 * 1024 * 1024,
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
    int(
        c"meterflow.max_groups",
        c"Groups a meter may have.",
        c"Events that would add one more fail as too_many_groups.",
        &MAX_GROUPS,
        1,
        10_000_000,
        GucContext::Suset,
        GucFlags::default(),
    );
    int(
        c"meterflow.dedup_generation",
        c"Age at which the next generation of keys is opened.",
        c"",
        &DEDUP_GENERATION,
        1,
        366 * 86_400,
        GucContext::Sighup,
        unit,
    );
    int(
        c"meterflow.document_timeout",
        c"Longest time to render an invoice as HTML or PDF.",
        c"A template that loops is stopped then.",
        &DOCUMENT_TIMEOUT,
        1,
        3_600,
        GucContext::Userset,
        unit,
    );
    int(
        c"meterflow.outbox_retention",
        c"How long messages of the outbox are kept once every consumer is done with them.",
        c"What a consumer has not acknowledged is kept, however old.",
        &OUTBOX_RETENTION,
        0,
        i32::MAX,
        GucContext::Sighup,
        unit,
    );
    int(
        c"meterflow.grant_expiring_days",
        c"Days before its expiry that a credit grant is announced; 0 never.",
        c"",
        &GRANT_EXPIRING_DAYS,
        0,
        3_650,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"meterflow.grants_per_sum",
        c"Grants of expiring credit that are kept as one sum at most.",
        c"For tests, and for customers with many thousands of grants.",
        &GRANTS_PER_SUM,
        2,
        1_000_000,
        GucContext::Suset,
        GucFlags::default(),
    );
}

#[allow(clippy::too_many_arguments)]
fn int(
    name: &'static std::ffi::CStr,
    short: &'static std::ffi::CStr,
    long: &'static std::ffi::CStr,
    setting: &'static GucSetting<i32>,
    min: i32,
    max: i32,
    context: GucContext,
    flags: GucFlags,
) {
    GucRegistry::define_int_guc(name, short, long, setting, min, max, context, flags);
}

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

pub fn tenant() -> String {
    match TENANT.get() {
        Some(tenant) if !tenant.is_empty() => tenant.to_string_lossy().into_owned(),
        _ => "default".to_string(),
    }
}

/// Spans in microseconds.
pub fn backdate_window() -> i64 {
    i64::from(BACKDATE_WINDOW.get()) * SECOND
}

pub fn future_window() -> i64 {
    i64::from(FUTURE_WINDOW.get()) * SECOND
}

pub fn partition_interval() -> i64 {
    i64::from(PARTITION_INTERVAL.get()) * SECOND
}

pub fn partitions_ahead() -> i64 {
    i64::from(PARTITIONS_AHEAD.get())
}

pub fn dedup_generation() -> i64 {
    i64::from(DEDUP_GENERATION.get()) * SECOND
}

/// None: kept for ever.
pub fn retention() -> Option<i64> {
    days(&RETENTION_DAYS)
}

pub fn hour_rollups() -> Option<i64> {
    days(&HOUR_ROLLUP_DAYS)
}

pub fn day_rollups() -> Option<i64> {
    days(&DAY_ROLLUP_DAYS)
}

fn days(setting: &'static GucSetting<i32>) -> Option<i64> {
    Some(i64::from(setting.get()) * DAY).filter(|&span| span > 0)
}

pub fn max_event_bytes() -> usize {
    usize::try_from(MAX_EVENT_BYTES.get()).unwrap_or(0)
}

pub fn max_groups() -> usize {
    usize::try_from(MAX_GROUPS.get()).unwrap_or(0)
}

pub fn grants_per_sum() -> u32 {
    u32::try_from(GRANTS_PER_SUM.get()).unwrap_or(u32::MAX)
}

#[cfg(feature = "documents")]
pub fn document_timeout() -> std::time::Duration {
    std::time::Duration::from_secs(u64::try_from(DOCUMENT_TIMEOUT.get()).unwrap_or(1))
}

/// Refuses settings under our name that don't exist: a misspelt one must not be silently ignored.
pub fn reserve_prefix() {
    // SAFETY: called once at load, after all settings are defined.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"meterflow".as_ptr()) }
}
