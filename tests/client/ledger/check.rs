//! What must hold when all sessions are done.

use std::collections::BTreeSet;

use postgres::Client;

use super::acts::{Act, CUSTOMERS, money};
use super::found::{Entries, Found, cents, micros, number, text};
use super::model::Share;
use super::replay::Replay;
use crate::event::time;
use crate::server::{one, rows};

impl Replay {
    pub(super) fn every_act_once(&self, found: &Found) {
        let mut keys: BTreeSet<String> = found.transactions.values().filter_map(|row| row[7].clone()).collect();
        keys.extend(found.holds.values().map(|row| text(row, 9)));
        for done in self.done.values() {
            let known = |key: &str| keys.contains(key);
            match &done.act {
                Act::Debits(debits) => {
                    assert_eq!(done.came_of_it.len(), debits.len(), "{}", done.key);
                    for (place, came_of_it) in done.came_of_it.iter().enumerate() {
                        assert_eq!(known(&format!("{}/{place}", done.key)), came_of_it.is_ok(), "{} {place}", done.key);
                    }
                }
                Act::Credit { .. }
                | Act::Debit { .. }
                | Act::Hold { .. }
                | Act::HoldUsage { .. }
                | Act::Transfer { .. }
                | Act::Refund { .. }
                | Act::End { .. } => assert_eq!(known(&done.key), done.came_of_it[0].is_ok(), "{done:?}"),
                Act::Capture { hold, cents } if done.came_of_it[0].is_ok() => {
                    let row = &found.holds[hold];
                    let wanted = cents.unwrap_or_else(|| number(row, 2));
                    assert_eq!((text(row, 5).as_str(), number(row, 6)), ("captured", wanted), "{done:?}");
                }
                Act::CaptureUsage { hold, .. } if done.came_of_it[0].is_ok() => {
                    let row = &found.holds[hold];
                    assert_eq!((text(row, 5).as_str(), number(row, 6)), ("captured", 0), "{done:?}");
                }
                Act::Release { hold } if done.came_of_it[0].is_ok() => {
                    // What has expired has let go by itself.
                    let row = &found.holds[hold];
                    assert!(text(row, 5) == "released" || number(row, 4) <= done.acknowledged, "{done:?}");
                }
                Act::Void { invoice } if done.came_of_it[0].is_ok() => {
                    assert_eq!(text(&found.invoices[invoice], 2), "void", "{done:?}");
                }
                Act::Bill => {
                    for code in done.came_of_it.iter().filter_map(|it| it.as_ref().err()) {
                        assert!(["nothing to charge"].contains(&code.as_str()), "{done:?}");
                    }
                }
                _ => {}
            }
        }
    }

    /// What is left of each grant, and what each wallet owes.
    pub(super) fn grants_are_equal(&self, found: &Found) {
        let mut known = 0;
        for account in &self.accounts {
            for grant in &account.grants {
                assert_eq!(number(&found.grants[&grant.id], 9), grant.left, "what is left of {grant:?}");
                known += 1;
            }
        }
        assert_eq!(known, found.grants.len(), "grants that the model does not know");
    }

    /// What wallet_balance() says of every wallet is what the model says at that time.
    pub fn balances_are_equal(&self, client: &mut Client) {
        for customer in 0..CUSTOMERS {
            let sql = format!(
                "SELECT {}, wallet_id, (balance * 100)::bigint, (open_usage * 100)::bigint, (unpaid * 100)::bigint, (held * 100)::bigint, (available * 100)::bigint
                   FROM meterflow.wallet_balance('c{customer}', 'USD')",
                micros("as_of")
            );
            let found = rows(client, &sql);
            let at = number(&found[0], 0);
            let mut account = self.accounts[customer].clone();
            for rule in self.rules.iter().filter(|rule| rule.customer == customer) {
                rule.give(&mut account, at);
            }
            let (shares, _) = account.position(&self.debts(customer, at), at, |_| true);
            assert_eq!(found.len(), account.wallets.len());
            for row in found {
                let place = self.wallet(customer, number(&row, 1));
                let share = Share {
                    balance: number(&row, 2),
                    usage: number(&row, 3),
                    unpaid: number(&row, 4),
                    held: number(&row, 5),
                };
                let what = format!("c{customer}, wallet {} at {}", account.wallets[place].name, time(at));
                assert_eq!(share, shares[place], "{what}");
                let Share { balance, usage, unpaid, held } = share;
                let available = balance - usage - unpaid - held + account.wallets[place].limit;
                assert_eq!(number(&row, 6), available, "{what}: available");
            }
        }
    }

    /// What was so at moments of the past, by what was known then.
    pub fn past_is_as_it_was(&self, client: &mut Client) {
        assert!(self.past.len() > 5, "{} moments of the past are no test", self.past.len());
        for (customer, at, account) in &self.past {
            let moment = format!("timestamptz 'epoch' + {at} * interval '1 microsecond'");
            let found = rows(
                client,
                &format!(
                    "SELECT b.wallet_id, coalesce(b.grant_id, 0), {} FROM meterflow.ledger_balance('c{customer}', 'USD', {moment}, {moment}) b JOIN meterflow.wallets w ON w.id = b.wallet_id",
                    cents("b.remaining", "w.credit_unit")
                ),
            );
            let mut found: Entries =
                found.iter().map(|row| ((number(row, 0), number(row, 1)), number(row, 2))).collect();
            found.retain(|_, cents| *cents != 0);
            let mut expected: Entries = account
                .grants
                .iter()
                .filter(|grant| grant.starts <= *at)
                .map(|grant| ((account.wallets[grant.wallet].id, grant.id), grant.left))
                .collect();
            expected.extend(account.wallets.iter().map(|wallet| ((wallet.id, 0), -wallet.owed)));
            expected.retain(|_, cents| *cents != 0);
            assert_eq!(found, expected, "c{customer} at {}", time(*at));
        }
    }

    /// To the cent: all that is available can be held, and no more.
    pub fn limits_are_exact(&self, client: &mut Client) {
        let available = |customer: usize| {
            format!(
                "SELECT (sum(available) * 100)::bigint FROM meterflow.wallet_balance('c{customer}', 'USD') b JOIN meterflow.wallets w ON w.id = b.wallet_id WHERE w.meters = '{{}}'"
            )
        };
        let held = |client: &mut Client, customer: usize, cents: i64| {
            let mut transaction = client.transaction().expect("a session");
            let sql = format!("SELECT meterflow.hold('c{customer}', {}, 'USD', '1 minute', 'probe')", money(cents));
            match transaction.simple_query(&sql) {
                Ok(_) => true,
                Err(error) if error.code().is_some_and(|code| code.code() == "53400") => false,
                Err(error) => panic!("{}", crate::server::shown(&error)),
            }
        };
        for customer in 0..CUSTOMERS {
            // Where something begins or expires in between, another time.
            let exact = (0..20).any(|_| {
                let there: i64 = one(client, &available(customer)).parse().expect("a number");
                !held(client, customer, there.max(0) + 1) && (there <= 0 || held(client, customer, there))
            });
            assert!(exact, "c{customer}: more or less can be held than is available");
        }
    }

    pub fn said(&self) -> String {
        let grants: usize = self.accounts.iter().map(|account| account.grants.len()).sum();
        let refused = self.done.values().filter(|done| done.came_of_it.iter().any(Result::is_err)).count();
        format!(
            "{} acts, {refused} of them refused, {grants} grants, {} invoices, {} states of the past",
            self.done.len(),
            self.invoices.len(),
            self.past.len()
        )
    }
}
