//! Every type of secret, as a table: what goes in, and the files that come out.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use CredentialKind::{BasicDocker, BasicGit, DockerCfg, DockerConfig, SshGit};

fn credential(kind: CredentialKind, secret: &str, url: &str) -> Credential {
    Credential { kind, secret: secret.to_owned(), url: url.to_owned() }
}

fn secrets(all: &[(&str, &'static str, &str)]) -> Secrets {
    let mut secrets = Secrets::default();
    for (secret, key, content) in all {
        secrets.insert(secret, key, content.as_bytes().to_vec());
    }
    secrets
}

fn laid_out(credentials: &[Credential], all: &[(&str, &'static str, &str)]) -> Layout {
    lay_out(credentials, &secrets(all), "/tekton/creds").unwrap_or_else(|error| panic!("{error}"))
}

fn text(layout: &Layout, path: &str) -> String {
    let content = layout.files.get(path).unwrap_or_else(|| panic!("no {path}"));
    String::from_utf8(content.clone()).expect("UTF-8")
}

fn doubts(layout: &Layout) -> Vec<String> {
    layout.doubts.iter().map(ToString::to_string).collect()
}

fn paths(layout: &Layout) -> Vec<&str> {
    layout.files.keys().map(String::as_str).collect()
}

const BOTH: [(&str, &str, &str); 4] = [
    ("hub", USERNAME, "asdf"),
    ("hub", PASSWORD, "blah"),
    ("lab", USERNAME, "bleh"),
    ("lab", PASSWORD, "belch"),
];

#[test]
fn nothing_is_written_for_nobody() {
    assert!(laid_out(&[], &[]).files.is_empty());
}

#[test]
fn git_stores_a_user_for_each_host() {
    let given = [
        credential(BasicGit, "hub", "https://github.com"),
        credential(BasicGit, "lab", "https://gitlab.com"),
    ];
    let layout = laid_out(&given, &BOTH);
    assert_eq!(
        text(&layout, ".gitconfig"),
        "[credential]\n\thelper = store\n[credential \"https://github.com\"]\n\tusername = asdf\n\
         [credential \"https://gitlab.com\"]\n\tusername = bleh\n"
    );
    assert_eq!(
        text(&layout, ".git-credentials"),
        "https://asdf:blah@github.com\nhttps://bleh:belch@gitlab.com\n"
    );
    assert_eq!(paths(&layout), [".git-credentials", ".gitconfig"]);
}

#[test]
fn users_of_single_repositories_come_after_those_of_hosts() {
    let given =
        [credential(BasicGit, "hub", "https://h/org/one"), credential(BasicGit, "lab", "https://h:8443/")];
    let layout = laid_out(&given, &BOTH);
    assert_eq!(
        text(&layout, ".gitconfig"),
        "[credential]\n\thelper = store\n[credential \"https://h/org/one\"]\n\tusername = asdf\n\tuseHttpPath = true\n\
         [credential \"https://h:8443/\"]\n\tusername = bleh\n"
    );
    assert_eq!(
        text(&layout, ".git-credentials"),
        "https://bleh:belch@h:8443/\nhttps://asdf:blah@h/org/one\n"
    );
}

#[rstest]
#[case("robot$ci", "p+w=&,;", "robot$ci", "robot$ci:p+w=&,;")]
#[case("a b@c:d/e", "%\u{e4}", "a b@c:d/e", "a%20b%40c%3Ad%2Fe:%25%C3%A4")]
#[case(r"corp\me", "x", r"corp\\me", "corp%5Cme:x")]
#[case("a#b;c", "x", "\"a#b;c\"", "a%23b;c:x")]
#[case(" a\"", "x", "\" a\\\"\"", "%20a%22:x")]
#[case("a\n[core]\n", "x", r#""a\n[core]\n""#, "a%0A%5Bcore%5D%0A:x")]
fn users_stay_who_they_are(
    #[case] username: &str,
    #[case] password: &str,
    #[case] in_config: &str,
    #[case] in_url: &str,
) {
    let given = [credential(BasicGit, "s", "https://old:user@git.example")];
    let layout = laid_out(&given, &[("s", USERNAME, username), ("s", PASSWORD, password)]);
    let config = text(&layout, ".gitconfig");
    assert!(config.ends_with(&format!("\n\tusername = {in_config}\n")), "{config}");
    assert_eq!(text(&layout, ".git-credentials"), format!("https://{in_url}@git.example\n"));
}

#[test]
fn docker_takes_every_type_of_secret() {
    let given = [
        credential(BasicDocker, "hub", "https://index.docker.io/v1/"),
        credential(DockerConfig, "new", ""),
        credential(DockerConfig, "newer", ""),
        credential(DockerCfg, "old", ""),
        credential(BasicDocker, "lab", "r.example"),
    ];
    let layout = laid_out(
        &given,
        &[
            &BOTH[..],
            &[
                (
                    "new",
                    DOCKER_CONFIG,
                    r#"{"auths": {"a": {"auth": "1"}, "b": {"auth": "1"}}, "credsStore": "x"}"#,
                ),
                (
                    "newer",
                    DOCKER_CONFIG,
                    r#"{"auths": {"b": {"username": "robot$ci", "identitytoken": "t"}}}"#,
                ),
                (
                    "old",
                    DOCKER_CFG,
                    r#"{"a": {"auth": "old"}, "c": {"auth": "old"}, "r.example": {"auth": "old"}}"#,
                ),
            ],
        ]
        .concat(),
    );
    let config: Value = serde_json::from_str(&text(&layout, ".docker/config.json")).expect("JSON");
    assert_eq!(
        config,
        json!({ "auths": {
            "a": { "auth": "1" },
            "b": { "username": "robot$ci", "identitytoken": "t" },
            "c": { "auth": "old" },
            "https://index.docker.io/v1/":
                { "username": "asdf", "password": "blah", "auth": "YXNkZjpibGFo", "email": "not@val.id" },
            "r.example": { "username": "bleh", "password": "belch", "auth": "YmxlaDpiZWxjaA==", "email": "not@val.id" },
        }})
    );
    assert_eq!(paths(&layout), [".docker/config.json"]);
}

#[test]
fn a_dollar_in_a_robots_name_is_kept() {
    let layout = laid_out(
        &[credential(BasicDocker, "s", "r.example")],
        &[("s", USERNAME, "robot$ci"), ("s", PASSWORD, "$(p)$$")],
    );
    let config: Value = serde_json::from_str(&text(&layout, ".docker/config.json")).expect("JSON");
    let entry = &config["auths"]["r.example"];
    assert_eq!((&entry["username"], &entry["password"]), (&json!("robot$ci"), &json!("$(p)$$")));
    // base64 of robot$ci:$(p)$$
    assert_eq!(entry["auth"], "cm9ib3QkY2k6JChwKSQk");
}

#[rstest]
#[case(DockerConfig, DOCKER_CONFIG, "{}", true)]
#[case(DockerConfig, DOCKER_CONFIG, r#"{"auths": null}"#, true)]
#[case(DockerConfig, DOCKER_CONFIG, r#"{"auths": ["hidden"]}"#, false)]
#[case(DockerConfig, DOCKER_CONFIG, "hidden", false)]
#[case(DockerCfg, DOCKER_CFG, r#"["hidden"]"#, false)]
fn what_is_no_configuration_is_left_out(
    #[case] kind: CredentialKind,
    #[case] key: &'static str,
    #[case] content: &str,
    #[case] readable: bool,
) {
    let layout = laid_out(&[credential(kind, "s", "")], &[("s", key, content)]);
    assert!(layout.files.is_empty());
    let expected =
        format!("key \"{key}\" of secret \"s\" is no configuration of a registry client, and left out");
    assert_eq!(doubts(&layout), if readable { vec![] } else { vec![expected] });
}

#[test]
fn ssh_has_a_key_for_each_host() {
    let given = [
        credential(SshGit, "repo", "github.com/org/my-repo.git"),
        credential(SshGit, "one", "github.com"),
        credential(SshGit, "two", "github.com"),
        credential(SshGit, "port", "gitlab.example:2222"),
        credential(SshGit, "port", "gitlab.example:2222/a/b"),
    ];
    let layout = laid_out(
        &given,
        &[
            ("repo", PRIVATE_KEY, "key repo"),
            ("repo", KNOWN_HOSTS, "github.com ssh-rsa aaaa"),
            ("one", PRIVATE_KEY, "key one"),
            ("two", PRIVATE_KEY, "key two\n"),
            ("two", KNOWN_HOSTS, "github.com ssh-rsa aaaa\ngithub.com ssh-ed25519 bbbb\n"),
            ("port", PRIVATE_KEY, "key port"),
        ],
    );
    assert_eq!(
        text(&layout, ".ssh/config"),
        "Host github.com
    HostName github.com
    Port 22
    IdentityFile /tekton/creds/.ssh/id_one
    IdentityFile /tekton/creds/.ssh/id_two
Host gitlab.example
    HostName gitlab.example
    Port 2222
    IdentityFile /tekton/creds/.ssh/id_port
    StrictHostKeyChecking accept-new
Host github.com--org--my-repo
    HostName github.com
    Port 22
    IdentityFile /tekton/creds/.ssh/id_repo
Host gitlab.example--a--b
    HostName gitlab.example
    Port 2222
    IdentityFile /tekton/creds/.ssh/id_port
    StrictHostKeyChecking accept-new
"
    );
    assert_eq!(
        text(&layout, ".ssh/known_hosts"),
        "github.com ssh-rsa aaaa\ngithub.com ssh-ed25519 bbbb\ngithub.com ssh-rsa aaaa\n"
    );
    assert_eq!(
        text(&layout, ".gitconfig"),
        "[url \"git@github.com--org--my-repo:org/my-repo.git\"]
\tinsteadOf = git@github.com:org/my-repo.git
[url \"ssh://github.com--org--my-repo/org/my-repo.git\"]
\tinsteadOf = ssh://github.com/org/my-repo.git
[url \"ssh://git@github.com--org--my-repo/org/my-repo.git\"]
\tinsteadOf = ssh://git@github.com/org/my-repo.git
[url \"git@gitlab.example--a--b:a/b.git\"]
\tinsteadOf = git@gitlab.example:a/b.git
[url \"ssh://gitlab.example--a--b/a/b.git\"]
\tinsteadOf = ssh://gitlab.example:2222/a/b.git
[url \"ssh://git@gitlab.example--a--b/a/b.git\"]
\tinsteadOf = ssh://git@gitlab.example:2222/a/b.git
"
    );
    assert_eq!(text(&layout, ".ssh/id_one"), "key one");
    assert_eq!(text(&layout, ".ssh/id_two"), "key two\n");
    assert_eq!(layout.files.len(), 7);
}

#[test]
fn the_rewriting_for_ssh_follows_the_users_for_http() {
    let given = [credential(SshGit, "key", "h/o/r"), credential(BasicGit, "hub", "https://h")];
    let layout = laid_out(&given, &[&BOTH[..], &[("key", PRIVATE_KEY, "k")]].concat());
    let config = text(&layout, ".gitconfig");
    assert!(config.starts_with("[credential]\n\thelper = store\n[credential \"https://h\"]"), "{config}");
    assert!(config.contains("[url \"git@h--o--r:o/r.git\"]"), "{config}");
}

#[rstest]
#[case("[::1]", Some(("::1", "22", "")))]
#[case("[::1]:2222/r", Some(("::1", "2222", "r")))]
#[case("fe80::1", Some(("fe80::1", "22", "")))]
#[case("h:/r", None)]
#[case("h:x", None)]
#[case("", None)]
#[case("*", None)]
#[case("h/*", None)]
#[case("git@h", None)]
#[case("ssh://h/r", None)]
#[case("https://h", None)]
fn a_host_for_ssh(#[case] url: &str, #[case] expected: Option<(&str, &str, &str)>) {
    let layout = laid_out(&[credential(SshGit, "s", url)], &[("s", PRIVATE_KEY, "k")]);
    let Some((host, port, path)) = expected else {
        assert_eq!(paths(&layout), [".ssh/id_s"], "the key may be used by its path");
        let text = format!(
            "secret \"s\" is annotated for \"{url}\", which is no host; write it as \"host[:port][/path]\""
        );
        assert_eq!(doubts(&layout), [text]);
        return;
    };
    let alias = if path.is_empty() { host.to_owned() } else { format!("{host}--{path}") };
    let config = text(&layout, ".ssh/config");
    assert!(config.starts_with(&format!("Host {alias}\n    HostName {host}\n    Port {port}\n")), "{config}");
    assert!(layout.doubts.is_empty());
}

#[rstest]
#[case(&[credential(BasicGit, "s", "https://a")], &[("s", USERNAME, "hidden")], "secret \"s\" has no key \"password\"")]
#[case(&[credential(BasicDocker, "s", "a")], &[("s", PASSWORD, "hidden")], "secret \"s\" has no key \"username\"")]
#[case(&[credential(SshGit, "s", "a")], &[("s", KNOWN_HOSTS, "a")], "secret \"s\" has no key \"ssh-privatekey\"")]
#[case(&[credential(DockerConfig, "s", "")], &[], "secret \"s\" has no key \".dockerconfigjson\"")]
#[case(&[credential(DockerCfg, "s", "")], &[], "secret \"s\" has no key \".dockercfg\"")]
#[case(
    &[credential(BasicGit, "hub", "https://a"), credential(BasicGit, "lab", "https://a")], &BOTH,
    "secrets \"hub\" and \"lab\" are both annotated for \"https://a\"; leave one of them"
)]
#[case(
    &[credential(SshGit, "s", "h\n    ProxyCommand x")], &[("s", PRIVATE_KEY, "k")],
    "secret \"s\" is annotated for \"h\\n    ProxyCommand x\", and no URL has blanks, quotes or control characters"
)]
#[case(
    &[credential(BasicGit, "hub", "https://a\"]\n[core]")], &BOTH,
    "secret \"hub\" is annotated for \"https://a\\\"]\\n[core]\", and no URL has blanks, quotes or control characters"
)]
fn mistakes_are_named_and_secrets_are_not(
    #[case] given: &[Credential],
    #[case] all: &[(&str, &'static str, &str)],
    #[case] expected: &str,
) {
    let Err(error) = lay_out(given, &secrets(all), "/tekton/creds") else { panic!("it is refused") };
    assert_eq!(error.to_string(), expected);
}

#[test]
fn one_secret_may_be_for_one_place_twice_and_for_both_kinds() {
    let given = [
        credential(BasicGit, "hub", "https://a"),
        credential(BasicGit, "hub", "https://a"),
        credential(BasicDocker, "lab", "https://a"),
    ];
    assert_eq!(laid_out(&given, &BOTH).files.len(), 3);
}

#[rstest]
#[case("git.example", &["secret \"s\" is annotated for \"git.example\", which is not the URL of a git server; write \"https://\" before it"])]
#[case("://git.example", &["secret \"s\" is annotated for \"://git.example\", which is not the URL of a git server; write \"https://\" before it"])]
#[case("https://git.example", &[])]
fn a_place_for_git_has_a_scheme(#[case] url: &str, #[case] expected: &[&str]) {
    let layout = laid_out(&[credential(BasicGit, "s", url)], &[("s", USERNAME, "u"), ("s", PASSWORD, "p")]);
    assert_eq!(doubts(&layout), expected);
    assert_eq!(text(&layout, ".git-credentials").is_empty(), !expected.is_empty());
}

#[test]
fn a_line_break_at_the_end_is_told() {
    let layout = laid_out(
        &[credential(BasicGit, "s", "https://a"), credential(BasicDocker, "s", "a")],
        &[("s", USERNAME, "u\n"), ("s", PASSWORD, "p")],
    );
    assert_eq!(
        doubts(&layout),
        ["key \"username\" of secret \"s\" ends in a line break, which is sent with it"]
    );
}
