//! Standard input, and what it is not.

use serde_json::json;

use crate::case::{Case, script};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        script("input is empty", "cat; echo end").says("end\n"),
        script("input is /dev/null", "readlink /proc/self/fd/0").says("/dev/null\n"),
        script("nothing is a terminal", "for fd in 0 1 2; do test -t $fd && echo terminal; done; echo done")
            .says("done\n"),
        script("a container that closes its input goes on", "exec <&-; read x; echo $?")
            .container(json!({}))
            .exits(0, "Completed"),
    ]
}
