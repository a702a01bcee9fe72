//! Who calls, and what the session is.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int};

use pgrx::pg_sys;
use rustc_hash::FxHashMap;

use super::error::{Fail, Outcome, SqlState};

/// While it lives, the session acts as the owner of the extension's tables: verbs check the caller's right first
/// and then keep their own books. An ERROR restores the user with the transaction.
pub struct AsOwner {
    user: pg_sys::Oid,
    context: i32,
}

impl AsOwner {
    /// Refuses unless the caller has `privilege` (an ACL_ constant) on the relation and the transaction may write, then
    /// becomes its owner. A verb with nothing to do must be refused on a standby as well: what it finds there may change
    /// before it is asked again.
    pub fn of(relation: pg_sys::Oid, privilege: u32, verb: &str) -> Outcome<AsOwner> {
        // SAFETY: catalogue look-ups and backend-local user ids.
        unsafe {
            let mut user = pg_sys::InvalidOid;
            let mut context = 0;
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            if pg_sys::pg_class_aclcheck(relation, user, privilege as pg_sys::AclMode) != pg_sys::AclResult::ACLCHECK_OK
            {
                return Err(Fail::new(
                    SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE,
                    format!("permission denied for {verb}"),
                )
                .hint("Ask the owner of meterflow for SELECT meterflow.grant_access(role, 'ingest')."));
            }
            if pg_sys::XactReadOnly {
                return Err(Fail::new(
                    SqlState::ERRCODE_READ_ONLY_SQL_TRANSACTION,
                    format!("cannot execute {verb}() in a read-only transaction"),
                ));
            }
            pg_sys::SetUserIdAndSecContext(owner_of(relation)?, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
            Ok(AsOwner { user, context })
        }
    }
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        // SAFETY: restores what `of` found.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) }
    }
}

fn owner_of(relation: pg_sys::Oid) -> Outcome<pg_sys::Oid> {
    // SAFETY: the relation is opened and closed here.
    unsafe {
        let rel = pg_sys::relation_open(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let owner = (*(*rel).rd_rel).relowner;
        pg_sys::relation_close(rel, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        Ok(owner)
    }
}

/// Where our queries look names up, as our SQL functions do.
const SEARCH_PATH: &CStr = c"pg_catalog, pg_temp";

/// While it lives, names in SQL mean what they meant to whoever wrote it. Verbs run queries as the owner of the tables:
/// what `=` is must not be for the caller to say. And a kept plan holds for one search_path only: a session that calls
/// us now from its own, now from a function that has set another, would plan each query anew each time.
pub struct PinnedSearchPath {
    /// What to restore; None when the path was as it should be.
    level: Option<c_int>,
}

impl PinnedSearchPath {
    pub fn pin() -> PinnedSearchPath {
        // SAFETY: the setting's variable holds a C string, or null before it is first set; set_config_option raises an
        // ERROR when it can't, and what it has set ends with the level, by `drop` or by the abort.
        unsafe {
            let path = pg_sys::namespace_search_path;
            if !path.is_null() && CStr::from_ptr(path) == SEARCH_PATH {
                return PinnedSearchPath { level: None };
            }
            let level = pg_sys::NewGUCNestLevel();
            pg_sys::set_config_option(
                c"search_path".as_ptr(),
                SEARCH_PATH.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
            PinnedSearchPath { level: Some(level) }
        }
    }
}

impl Drop for PinnedSearchPath {
    fn drop(&mut self) {
        if let Some(level) = self.level
            && !std::thread::panicking()
        {
            // SAFETY: ends the level that `pin` began; while an ERROR unwinds, the transaction's abort does it.
            unsafe { pg_sys::AtEOXact_GUC(true, level) }
        }
    }
}

thread_local! {
    static OIDS: RefCell<FxHashMap<String, pg_sys::Oid>> = RefCell::default();
    /// Whether that may have changed; None: nobody watches yet.
    static CHANGED: Cell<Option<bool>> = const { Cell::new(None) };
    /// How often it has.
    static GENERATION: Cell<u64> = const { Cell::new(0) };
}

/// What a backend has found out about relations, by where it is said which: each with the generation it is of.
pub(super) type Kept<K, T> = RefCell<FxHashMap<K, (u64, T)>>;

/// What `find` says, or has said of that since relations were last changed, if it said that it can be kept.
pub(super) fn of_relations<K: Copy + Eq + std::hash::Hash, T: Clone>(
    cache: &Kept<K, T>,
    key: K,
    find: impl FnOnce() -> Outcome<(T, bool)>,
) -> Outcome<T> {
    refresh();
    let generation = GENERATION.get();
    if let Some((_, known)) = cache.borrow().get(&key).filter(|(of, _)| *of == generation) {
        return Ok(known.clone());
    }
    let (found, keeps) = find()?;
    if keeps {
        // A change that was heard of meanwhile makes the next one look again.
        cache.borrow_mut().insert(key, (generation, found.clone()));
    }
    Ok(found)
}

/// Whether something has been heard since relations were last asked about. What was kept was found out before the lock on a
/// table was taken, which takes in what has been said until then: whoever opens a table asks this after it, and begins anew
/// if there is news. That ends, for a lock that is held already brings none. An index that began to take entries meanwhile
/// must get them.
pub(super) fn has_heard() -> bool {
    CHANGED.get() == Some(true)
}

/// The role that acts.
pub(super) fn current_user() -> pg_sys::Oid {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::GetUserId() }
}

/// Oid of a relation of the extension's schema. Kept until any relation, schema or role is made, changed or dropped: a verb
/// asks for twenty of them.
pub fn relation(name: &str) -> Outcome<pg_sys::Oid> {
    refresh();
    if let Some(oid) = OIDS.with_borrow(|oids| oids.get(name).copied()) {
        return Ok(oid);
    }
    let oid = look_up(name)?;
    // The look-up itself may have heard of a change: then what it found is of after that, and what was known before is not.
    if CHANGED.get() == Some(false) {
        OIDS.with_borrow_mut(|oids| oids.insert(name.to_string(), oid));
    }
    Ok(oid)
}

/// What the current user may do to a table with rights to it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Reach {
    /// Everything; this stays so until relations or roles change, or (not) by what is set.
    All { keeps: bool },
    /// Some of its rows: policies say which.
    ByPolicy,
    /// Not the whole of it: columns, or nothing.
    Less,
}

/// How far rights (ACL_ constants) go.
pub(super) fn reach(table: &str, rights: u32) -> Outcome<Reach> {
    let oid = relation(table)?;
    let rights = pg_sys::AclMode::from(rights);
    // SAFETY: syscache look-ups for the current user.
    let policy = unsafe {
        if pg_sys::pg_class_aclmask(oid, current_user(), rights, pg_sys::AclMaskHow::ACLMASK_ALL) != rights {
            return Ok(Reach::Less);
        }
        pg_sys::check_enable_rls(oid, pg_sys::InvalidOid, true) as u32
    };
    Ok(match policy {
        pg_sys::CheckEnableRlsResult::RLS_ENABLED => Reach::ByPolicy,
        // Whether there are policies, relations say; whether they apply, settings may.
        policy => Reach::All { keeps: policy == pg_sys::CheckEnableRlsResult::RLS_NONE },
    })
}

/// Forgets what may no longer be so.
fn refresh() {
    match CHANGED.replace(Some(false)) {
        Some(false) => {}
        Some(true) => {
            OIDS.with_borrow_mut(FxHashMap::clear);
            GENERATION.set(GENERATION.get() + 1);
        }
        None => watch(),
    }
}

fn watch() {
    use pg_sys::SysCacheIdentifier::{AUTHMEMROLEMEM, AUTHOID, DATABASEOID, NAMESPACENAME, RELNAMENSP};
    for cache in [RELNAMENSP, NAMESPACENAME, AUTHOID, AUTHMEMROLEMEM, DATABASEOID] {
        // SAFETY: registered once a backend; the function stays as long as the library, which is never unloaded.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(cache as std::ffi::c_int, Some(changed), pg_sys::Datum::from(0));
        }
    }
    // SAFETY: as above.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0)) }
}

/// SAFETY: called by PostgreSQL when it hears of a change to a relation, its columns, indexes or triggers; touches nothing
/// but a flag.
unsafe extern "C-unwind" fn relation_changed(_: pg_sys::Datum, relation: pg_sys::Oid) {
    let ours = OIDS.with(|oids| match oids.try_borrow() {
        Ok(oids) => relation == pg_sys::InvalidOid || oids.values().any(|oid| *oid == relation),
        Err(_) => true,
    });
    if ours {
        CHANGED.set(Some(true));
    }
}

/// SAFETY: called by PostgreSQL when it hears of a change; touches nothing but a flag.
unsafe extern "C-unwind" fn changed(_: pg_sys::Datum, _: std::ffi::c_int, _: pg_sys::uint32) {
    CHANGED.set(Some(true));
}

fn look_up(name: &str) -> Outcome<pg_sys::Oid> {
    let missing = || {
        Fail::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("relation meterflow.{name} does not exist"))
            .hint("CREATE EXTENSION meterflow, or restore what was dropped by hand.")
    };
    let text = std::ffi::CString::new(name).map_err(|_| missing())?;
    // SAFETY: syscache look-ups by name.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"meterflow".as_ptr(), true);
        let oid = pg_sys::get_relname_relid(text.as_ptr(), schema);
        if schema == pg_sys::InvalidOid || oid == pg_sys::InvalidOid { Err(missing()) } else { Ok(oid) }
    }
}

/// The clock, in Unix microseconds.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    super::datum::unix_micros(unsafe { pg_sys::GetCurrentTimestamp() })
}

/// When the statement began, in Unix microseconds.
pub fn statement_time() -> i64 {
    // SAFETY: reads a variable of the backend.
    super::datum::unix_micros(unsafe { pg_sys::GetCurrentStatementStartTimestamp() })
}

/// The name of session_user.
pub fn user() -> String {
    // SAFETY: looks the role up, and raises an ERROR when it has been dropped; the name is a C string.
    unsafe { CStr::from_ptr(pg_sys::GetUserNameFromId(pg_sys::GetSessionUserId(), false)) }
        .to_string_lossy()
        .into_owned()
}

/// Next value of a sequence.
pub fn next_value(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: nextval_oid takes one oid and returns an int8 by value; it raises an ERROR when it can't.
    unsafe {
        pgrx::direct_function_call(pg_sys::nextval_oid, &[Some(pg_sys::Datum::from(sequence))]).unwrap_or_default()
    }
}
