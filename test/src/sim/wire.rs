//! The way between the controllers and the API server, on which requests and answers get lost. No IO.

use http::Request;
use jiff::Timestamp;
use ropewalk_core::plan::Write;

use super::api::{Answer, Api, Tally};
use super::faults::Faults;

/// No answer came.
#[derive(Debug)]
pub(super) struct Lost;

/// A connection at one moment.
pub(super) struct Wire<'a> {
    pub(super) api: &'a mut Api,
    pub(super) faults: &'a mut Faults,
    pub(super) now: Timestamp,
    pub(super) traffic: &'a mut Traffic,
}

/// What the controllers have sent.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Writes that reached the API server.
    pub writes: usize,
    /// The same by verb and resource.
    pub tally: Tally,
    /// Writes refused because what was observed is no longer so.
    pub conflicts: usize,
}

impl Wire<'_> {
    pub(super) fn read(&mut self, request: &Request<Vec<u8>>) -> Result<Answer, Lost> {
        if self.faults.refused() {
            return Err(Lost);
        }
        let answer = self.api.send(request, self.now);
        if answer.code >= 500 { Err(Lost) } else { Ok(answer) }
    }

    pub(super) fn write(&mut self, write: &Write, request: &Request<Vec<u8>>) -> Result<Answer, Lost> {
        if self.faults.refused() {
            return Err(Lost);
        }
        let (_, _, plural) = write.target().resource.names();
        let verb = match write {
            Write::Create { .. } => "create",
            Write::Patch { subresource: Some(_), .. } => "patch status",
            Write::Patch { subresource: None, .. } => "patch",
            Write::Delete { .. } => "delete",
        };
        self.traffic.writes += 1;
        *self.traffic.tally.entry((plural, verb)).or_default() += 1;
        let answer = self.api.send(request, self.now);
        self.traffic.conflicts += usize::from(answer.code == 409);
        if self.faults.lost_answer() { Err(Lost) } else { Ok(answer) }
    }
}
