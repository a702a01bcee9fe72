//! Price models that this session has read, by their bytes: reading one costs more than pricing thousands of rows.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use rustc_hash::FxBuildHasher;

use super::unreadable;
use crate::core::pricing::Model;
use crate::pg::error::{Outcome, SqlState};
use crate::pg::numeric::JsonbIn;

/// So many are kept; then all are forgotten and read again as they come.
const KEPT: usize = 1000;

#[derive(Default)]
struct Read {
    /// The one asked for last, which a query over many rows asks for again.
    last: Option<(Box<[u8]>, Rc<Model>)>,
    all: HashMap<Box<[u8]>, Rc<Model>, FxBuildHasher>,
}

impl Read {
    fn find(&mut self, key: &[u8]) -> Option<Rc<Model>> {
        if let Some((bytes, model)) = &self.last
            && **bytes == *key
        {
            return Some(Rc::clone(model));
        }
        let model = Rc::clone(self.all.get(key)?);
        self.last = Some((key.into(), Rc::clone(&model)));
        Some(model)
    }

    fn keep(&mut self, key: &[u8], model: &Rc<Model>) {
        if self.all.len() >= KEPT {
            self.all.clear();
        }
        self.all.insert(key.into(), Rc::clone(model));
        self.last = Some((key.into(), Rc::clone(model)));
    }
}

thread_local! {
    static READ: RefCell<Read> = RefCell::default();
}

/// The model that a jsonb argument holds.
#[inline]
pub fn of_jsonb(model: &JsonbIn<'_>) -> Outcome<Rc<Model>> {
    find(model.bytes, || model.text())
}

/// A model by its text, as it is stored with a price or a line.
pub fn of_text(text: &str) -> Outcome<Rc<Model>> {
    find(text.as_bytes(), || text.to_string())
}

/// `text` may raise errors of PostgreSQL, so nothing is borrowed while it runs.
#[inline]
fn find(key: &[u8], text: impl FnOnce() -> String) -> Outcome<Rc<Model>> {
    if let Some(model) = READ.with_borrow_mut(|read| read.find(key)) {
        return Ok(model);
    }
    let text = text();
    let model =
        Model::parse(&text).map_err(|error| unreadable(error, &text, SqlState::ERRCODE_INVALID_PARAMETER_VALUE))?;
    let model = Rc::new(model);
    READ.with_borrow_mut(|read| read.keep(key, &model));
    Ok(model)
}
