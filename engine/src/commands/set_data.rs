//! A data location is made or changed: new data, another size, or a copy that came or went.

use protocol::data::DataSpec;
use protocol::ids::DataName;

use super::set_pool::check_expected;
use super::step::Step;
use super::{Expect, Outcome, Refusal};

impl Step<'_> {
    pub(super) fn set_data(&mut self, name: &DataName, spec: &DataSpec, expect: Expect) -> Result<Outcome, Refusal> {
        let there = self.state.data.get(name).map(|data| (&data.spec == spec, data.version));
        if let Some(version) = check_expected(there, expect, || format!("data location {name}"))? {
            return Ok(Outcome::Set { version });
        }
        self.state.data.check_set(name, spec)?;
        self.state.data.set(name, spec.clone(), self.now, self.index);
        self.data_changed(name);
        Ok(Outcome::Set { version: self.index })
    }
}
