//! What our node cannot honour it refuses, and says so.

use ropewalk_test::harness::Kind;
use serde_json::{Value, json};

use crate::case::{Case, script};

fn refused(name: &'static str, pod: Value, container: Value, words: &'static [&'static str]) -> Case {
    script(name, "exit 0")
        .spec(pod)
        .container(container)
        .only(Kind::Standalone)
        .refused("CreateContainerConfigError", words)
}

pub(crate) fn cases() -> Vec<Case> {
    let none = || json!({});
    let context = |fields: Value| json!({ "securityContext": fields });
    let sysctl = |name: &str| json!({ "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } });
    vec![
        script("settings of the kernel that are everybody's", "exit 0")
            .spec(sysctl("kernel.panic"))
            .only(Kind::Standalone)
            .rejected("SysctlForbidden", "forbidden sysctl: \"kernel.panic\" not allowlisted"),
        script("unsafe settings of a network", "exit 0")
            .spec(sysctl("net.ipv4.ip_forward"))
            .only(Kind::Standalone)
            .rejected("SysctlForbidden", "forbidden sysctl: \"net.ipv4.ip_forward\" not allowlisted"),
        script("settings of the node's network", "exit 0")
            .spec(json!({ "hostNetwork": true }))
            .spec(sysctl("net.ipv4.tcp_syncookies"))
            .only(Kind::Standalone)
            .rejected(
                "SysctlForbidden",
                "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled",
            ),
        refused(
            "an unknown capability",
            none(),
            context(json!({ "capabilities": { "add": ["FLY"] } })),
            &["\"FLY\""],
        ),
        refused(
            "a list of system calls of the node",
            none(),
            context(json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": "mine.json" } })),
            &["\"mine.json\"", "RuntimeDefault"],
        ),
        refused("a user namespace", json!({ "hostUsers": false }), none(), &["hostUsers"]),
        refused(
            "processes shared between containers",
            json!({ "shareProcessNamespace": true }),
            none(),
            &["shareProcessNamespace"],
        ),
        refused(
            "an AppArmor profile of the node",
            none(),
            context(json!({ "appArmorProfile": { "type": "Localhost", "localhostProfile": "mine" } })),
            &["AppArmor"],
        ),
        refused(
            "labels of SELinux",
            context(json!({ "seLinuxOptions": { "level": "s0:c1" } })),
            none(),
            &["seLinuxOptions"],
        ),
        refused("another runtime", json!({ "runtimeClassName": "gvisor" }), none(), &["\"gvisor\""]),
    ]
}
