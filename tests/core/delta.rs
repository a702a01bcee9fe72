//! A packed delta gives back what was put in, merges to the same as adding event by event, and never panics.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::core::decimal::Quantity;
use crate::core::delta::{Accumulator, HOUR, customers as read_customers, entries, hour_of, put_customer};
use crate::core::state::{Kind, Sample, State};

proptest! {
    #[test]
    fn packed_samples_add_up(samples in prop::collection::vec((0_u32..4, 1_i32..4, 0_u32..3, -50_i64..50, -1_000_i64..1_000), 1..80)) {
        let groups = ["".to_string(), "[\"gpt\"]".to_string(), "[null,1]".to_string()];
        let kind = |meter: i32| [Kind::Sum, Kind::Count, Kind::Max][meter as usize - 1];
        let mut accumulator = Accumulator::default();
        let mut expected: BTreeMap<(u32, i32, i64, String), State> = BTreeMap::new();
        for (seq, &(customer, meter, group, quarter, value)) in samples.iter().enumerate() {
            let sample = Sample { value: Quantity::from_i64(value), digest: 0, at: quarter * HOUR / 4, seq: seq as i64, bucket: 0 };
            accumulator.add(customer, meter, kind(meter), group, &sample).unwrap();
            let key = (customer, meter, hour_of(sample.at), groups[group as usize].clone());
            expected.entry(key).or_insert_with(|| State::empty(kind(meter))).add(&sample).unwrap();
        }
        let mut found = BTreeMap::new();
        let mut customers = Vec::new();
        accumulator.pack(&groups, |customer, packed| {
            customers.push(customer);
            for entry in entries(packed) {
                let entry = entry.unwrap();
                let key = (customer, entry.meter, entry.bucket, entry.group.to_string());
                assert!(found.insert(key, State::decode(entry.state).unwrap()).is_none(), "an entry twice");
            }
        });
        prop_assert_eq!(found, expected);
        prop_assert!(customers.is_sorted() && customers.windows(2).all(|pair| pair[0] != pair[1]), "one row a customer");
    }

    #[test]
    fn customers_of_a_row_read_back(customers in prop::collection::vec(("[a-zé]{0,9}", prop::collection::vec(any::<u8>(), 0..40)), 0..20)) {
        let mut row = Vec::new();
        for (customer, packed) in &customers {
            put_customer(&mut row, customer, packed);
        }
        let found: Vec<(String, Vec<u8>)> = read_customers(&row).map(|read| read.map(|(customer, packed)| (customer.to_owned(), packed.to_owned())).unwrap()).collect();
        prop_assert_eq!(found, customers);
    }

    #[test]
    fn any_bytes_are_safe_to_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = entries(&bytes).count();
        let _ = read_customers(&bytes).count();
    }
}
