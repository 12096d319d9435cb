//! The root file system, volumes that start empty, and paths of the node.

use ropewalk_test::harness::Kind;
use serde_json::json;

use crate::case::{Case, container, pod, script};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        pod("an emptyDir is shared and starts empty, for everybody", json!({
            "initContainers": [container("first", "stat -c %a /v; ls -A /v; echo made > /v/file")],
            "containers": [container("c", "cat /v/file")] }))
            .sharing()
            .says("made\n")
            .writes("first", "777\n"),
        pod("the root file system is each container's own", json!({
            "initContainers": [container("first", "echo x > /made && echo written")],
            "containers": [container("c", "test -e /made || echo not here")] }))
            .says("not here\n")
            .writes("first", "written\n"),
        script("a read-only root file system", "touch /x 2>&1 | grep -o 'Read-only file system'; touch /v/x /dev/shm/x && echo volumes")
            .volume(json!({ "emptyDir": {} }))
            .container(json!({ "securityContext": { "readOnlyRootFilesystem": true } }))
            .says("Read-only file system\nvolumes\n"),
        script("a volume mounted read-only", "touch /v/x 2>&1 | grep -o 'Read-only file system'")
            .volume(json!({ "emptyDir": {} }))
            .container(json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v", "readOnly": true }] }))
            .says("Read-only file system\n"),
        script("a volume in memory", "stat -f -c %T /v")
            .volume(json!({ "emptyDir": { "medium": "Memory" } }))
            .says("tmpfs\n"),
        // Its size is for newer kubelets.
        script("a volume in memory has a bound", "head -c 3000000 /dev/zero 2>/dev/null > /v/x; stat -c %s /v/x")
            .volume(json!({ "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }))
            .only(Kind::Standalone)
            .exits(0, "Completed")
            .also(|seen| {
                let size = seen.log("c")?.lines().last().unwrap_or_default().to_owned();
                anyhow::ensure!(size == "1048576", "it holds {size}");
                Ok(())
            }),
        script("a sub path is made and shared", "cat /b/x")
            .spec(json!({ "volumes": [{ "name": "v", "emptyDir": {} }] }))
            .spec(json!({ "initContainers": [{ "name": "first", "image": crate::world::IMAGE,
                "command": ["sh", "-c", "echo made > /a/x"],
                "volumeMounts": [{ "name": "v", "mountPath": "/a", "subPath": "deep/dir" }] }] }))
            .container(json!({ "volumeMounts": [{ "name": "v", "mountPath": "/b", "subPath": "deep/dir" }] }))
            .says("made\n"),
        script("a sub path made from variables", "ls /v")
            .spec(json!({ "volumes": [{ "name": "v", "emptyDir": {} }] }))
            .container(json!({
                "env": [{ "name": "A", "value": "of-a" }],
                "volumeMounts": [{ "name": "v", "mountPath": "/v" },
                    { "name": "v", "mountPath": "/w", "subPathExpr": "$(A)" }] }))
            .says("of-a\n"),
        script("mounts within mounts, whatever their order", "echo deep > /a/b/x; ls /a; ls /a/b; mount | grep -c ' on /a'")
            .spec(json!({ "volumes": [{ "name": "v", "emptyDir": {} }, { "name": "w", "emptyDir": {} }] }))
            .container(json!({ "volumeMounts": [{ "name": "v", "mountPath": "/a/b" },
                { "name": "w", "mountPath": "/a" }] }))
            .says("b\nx\n2\n"),
        script("a working directory that is missing is made", "pwd")
            .container(json!({ "workingDir": "/made/for/me" }))
            .says("/made/for/me\n"),
        script("a path of the node, made if it is missing", "echo x > /v/x; cat /v/x; rm /v/x")
            .volume(json!({ "hostPath": { "path": "/var/lib/ropewalk-containers-test", "type": "DirectoryOrCreate" } }))
            .says("x\n"),
        script("a path of the node that must be there and is not", "exit 0")
            .volume(json!({ "hostPath": { "path": "/var/lib/no-such-directory", "type": "Directory" } }))
            .only(Kind::Standalone)
            .until(|pod| {
                let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
                conditions.into_iter().flatten().any(|condition| {
                    condition.message.as_deref().is_some_and(|message| message.contains("/var/lib/no-such-directory"))
                })
            })
            .also(|seen| {
                anyhow::ensure!(crate::case::phase(&seen.pod) == "Pending", "it runs");
                Ok(())
            }),
        script("the usual file systems of the kernel",
            "for at in /proc /dev /dev/pts /dev/shm /dev/mqueue /sys; do awk -v at=$at '$2 == at {print $3}' /proc/mounts | tail -n 1; done | xargs")
            .says("proc tmpfs devpts tmpfs mqueue sysfs\n"),
        script("devices that everybody may use",
            "echo x > /dev/null; head -c 2 /dev/zero | wc -c; head -c 2 /dev/urandom | wc -c; cat /etc/hostname 2>&1 > /dev/full | grep -o 'No space'; ls -L /dev/fd/0 /dev/stdout /dev/ptmx")
            .says("2\n2\nNo space\n/dev/fd/0\n/dev/ptmx\n/dev/stdout\n"),
    ]
}
