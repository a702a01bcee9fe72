//! What is kept beside the ledger so that a balance costs the same however many grants and holds there are: sums over
//! what nothing tells apart. A cache of the ledger, changed with it; `verify` compares them.

use serde::{Deserialize, Serialize};

use crate::core::decimal::QuantityError;
use crate::core::pricing::Amount;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Totals {
    /// What is left of grants that began at once and never expire.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lasting: Vec<Lasting>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overdrafts: Vec<Overdraft>,
    /// Of holds that have not been closed, expired ones too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lasting {
    pub wallet: i64,
    pub priority: i32,
    pub promotional: bool,
    #[serde(with = "text")]
    pub amount: Amount,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overdraft {
    pub wallet: i64,
    #[serde(with = "text")]
    pub amount: Amount,
    /// When it last became more; Unix microseconds.
    pub since: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// What it is held for; None: anything.
    pub meter: Option<String>,
    /// In the currency.
    #[serde(with = "text")]
    pub amount: Amount,
    /// When the oldest of them was made, or before; Unix microseconds.
    pub since: i64,
}

impl Totals {
    pub fn add_lasting(
        &mut self,
        wallet: i64,
        priority: i32,
        promotional: bool,
        change: &Amount,
    ) -> Result<(), QuantityError> {
        let same = |sum: &&mut Lasting| (sum.wallet, sum.priority, sum.promotional) == (wallet, priority, promotional);
        match self.lasting.iter_mut().find(same) {
            Some(sum) => sum.amount = sum.amount.checked_add(change)?.shortest(),
            None => self.lasting.push(Lasting { wallet, priority, promotional, amount: *change }),
        }
        self.lasting.retain(|sum| !sum.amount.is_zero());
        Ok(())
    }

    /// `now`: when it changes.
    pub fn add_overdraft(&mut self, wallet: i64, change: &Amount, now: i64) -> Result<(), QuantityError> {
        match self.overdrafts.iter_mut().find(|sum| sum.wallet == wallet) {
            Some(sum) => {
                sum.amount = sum.amount.checked_add(change)?.shortest();
                if change.is_positive() {
                    sum.since = now;
                }
            }
            None => self.overdrafts.push(Overdraft { wallet, amount: *change, since: now }),
        }
        self.overdrafts.retain(|sum| !sum.amount.is_zero());
        Ok(())
    }

    /// `since`: when the hold was made.
    pub fn add_held(&mut self, meter: Option<&str>, change: &Amount, since: i64) -> Result<(), QuantityError> {
        match self.held.iter_mut().find(|sum| sum.meter.as_deref() == meter) {
            Some(sum) => {
                sum.amount = sum.amount.checked_add(change)?.shortest();
                sum.since = sum.since.min(since);
            }
            None => self.held.push(Held { meter: meter.map(str::to_string), amount: *change, since }),
        }
        self.held.retain(|sum| !sum.amount.is_zero());
        Ok(())
    }
}

/// Amounts as JSON strings: no reader takes them for floating point.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::core::pricing::Amount;

    pub fn serialize<S: Serializer>(amount: &Amount, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(amount)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Amount, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Amount::parse(&text).map_err(D::Error::custom)
    }
}
