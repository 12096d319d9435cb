//! What processes may do: capabilities, further privileges, system calls, kernel interfaces.

use anyhow::{Result, ensure};
use ropewalk_test::harness::Kind;
use serde_json::{Value, json};

use crate::case::{Case, Seen, container, pod, script, with};

/// Bits of capabilities by their numbers in capabilities(7).
const CHOWN: u64 = 1;
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const MKNOD: u64 = 1 << 27;

/// What container engines grant: `CHOWN`, `DAC_OVERRIDE`, `FOWNER`, `FSETID`, `KILL`, `SETGID`, `SETUID`, `SETPCAP`,
/// `NET_BIND_SERVICE`, `NET_RAW`, `SYS_CHROOT`, `AUDIT_WRITE`, `SETFCAP`; and `MKNOD`, which our node keeps back where it
/// cannot close devices.
const USUAL: u64 = 0xa004_25fb;

const STATUS: &str = "cat /proc/self/status";

/// A script for a container with this security context.
#[expect(clippy::needless_pass_by_value, reason = "callers make the value for it")]
fn secured(name: &'static str, text: &str, context: Value) -> Case {
    script(name, text).container(json!({ "securityContext": context }))
}

fn masks(wanted: &'static [(&'static str, u64)]) -> impl Fn(&Seen) -> Result<()> {
    move |seen| {
        for (name, mask) in wanted {
            let found = seen.mask(name)?;
            ensure!(found == *mask, "{name} is {found:016x} and not {mask:016x}");
        }
        Ok(())
    }
}

fn masks_are(seen: &Seen, wanted: u64) -> Result<()> {
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let found = seen.mask(set)?;
        ensure!(found == wanted, "{set} is {found:016x} and not {wanted:016x}");
    }
    Ok(())
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        script("the usual capabilities", STATUS).also(|seen| {
            for set in ["CapEff", "CapPrm", "CapBnd"] {
                let found = seen.mask(set)?;
                ensure!(found | MKNOD == USUAL | MKNOD, "{set} is {found:016x}");
            }
            masks(&[("CapInh", 0), ("CapAmb", 0)])(seen)
        }),
        secured("no capabilities", STATUS, json!({ "capabilities": { "drop": ["ALL"] } }))
            .also(masks(&[("CapEff", 0), ("CapPrm", 0), ("CapBnd", 0)])),
        secured("two capabilities", STATUS,
            json!({ "capabilities": { "drop": ["ALL"], "add": ["CHOWN", "NET_BIND_SERVICE"] } }))
            .also(masks(&[("CapEff", CHOWN | NET_BIND_SERVICE), ("CapBnd", CHOWN | NET_BIND_SERVICE)])),
        secured("a capability more", STATUS, json!({ "capabilities": { "add": ["SYS_PTRACE"] } })).also(|seen| {
            let found = seen.mask("CapEff")?;
            ensure!(found & (SYS_PTRACE | SYS_ADMIN | CHOWN) == SYS_PTRACE | CHOWN, "CapEff is {found:016x}");
            Ok(())
        }),
        secured("a capability less", STATUS, json!({ "capabilities": { "drop": ["CHOWN"] } })).also(|seen| {
            let found = seen.mask("CapBnd")?;
            ensure!(found | MKNOD == (USUAL | MKNOD) & !CHOWN, "CapBnd is {found:016x}");
            Ok(())
        }),
        secured("all capabilities but one", STATUS,
            json!({ "capabilities": { "add": ["ALL"], "drop": ["SYS_PTRACE"] } })).only(Kind::Standalone).also(|seen| {
            let found = seen.mask("CapBnd")?;
            ensure!(found & (SYS_PTRACE | SYS_ADMIN | CHOWN) == SYS_ADMIN | CHOWN, "CapBnd is {found:016x}");
            Ok(())
        }),
        secured("a user without rights has none to use", STATUS, json!({ "runAsUser": 1234 })).also(|seen| {
            let bounding = seen.mask("CapBnd")?;
            ensure!(bounding & CHOWN != 0, "CapBnd is {bounding:016x}");
            masks(&[("CapEff", 0), ("CapPrm", 0)])(seen)
        }),
        script("further privileges may be gained", STATUS).also(masks(&[("NoNewPrivs", 0)])),
        secured("no further privileges", STATUS, json!({ "allowPrivilegeEscalation": false }))
            .also(masks(&[("NoNewPrivs", 1)])),
        pod("setuid binaries, and no further privileges", json!({
            "initContainers": [container("first", "cp /usr/bin/id /v/id; chmod 4755 /v/id")],
            "containers": [
                with(container("c", "/v/id -u"), json!({ "securityContext": { "runAsUser": 1234 } })),
                with(container("kept", "/v/id -u"),
                    json!({ "securityContext": { "runAsUser": 1234, "allowPrivilegeEscalation": false } }))] }))
            .sharing()
            .says("0\n")
            .writes("kept", "1234\n"),
        script("nothing may be mounted", "mkdir -p /m; mount -t tmpfs x /m 2>/dev/null || echo refused").says("refused\n"),
        secured("privileged containers mount", "mkdir -p /m; mount -t tmpfs x /m && echo mounted", json!({ "privileged": true }))
            .says("mounted\n"),
        secured("privileged containers have every capability", STATUS, json!({ "privileged": true })).also(|seen| {
            let found = seen.mask("CapEff")?;
            let wanted = SYS_ADMIN | NET_ADMIN | SYS_PTRACE | MKNOD;
            ensure!(found & wanted == wanted, "CapEff is {found:016x}");
            Ok(())
        }),
        secured("privileged containers see the node's devices", "test -c /dev/kmsg && test -c /dev/loop-control && echo seen",
            json!({ "privileged": true }))
            .says("seen\n"),
        script("others do not", "ls /dev | grep -E '^(kmsg|loop|sd|vd|nvme|mem)' || echo none").says("none\n"),
        script("no device nodes are made of disks", "mknod /disk b 8 0 2>/dev/null && head -c 1 /disk 2>/dev/null | wc -c; echo safe")
            .exits(0, "Completed")
            .also(|seen| {
                let log = seen.log("c")?;
                ensure!(!log.contains('1'), "a byte was read of a disk: {log}");
                Ok(())
            }),
        script("kernel interfaces are hidden",
            "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; ls -A /sys/firmware /proc/scsi 2>/dev/null | grep -v ':$' | xargs")
            .says("0\n\n"),
        script("kernel interfaces are read-only",
            "for at in /proc/sys /proc/irq /proc/bus /proc/sysrq-trigger /sys; do \
                 awk -v at=$at '$2 == at {print substr($4, 1, 2)}' /proc/mounts | tail -n 1; done | sort -u")
            .says("ro\n"),
        secured("kernel interfaces of privileged containers are open",
            "awk '$2 ~ \"^/proc/\" {print $2}' /proc/mounts; echo end",
            json!({ "privileged": true }))
            .says("end\n"),
        script("system calls are free unless the pod says so", STATUS).also(masks(&[("Seccomp", 0)])),
        secured("the runtime's choice of system calls",
            "grep -E '^(Seccomp|NoNewPrivs|CapBnd):' /proc/self/status; unshare -U true 2>&1 | grep -o 'not permitted'; \
             mkdir /d && chown 1:1 /d && (sleep 0.1 & wait) && echo works",
            json!({ "seccompProfile": { "type": "RuntimeDefault" } }))
            .exits(0, "Completed")
            .also(|seen| {
                let bounding = seen.mask("CapBnd")?;
                ensure!(bounding | MKNOD == USUAL | MKNOD, "CapBnd is {bounding:016x}");
                let log = seen.log("c")?;
                ensure!(log.ends_with("not permitted\nworks\n"), "it wrote {log}");
                masks(&[("Seccomp", 2), ("NoNewPrivs", 0)])(seen)
            }),
        script("the runtime's choice of system calls, by the pod, and nothing else",
            "grep -E '^(Seccomp|NoNewPrivs|CapEff|CapBnd):' /proc/self/status; id -u")
            .spec(json!({ "securityContext": { "seccompProfile": { "type": "RuntimeDefault" }, "runAsUser": 1234 } }))
            .container(json!({ "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } }))
            .exits(0, "Completed")
            .also(masks(&[("Seccomp", 2), ("NoNewPrivs", 1), ("CapEff", 0), ("CapBnd", 0)])),
        secured("a privileged container is under no choice of system calls", STATUS,
            json!({ "privileged": true, "seccompProfile": { "type": "RuntimeDefault" } }))
            .also(masks(&[("Seccomp", 0)])),
        secured("no choice of system calls", STATUS, json!({ "seccompProfile": { "type": "Unconfined" } }))
            .also(masks(&[("Seccomp", 0)])),
        // Kubernetes has the wider sets of system calls per capability too.
        secured("a capability brings its system calls", "unshare -u true && echo allowed",
            json!({ "capabilities": { "add": ["SYS_ADMIN"] }, "seccompProfile": { "type": "RuntimeDefault" } }))
            .says("allowed\n"),
        secured("every capability, and still no device of the node",
            "cat /proc/self/status; mkdir /m; mount -t tmpfs x /m; cd /m; \
             mknod null c 1 3 && echo x > null && echo null; mknod kmsg c 1 11 && echo kmsg; mknod disk b 8 0 && echo disk; \
             cat kmsg 2>&1 | grep -o 'not permitted'; head -c 1 disk 2>&1 | grep -o 'not permitted'; \
             mkdir dev; mount -t devtmpfs x dev 2>/dev/null; head -c 1 dev/kmsg 2>&1 | grep -o 'not permitted'; echo end",
            json!({ "capabilities": { "add": ["ALL"] } }))
            .only(Kind::Standalone)
            .exits(0, "Completed")
            .also(|seen| {
                let all = std::fs::read_to_string("/proc/self/status")?;
                let own = all.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
                let own = u64::from_str_radix(own.unwrap_or_default(), 16)?;
                masks_are(seen, own)?;
                let log = seen.log("c")?;
                let wanted = "null\nkmsg\ndisk\nnot permitted\nnot permitted\nnot permitted\nend\n";
                ensure!(log.ends_with(wanted), "it wrote {log}");
                Ok(())
            }),
        secured("the devices of every container are open to it",
            "for at in null zero full random urandom tty; do [ -c /dev/$at ] && echo $at; done; head -c 3 /dev/zero | wc -c; \
             head -c 1 /dev/urandom | wc -c; echo x > /dev/null && echo written; : < /dev/ptmx && echo ptmx",
            json!({}))
            .says("null\nzero\nfull\nrandom\nurandom\ntty\n3\n1\nwritten\nptmx\n"),
        script("settings of the kernel that are the pod's own", "cat /proc/sys/kernel/shm_rmid_forced")
            .spec(json!({ "securityContext": { "sysctls": [{ "name": "kernel.shm_rmid_forced", "value": "1" }] } }))
            .says("1\n"),
        script("the node's processes are out of sight", "cat /proc/1/comm; ls /proc | grep -c '^[0-9]*$' | awk '{print ($1 < 10)}'")
            .says("sh\n1\n"),
        script("the node's processes in sight of who asks", "test $(cat /proc/1/comm) != sh && echo seen; exit 3")
            .spec(json!({ "hostPID": true }))
            .exits(3, "Error")
            .writes("c", "seen\n"),
        script("the node's communication between processes", "readlink /proc/self/ns/ipc")
            .spec(json!({ "hostIPC": true }))
            .only(Kind::Standalone)
            .also(|seen| {
                let (found, own) = (seen.log("c")?.trim(), std::fs::read_link("/proc/self/ns/ipc")?);
                ensure!(own.to_str() == Some(found), "it is in {found}, the node in {}", own.display());
                Ok(())
            }),
    ]
}
