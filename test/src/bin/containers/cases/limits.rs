//! Memory, processor time, and processes.

use anyhow::ensure;
use ropewalk_test::harness::Kind;
use serde_json::json;

use crate::case::{Case, container, pod, script, with};

pub(crate) fn cases() -> Vec<Case> {
    let memory = |limit: &str| json!({ "resources": { "limits": { "memory": limit } } });
    vec![
        script("too much memory", "exec tail /dev/zero").container(memory("32Mi")).exits(137, "OOMKilled"),
        script("too much memory in a child", "tail /dev/zero; exit 3")
            .container(memory("32Mi"))
            // With version 2 of cgroups all processes are killed together, with version 1 one of them is.
            .also(|seen| {
                let (code, reason) = seen.ended("c")?;
                ensure!([3, 137].contains(&code) && reason == "OOMKilled", "it ended with {code}, {reason}");
                Ok(())
            }),
        script("files in memory count", "head -c 60000000 /dev/zero > /v/x; exit 3")
            .volume(json!({ "emptyDir": { "medium": "Memory" } }))
            .container(memory("32Mi"))
            .also(|seen| {
                let (code, reason) = seen.ended("c")?;
                ensure!([3, 137].contains(&code) && reason == "OOMKilled", "it ended with {code}, {reason}");
                Ok(())
            }),
        script("enough memory", "head -c 20000000 /dev/zero | tail -c 20000000 | wc -c")
            .container(memory("64Mi"))
            .says("20000000\n"),
        pod("one container's memory is not another's", json!({ "containers": [
            with(container("bad", "exec tail /dev/zero"), memory("32Mi")),
            with(container("good", "head -c 10000000 /dev/zero | tail -c 10000000 | wc -c"), memory("64Mi"))] }))
            .ends("bad", 137, "OOMKilled")
            .ends("good", 0, "Completed"),
        script("the limit on memory can be read in the container",
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max")
            .container(memory("64Mi"))
            .says("67108864\n"),
        script("the limit on processor time can be read in the container",
            "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us 2>/dev/null | xargs || cat /sys/fs/cgroup/cpu.max")
            .container(json!({ "resources": { "limits": { "cpu": "250m" } } }))
            .says("25000 100000\n"),
        script("what is asked of processor time is its share",
            "cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || cat /sys/fs/cgroup/cpu.weight")
            .container(json!({ "resources": { "requests": { "cpu": "500m" } } }))
            .exits(0, "Completed")
            .also(|seen| {
                let share = seen.log("c")?.trim().to_owned();
                ensure!(["512", "20"].contains(&share.as_str()), "the share is {share}");
                Ok(())
            }),
        script("limits cannot be changed in the container",
            "for file in $(ls -d /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null); do \
                 echo 1000000000 2>/dev/null > $file && echo BAD; echo $file | grep -c memory; done")
            .container(memory("64Mi"))
            .says("1\n"),
        script("processor time is limited",
            "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; \
             awk '/^nr_throttled/ {print ($2 > 0) ? \"throttled\" : \"free\"}' $(ls /sys/fs/cgroup/cpu/cpu.stat /sys/fs/cgroup/cpu.stat 2>/dev/null)")
            .container(json!({ "resources": { "limits": { "cpu": "100m" } } }))
            .says("throttled\n"),
        // A kubelet of a cluster looks every ten seconds, and some look at no container at all.
        script("more on disk than a container may have", "head -c 5000000 /dev/zero > /x; exec sleep 1000")
            .container(json!({ "resources": { "limits": { "ephemeral-storage": "2Mi" } } }))
            .only(Kind::Standalone)
            .evicted("Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
        script("more in a volume than it may have", "head -c 5000000 /dev/zero > /v/x; exec sleep 1000")
            .volume(json!({ "emptyDir": { "sizeLimit": "2Mi" } }))
            .only(Kind::Standalone)
            .evicted("Usage of EmptyDir volume \"v\" exceeds the limit \"2Mi\". "),
        script("as much on disk as a container may have", "head -c 5000000 /dev/zero > /x; head -c 5000000 /dev/zero > /v/x; \
             sleep 3; rm /x; echo done")
            .volume(json!({ "emptyDir": { "sizeLimit": "8Mi" } }))
            .container(json!({ "resources": { "limits": { "ephemeral-storage": "16Mi" } } }))
            .says("done\n"),
        // A kubelet's bound is a setting of its own.
        pod("a fork bomb meets a bound, and others live", json!({ "containers": [
            container("bomb", "b() { b | b & }; : > /v/lit; b 2>/dev/null; sleep 1; exit 3"),
            container("c", "until [ -e /v/lit ]; do sleep 0.05; done; sh -c 'echo alive'")] }))
            .sharing()
            .only(Kind::Standalone)
            .says("alive\n"),
        script("processes are counted",
            "i=0; while [ $i -lt 1000 ]; do sleep 1000 & i=$((i+1)); done 2>/dev/null; echo unbounded")
            .only(Kind::Standalone)
            .exits(2, "Error"),
        script("shared memory has a bound", "head -c 70000000 /dev/zero 2>/dev/null > /dev/shm/x; stat -c %s /dev/shm/x")
            .says("67108864\n"),
    ]
}
