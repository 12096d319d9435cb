//! The images that tests name: on the node, all of them are one image of our own, made by `hack/test-image` and given
//! its names by `hack/cluster`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;

/// What `hack/test-image` calls it.
pub const IMAGE: &str = "ropewalk.test/steps:1";

/// What the node has been given so far.
#[derive(Debug, Default)]
pub struct Images(Mutex<BTreeSet<String>>);

impl Images {
    /// Gives the node's image every name that one of the objects uses.
    pub async fn provide(&self, objects: impl Iterator<Item = &Value>) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for object in objects {
            each(&mut object.clone(), &mut |image| wanted.extend(full_name(image)));
        }
        let mut provided = self.0.lock().await;
        if provided.is_empty() {
            let archive = hack("test-image", &[]).await?;
            hack("cluster", &["load", archive.trim()]).await?;
            provided.insert(IMAGE.to_owned());
        }
        let missing: Vec<_> = wanted.difference(&provided).cloned().collect();
        if !missing.is_empty() {
            let arguments: Vec<_> =
                ["tag", IMAGE].into_iter().chain(missing.iter().map(String::as_str)).collect();
            hack("cluster", &arguments).await?;
            provided.extend(missing);
        }
        Ok(())
    }
}

/// Runs a script of `hack/`; its output.
pub async fn hack(script: &str, arguments: &[&str]) -> Result<String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack").join(script);
    let output = Command::new(&path)
        .args(arguments)
        .output()
        .await
        .with_context(|| format!("cannot run \"{}\"", path.display()))?;
    if !output.status.success() {
        bail!("hack/{script} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Visits every `image` of a container, and what a param `image` may stand for.
pub(super) fn each(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::Object(fields) => {
            let is_image = fields.get("name").is_some_and(|name| name == "image");
            for (field, value) in fields {
                match value {
                    Value::String(image)
                        if field == "image" || is_image && matches!(field.as_str(), "default" | "value") =>
                    {
                        visit(image);
                    }
                    _ => each(value, visit),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each(item, visit)),
        _ => {}
    }
}

/// The name that nodes look an image up by, with everything that container runtimes add: registry, `library/` and tag; a tag beside a digest is
/// dropped. None for what a run fills in, and for images that are meant not to be there.
pub(super) fn full_name(image: &str) -> Option<String> {
    if image.is_empty() || image.contains("$(") {
        return None;
    }
    let (registry, path) = match image.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
        Some(_) => ("docker.io", image.to_owned()),
        None => ("docker.io", format!("library/{image}")),
    };
    if registry.split(':').next().is_some_and(|host| host.ends_with(".invalid")) {
        return None;
    }
    let (name, digest) = match path.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (path.as_str(), None),
    };
    let (name, tag) = name.split_once(':').unwrap_or((name, "latest"));
    Some(match digest {
        Some(digest) => format!("{registry}/{name}@{digest}"),
        None => format!("{registry}/{name}:{tag}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_as_the_node_knows_them() {
        for (image, name) in [
            ("bash", Some("docker.io/library/bash:latest")),
            ("debian:12-slim", Some("docker.io/library/debian:12-slim")),
            ("alpine/git:v2", Some("docker.io/alpine/git:v2")),
            ("mirror.gcr.io/ubuntu", Some("mirror.gcr.io/ubuntu:latest")),
            ("mirror.gcr.io/bash:5@sha256:00", Some("mirror.gcr.io/bash@sha256:00")),
            ("localhost:5000/a/b", Some("localhost:5000/a/b:latest")),
            ("$(params.image)", None),
            ("registry.invalid/none", None),
            ("registry.invalid:5000/none:1", None),
            ("", None),
        ] {
            assert_eq!(full_name(image).as_deref(), name, "{image}");
        }
    }

    #[test]
    fn images_anywhere_in_an_object() {
        let mut names = BTreeSet::new();
        each(
            &mut json!({ "spec": { "steps": [{ "image": "a.b/c:1" }], "taskSpec": { "sidecars": [{ "image": "a.b/d:1" }] },
                "params": [{ "name": "image", "value": "a.b/e:1" }, { "name": "other", "value": "a.b/f:1" }] } }),
            &mut |image| {
                names.insert(image.clone());
            },
        );
        assert_eq!(names, ["a.b/c:1", "a.b/d:1", "a.b/e:1"].map(str::to_owned).into());
    }
}
