//! The way between the controllers and the API server, on which requests and answers get lost. No IO.

use std::collections::BTreeMap;

use http::Request;
use jiff::Timestamp;
use ropewalk_core::metrics::{Measure, Metric};
use ropewalk_core::plan::{Event, Write};

use super::api::{Answer, Api, Tally};
use super::faults::Faults;
use super::process::Run;

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
    /// What was said and recorded about each run.
    pub told: BTreeMap<Run, Told>,
}

/// What the controllers say about a run beside its status.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The reasons of its events.
    pub events: Vec<String>,
    /// How often its end was counted.
    pub ends: usize,
    /// How often its duration was measured.
    pub durations: usize,
}

impl Traffic {
    pub(super) fn tell(&mut self, run: &Run, events: &[Event], measures: &[Measure]) {
        if events.is_empty() && measures.is_empty() {
            return;
        }
        let told = self.told.entry(run.clone()).or_default();
        told.events.extend(events.iter().map(|event| event.reason.clone()));
        for measure in measures {
            match measure.metric {
                Metric::TaskRunTotal | Metric::PipelineRunTotal => told.ends += 1,
                Metric::TaskRunDurationSeconds
                | Metric::PipelineRunTaskRunDurationSeconds
                | Metric::PipelineRunDurationSeconds => told.durations += 1,
                _ => {}
            }
        }
    }
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
