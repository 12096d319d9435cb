//! The secrets of a service account, as the steps of its runs find them: as root, and as a user without privileges who is in
//! the group of the pod's volumes.

use anyhow::{Context, Result};
use ropewalk_test::harness::{Kind, PATIENCE, State, World};
use serde_json::{Value, json};

const OBJECTS: &str = r#"
apiVersion: v1
kind: Secret
metadata:
  name: bot
  annotations:
    tekton.dev/git-0: https://git.example
    tekton.dev/docker-0: https://r.example
type: kubernetes.io/basic-auth
stringData:
  username: robot$ci
  password: $(made) up
---
apiVersion: v1
kind: Secret
metadata:
  name: deploy.key
  annotations:
    tekton.dev/git-0: git.example/org/repo
type: kubernetes.io/ssh-auth
stringData:
  ssh-privatekey: no key at all
  known_hosts: git.example ssh-ed25519 AAAA
---
apiVersion: v1
kind: Secret
metadata:
  name: pull
type: kubernetes.io/dockerconfigjson
stringData:
  .dockerconfigjson: '{"auths": {"pull.example": {"auth": "cm9ib3QkY2k6cA=="}}}'
---
apiVersion: v1
kind: Secret
metadata:
  name: not-linked
  annotations:
    tekton.dev/git-0: https://other.example
type: kubernetes.io/basic-auth
stringData:
  username: other
  password: other
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: builder
secrets:
  - name: bot
  - name: deploy.key
  - name: gone
  - name: pull
---
apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  name: clone
spec:
  serviceAccountName: builder
  podTemplate:
    securityContext:
      fsGroup: 5000
  taskSpec:
    results:
      - name: docker
      - name: git
      - name: users
    stepTemplate:
      image: bash
    steps:
      - name: root
        env:
          - name: HOME
            value: /workspace/of-root
        script: &script |
          set -e
          cd "$HOME"
          for file in .docker/config.json .git-credentials .gitconfig .ssh/config .ssh/id_deploy.key .ssh/known_hosts; do
            cmp "$file" "$(credentials.path)/$file"
            test "$(stat -c '%a %u' "$file")" = "600 $(id -u)"
          done
          test -z "$(find . "$(credentials.path)" -mindepth 1 -perm /077)"
          grep -q 'Host git.example--org--repo' .ssh/config
          grep -q 'insteadOf = git@git.example:org/repo.git' .gitconfig
          if grep -rq other.example . "$(credentials.path)"; then exit 2; fi
          cat .docker/config.json > $(results.docker.path)
          if command -v git > /dev/null; then
            printf 'url=https://git.example/any/repo\n\n' | git credential fill > $(results.git.path)
            git config --get credential.helper >> $(results.git.path)
          else
            cat .git-credentials > $(results.git.path)
          fi
          id -u >> $(results.users.path)
          # The next step has another user.
          test "$(id -u)" != 0 || chmod 666 $(results.docker.path) $(results.git.path) $(results.users.path)
      - name: user
        securityContext:
          runAsUser: 1000
        env:
          - name: HOME
            value: /workspace/of-user
        script: *script
"#;

fn result<'a>(ended: &'a State, name: &str) -> Result<&'a str> {
    let results = ended.value["status"]["results"].as_array().context("no results")?;
    let result = results.iter().find(|result| result["name"] == name).context("no such result")?;
    result["value"].as_str().context("no text")
}

/// They are laid out, a secret that is not there is told, and the run goes well without it.
pub(crate) async fn run(world: &World) -> Result<()> {
    let namespace = world.namespace("credentials").await?;
    let runs = namespace.apply(OBJECTS).await?;
    let ended = namespace.done(&runs[0], PATIENCE).await?;
    assert_eq!((ended.status(), ended.reason()), ("True", "Succeeded"), "{ended}");
    assert_eq!(result(&ended, "users")?, "0\n1000\n");
    let config: Value = serde_json::from_str(result(&ended, "docker")?)?;
    let bot = &config["auths"]["https://r.example"];
    assert_eq!((&bot["username"], &bot["password"]), (&json!("robot$ci"), &json!("$(made) up")));
    // base64 of both, with a colon between.
    assert_eq!(bot["auth"], "cm9ib3QkY2k6JChtYWRlKSB1cA==");
    assert_eq!(config["auths"]["pull.example"], json!({ "auth": "cm9ib3QkY2k6cA==" }));
    let git = result(&ended, "git")?;
    if git.starts_with("https://") {
        assert_eq!(world.kind(), Kind::Cluster, "its image has no git, and this machine has");
        assert_eq!(git, "https://robot$ci:$%28made%29%20up@git.example\n");
    } else {
        for line in ["username=robot$ci", "password=$(made) up", "store"] {
            assert!(git.lines().any(|found| found == line), "no {line:?} in {git}");
        }
    }
    namespace.event("TaskRun", "clone", "FailedToRetrieveSecret", PATIENCE).await?;
    namespace.finish().await
}
