//! `graduated`, `graduated_percentage` and `volume`: the price depends on how many units there are.
//!
//! A tier holds the units above the bound of the tier before and up to its own, inclusive; bounds may be fractional and
//! the last tier has none. Graduated: Σ over tiers of price(units in the tier) + flat_amount of each tier entered.
//! Volume: the tier that holds the quantity prices all of it, flat_amount included. Its total can fall as the quantity
//! rises past a bound, so it is only due when the period is over.
//!
//! Nothing used, or less than nothing, costs nothing; with `flat_at_zero` it costs the first tier's flat_amount.

use super::read::Fields;
use super::unit_price::UnitPrice;
use super::{Amount, ModelError, PriceError, Recorder, Step, Terms};

#[derive(Clone, Debug, PartialEq)]
pub struct Tiered {
    kind: Kind,
    tiers: Vec<Tier>,
    flat_at_zero: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Graduated,
    /// Graduated, of quantities that are money.
    GraduatedPercentage,
    Volume,
}

#[derive(Clone, Debug, PartialEq)]
struct Tier {
    up_to: Option<Amount>,
    price: UnitPrice,
    flat_amount: Amount,
}

impl Tiered {
    pub(super) fn read(fields: &mut Fields<'_>, kind: Kind) -> Result<Tiered, ModelError> {
        let list = fields.optional_objects("tiers")?.ok_or_else(|| fields.fault("tiers", "are missing"))?;
        let count = list.len();
        if count == 0 {
            return Err(fields.fault("tiers", "must have one tier at least"));
        }
        let mut tiers: Vec<Tier> = Vec::with_capacity(count);
        for (i, mut tier) in list.into_iter().enumerate() {
            let up_to = tier.optional_size("up_to")?;
            match (up_to, i + 1 == count) {
                (Some(_), true) => return Err(tier.fault("up_to", "must be null in the last tier: usage has no end")),
                (None, false) => return Err(tier.fault("up_to", "is missing: only the last tier has no bound")),
                _ => {}
            }
            if up_to.is_some_and(|bound| tiers.last().is_some_and(|before| before.up_to >= Some(bound))) {
                return Err(tier.fault("up_to", "must be above that of the tier before"));
            }
            let price = Tiered::price_of(&mut tier, kind)?;
            let flat = tier.optional_amount("flat_amount")?;
            let price = match (price, flat) {
                (Some(price), _) => price,
                (None, Some(_)) => UnitPrice::Each { unit_amount: Amount::ZERO },
                (None, None) => {
                    let name = if kind == Kind::GraduatedPercentage { "rate" } else { "unit_amount" };
                    return Err(tier.fault(name, "is missing"));
                }
            };
            tiers.push(Tier { up_to, price, flat_amount: flat.unwrap_or(Amount::ZERO) });
            tier.finish("a tier of this price")?;
        }
        Ok(Tiered { kind, tiers, flat_at_zero: fields.flag("flat_at_zero")? })
    }

    /// A price per unit, or per package of units.
    fn price_of(tier: &mut Fields<'_>, kind: Kind) -> Result<Option<UnitPrice>, ModelError> {
        if kind == Kind::GraduatedPercentage {
            return Ok(tier.optional_amount("rate")?.map(|rate| UnitPrice::Percent { rate }));
        }
        if tier.has("package_size") {
            return UnitPrice::package(tier).map(Some);
        }
        Ok(tier.optional_amount("unit_amount")?.map(|unit_amount| UnitPrice::Each { unit_amount }))
    }

    /// `full` selects the tier of a volume price.
    pub(super) fn price(
        &self,
        quantity: &Amount,
        full: &Amount,
        terms: &Terms,
        recorder: &mut impl Recorder,
    ) -> Result<Amount, PriceError> {
        if self.kind == Kind::Volume && !terms.closing {
            recorder.record(|| Step::Deferred { quantity: *quantity });
            return Ok(Amount::ZERO);
        }
        let selecting = if self.kind == Kind::Volume { full } else { quantity };
        if !selecting.is_positive() {
            return Ok(match self.tiers.first() {
                Some(tier) if self.flat_at_zero => {
                    recorder.record(|| Step::Fixed { amount: tier.flat_amount });
                    tier.flat_amount
                }
                _ => {
                    recorder.record(|| Step::NoUsage { quantity: *quantity });
                    Amount::ZERO
                }
            });
        }
        let mut total = Amount::ZERO;
        let mut from = &Amount::ZERO;
        for (i, tier) in self.tiers.iter().enumerate() {
            // The bound, of a tier that the quantity goes beyond.
            let inside = tier.up_to.as_ref().filter(|bound| *bound < selecting);
            if self.kind != Kind::Volume || inside.is_none() {
                let units = match self.kind {
                    Kind::Volume => *quantity,
                    _ => inside.unwrap_or(quantity).checked_sub(from)?,
                };
                let (cost, packages) = tier.price.price(&units)?;
                let amount = cost.checked_add(&tier.flat_amount)?;
                recorder.record(|| Step::Tier {
                    tier: i + 1,
                    from: *from,
                    up_to: tier.up_to,
                    quantity: units,
                    price: tier.price.clone(),
                    packages,
                    flat_amount: tier.flat_amount,
                    amount,
                });
                total = total.checked_add(&amount)?;
            }
            match inside {
                Some(bound) => from = bound,
                None => break,
            }
        }
        Ok(total)
    }
}
