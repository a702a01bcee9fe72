//! Aggregate transition states behind `internal`.

use pgrx::{Internal, pg_sys};

use crate::core::state::{Kind, State};

/// The state in a transition value, made empty on first use, in the aggregate's memory context: the one a transition
/// function is called in lasts only for the row.
pub fn state_in(transition: &mut Internal, kind: Kind, call: pg_sys::FunctionCallInfo) -> &mut State {
    // SAFETY: only this crate's aggregates fill these values, always with a State; SQL can't forge an internal. The
    // context is restored before anything else runs; outside an aggregate the current one is as good as any.
    unsafe {
        let mut context = std::ptr::null_mut();
        let aggregate = pg_sys::AggCheckCallContext(call, &mut context) != 0;
        let previous = aggregate.then(|| pg_sys::MemoryContextSwitchTo(context));
        let state = transition.get_or_insert_with(|| State::empty(kind));
        if let Some(previous) = previous {
            pg_sys::MemoryContextSwitchTo(previous);
        }
        state
    }
}

/// The state in a transition value, if it has one.
pub fn state_of(transition: &Internal) -> Option<&State> {
    // SAFETY: as above.
    unsafe { transition.get::<State>() }
}
