//! A price's explanation, as JSON for people and programs. Numbers are strings: JSON's own would lose digits.

use serde_json::{Value, json};

use super::{Model, Priced, RoundError, Step};

impl Priced {
    /// The steps, the exact sum and, with a currency, the rounded amount.
    pub fn explain(&self, model: &Model, currency: Option<&str>) -> Result<Value, RoundError> {
        let steps: Vec<Value> = self.steps.iter().map(Step::explain).collect();
        let mut explanation = json!({
            "model": model.name(),
            "quantity": self.quantity.to_string(),
            "steps": steps,
            "unrounded": self.amount.to_string(),
            "amount": self.amount.to_string(),
        });
        if let Some(code) = currency {
            explanation["amount"] = json!(self.in_currency(code)?.to_string());
            explanation["currency"] = json!(code);
            explanation["rounding"] = json!("half away from zero");
        }
        Ok(explanation)
    }
}

impl Step {
    fn explain(&self) -> Value {
        match self {
            Step::Units { quantity, unit_amount, amount } => json!({
                "step": "units",
                "quantity": quantity.to_string(),
                "unit_amount": unit_amount.to_string(),
                "amount": amount.to_string(),
            }),
            Step::Fixed { amount } => json!({ "step": "fixed", "amount": amount.to_string() }),
            Step::NoUsage => json!({ "step": "no usage", "amount": "0" }),
        }
    }
}
