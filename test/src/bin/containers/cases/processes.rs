//! Processes in a container.

use anyhow::ensure;
use serde_json::json;

use crate::case::{Case, container, pod, script, with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        script("the command is the first process", "echo $$$$").says("1\n"),
        script("children end with the first process", "(trap '' TERM HUP; sleep 1000) & (setsid sleep 1000 &); exit 4")
            .exits(4, "Error"),
        script("zombies do not hold the container",
            "i=0; while [ $i -lt 50 ]; do (sleep 0.01 &); i=$((i+1)); done; exec sleep 0.3")
            .exits(0, "Completed"),
        pod("containers do not see each other's processes", json!({ "containers": [
            with(container("a", "touch /v/a; until [ -e /v/done ]; do sleep 0.05; done"),
                json!({ "env": [{ "name": "MARK", "value": "a" }] })),
            container("c", "until [ -e /v/a ]; do sleep 0.05; done; cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -c MARK=a; touch /v/done")] }))
            .sharing()
            .says("0\n"),
        script("the usual mask of files", "umask").exits(0, "Completed").also(|seen| {
            ensure!(seen.log("c")?.trim().trim_start_matches('0') == "22", "it is {}", seen.log("c")?);
            Ok(())
        }),
        script("no files are open but the streams", "ls /proc/self/fd | wc -l").says("4\n"),
        script("the directory below is the root", "pwd; ls -di / /.. | awk '{print $1}' | sort -u | wc -l").says("/\n1\n"),
    ]
}
