//! Aggregate transition states behind `internal`.

use pgrx::Internal;

use crate::core::state::{Kind, State};

/// The state in a transition value, made empty on first use. It lives until the aggregate's memory context goes.
pub fn state_in(transition: &mut Internal, kind: Kind) -> &mut State {
    // SAFETY: only this crate's aggregates fill these values, always with a State; SQL can't forge an internal.
    unsafe { transition.get_or_insert_with(|| State::empty(kind)) }
}

/// The state in a transition value, if it has one.
pub fn state_of(transition: &Internal) -> Option<&State> {
    // SAFETY: as above.
    unsafe { transition.get::<State>() }
}
