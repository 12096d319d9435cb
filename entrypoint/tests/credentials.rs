//! Credentials of a step: from mounted secrets to the files of git, ssh and docker (contract 5.8).

mod support;

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use ropewalk_entrypoint_protocol::flags::{Credential, CredentialKind, StepFlags};
use serde_json::{Value, json};
use support::{Ended, Pod, TestResult, end, entrypoint, is_root};

/// A user without privileges.
const UID: u32 = 1000;

fn credential(kind: CredentialKind, secret: &str, url: &str) -> Credential {
    Credential { kind, secret: secret.to_owned(), url: url.to_owned() }
}

/// A pod with a secret of every type, and a HOME.
fn pod_with_secrets() -> io::Result<Pod> {
    let pod = Pod::new()?;
    for (path, content) in [
        ("hub/username", "robot$ci"),
        ("hub/password", "p@ss word"),
        ("repo/username", "of-repo"),
        ("repo/password", "second"),
        ("key/ssh-privatekey", "not really a key\n"),
        ("key/known_hosts", "git.example ssh-ed25519 AAAA\n"),
        ("pull/.dockerconfigjson", r#"{"auths": {"r.example": {"auth": "cm9ib3QkY2k6cA=="}}}"#),
        ("old/.dockercfg", r#"{"old.example": {"auth": "dTpw"}}"#),
    ] {
        pod.write(&format!("creds-secrets/{path}"), content)?;
    }
    for dir in ["creds", "home"] {
        fs::create_dir(pod.path(dir))?;
    }
    Ok(pod)
}

fn all() -> Vec<Credential> {
    vec![
        credential(CredentialKind::BasicDocker, "hub", "https://index.docker.io/v1/"),
        credential(CredentialKind::BasicGit, "hub", "https://git.example"),
        credential(CredentialKind::BasicGit, "repo", "https://git.example/org/repo"),
        credential(CredentialKind::SshGit, "key", "git.example"),
        credential(CredentialKind::DockerConfig, "pull", ""),
        credential(CredentialKind::DockerCfg, "old", ""),
    ]
}

/// Runs a step with these credentials and this HOME.
fn run_with(command: &mut Command, flags: &StepFlags, home: Option<&Path>) -> io::Result<Ended> {
    match home {
        Some(home) => command.env("HOME", home),
        None => command.env_remove("HOME"),
    };
    end(command.args(flags.render()).spawn()?)
}

fn step(pod: &Pod, credentials: Vec<Credential>, script: &str) -> StepFlags {
    StepFlags { credentials, ..pod.shell(0, script) }
}

/// Mode, owner and group of everything below a directory, by path.
fn listed(dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            let name = path.strip_prefix(dir).unwrap_or(&path).display();
            found.push(format!("{:o} {} {name}", metadata.mode() & 0o7777, metadata.uid()));
            if metadata.is_dir() {
                left.push(path);
            }
        }
    }
    found.sort_by(|a, b| a.rsplit(' ').next().cmp(&b.rsplit(' ').next()));
    Ok(found)
}

fn expected(uid: u32) -> Vec<String> {
    [
        "700 .docker",
        "600 .docker/config.json",
        "600 .git-credentials",
        "600 .gitconfig",
        "700 .ssh",
        "600 .ssh/config",
        "600 .ssh/id_key",
        "600 .ssh/known_hosts",
    ]
    .map(|line| line.replacen(' ', &format!(" {uid} "), 1))
    .into()
}

fn own_uid() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

#[test]
fn files_are_laid_out_twice_and_for_the_steps_user_alone() -> TestResult {
    let pod = pod_with_secrets()?;
    // Whatever the umask is.
    let flags = step(&pod, all(), "true");
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_ropewalk-entrypoint")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = run_with(&mut command, &flags, Some(&pod.path("home")))?;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for dir in ["creds", "home"] {
        assert_eq!(listed(&pod.path(dir))?, expected(own_uid()?), "{dir}");
    }
    for file in [".docker/config.json", ".git-credentials", ".gitconfig", ".ssh/config", ".ssh/id_key"] {
        let (there, copied) = (pod.read(&format!("creds/{file}")), pod.read(&format!("home/{file}")));
        assert!(there.is_some() && there == copied, "{file}");
    }
    let config = pod.read("home/.ssh/config").unwrap_or_default();
    assert!(config.contains(&format!("IdentityFile {}/.ssh/id_key\n", pod.text("creds"))), "{config}");
    let docker: Value = serde_json::from_str(&pod.read("home/.docker/config.json").unwrap_or_default())?;
    assert_eq!(docker["auths"]["r.example"], json!({ "auth": "cm9ib3QkY2k6cA==" }));
    assert_eq!(docker["auths"]["https://index.docker.io/v1/"]["username"], "robot$ci");
    Ok(())
}

#[test]
fn a_user_without_privileges_owns_its_credentials() -> TestResult {
    if !is_root() {
        return Ok(());
    }
    let pod = pod_with_secrets()?;
    fs::set_permissions(pod.path(""), fs::Permissions::from_mode(0o755))?;
    for dir in ["run/0", "", "home", "creds"] {
        // As volumes are: open to all, and set-group-id with an fsGroup.
        fs::set_permissions(pod.path(dir), fs::Permissions::from_mode(0o2777))?;
        chown(pod.path(dir), None, Some(5000))?;
    }
    let ended = run_with(&mut pod.as_user(UID)?, &step(&pod, all(), "true"), Some(&pod.path("home")))?;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for dir in ["creds", "home"] {
        let found: Vec<_> =
            listed(&pod.path(dir))?.iter().map(|line| line.replacen("2700", "700", 1)).collect();
        assert_eq!(found, expected(UID), "{dir}");
    }
    Ok(())
}

#[test]
fn what_was_in_home_gives_way_and_is_closed_to_others() -> TestResult {
    let pod = pod_with_secrets()?;
    pod.write("home/.gitconfig", &"of the image\n".repeat(1000))?;
    pod.write("home/.ssh/authorized_keys", "kept")?;
    pod.write("elsewhere/config.json", "{}")?;
    symlink(pod.path("elsewhere"), pod.path("home/.docker"))?;
    fs::set_permissions(pod.path("home/.gitconfig"), fs::Permissions::from_mode(0o666))?;
    let ended = run_with(&mut entrypoint(), &step(&pod, all(), "true"), Some(&pod.path("home")))?;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(pod.read("home/.gitconfig"), pod.read("creds/.gitconfig"));
    assert_eq!(fs::metadata(pod.path("home/.gitconfig"))?.mode() & 0o777, 0o600);
    assert_eq!(pod.read("home/.ssh/authorized_keys").as_deref(), Some("kept"));
    assert_eq!(pod.read("elsewhere/config.json"), pod.read("creds/.docker/config.json"));
    Ok(())
}

#[test]
fn a_home_that_cannot_be_written_is_a_warning() -> TestResult {
    let pod = pod_with_secrets()?;
    // A file in the place of a directory stops root, too.
    pod.write("home/.docker", "")?;
    pod.write("home/.ssh", "")?;
    let ended = run_with(&mut entrypoint(), &step(&pod, all(), "echo went on"), Some(&pod.path("home")))?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "went on\n"));
    let (creds, home) = (pod.path("creds"), pod.path("home"));
    for name in [".docker", ".ssh"] {
        let warning = format!("warning: unsuccessful cred copy: {name:?} from {creds:?} to {home:?}: ");
        assert_eq!(ended.stderr.matches(&warning).count(), 1, "{}", ended.stderr);
    }
    assert!(pod.read("home/.gitconfig").is_some(), "the others are there");
    Ok(())
}

#[test]
fn a_step_without_a_home_still_has_its_credentials() -> TestResult {
    let pod = pod_with_secrets()?;
    let ended = run_with(&mut entrypoint(), &step(&pod, all(), "true"), None)?;
    let warning = "entrypoint: warning: credentials are not copied, as HOME is not set\n";
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), warning));
    assert!(pod.read("creds/.gitconfig").is_some());
    Ok(())
}

#[test]
fn a_home_that_is_the_directory_of_credentials_keeps_them() -> TestResult {
    let pod = pod_with_secrets()?;
    run_with(&mut entrypoint(), &step(&pod, all(), "true"), Some(&pod.path("creds")))?;
    assert!(pod.read("creds/.git-credentials").is_some_and(|text| text.contains("of-repo")));
    Ok(())
}

#[test]
fn nothing_is_touched_without_credentials() -> TestResult {
    let pod = pod_with_secrets()?;
    let ended = run_with(&mut entrypoint(), &step(&pod, vec![], "true"), None)?;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(listed(&pod.path("creds"))?.is_empty());
    Ok(())
}

#[test]
fn a_secret_that_cannot_be_used_fails_the_step_and_says_why() -> TestResult {
    let long = "x".repeat((1 << 20) + 1);
    for (credential, file, content, text) in [
        (
            credential(CredentialKind::BasicGit, "gone", "https://h"),
            "creds-secrets/gone/username",
            "hidden",
            "secret \"gone\" has no key \"password\"",
        ),
        (
            credential(CredentialKind::SshGit, "key", "hidden\nhost"),
            "creds-secrets/key/ssh-privatekey",
            "hidden",
            "secret \"key\" is annotated for \"hidden\\nhost\", and no URL has blanks, quotes or control characters",
        ),
        (
            credential(CredentialKind::DockerConfig, "long", ""),
            "creds-secrets/long/.dockerconfigjson",
            &long,
            "key \".dockerconfigjson\" of secret \"long\" is longer than 1048576 bytes",
        ),
    ] {
        let pod = Pod::new()?;
        pod.write(file, content)?;
        let ended = run_with(&mut entrypoint(), &step(&pod, vec![credential], "echo ran"), None)?;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
        assert_eq!(ended.stderr, format!("entrypoint: {text}\n"));
        assert_eq!(pod.message(0)?.failure.as_deref(), Some(text));
        assert!(pod.read("run/0/out.err").is_some(), "the next step does not wait for ever");
    }
    Ok(())
}

#[test]
fn what_is_no_configuration_is_told_without_its_content() -> TestResult {
    let pod = pod_with_secrets()?;
    pod.write("creds-secrets/pull/.dockerconfigjson", "{\"auths\": hidden")?;
    let ended = run_with(&mut entrypoint(), &step(&pod, all(), "true"), Some(&pod.path("home")))?;
    assert_eq!(ended.code, Some(0));
    let text =
        "key \".dockerconfigjson\" of secret \"pull\" is no configuration of a registry client, and left out";
    assert_eq!(ended.stderr, format!("entrypoint: warning: {text}\n"));
    assert!(pod.read("home/.docker/config.json").is_some_and(|text| text.contains("old.example")));
    Ok(())
}

/// Says loudly that a test is skipped for want of a tool.
#[allow(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
fn lacks(tool: &str) {
    assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate must have {tool}");
    eprintln!("WARNING: skipped, as there is no {tool}");
}

/// What git says in that HOME, or `None` where there is no git.
fn git(home: &Path, args: &[&str], input: &str) -> Result<Option<String>, Box<dyn std::error::Error>> {
    use std::io::Write as _;
    let mut command = Command::new("git");
    command.args(args).env("HOME", home).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
    command.env_remove("XDG_CONFIG_HOME").current_dir(home);
    let mut child = match command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            lacks("git");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    Ok(Some(String::from_utf8(child.wait_with_output()?.stdout)?))
}

#[test]
fn git_understands_what_is_written() -> TestResult {
    let pod = pod_with_secrets()?;
    pod.write("creds-secrets/odd/username", "a#b;\"c\\d e ")?;
    pod.write("creds-secrets/odd/password", "%:/@$")?;
    let mut credentials = all();
    credentials.push(credential(CredentialKind::BasicGit, "odd", "https://odd.example:8443/"));
    credentials.push(credential(CredentialKind::SshGit, "key", "git.example:2222/org/repo"));
    run_with(&mut entrypoint(), &step(&pod, credentials, "true"), Some(&pod.path("home")))?;
    let home = pod.path("home");
    for (url, username, password) in [
        ("https://git.example/any/other", "robot$ci", "p@ss word"),
        ("https://git.example/org/repo", "of-repo", "second"),
        ("https://odd.example:8443/x", "a#b;\"c\\d e ", "%:/@$"),
    ] {
        let Some(filled) = git(&home, &["credential", "fill"], &format!("url={url}\n\n"))? else {
            return Ok(());
        };
        let lines: Vec<&str> = filled.lines().collect();
        assert!(lines.contains(&format!("username={username}").as_str()), "{url}: {filled}");
        assert!(lines.contains(&format!("password={password}").as_str()), "{url}: {filled}");
    }
    let said = git(&home, &["config", "--get", "credential.helper"], "")?;
    assert_eq!(said.as_deref(), Some("store\n"));
    for (written, asked) in [
        ("git@git.example:org/repo.git", "git@git.example--org--repo:org/repo.git"),
        ("ssh://git@git.example:2222/org/repo.git", "ssh://git@git.example--org--repo/org/repo.git"),
        ("git@git.example:org/other.git", "git@git.example:org/other.git"),
    ] {
        let said = git(&home, &["ls-remote", "--get-url", written], "")?;
        assert_eq!(said, Some(format!("{asked}\n")));
    }
    Ok(())
}

#[test]
fn ssh_understands_what_is_written() -> TestResult {
    let pod = pod_with_secrets()?;
    let mut credentials = all();
    pod.write("creds-secrets/bare/ssh-privatekey", "not really a key\n")?;
    credentials.push(credential(CredentialKind::SshGit, "bare", "git.example:2222/org/repo"));
    run_with(&mut entrypoint(), &step(&pod, credentials, "true"), Some(&pod.path("home")))?;
    let config = pod.text("home/.ssh/config");
    let asked = |host: &str| -> Result<Option<String>, Box<dyn std::error::Error>> {
        match Command::new("ssh").args(["-G", "-F", &config, host]).output() {
            Ok(output) => Ok(Some(String::from_utf8(output.stdout)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                lacks("ssh");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    };
    for (host, lines) in [
        (
            "git.example",
            vec![
                "hostname git.example".to_owned(),
                "port 22".to_owned(),
                format!("identityfile {}/.ssh/id_key", pod.text("creds")),
                "stricthostkeychecking ask".to_owned(),
            ],
        ),
        (
            "git.example--org--repo",
            vec![
                "hostname git.example".to_owned(),
                "port 2222".to_owned(),
                format!("identityfile {}/.ssh/id_bare", pod.text("creds")),
                "stricthostkeychecking accept-new".to_owned(),
            ],
        ),
    ] {
        let Some(said) = asked(host)? else { return Ok(()) };
        for line in &lines {
            assert!(said.lines().any(|found| found == line), "{host}: no {line:?} in {said}");
        }
    }
    Ok(())
}
