//! Names: the pod's own, and those of others.

use anyhow::ensure;
use serde_json::json;

use crate::case::{Case, script};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        script("a pod is called as it is", "hostname; cat /etc/hostname; echo $HOSTNAME")
            .metadata(json!({ "name": "its-name" }))
            .says("its-name\nits-name\nits-name\n"),
        script("a pod is called as it wants", "hostname")
            .spec(json!({ "hostname": "wanted" }))
            .says("wanted\n"),
        script(
            "further names for addresses",
            "grep -w 192.0.2.7 /etc/hosts | xargs; grep -qw localhost /etc/hosts && echo own",
        )
        .spec(json!({ "hostAliases": [{ "ip": "192.0.2.7", "hostnames": ["one.test", "two.test"] }] }))
        .says("192.0.2.7 one.test two.test\nown\n"),
        script("servers and domains of the pod's choice", "grep -v '^#' /etc/resolv.conf")
            .spec(json!({ "dnsPolicy": "None", "dnsConfig": {
                "nameservers": ["192.0.2.53"], "searches": ["a.test", "b.test"],
                "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] } }))
            .exits(0, "Completed")
            .also(|seen| {
                let mut lines: Vec<_> = seen.log("c")?.lines().collect();
                lines.sort_unstable();
                ensure!(
                    lines == ["nameserver 192.0.2.53", "options ndots:2 edns0", "search a.test b.test"],
                    "the file has {lines:?}"
                );
                Ok(())
            }),
    ]
}
