//! What becomes of output.

use anyhow::ensure;
use ropewalk_test::harness::Kind;
use serde_json::json;

use crate::case::{Case, script};
use crate::world::LOG_BYTES;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        script("both streams are in the log", "echo out; echo err >&2").exits(0, "Completed").also(|seen| {
            // They are two pipes: which is read first is not determined.
            let mut lines: Vec<_> = seen.log("c")?.lines().collect();
            lines.sort_unstable();
            ensure!(lines == ["err", "out"], "the log is {lines:?}");
            Ok(())
        }),
        script("a long line is one line", "head -c 100000 /dev/zero | tr '\\0' x; echo; echo after")
            .says(format!("{}\nafter\n", "x".repeat(100_000))),
        script("a last line without an end", "printf 'no end'").says("no end"),
        script("blanks and blank lines stay", "printf '\\n\\n \\ta  \\n'").says("\n\n \ta  \n"),
        script("nothing written, nothing in the log", "exit 0").says(""),
        script("many short lines keep their order", "seq 1 2000")
            .says((1..=2_000).map(|number: u16| number.to_string() + "\n").collect::<String>()),
        // A kubelet keeps the end of it.
        script(
            "100 MB of output fill no disk and hold nobody up",
            "i=0; head -c 100000000 /dev/zero | tr '\\0' '\\n'; exit 4",
        )
        .only(Kind::Standalone)
        .exits(4, "Error")
        .also(|seen| {
            let log = seen.log("c")?;
            ensure!(log.len() as u64 <= LOG_BYTES, "{} bytes are kept", log.len());
            ensure!(log.contains("the log ends here"), "it does not say that it ends");
            Ok(())
        }),
        script("output of processes left behind does not hold the pod", "sleep 1000 & echo done")
            .says("done\n"),
        script("a container that closes its streams goes on", "exec >&- 2>&-; echo lost; exit 5")
            .exits(5, "Error"),
        script(
            "output is a pipe that anybody can open again",
            "echo again > /dev/stdout; echo error > /dev/stderr",
        )
        .container(json!({ "securityContext": { "runAsUser": 0 } }))
        .exits(0, "Completed")
        .also(|seen| {
            let mut lines: Vec<_> = seen.log("c")?.lines().collect();
            lines.sort_unstable();
            ensure!(lines == ["again", "error"], "the log is {lines:?}");
            Ok(())
        }),
    ]
}
