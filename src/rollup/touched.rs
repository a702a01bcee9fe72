//! Whose usage a fold has changed, for alerts and for consumers of the outbox (sql/79_alerts.sql). Told in the fold's own
//! transaction: a crash leaves both or neither. Nobody to tell, nothing collected.

use rustc_hash::FxHashSet;

use crate::pg::error::Outcome;
use crate::pg::spi::{self, See};

use super::store::Rollups;

pub struct Touched {
    watched: bool,
    customers: FxHashSet<(String, String, i32)>,
}

impl Touched {
    pub fn new() -> Outcome<Touched> {
        let watched = spi::one("SELECT meterflow.usage_is_watched()", &[], See::Write, |row| row.bool(0))?;
        Ok(Touched { watched: watched == Some(true), customers: FxHashSet::default() })
    }

    /// What is on its way into the rollups.
    pub fn add(&mut self, rollups: &Rollups) {
        if self.watched {
            let owners = rollups.owners();
            self.customers.extend(owners.map(|(tenant, customer, meter)| (tenant.into(), customer.into(), meter)));
        }
    }

    /// A customer of whom nothing may be left: its last event was taken back.
    pub fn add_customer(&mut self, tenant: &str, customer: &str, meter: i32) {
        if self.watched {
            self.customers.insert((tenant.into(), customer.into(), meter));
        }
    }

    pub fn tell(self) -> Outcome<()> {
        if self.customers.is_empty() {
            return Ok(());
        }
        let mut customers: Vec<_> = self.customers.into_iter().collect();
        customers.sort_unstable(); // messages in an order that does not change from run to run
        let tenants: Vec<&str> = customers.iter().map(|(tenant, ..)| tenant.as_str()).collect();
        let names: Vec<&str> = customers.iter().map(|(_, customer, _)| customer.as_str()).collect();
        let meters: Vec<i32> = customers.iter().map(|&(.., meter)| meter).collect();
        let sql = "SELECT meterflow.usage_folded($1, $2, $3)";
        spi::run(sql, &[tenants.into(), names.into(), meters.into()], See::Write, |_| Ok(()))?;
        Ok(())
    }
}
