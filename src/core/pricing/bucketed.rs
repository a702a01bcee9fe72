//! `bucketed`: each time bucket of the meter by the inner price, then summed: peak billing, commitments per window.
//! Tiers, minimum and commitment of the inner price begin anew in each bucket.

use super::model::Model;
use super::read::Fields;
use super::usage::{Needs, Usage};
use super::{Amount, Missing, ModelError, PartOf, PriceError, Recorder, Terms, model};

#[derive(Clone, Debug, PartialEq)]
pub struct Bucketed {
    price: Box<Model>,
}

impl Bucketed {
    pub(super) fn read(fields: &mut Fields<'_>, depth: usize) -> Result<Bucketed, ModelError> {
        let price = fields
            .optional_object("price")?
            .ok_or_else(|| fields.fault("price", "is missing: the price of each bucket"))?;
        Ok(Bucketed { price: Box::new(Model::nested(price, depth)?) })
    }

    pub(super) fn needs(&self) -> Needs {
        Needs { buckets: Some(Box::new(self.price.needs())), ..Needs::default() }
    }

    pub(super) fn price(
        &self,
        usage: &Usage,
        terms: &Terms,
        recorder: &mut impl Recorder,
    ) -> Result<Amount, PriceError> {
        let buckets = usage.buckets.as_deref().ok_or(PriceError::Missing(Missing::Buckets))?;
        buckets.iter().enumerate().try_fold(Amount::ZERO, |sum, (i, bucket)| {
            let of = || PartOf::Bucket { bucket: i + 1 };
            let amount = recorder.part(of, |recorder| model::price_part(&self.price, bucket, terms, recorder))?;
            Ok(sum.checked_add(&amount)?)
        })
    }
}
