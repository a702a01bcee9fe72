//! A price as its JSON definition says, and the pipeline that it is: whatever the model, the steps around it are these,
//! in this order.
//!
//! convert units → free units → price → percentage discount → maximum → minimum → commitment
//!
//! The price of a matrix's cell or of a bucket is such a pipeline again.

use super::bucketed::Bucketed;
use super::commitment::{Commitment, To};
use super::flat::Flat;
use super::matrix::Matrix;
use super::percentage::Percentage;
use super::read::Fields;
use super::tiers::{Kind, Tiered};
use super::unit_price::UnitPrice;
use super::units::{Conversion, Free};
use super::usage::{Needs, Terms, Usage};
use super::{Amount, ModelError, PriceError, Priced, Recorder, Silent, Step};

/// Prices within prices: more than anyone means, and few enough for the stack.
const MAX_DEPTH: usize = 8;

/// A definition of each model that shows what it is made of.
pub const EXAMPLES: [(&str, &str); 10] = [
    ("flat", r#"{"model":"flat","amount":"20"}"#),
    ("per_unit", r#"{"model":"per_unit","unit_amount":"0.10"}"#),
    (
        "graduated",
        r#"{"model":"graduated","tiers":[{"up_to":"100","unit_amount":"0.10","flat_amount":"5"},{"up_to":null,"unit_amount":"0.05"}]}"#,
    ),
    (
        "volume",
        r#"{"model":"volume","tiers":[{"up_to":"100","unit_amount":"0.10"},{"up_to":null,"unit_amount":"0.05"}]}"#,
    ),
    ("package", r#"{"model":"package","amount":"5","package_size":"100"}"#),
    ("percentage", r#"{"model":"percentage","rate":"2.9","fixed_amount":"0.30","free_events":10}"#),
    (
        "graduated_percentage",
        r#"{"model":"graduated_percentage","tiers":[{"up_to":"1000","rate":"2"},{"up_to":null,"rate":"1"}]}"#,
    ),
    ("dynamic", r#"{"model":"dynamic","multiplier":"1.2"}"#),
    (
        "matrix",
        r#"{"model":"matrix","cells":[{"match":{"region":"eu"},"unit_amount":"0.12"}],"default":{"unit_amount":"0.10"}}"#,
    ),
    ("bucketed", r#"{"model":"bucketed","price":{"model":"per_unit","unit_amount":"0.10"}}"#),
];

/// A price model. [`Model::parse`] reads it once; pricing doesn't look at JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    name: &'static str,
    conversion: Option<Conversion>,
    free: Vec<Free>,
    charge: Charge,
    percentage_discount: Option<Amount>,
    maximum_spend: Option<Amount>,
    minimum_spend: Option<Amount>,
    commitment: Option<Commitment>,
}

/// What the models differ in.
#[derive(Clone, Debug, PartialEq)]
enum Charge {
    Flat(Flat),
    Units(UnitPrice),
    Tiered(Tiered),
    Percentage(Percentage),
    Matrix(Matrix),
    Bucketed(Bucketed),
}

impl Model {
    /// Reads a definition, or says what is wrong with it and where.
    pub fn parse(json: &str) -> Result<Model, ModelError> {
        Model::read(Fields::whole(json, "a price", "a price model")?, 0)
    }

    /// A price within a price. Unless it names its model it is `per_unit`.
    pub(super) fn nested(fields: Fields<'_>, depth: usize) -> Result<Model, ModelError> {
        Model::read(fields, depth + 1)
    }

    fn read(mut fields: Fields<'_>, depth: usize) -> Result<Model, ModelError> {
        if depth > MAX_DEPTH {
            return Err(fields.fault("model", "is nested too deeply"));
        }
        let named = fields.optional_text("model")?;
        let nested = depth > 0;
        let wanted = match named.as_deref() {
            Some(name) => name,
            None if nested => "per_unit",
            None => return Err(fields.fault("model", "is missing")),
        };
        let (name, charge) = match wanted {
            "flat" => ("flat", Charge::Flat(Flat::read(&mut fields)?)),
            "per_unit" => ("per_unit", Charge::Units(UnitPrice::per_unit(&mut fields)?)),
            "package" => ("package", Charge::Units(UnitPrice::package(&mut fields)?)),
            "dynamic" => ("dynamic", Charge::Units(UnitPrice::dynamic(&mut fields)?)),
            "graduated" => ("graduated", Charge::Tiered(Tiered::read(&mut fields, Kind::Graduated)?)),
            "graduated_percentage" => {
                ("graduated_percentage", Charge::Tiered(Tiered::read(&mut fields, Kind::GraduatedPercentage)?))
            }
            "volume" => ("volume", Charge::Tiered(Tiered::read(&mut fields, Kind::Volume)?)),
            "percentage" => ("percentage", Charge::Percentage(Percentage::read(&mut fields)?)),
            "matrix" => ("matrix", Charge::Matrix(Matrix::read(&mut fields, depth)?)),
            "bucketed" => ("bucketed", Charge::Bucketed(Bucketed::read(&mut fields, depth)?)),
            other => {
                let mut error = fields.fault("model", "");
                error.message = format!("there is no price model \"{other}\"");
                return Err(error);
            }
        };
        let by_quantity = matches!(charge, Charge::Units(_) | Charge::Tiered(_));
        let (conversion, free) =
            if by_quantity { (Conversion::read(&mut fields)?, Free::read(&mut fields)?) } else { (None, Vec::new()) };
        let percentage_discount = fields.optional_amount("percentage_discount")?;
        if percentage_discount.is_some_and(|percentage| percentage > Amount::from(100)) {
            return Err(fields.fault("percentage_discount", "must not be above 100"));
        }
        let maximum_spend = fields.optional_amount("maximum_spend")?;
        let minimum_spend = fields.optional_amount("minimum_spend")?;
        if maximum_spend.is_some_and(|maximum| minimum_spend.is_some_and(|minimum| minimum > maximum)) {
            return Err(fields.fault("minimum_spend", "must not be above the maximum_spend"));
        }
        let commitment = Commitment::read(&mut fields, by_quantity, nested)?;
        fields.finish(&format!("a {name} price"))?;
        Ok(Model { name, conversion, free, charge, percentage_discount, maximum_spend, minimum_spend, commitment })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What must be known of the usage.
    pub fn needs(&self) -> Needs {
        match &self.charge {
            Charge::Flat(_) | Charge::Units(_) | Charge::Tiered(_) => Needs { quantity: true, ..Needs::default() },
            Charge::Percentage(percentage) => percentage.needs(),
            Charge::Matrix(matrix) => matrix.needs(),
            Charge::Bucketed(bucketed) => bucketed.needs(),
        }
    }

    /// Whether it prices usage. A flat price need not: without a meter it is a fee that recurs, for a quantity of 1.
    pub fn needs_meter(&self) -> bool {
        !matches!(self.charge, Charge::Flat(_))
    }

    /// Over how many periods the commitment runs, if there is one; over more than one, pricing needs to know what the
    /// earlier ones cost.
    pub fn commitment_periods(&self) -> Option<u32> {
        self.commitment.as_ref().map(Commitment::periods)
    }

    /// Up to the minimum: all but the commitment.
    #[inline]
    fn cost(&self, usage: &Usage, terms: &Terms, recorder: &mut impl Recorder) -> Result<Amount, PriceError> {
        let mut amount = match &self.charge {
            Charge::Flat(flat) => flat.price(&usage.quantity, recorder),
            Charge::Units(price) => {
                let quantity = self.charged_units(&usage.quantity, recorder)?;
                if quantity.is_zero() || (quantity.is_negative() && !price.credits()) {
                    recorder.record(|| Step::NoUsage { quantity });
                    Amount::ZERO
                } else {
                    let (amount, packages) = price.price(&quantity)?;
                    recorder.record(|| Step::Units { quantity, price: price.clone(), packages, amount });
                    amount
                }
            }
            Charge::Tiered(tiered) => {
                let quantity = self.charged_units(&usage.quantity, recorder)?;
                let full = match &usage.full_quantity {
                    Some(full) => self.charged_units(full, &mut Silent)?,
                    None => quantity,
                };
                tiered.price(&quantity, &full, terms, recorder)?
            }
            Charge::Percentage(percentage) => percentage.price(usage, recorder)?,
            Charge::Matrix(matrix) => matrix.price(usage, terms, recorder)?,
            Charge::Bucketed(bucketed) => bucketed.price(usage, terms, recorder)?,
        };
        if let Some(percentage) = &self.percentage_discount {
            let change = -amount.percent(percentage)?;
            recorder.record(|| Step::Discount { percentage: *percentage, amount: change });
            amount = amount.checked_add(&change)?;
        }
        if let Some(maximum) = self.maximum_spend.filter(|maximum| amount > *maximum) {
            let change = maximum.checked_sub(&amount)?;
            recorder.record(|| Step::Maximum { maximum, amount: change });
            amount = maximum;
        }
        if let Some(minimum) = self.minimum_spend.filter(|minimum| terms.closing && amount < *minimum) {
            let change = minimum.checked_sub(&amount)?;
            recorder.record(|| Step::Minimum { minimum, amount: change });
            amount = minimum;
        }
        Ok(amount)
    }

    #[inline]
    fn charged_units(&self, quantity: &Amount, recorder: &mut impl Recorder) -> Result<Amount, PriceError> {
        let mut quantity = *quantity;
        if let Some(conversion) = &self.conversion {
            quantity = conversion.convert(&quantity, recorder)?;
        }
        for free in &self.free {
            quantity = free.take_off(&quantity, recorder)?;
        }
        Ok(quantity)
    }
}

/// What `usage` costs on these terms, unrounded. The recorder is told each step.
#[inline]
pub fn price_with(
    model: &Model,
    usage: &Usage,
    terms: &Terms,
    recorder: &mut impl Recorder,
) -> Result<Priced, PriceError> {
    let cost = model.cost(usage, terms, recorder)?;
    let amount = match &model.commitment {
        None => cost,
        Some(commitment) => {
            let committed = match &commitment.to {
                To::Amount(amount) => *amount,
                To::Quantity(quantity) => model.cost(&Usage::of(*quantity), &Terms::default(), &mut Silent)?,
            };
            commitment.settle(&cost, &committed, terms, recorder)?
        }
    };
    Ok(Priced { cost, amount })
}

/// What a part of the usage costs: the costs of earlier periods are the whole's.
pub(super) fn price_part(
    model: &Model,
    usage: &Usage,
    terms: &Terms,
    recorder: &mut impl Recorder,
) -> Result<Amount, PriceError> {
    let terms = Terms { closing: terms.closing, ..Terms::default() };
    price_with(model, usage, &terms, recorder).map(|priced| priced.amount)
}
