//! A place in an object, with its path, so that what is wrong there can be told.

use serde_json::Value;

use crate::kubernetes::{BadQuantity, Quantity};
use crate::workload::SpecError;

/// What is wrong with an object.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<SpecError>);

impl Faults {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_inner(self) -> Vec<SpecError> {
        self.0
    }
}

/// A place where something is, or could be.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    value: Option<&'a Value>,
    path: String,
}

impl<'a> Place<'a> {
    /// The whole object, which stands under this path.
    pub(super) fn root(object: &'a Value, path: &str) -> Self {
        Self { value: Some(object), path: path.to_owned() }
    }

    /// The field of this name.
    pub(super) fn get(&self, name: &str) -> Self {
        let value = self.value.and_then(|value| value.get(name));
        let path = match (self.path.as_str(), name.contains(['.', '/'])) {
            ("", _) => name.to_owned(),
            (path, false) => format!("{path}.{name}"),
            (path, true) => format!("{path}[{name:?}]"),
        };
        Self { value, path }
    }

    /// The entries of a list; none of what is not there. What is no list is a fault.
    pub(super) fn list(&self, faults: &mut Faults) -> Vec<Self> {
        match self.value() {
            None => vec![],
            Some(Value::Array(entries)) => {
                let entry = |(index, value)| Self { value: Some(value), path: format!("{}[{index}]", self.path) };
                entries.iter().enumerate().map(entry).collect()
            }
            Some(_) => {
                self.fault("it is no list", faults);
                vec![]
            }
        }
    }

    /// What is there; `null` is nothing.
    pub(super) fn value(&self) -> Option<&'a Value> {
        self.value.filter(|value| !value.is_null())
    }

    pub(super) fn is_there(&self) -> bool {
        self.value().is_some()
    }

    /// A text; none where nothing is there. Anything else is a fault.
    pub(super) fn text(&self, faults: &mut Faults) -> Option<&'a str> {
        let value = self.value()?;
        let text = value.as_str();
        if text.is_none() {
            self.fault("it is no text", faults);
        }
        text
    }

    /// Whether it says so; left out, or anything but `true`: no.
    pub(super) fn is_true(&self) -> bool {
        self.value() == Some(&Value::Bool(true))
    }

    /// A whole number from 0; none where nothing is there. Anything else is a fault.
    pub(super) fn count(&self, faults: &mut Faults) -> Option<u32> {
        let value = self.value()?;
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        if count.is_none() {
            self.fault(format!("{value} is no whole number from 0 to 2^32"), faults);
        }
        count
    }

    /// An amount; none where nothing is there. Anything else is a fault.
    pub(super) fn amount(
        &self,
        read: impl FnOnce(Quantity) -> Result<u64, BadQuantity>,
        faults: &mut Faults,
    ) -> Option<u64> {
        match Quantity::of_json(self.value()).and_then(|quantity| quantity.map(read).transpose()) {
            Ok(amount) => amount,
            Err(cause) => {
                self.fault(cause, faults);
                None
            }
        }
    }

    /// A text of a certain form, which must be there.
    pub(super) fn parsed<T, E: std::fmt::Display>(
        &self,
        parse: impl FnOnce(&'a str) -> Result<T, E>,
        cure: &str,
        faults: &mut Faults,
    ) -> Option<T> {
        if !self.is_there() {
            self.fault(format!("it is not there: {cure}"), faults);
            return None;
        }
        match parse(self.text(faults)?) {
            Ok(parsed) => Some(parsed),
            Err(cause) => {
                self.fault(cause, faults);
                None
            }
        }
    }

    /// Something is wrong here.
    pub(super) fn fault(&self, problem: impl ToString, faults: &mut Faults) {
        faults.0.push(SpecError { field: self.path.clone(), problem: problem.to_string() });
    }

    /// Nothing may be here.
    pub(super) fn refuse(&self, why: &str, faults: &mut Faults) {
        if self.is_there() {
            self.fault(why, faults);
        }
    }
}
