//! Look-ups against a registry in this process.

mod runs;
mod under_way;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use ropewalk_core::images::Wanted;
use ropewalk_core::images::keyring::{self, Keyring};
use ropewalk_core::images::reference::Digest;
use ropewalk_registry::fake::{Auth, Fake, Odd, Tls};
use ropewalk_registry::{Access, Registries};
use rstest::rstest;
use serde_json::json;
use tokio::sync::watch;

use super::digests::Digests;
use super::look_ups::TRUST_HINT;
use super::registry;

const PASSWORD: &str = "hidden-password";

fn keyring(host: &str, user: &str, password: &str) -> Keyring {
    let config = json!({ "auths": { host: { "username": user, "password": password } } });
    let data = [(".dockerconfigjson".to_owned(), ByteString(config.to_string().into_bytes()))];
    let secret = Secret {
        type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
        data: Some(data.into()),
        ..Secret::default()
    };
    let mut keyring = Keyring::default();
    keyring.add("pull-me", &secret);
    keyring
}

struct Asking {
    servers: Registries,
    keyring: Keyring,
    digests: Digests,
}

impl Asking {
    fn new(keyring: Keyring) -> Self {
        Self::trusting(keyring, "")
    }

    fn trusting(keyring: Keyring, roots: &str) -> Self {
        let servers = Registries::new(watch::channel(roots.to_owned()).1, TRUST_HINT, None);
        Self { servers, keyring, digests: Digests::default() }
    }

    /// The reference that pods get and the commands of a step without arguments, or why not.
    async fn look_up(&self, image: &str) -> Result<(String, String), registry::Error> {
        self.look_up_in("team", image).await
    }

    async fn look_up_in(&self, namespace: &str, image: &str) -> Result<(String, String), registry::Error> {
        let reference = image.parse().expect("a reference");
        let wanted = Wanted {
            image: image.to_owned(),
            namespace: namespace.to_owned(),
            service_account: "builder".to_owned(),
            pull_secrets: Vec::new(),
        };
        let advice = keyring::advice(&wanted.service_account);
        let access = Access { keyring: &self.keyring, advice: &advice };
        let image = registry::look_up(&self.servers, &wanted, &reference, access, &self.digests).await?;
        Ok((image.reference, image.commands.render(false)))
    }

    async fn error(&self, image: &str) -> String {
        let error = self.look_up(image).await.expect_err("it cannot be looked up");
        let text = super::look_ups::described(&error);
        assert!(!text.contains("hidden"), "{text}");
        text
    }
}

#[tokio::test]
async fn an_index_with_a_token_and_the_digest_only_once() {
    let fake = Fake::start(Auth::Token { user: "robot$ci", password: PASSWORD }, Tls::No).await;
    let digest = fake.index(
        "team/app",
        "v1",
        &[
            ("linux/amd64", &["/amd", "-x"], &["c"]),
            ("linux/arm64/v8", &[], &["/arm", "$HOME"]),
            ("unknown/unknown", &["/attestation"], &[]),
        ],
    );
    let asking = Asking::new(keyring(&fake.host, "robot$ci", PASSWORD));
    let image = format!("{}/team/app:v1", fake.host);
    let (reference, commands) = asking.look_up(&image).await.expect("an image");
    assert_eq!(reference, format!("{}/team/app@{digest}", fake.host));
    assert_eq!(commands, r#"{"linux/amd64":["/amd","-x","c"],"linux/arm64/v8":["/arm","\u0024HOME"]}"#);
    fake.requests();

    asking.look_up(&image).await.expect("an image");
    let head = "HEAD /v2/team/app/manifests/v1";
    let token = "GET /token";
    assert_eq!(
        fake.requests(),
        [head.to_owned(), format!("{token} with a password"), format!("{head} with a token")]
    );
}

/// Neither to a namespace that may not pull it, nor to one whose own registry claims to have it.
#[tokio::test]
async fn what_one_namespace_may_pull_is_not_told_to_another() {
    let fake = Fake::start(Auth::Basic { user: "robot$ci", password: PASSWORD }, Tls::No).await;
    let digest = fake.image("app", "v1", "linux/amd64", &["/secret-flag"], &[]);
    let mut asking = Asking::new(keyring(&fake.host, "robot$ci", PASSWORD));
    let image = format!("{}/app@{digest}", fake.host);
    asking.look_up(&image).await.expect("an image");

    asking.keyring = Keyring::default();
    let refused = asking.look_up_in("other", &image).await.expect_err("it has no credentials");
    assert!(
        matches!(refused, registry::Error::Registry(ropewalk_registry::Error::Denied { .. })),
        "{refused}"
    );

    let own = Fake::start(Auth::None, Tls::No).await;
    own.image("app", "v1", "linux/amd64", &["/e"], &[]);
    own.odd("HEAD /v2/app/manifests/v1", Odd::Claims(digest));
    let error = asking.look_up_in("other", &format!("{}/app:v1", own.host)).await;
    assert!(error.is_err(), "{error:?}");
}

#[tokio::test]
async fn one_image_without_variant_over_plain_http() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let digest = fake.image("app", "latest", "linux/arm/v7", &["/e"], &[]);
    let asking = Asking::new(Keyring::default());
    for image in [format!("{}/app", fake.host), format!("{}/app:ignored@{digest}", fake.host)] {
        let found = asking.look_up(&image).await.expect("an image");
        assert_eq!(found, (format!("{}/app@{digest}", fake.host), r#"{"linux/arm":["/e"]}"#.to_owned()));
    }
}

#[tokio::test]
async fn a_registry_that_says_nothing_to_head_is_asked_for_everything() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let digest = fake.image("app", "v1", "linux/amd64", &["/e"], &[]);
    fake.odd("HEAD /v2/app/manifests/v1", Odd::Status(StatusCode::METHOD_NOT_ALLOWED));
    let found = Asking::new(Keyring::default()).look_up(&format!("{}/app:v1", fake.host)).await;
    assert_eq!(found.expect("an image").0, format!("{}/app@{digest}", fake.host));
}

#[tokio::test]
async fn platforms_that_a_mirror_leaves_out_are_left_out() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    fake.index("app", "v1", &[("linux/amd64", &["/a"], &[]), ("linux/s390x", &["/s"], &[])]);
    fake.forget("/s");
    let found = Asking::new(Keyring::default()).look_up(&format!("{}/app:v1", fake.host)).await;
    assert_eq!(found.expect("an image").1, r#"{"linux/amd64":["/a"]}"#);
}

#[tokio::test]
async fn what_a_mirror_leaves_out_is_not_left_out_elsewhere() {
    let images: [(&str, &[&str], &[&str]); 2] =
        [("linux/amd64", &["/a"], &[]), ("linux/s390x", &["/s"], &[])];
    let (mirror, origin) = (Fake::start(Auth::None, Tls::No).await, Fake::start(Auth::None, Tls::No).await);
    let digest = mirror.index("app", "v1", &images);
    assert_eq!(origin.index("app", "v1", &images), digest);
    mirror.forget("/s");
    let asking = Asking::new(Keyring::default());
    asking.look_up(&format!("{}/app@{digest}", mirror.host)).await.expect("an image");
    let found = asking.look_up(&format!("{}/app@{digest}", origin.host)).await.expect("an image");
    assert_eq!(found.1, r#"{"linux/amd64":["/a"],"linux/s390x":["/s"]}"#);
}

#[rstest]
#[case(Auth::Basic { user: "robot$ci", password: PASSWORD })]
#[case(Auth::Token { user: "robot$ci", password: PASSWORD })]
#[tokio::test]
async fn a_secret_is_all_it_takes_when_a_registry_wants_users(#[case] auth: Auth) {
    let fake = Fake::start(auth, Tls::No).await;
    fake.image("app", "v1", "linux/amd64", &["/e"], &[]);
    let image = format!("{}/app:v1", fake.host);
    let registry = format!("registry \"{}\" refuses access (401 Unauthorized): ", fake.host);
    assert_eq!(
        Asking::new(Keyring::default()).error(&image).await,
        format!(
            "{registry}there are no credentials; link a secret of type \"kubernetes.io/dockerconfigjson\" to service \
             account \"builder\" or name it in imagePullSecrets"
        )
    );
    let elsewhere = Asking::new(keyring("quay.io", "robot$ci", PASSWORD));
    assert_eq!(
        elsewhere.error(&image).await,
        format!("{registry}secret \"pull-me\" without credentials for it")
    );
    let wrong = Asking::new(keyring(&fake.host, "robot$ci", "hidden-too"));
    assert_eq!(wrong.error(&image).await, format!("{registry}tried secret \"pull-me\""));
    Asking::new(keyring(&fake.host, "robot$ci", PASSWORD)).look_up(&image).await.expect("an image");
}

#[tokio::test]
async fn content_is_what_its_digest_stands_for() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let digest = fake.image("app", "v1", "linux/amd64", &["/e"], &[]);
    fake.odd(&format!("GET /v2/app/manifests/{digest}"), Odd::Body(b"{\"config\":{}}".to_vec()));
    let asking = Asking::new(Keyring::default());
    let text =
        format!("registry \"{}\" sends content that is not what digest \"{digest}\" stands for", fake.host);
    assert_eq!(asking.error(&format!("{}/app:v1", fake.host)).await, text);

    let index = fake.index("multi", "v1", &[("linux/amd64", &["/amd"], &[])]);
    let config = fake.config_of("/amd");
    fake.odd(&format!("GET /v2/multi/blobs/{config}"), Odd::Body(b"{}".to_vec()));
    let text =
        format!("registry \"{}\" sends content that is not what digest \"{config}\" stands for", fake.host);
    assert_eq!(asking.error(&format!("{}/multi@{index}", fake.host)).await, text);
}

#[tokio::test]
async fn content_without_end_is_cut_off() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let digest = fake.image("app", "v1", "linux/amd64", &["/e"], &[]);
    fake.odd(&format!("GET /v2/app/manifests/{digest}"), Odd::Endless);
    let text = format!("registry \"{}\" sends more than 4194304 bytes", fake.host);
    assert_eq!(Asking::new(Keyring::default()).error(&format!("{}/app:v1", fake.host)).await, text);

    let fake = Fake::start(Auth::Token { user: "u", password: PASSWORD }, Tls::No).await;
    fake.odd("GET /token", Odd::Endless);
    let text = format!("registry \"{}\" sends more than 65536 bytes", fake.host);
    let asking = Asking::new(keyring(&fake.host, "u", PASSWORD));
    assert_eq!(asking.error(&format!("{}/app:v1", fake.host)).await, text);
}

#[tokio::test]
async fn what_a_registry_says_is_not_repeated_at_length() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let long = "\u{1b}[31m".repeat(100_000);
    for content in [json!(long), json!({ "config": { "digest": long } })] {
        fake.odd("GET /v2/app/manifests/v1", Odd::Body(content.to_string().into_bytes()));
        let text = Asking::new(Keyring::default()).error(&format!("{}/app:v1", fake.host)).await;
        assert!(
            text.starts_with(&format!("registry \"{}\" sends a bad manifest: ", fake.host)),
            "{text:.100}"
        );
        assert!(text.len() < 1000 && !text.contains('\u{1b}'), "{} bytes: {text:.100}", text.len());
    }
}

#[tokio::test]
async fn what_a_registry_has_not() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let asking = Asking::new(Keyring::default());
    let error = asking.look_up(&format!("{}/app:v1", fake.host)).await.expect_err("there is none");
    assert!(!error.is_transient());
    assert_eq!(
        error.to_string(),
        format!(
            "registry \"{}\" has no image \"app\" in version \"v1\"; check its name and who may see it",
            fake.host
        )
    );
    fake.image("empty", "v1", "linux/amd64", &[], &[]);
    let text = "the image has neither ENTRYPOINT nor CMD; set the step's command or script";
    assert_eq!(asking.error(&format!("{}/empty:v1", fake.host)).await, text);
    fake.image("long", "v1", "linux/amd64", &["x".repeat(40_000).as_str()], &[]);
    let text = asking.error(&format!("{}/long:v1", fake.host)).await;
    assert_eq!(
        text,
        "the image's commands amount to more than 32768 bytes; set the step's command or script"
    );
}

#[rstest]
#[case(StatusCode::INTERNAL_SERVER_ERROR, true)]
#[case(StatusCode::SERVICE_UNAVAILABLE, true)]
#[case(StatusCode::TOO_MANY_REQUESTS, true)]
#[case(StatusCode::BAD_REQUEST, false)]
#[tokio::test]
async fn some_answers_may_be_better_another_time(#[case] status: StatusCode, #[case] transient: bool) {
    let fake = Fake::start(Auth::None, Tls::No).await;
    fake.odd("GET /v2/app/manifests/v1", Odd::Status(status));
    let error = Asking::new(Keyring::default()).look_up(&format!("{}/app:v1", fake.host)).await;
    let error = error.expect_err("there is none");
    assert_eq!(error.is_transient(), transient);
    assert_eq!(error.to_string(), format!("registry \"{}\" answers {status}", fake.host));
}

#[tokio::test]
async fn credentials_do_not_follow_to_another_host() {
    let store = Fake::start(Auth::None, Tls::No).await;
    let fake = Fake::start(Auth::Basic { user: "u", password: PASSWORD }, Tls::No).await;
    fake.image("app", "v1", "linux/amd64", &["/e"], &[]);
    let config = fake.config_of("/e");
    fake.lend(&config, &store);
    let there = format!("http://{}/v2/store/blobs/{config}", store.host);
    fake.odd(&format!("GET /v2/app/blobs/{config}"), Odd::Redirect(there));
    let asking = Asking::new(keyring(&fake.host, "u", PASSWORD));
    asking.look_up(&format!("{}/app:v1", fake.host)).await.expect("an image");
    assert_eq!(store.requests(), [format!("GET /v2/store/blobs/{config}")]);
}

#[tokio::test]
async fn redirects_end() {
    let fake = Fake::start(Auth::None, Tls::No).await;
    let path = "/v2/app/manifests/v1";
    for method in ["HEAD", "GET"] {
        fake.odd(&format!("{method} {path}"), Odd::Redirect(format!("http://{}{path}", fake.host)));
    }
    let text = format!("registry \"{}\": it redirects too often", fake.host);
    assert_eq!(Asking::new(Keyring::default()).error(&format!("{}/app:v1", fake.host)).await, text);
}

#[tokio::test]
async fn a_private_authority_is_trusted_once_it_is_configured() {
    let fake = Fake::start(Auth::Basic { user: "robot$ci", password: PASSWORD }, Tls::Yes).await;
    let digest = fake.image("app", "v1", "linux/amd64", &["/e"], &[]);
    let image = format!("{}/app:v1", fake.host);
    let (sender, roots) = watch::channel(String::new());
    let mut asking = Asking::new(keyring(&fake.host, "robot$ci", PASSWORD));
    asking.servers = Registries::new(roots, TRUST_HINT, None);
    let text = asking.error(&image).await;
    let begins = format!("registry \"{}\": its certificate is refused: ", fake.host);
    assert!(text.starts_with(&begins), "{text}");
    let hint =
        "; put the certificate of its authority under key \"cert\" of ConfigMap \"config-registry-cert\"";
    assert!(text.ends_with(hint), "{text}");
    // The password was not sent after all, in the open.
    assert_eq!(fake.requests(), [""; 0]);

    let noise = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    sender.send(format!("{noise}{}", fake.authority)).expect("it listens");
    let found = asking.look_up(&image).await.expect("an image");
    assert_eq!(found.0, format!("{}/app@{digest}", fake.host));
}

#[tokio::test]
async fn nothing_leads_from_https_to_http() {
    let open = Fake::start(Auth::None, Tls::No).await;
    let fake = Fake::start(Auth::Basic { user: "u", password: PASSWORD }, Tls::Yes).await;
    fake.image("app", "v1", "linux/amd64", &["/e"], &[]);
    let config = fake.config_of("/e");
    fake.odd(&format!("GET /v2/app/blobs/{config}"), Odd::Redirect(format!("http://{}/", open.host)));
    let asking = Asking::trusting(keyring(&fake.host, "u", PASSWORD), &fake.authority);
    let text = format!("registry \"{}\": it redirects from https to http", fake.host);
    assert_eq!(asking.error(&format!("{}/app:v1", fake.host)).await, text);

    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", open.host);
    fake.odd("HEAD /v2/app/manifests/v1", Odd::Challenge(challenge));
    let text = format!("registry \"{}\" asks for credentials at an address without https", fake.host);
    assert_eq!(asking.error(&format!("{}/app:v1", fake.host)).await, text);
    assert_eq!(open.requests(), [""; 0]);
}

#[tokio::test]
async fn nobody_there() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let error = Asking::new(Keyring::default()).look_up(&format!("{host}/app")).await.expect_err("nobody");
    assert!(error.is_transient());
    assert_eq!(
        error.to_string(),
        format!("registry \"{host}\": cannot connect: Connection refused (os error 111)")
    );
}

/// Section 5, trap 8 of the integrations: plain HTTP at private addresses, aliases of Docker Hub, an index, pull
/// secrets, one look-up per digest. The reason that quotes the reference is in `runs`.
#[tokio::test]
async fn trap_8_registry_look_up_of_an_index_with_a_pull_secret_over_plain_http() {
    let fake = Fake::start(Auth::Token { user: "ci", password: PASSWORD }, Tls::No).await;
    let digest = fake.index(
        "kaniko-project/executor",
        "debug",
        &[("linux/amd64", &["/kaniko/executor"], &[]), ("linux/arm64", &["/kaniko/executor"], &[])],
    );
    let asking = Asking::new(keyring(&format!("http://{}/v2/", fake.host), "ci", PASSWORD));
    let image = format!("{}/kaniko-project/executor:debug", fake.host);
    let found = asking.look_up(&image).await.expect("an image");
    assert_eq!(found.0, format!("{}/kaniko-project/executor@{digest}", fake.host));
    assert_eq!(found.1, r#"{"linux/amd64":["/kaniko/executor"],"linux/arm64":["/kaniko/executor"]}"#);
    fake.requests();
    asking.look_up(&image).await.expect("an image");
    let again = fake.requests();
    assert!(
        again.iter().all(|request| request.starts_with("HEAD") || request.contains("/token")),
        "{again:?}"
    );
    for alias in ["user/img", "docker.io/user/img", "index.docker.io/user/img"] {
        let reference: ropewalk_core::images::reference::Reference = alias.parse().expect("a reference");
        assert_eq!(reference.at(&Digest::of(b"")), format!("index.docker.io/user/img@{}", Digest::of(b"")));
        let keyring = keyring("https://index.docker.io/v1/", "ci", PASSWORD);
        assert_eq!(keyring.credentials(&reference).len(), 1);
    }
}
