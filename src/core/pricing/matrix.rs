//! `matrix`: usage by dimensions of the meter, each group of it by the price of its cell.
//!
//! A cell is a price with a `match`: the values that it takes, by dimension; a list takes any of them, null takes events
//! without the dimension. The first cell that matches a group has it, else `default`. A cell prices the usage of all its
//! groups as one, or with `per_group` each of them alone. The price is the sum over cells, or with `"combine":"max"`
//! only the dearest.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use super::model::Model;
use super::read::{Fields, string};
use super::usage::{Group, GroupNeeds, Needs, Usage};
use super::{Amount, Missing, ModelError, PartOf, PriceError, Recorder, Step, Terms, model};

#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    dimensions: BTreeSet<String>,
    cells: Vec<Cell>,
    default: Box<Model>,
    per_group: bool,
    dearest_only: bool,
}

/// All must hold: a dimension, and the values that it may have.
type Conditions = Vec<(String, Vec<Option<String>>)>;

#[derive(Clone, Debug, PartialEq)]
struct Cell {
    conditions: Conditions,
    price: Model,
}

impl Matrix {
    pub(super) fn read(fields: &mut Fields<'_>, depth: usize) -> Result<Matrix, ModelError> {
        let named = fields.optional_texts("dimensions")?.map(|names| names.into_iter().collect::<BTreeSet<_>>());
        let mut cells = Vec::new();
        for mut cell in fields.optional_objects("cells")?.unwrap_or_default() {
            let conditions = Cell::conditions(&mut cell, named.as_ref())?;
            cells.push(Cell { conditions, price: Model::nested(cell, depth)? });
        }
        let default = fields
            .optional_object("default")?
            .ok_or_else(|| fields.fault("default", "is missing: it prices what no cell matches"))?;
        let default = Box::new(Model::nested(default, depth)?);
        let dimensions = named.unwrap_or_else(|| {
            let matched = cells.iter().flat_map(|cell| &cell.conditions);
            matched.map(|(dimension, _)| dimension.clone()).collect()
        });
        if dimensions.is_empty() {
            return Err(fields.fault("cells", "are missing: each has a match, such as {\"region\":\"eu\"}"));
        }
        let per_group = fields.flag("per_group")?;
        let dearest_only = fields.choice("combine", &[("sum", false), ("max", true)])?.unwrap_or(false);
        let matrix = Matrix { dimensions, cells, default, per_group, dearest_only };
        let each = matrix.needs_of_each();
        if !per_group && (each.values || each.buckets.is_some()) {
            // Events and buckets of different groups have no common order in which they could be joined.
            return Err(fields.fault("per_group", "must be true where a cell prices single events or buckets"));
        }
        Ok(matrix)
    }

    fn needs_of_each(&self) -> Needs {
        self.cells.iter().fold(self.default.needs(), |needs, cell| needs.and(cell.price.needs()))
    }

    pub(super) fn needs(&self) -> Needs {
        let groups = GroupNeeds { dimensions: self.dimensions.clone(), each: Box::new(self.needs_of_each()) };
        Needs { groups: Some(groups), ..Needs::default() }
    }

    pub(super) fn price(
        &self,
        usage: &Usage,
        terms: &Terms,
        recorder: &mut impl Recorder,
    ) -> Result<Amount, PriceError> {
        let groups = usage.groups.as_deref().ok_or(PriceError::Missing(Missing::Groups))?;
        let cell_of = |group: &Group| self.cells.iter().position(|cell| cell.matches(group));
        let mut parts = Parts::default();
        if self.per_group {
            for group in groups {
                let cell = cell_of(group);
                let of = || PartOf::Cell {
                    cell: cell.map(|cell| cell + 1),
                    group: Some(group.by.iter().map(|(name, value)| (name.clone(), value.clone())).collect()),
                };
                parts
                    .add(recorder.part(of, |recorder| {
                        model::price_part(self.price_of(cell), &group.usage, terms, recorder)
                    })?)?;
            }
        } else {
            let mut of_cells = vec![Usage::nothing(); self.cells.len() + 1];
            for group in groups {
                let cell = cell_of(group).unwrap_or(self.cells.len());
                if let Some(usage) = of_cells.get_mut(cell) {
                    usage.add(&group.usage)?;
                }
            }
            for (i, usage) in of_cells.iter().enumerate() {
                let cell = (i < self.cells.len()).then_some(i);
                let of = || PartOf::Cell { cell: cell.map(|cell| cell + 1), group: None };
                parts.add(
                    recorder.part(of, |recorder| model::price_part(self.price_of(cell), usage, terms, recorder))?,
                )?;
            }
        }
        parts.combine(self.dearest_only, recorder)
    }

    fn price_of(&self, cell: Option<usize>) -> &Model {
        cell.and_then(|cell| self.cells.get(cell)).map_or(&self.default, |cell| &cell.price)
    }
}

impl Cell {
    fn conditions(cell: &mut Fields<'_>, named: Option<&BTreeSet<String>>) -> Result<Conditions, ModelError> {
        let mut wanted = cell.optional_object("match")?.ok_or_else(|| cell.fault("match", "is missing"))?;
        let mut conditions = Vec::new();
        for (dimension, raw) in wanted.rest() {
            if named.is_some_and(|named| !named.contains(&dimension)) {
                return Err(wanted.fault(&dimension, "is not one of its dimensions"));
            }
            let values = if raw.starts_with('[') {
                let items: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
                items.into_iter().map(|item| dimension_value(item.get())).collect()
            } else {
                dimension_value(raw).map(|value| vec![value])
            };
            let values: Option<Vec<Option<String>>> = values;
            match values {
                Some(values) if !values.is_empty() => conditions.push((dimension, values)),
                _ => return Err(wanted.fault(&dimension, "must be a value or a list of values")),
            }
        }
        if conditions.is_empty() {
            return Err(cell.fault("match", "must name a dimension"));
        }
        Ok(conditions)
    }

    fn matches(&self, group: &Group) -> bool {
        self.conditions.iter().all(|(dimension, values)| {
            let value = group.by.get(dimension).and_then(Option::as_deref);
            values.iter().any(|wanted| wanted.as_deref() == value)
        })
    }
}

/// The value of a dimension as groups have it: a text, or none for null. Nothing for what can't be a value.
pub(super) fn dimension_value(raw: &str) -> Option<Option<String>> {
    match raw.as_bytes().first()? {
        b'"' => string(raw).map(Some),
        b'{' | b'[' => None,
        _ if raw == "null" => Some(None),
        // Numbers by value: 1.0 and 1 are one.
        _ => Some(Some(Amount::parse(raw).map_or_else(|_| raw.to_string(), |number| number.to_string()))),
    }
}

/// The amounts of parts that were priced by themselves.
#[derive(Default)]
struct Parts {
    sum: Amount,
    dearest: Option<Amount>,
}

impl Parts {
    fn add(&mut self, amount: Amount) -> Result<(), PriceError> {
        self.sum = self.sum.checked_add(&amount)?;
        self.dearest = Some(self.dearest.map_or(amount, |dearest| dearest.max(amount)));
        Ok(())
    }

    fn combine(self, dearest_only: bool, recorder: &mut impl Recorder) -> Result<Amount, PriceError> {
        let Some(dearest) = self.dearest.filter(|_| dearest_only) else { return Ok(self.sum) };
        let others = dearest.checked_sub(&self.sum)?;
        recorder.record(|| Step::DearestOnly { amount: others });
        Ok(dearest)
    }
}
