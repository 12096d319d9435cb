//! What the pod's service account lends its steps, and what follows when it cannot (contract 5.8).

use ropewalk_api::conditions::ConditionStatus;

use super::creation::{creation_failed, store};
use super::draft::Draft;
use super::reason;
use super::resolve::Resolved;
use crate::credentials::{Credentials, Error};
use crate::plan::Event;
use crate::pod;

/// The Task with its credentials, or `None` when that ended the attempt.
pub(super) fn find(draft: &mut Draft<'_>, mut resolved: Resolved) -> Option<Resolved> {
    let snapshot = draft.snapshot;
    if snapshot.config.features.disable_creds_init {
        return Some(resolved);
    }
    let account = pod::service_account(&snapshot.run, &snapshot.config);
    let Some(answer) = &snapshot.account else {
        draft.wait(&account, "the service account has not been looked up");
        return None;
    };
    match Credentials::of_answer(&account, answer) {
        Ok(credentials) => {
            resolved.credentials = credentials;
            Some(resolved)
        }
        Err(error) => {
            store(draft, resolved);
            draft.diagnose(ConditionStatus::False, advice(&error, &account).as_deref());
            if let Error::KnownHosts { .. } = error {
                draft.fail(reason::VALIDATION_FAILED, &error.to_string());
            } else {
                let message =
                    creation_failed(&snapshot.run, &format!("translating TaskSpec to Pod: {error}"));
                draft.fail(reason::POD_CREATION_FAILED, &message);
            }
            None
        }
    }
}

/// What can be done about it, where the message does not say.
fn advice(error: &Error, account: &str) -> Option<String> {
    match error {
        Error::NoAccount(_) => Some(format!(
            "service account \"{account}\" does not exist; make that ServiceAccount, or set another serviceAccountName"
        )),
        Error::KnownHosts { secret } => Some(format!(
            "secret \"{secret}\", which service account \"{account}\" names, has no key \"known_hosts\"; add it, with \
             what ssh-keyscan says of the host"
        )),
        Error::Refused(_) | Error::TooMany { .. } => None,
    }
}

/// Secrets that the account names and that do not exist, in upstream's words: the steps may not want them.
pub(super) fn warning(missing: &[String]) -> Option<Event> {
    (!missing.is_empty()).then(|| Event {
        warning: true,
        reason: "FailedToRetrieveSecret".to_owned(),
        message: format!(
            "Unable to retrieve some secrets ({}); attempting to use them may not succeed.",
            missing.join(", ")
        ),
    })
}
