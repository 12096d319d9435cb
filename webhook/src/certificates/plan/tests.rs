use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::certificates::configuration::Configures;
use crate::certificates::issue;
use crate::certificates::stored::{CA_CERT, CA_KEY, Data, SERVER_CERT};

fn service() -> Service {
    Service { name: "tekton-pipelines-webhook".to_owned(), namespace: "tekton-pipelines".to_owned() }
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// A configuration that calls this service, and trusts this text.
fn configuration(namespace: &str, ca_bundle: &str) -> View<Configuration> {
    let called = json!({"name": "tekton-pipelines-webhook", "namespace": namespace});
    let bundle = ByteString(ca_bundle.as_bytes().to_vec());
    let object: ValidatingWebhookConfiguration = serde_json::from_value(json!({
        "metadata": {"name": "validation.webhook.pipeline.tekton.dev", "resourceVersion": "7"},
        "webhooks": [{
            "name": "validation.webhook.pipeline.tekton.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"service": called, "caBundle": bundle},
        }],
    }))
    .unwrap();
    View::Present(object.read(&service()))
}

fn secret(data: Data) -> View<Secret> {
    View::Present(Secret { data: Some(data), ..Secret::default() })
}

fn made(now: Timestamp) -> Data {
    issue::issue(&Issue::Authority { retired: Vec::new() }, &service(), now).unwrap()
}

fn text(data: &Data, key: &str) -> String {
    String::from_utf8(data[key].0.clone()).unwrap()
}

fn without(mut data: Data, key: &str) -> Data {
    data.remove(key);
    data
}

fn plan_for(secret: &View<Secret>, configurations: &[View<Configuration>], now: Timestamp) -> Plan {
    plan(Snapshot { secret, configurations, memory: Memory::default(), service: &service(), now })
}

/// The kind of certificates and the reason, as text.
fn issued(plan: &Plan) -> Option<(&'static str, String)> {
    let (issue, why) = plan.issue.as_ref()?;
    let kind = match issue {
        Issue::Authority { .. } => "authority",
        Issue::Leaf { .. } => "leaf",
        Issue::Trust { .. } => "trust",
    };
    Some((kind, why.to_string()))
}

#[rstest]
#[case::absent(View::Absent, start(), Some(("authority", "there is none")))]
#[case::not_known_yet(View::Unknown, start(), None)]
#[case::not_ours_to_see(View::Forbidden, start(), None)]
#[case::empty(View::Present(Secret::default()), start(), Some(("authority", "\"ca-cert.pem\" holds nothing that can be read")))]
#[case::good(secret(made(start())), start(), None)]
#[case::no_leaf(secret(without(made(start()), SERVER_CERT)), start(), Some(("leaf", "\"server-cert.pem\" holds nothing that can be read")))]
#[case::no_leaf_and_no_key(
    secret(without(without(made(start()), SERVER_CERT), CA_KEY)), start(),
    Some(("authority", "\"server-cert.pem\" holds nothing that can be read"))
)]
#[case::leaf_not_due(secret(made(start())), start() + days(59), None)]
#[case::leaf_due(secret(made(start())), start() + days(60), Some(("leaf", "it is time to renew them")))]
#[case::leaf_due_without_the_authoritys_key(
    secret(without(made(start()), CA_KEY)), start() + days(60), Some(("authority", "it is time to renew them"))
)]
#[case::authority_due(secret(made(start())), start() + days(2434), Some(("authority", "it is time to renew them")))]
#[case::authority_expired(
    secret(made(start())), start() + days(3651),
    Some(("authority", "\"ca-cert.pem\" holds no certificate that is valid now"))
)]
fn certificates_are_issued_when(
    #[case] secret: View<Secret>,
    #[case] now: Timestamp,
    #[case] expected: Option<(&str, &str)>,
) {
    let plan = plan_for(&secret, &[View::Absent], now);
    let found = issued(&plan);
    assert_eq!(found.as_ref().map(|(kind, why)| (*kind, why.as_str())), expected);
}

#[test]
fn nothing_is_issued_before_it_is_known_who_is_trusted() {
    assert_eq!(issued(&plan_for(&View::Absent, &[View::Absent, View::Unknown], start())), None);
}

#[test]
fn whom_configurations_trust_stays_trusted_beside_a_new_authority() {
    let before = made(start());
    let bundle = text(&before, CA_CERT);
    let plan = plan_for(&View::Absent, &[configuration("tekton-pipelines", &bundle)], start());
    let Some((Issue::Authority { retired }, _)) = plan.issue else { panic!("a new authority is due") };
    assert_eq!(stored::to_pem(&retired), bundle);
}

#[test]
fn only_entries_that_call_us_are_written_and_only_when_wrong() {
    let made = made(start());
    let bundle = text(&made, CA_CERT);
    let patch = |namespace: &str, trusted: &str| {
        let configurations = [configuration(namespace, trusted)];
        let plan = plan_for(&secret(made.clone()), &configurations, start());
        let [View::Present(configuration)] = configurations else { panic!("it is there") };
        configuration.patch(&plan.ca_bundle.unwrap())
    };
    assert_eq!(patch("tekton-pipelines", &bundle), None);
    assert_eq!(patch("elsewhere", "anything"), None);
    let patch = serde_json::to_value(patch("tekton-pipelines", "garbage").unwrap()).unwrap();
    let expected = json!([
        {"op": "add", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": ByteString(bundle.into_bytes())},
    ]);
    assert_eq!(patch, expected);
}

#[test]
fn readiness_says_what_is_missing() {
    let made = made(start());
    let bundle = text(&made, CA_CERT);
    let good = secret(made);
    let waiting = |secret: &View<Secret>, view: View<Configuration>, now: Timestamp| {
        plan_for(secret, &[view], now).waiting
    };
    assert_eq!(waiting(&good, configuration("tekton-pipelines", &bundle), start()), None);
    assert_eq!(waiting(&good, View::Absent, start()), None);
    assert_eq!(waiting(&good, View::Forbidden, start()), None, "an administrator has to see to it");
    assert_eq!(
        waiting(&good, configuration("tekton-pipelines", ""), start()).unwrap(),
        "the webhook configuration \"validation.webhook.pipeline.tekton.dev\" does not trust our certificate"
    );
    assert!(waiting(&good, View::Unknown, start()).is_some());
    assert!(waiting(&View::Absent, View::Absent, start()).is_some());
    assert!(waiting(&View::Forbidden, View::Absent, start()).unwrap().contains("may not read"));
}

#[test]
fn a_secret_that_cannot_be_mended_is_tried_again_later() {
    let (service, configurations) = (service(), [View::Absent]);
    let attempt = |memory, now| {
        plan(Snapshot {
            secret: &View::Absent,
            configurations: &configurations,
            memory,
            service: &service,
            now,
        })
    };
    let first = attempt(Memory::default(), start());
    assert!(first.issue.is_some());
    let second = attempt(first.memory, start() + seconds(1));
    assert!(second.issue.is_none());
    assert_eq!(second.wake, start() + seconds(10));
    assert!(attempt(second.memory, start() + seconds(10)).issue.is_some());
}

/// One API server and replicas of the webhook that see its changes with a delay of their own.
struct World {
    now: Timestamp,
    /// The Secret's contents and since when; oldest first.
    secrets: Vec<(Timestamp, Option<Data>)>,
    /// The same of what the one configuration trusts.
    bundles: Vec<(Timestamp, String)>,
    replicas: Vec<Replica>,
}

struct Replica {
    /// How long news take to it.
    lag: SignedDuration,
    memory: Memory,
}

impl World {
    fn new(lags: &[i64]) -> Self {
        let now = start();
        let replicas = lags.iter().map(|lag| Replica { lag: seconds(*lag), memory: Memory::default() });
        Self {
            now,
            secrets: vec![(now - days(1), None)],
            bundles: vec![(now - days(1), String::new())],
            replicas: replicas.collect(),
        }
    }

    fn seen<T: Clone>(history: &[(Timestamp, T)], at: Timestamp) -> T {
        history.iter().rev().find(|(since, _)| *since <= at).unwrap().1.clone()
    }

    /// Lets one replica plan and do until it is content; writes need what is newest, as resource versions see to.
    fn act(&mut self, index: usize) -> Timestamp {
        loop {
            let at = self.now - self.replicas[index].lag;
            let seen = Self::seen(&self.secrets, at);
            let up_to_date = seen == self.secrets.last().unwrap().1;
            let bundle = Self::seen(&self.bundles, at);
            let bundle_is_new = bundle == self.bundles.last().unwrap().1;
            let secret = seen.clone().map_or(View::Absent, secret);
            let configurations = [configuration("tekton-pipelines", &bundle)];
            let memory = std::mem::take(&mut self.replicas[index].memory);
            let plan = plan(Snapshot {
                secret: &secret,
                configurations: &configurations,
                memory,
                service: &service(),
                now: self.now,
            });
            self.replicas[index].memory = plan.memory;
            if let Some((issue, _)) = plan.issue.filter(|_| up_to_date) {
                let mut data = seen.unwrap_or_default();
                data.extend(issue::issue(&issue, &service(), self.now).unwrap());
                self.secrets.push((self.now, Some(data)));
            } else if let Some(wanted) = plan.ca_bundle.filter(|wanted| bundle_is_new && *wanted != bundle) {
                self.bundles.push((self.now, wanted));
            } else {
                return plan.wake;
            }
            if self.replicas[index].lag > SignedDuration::ZERO {
                return self.now + seconds(1);
            }
        }
    }

    /// What every replica presents is accepted by an API server that is up to nine seconds behind.
    fn check(&self) {
        for (index, replica) in self.replicas.iter().enumerate() {
            let leaf = replica.memory.served.as_ref().unwrap();
            assert!(leaf.certificate.in_force(self.now), "replica {index} at {}", self.now);
            let behind = self.now - seconds(9);
            let recent = self.bundles.iter().rev().position(|(since, _)| *since <= behind).unwrap();
            for (_, bundle) in self.bundles.iter().rev().take(recent + 1) {
                let trusted = stored::certificates(bundle.as_bytes());
                assert!(trusted.contains(&leaf.signer), "replica {index} is refused at {}", self.now);
            }
        }
    }

    /// Up to this time, in steps no longer than `step`.
    fn run(&mut self, until: Timestamp, step: SignedDuration) {
        while self.now < until {
            let changes = (self.secrets.len(), self.bundles.len());
            let wakes: Vec<Timestamp> = (0..self.replicas.len()).map(|index| self.act(index)).collect();
            self.check();
            let quiet = changes == (self.secrets.len(), self.bundles.len())
                && self.now > self.secrets.last().unwrap().0 + seconds(30);
            let next = if quiet { step } else { seconds(1) };
            self.now =
                until.min(self.now + next).min(if quiet { until } else { *wakes.iter().min().unwrap() });
        }
    }

    fn install(&mut self) {
        for _ in 0..120 {
            for index in 0..self.replicas.len() {
                self.act(index);
            }
            self.now += seconds(1);
        }
    }

    fn authorities(&self) -> Vec<Certificate> {
        stored::certificates(&self.secrets.last().unwrap().1.as_ref().unwrap()[CA_CERT].0)
    }
}

#[test]
fn replicas_agree_on_one_authority() {
    let mut world = World::new(&[0, 0]);
    world.act(0);
    world.act(1);
    let [first, second] = [0, 1].map(|index| world.replicas[index].memory.served.clone().unwrap());
    assert_eq!(first.certificate, second.certificate);
    assert_eq!(world.secrets.len(), 2, "one Secret was written");
    assert_eq!(world.bundles.len(), 2, "and the configuration once");
}

#[test]
fn fifteen_years_pass_and_no_request_is_refused() {
    let mut world = World::new(&[0, 5]);
    world.install();
    let first = world.authorities();
    world.run(start() + days(15 * 365), days(7));
    let last = world.authorities();
    assert_ne!(first[0], last[0], "the authority has been renewed");
    assert_eq!(last.len(), 1, "and its predecessor is gone");
    let leaves = 15 * 365 / 68;
    assert!(world.secrets.len() >= leaves, "leaves have been renewed {} times", world.secrets.len());
    assert!(world.secrets.len() < leaves + 20, "but not more often: {} times", world.secrets.len());
}

#[rstest]
#[case::deleted(None)]
#[case::emptied(Some(Data::new()))]
#[case::leaf_spoilt(Some(Data::from([(SERVER_CERT.to_owned(), ByteString(b"garbage".to_vec()))])))]
fn nobody_is_refused_while_a_spoilt_secret_heals(#[case] spoilt: Option<Data>) {
    let mut world = World::new(&[0, 3]);
    world.install();
    let good = world.secrets.last().unwrap().1.clone().unwrap();
    let spoilt =
        spoilt.map(
            |spoilt| {
                if spoilt.is_empty() { spoilt } else { good.clone().into_iter().chain(spoilt).collect() }
            },
        );
    world.secrets.push((world.now, spoilt));
    let now = world.now;
    world.run(now + seconds(300), seconds(1));
    let healed = world.secrets.last().unwrap().1.as_ref().unwrap();
    assert_ne!(healed[SERVER_CERT], good[SERVER_CERT]);
    for replica in &world.replicas {
        let served = stored::to_pem([&replica.memory.served.as_ref().unwrap().certificate]);
        assert_eq!(served, text(healed, SERVER_CERT), "everyone presents what the Secret holds");
    }
}
