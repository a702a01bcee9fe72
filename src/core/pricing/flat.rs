//! `flat`: one amount, whatever the quantity; for no usage at all (or less) only with `flat_at_zero`.

use super::read::Fields;
use super::{Amount, ModelError, Recorder, Step};

#[derive(Clone, Debug, PartialEq)]
pub struct Flat {
    amount: Amount,
    flat_at_zero: bool,
}

impl Flat {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Flat, ModelError> {
        Ok(Flat { amount: fields.amount("amount")?, flat_at_zero: fields.flag("flat_at_zero")? })
    }

    pub(super) fn price(&self, quantity: &Amount, recorder: &mut impl Recorder) -> Amount {
        if !quantity.is_positive() && !self.flat_at_zero {
            recorder.record(|| Step::NoUsage { quantity: *quantity });
            return Amount::ZERO;
        }
        recorder.record(|| Step::Fixed { amount: self.amount });
        self.amount
    }
}
