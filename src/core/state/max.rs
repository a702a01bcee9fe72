//! Largest value.

use super::Quantity;
use super::extreme::{Extreme, Pick};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Greatest;

impl Pick for Greatest {
    fn pick(a: Quantity, b: Quantity) -> Quantity {
        a.max(b)
    }
}

pub type Max = Extreme<Greatest>;
