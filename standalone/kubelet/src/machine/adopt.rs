//! What becomes of containers that an earlier process of this node left: taken over, reported, given up or started. What
//! lies on the machine decides; where nothing does, the status that was written last. No IO, no clock.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::state::{Phase, PodState, Volumes};
use super::{Exit, ExitReason, exited};

/// What the newest attempt of a container left on the machine.
#[derive(Clone, Debug)]
pub struct Found {
    /// Container name.
    pub name: String,
    /// Which attempt.
    pub attempt: u32,
    /// The image it was made from.
    pub image: String,
    /// Which image that was.
    pub image_id: String,
    /// Whether its command may have been executed.
    pub begun: bool,
    /// Since when it runs or ran, if that was noted.
    pub started_at: Option<Timestamp>,
    /// Whether its supervisor lives.
    pub supervised: bool,
    /// Whether it was asked to stop.
    pub stopping: bool,
    /// How it ended, if that was noted.
    pub exit: Option<Exit>,
    /// How the attempt before ended, if there was one.
    pub last: Option<Exit>,
}

/// What becomes of a container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Adoption {
    /// Its supervisor lives: its start and its end are reported as if this process had started it.
    Follow,
    /// It ended while nobody was there.
    Report(Exit),
    /// Its command may have been executed, and nobody is left who saw its end: it failed, and is not executed again.
    Lost,
    /// Its command was never executed: it is started as if it were new.
    Start,
}

/// What becomes of a container of which this was found, and of which the API server was told this last.
pub fn adoption(found: Option<&Found>, told: Option<&ContainerStatus>) -> Adoption {
    let told = told.filter(|told| found.is_none_or(|found| attempt_of(told) >= found.attempt));
    let found = found.filter(|found| told.is_none_or(|told| attempt_of(told) == found.attempt));
    let state = told.and_then(|told| told.state.as_ref());
    let (ran, ended) = state.map_or((false, None), |state| {
        (state.running.is_some() || state.terminated.is_some(), exit_of(state))
    });
    match found {
        Some(Found { exit: Some(exit), .. }) => Adoption::Report(exit.clone()),
        Some(Found { supervised: true, .. }) => Adoption::Follow,
        _ => match ended {
            Some(exit) => Adoption::Report(exit),
            None if ran || found.is_some_and(|found| found.begun) => Adoption::Lost,
            None => Adoption::Start,
        },
    }
}

impl PodState {
    /// Takes over what an earlier process of this node did for the pod, so that no command is executed twice and none is
    /// left out. Returns the containers whose end somebody has to see to: those to be followed, and the lost ones, whose
    /// remains are to be killed before their end is reported.
    pub fn adopt(&mut self, found: &[Found], now: Timestamp) -> Vec<(String, u32, Adoption)> {
        let pod = self.pod.clone();
        self.start_time =
            pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let mut cared_for = Vec::new();
        let mut ended = Vec::new();
        for record in &mut self.records {
            let found = found.iter().find(|found| found.name == record.name);
            let told = status_of(&pod, &record.name);
            let adoption = adoption(found, told);
            let attempts = [found.map(|found| found.attempt), told.map(attempt_of)];
            record.attempt = attempts.into_iter().flatten().max().unwrap_or_default();
            let here = found.filter(|found| found.attempt == record.attempt);
            let told = told.filter(|told| attempt_of(told) == record.attempt);
            record.last = match (here, found) {
                (Some(here), _) => here.last.clone(),
                // The newer attempt left nothing: it was of the image that ends at once.
                (None, Some(before)) => before.exit.clone(),
                (None, None) => told.and_then(|told| exit_of(told.last_state.as_ref()?)),
            };
            if adoption == Adoption::Start {
                continue;
            }
            if let Some(image) =
                here.map(|here| here.image.clone()).or_else(|| told.map(|told| told.image.clone()))
            {
                record.image = image;
                let told = told.map(|told| told.image_id.clone());
                record.image_id = here.map(|here| here.image_id.clone()).or(told).unwrap_or_default();
            }
            let since = here.and_then(|here| here.started_at).or_else(|| {
                let running = told?.state.as_ref()?.running.as_ref()?;
                Some(running.started_at.as_ref()?.0)
            });
            // Until its events arrive it is reported as it was: nobody is to read that it waits again.
            record.phase = since.map_or(Phase::Starting, Phase::Running);
            record.ready |= told.is_some_and(|told| told.ready);
            record.started_up |= told.is_some_and(|told| told.started == Some(true));
            let key = (record.name.clone(), record.attempt);
            match adoption {
                Adoption::Report(exit) => {
                    // One that runs may have been asked or not when the process was killed, and is asked again.
                    record.stopping = here.is_some_and(|here| here.stopping);
                    ended.push((key, exit));
                }
                adoption => cared_for.push((key.0, key.1, adoption)),
            }
        }
        let waits = |phase: &Phase| *phase == Phase::Waiting(None);
        if self.records.iter().any(|record| !waits(&record.phase)) {
            self.start_time.get_or_insert(now);
        }
        let lives = cared_for.iter().any(|(_, _, adoption)| *adoption == Adoption::Follow);
        if lives || self.records.iter().all(|record| !waits(&record.phase)) {
            // Without all of them nothing would have been started; making them again could fail. Where no container lives
            // the machine may have been restarted, and what is started next needs those in memory.
            self.volumes = Volumes::Ready;
            self.stale = true;
        }
        for ((name, attempt), exit) in ended {
            exited(self, &name, attempt, exit, now);
        }
        cared_for
    }
}

fn attempt_of(status: &ContainerStatus) -> u32 {
    u32::try_from(status.restart_count).unwrap_or_default()
}

fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten()).find(|status| status.name == name)
}

fn exit_of(state: &ContainerState) -> Option<Exit> {
    let ended = state.terminated.as_ref()?;
    let started_at = ended.started_at.as_ref().map(|time| time.0);
    Some(Exit {
        code: ended.exit_code,
        reason: ExitReason::read(ended.reason.as_deref().unwrap_or_default()),
        started_at,
        finished_at: ended.finished_at.as_ref().map(|time| time.0).or(started_at).unwrap_or_default(),
        message: ended.message.clone().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
