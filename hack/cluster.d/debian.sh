# shellcheck shell=bash
# One node of Kubernetes on this machine. All its processes live in PID and mount namespaces of their own, so that ending
# the first process ends every other and takes its mounts along; what else is made is listed here and taken back by `down`.

readonly STATE=/var/lib/ropewalk-cluster
readonly LINK=ropewalk0
# Where the API server listens, on lo: the first address of the service range, thus the `kubernetes` service itself.
readonly SERVICE_ADDRESS=10.99.0.1
# The folder that containerd puts containers' cgroups in; other containerds of the machine use it, too.
readonly CGROUP=k8s.io
# What containerd and CNI expect to find on the machine; the node mounts its own over them.
readonly MOUNT_POINTS=(/run/netns /run/containerd /var/lib/cni)
# What the kubelet and the bridge plugin set on the whole machine.
readonly SYSCTLS=(vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys
    kernel/keys/root_maxbytes net/ipv4/ip_forward)

debian_up() {
    ((EUID == 0)) || fail "the debian cluster needs root: use sudo, or ROPEWALK_CLUSTER=kind"
    # The node has a /tmp of its own.
    [[ $CACHE != /tmp/* ]] || fail "the cache cannot be in /tmp: set XDG_CACHE_HOME to another place"
    lock
    if ready; then
        echo "$STATE/kubeconfig"
        return
    fi
    if [[ -e $STATE ]]; then take_down; fi
    install etcd-server containerd runc containernetworking-plugins iproute2 util-linux openssl gcc libc6-dev
    local bin
    bin=$("$HELPERS/binaries")
    pause_image

    mkdir -p "$STATE/log" "$STATE/volumes" "${MOUNT_POINTS[@]}"
    chmod 755 "$STATE"
    save_sysctls
    ip address replace "$SERVICE_ADDRESS/32" dev lo
    credentials
    start "$bin"

    within 90 answered || report "the node was not ready within 90 s"
    [[ -e $STATE/ready ]] || report "the node ended"
    echo "$STATE/kubeconfig"
}

debian_down() {
    lock
    take_down
}

debian_kubeconfig() {
    [[ -e $STATE/kubeconfig ]] || fail "the cluster is not up: run hack/cluster up"
    echo "$STATE/kubeconfig"
}

debian_load() {
    local archive
    for archive in "$@"; do
        [[ -e $archive ]] || fail "there is no \"$archive\""
        node_ctr images import "$archive" >&2
    done
}

debian_tag() {
    local image=$1 name digest missing=()
    local -A digests=()
    shift
    while read -r name _ digest _; do digests[$name]=$digest; done < <(node_ctr images list)
    [[ -n ${digests[$image]:-} ]] || fail "the node has no image \"$image\": load it first"
    # Names that are right are left alone: --force takes a name away for a moment, and a pod may be asking for it.
    for name in "$@"; do
        [[ ${digests[$name]:-} == "${digests[$image]}" ]] || missing+=("$name")
    done
    ((${#missing[@]} == 0)) || node_ctr images tag --force "$image" "${missing[@]}" >/dev/null
}

# containerd reads this at every pull; it takes a server without a host for one with TLS.
debian_registry() {
    [[ -e $STATE/ready ]] || fail "the cluster is not up: run hack/cluster up"
    mkdir -p "$STATE/registries/$1"
    if (($# > 1)); then
        cp "$2" "$STATE/registries/$1/ca.crt"
        printf 'server = "https://%s"\n[host."https://%s"]\ncapabilities = ["pull", "resolve"]\nca = "%s"\n' "$1" "$1" \
            "$STATE/registries/$1/ca.crt"
    else
        printf 'server = "http://%s"\n[host."http://%s"]\ncapabilities = ["pull", "resolve"]\n' "$1" "$1"
    fi >"$STATE/registries/$1/hosts.toml"
}

# Kills the process, as a crash would, and waits until what the node starts in its stead answers.
debian_restart() {
    local name=$1 first
    [[ $name == kube-apiserver ]] || fail "only kube-apiserver can be started again, not \"$name\""
    [[ -e $STATE/ready ]] || fail "the cluster is not up: run hack/cluster up"
    first=$(cat "$STATE/pid")
    first=$(cat "/proc/$first/task/$first/children")
    touch "$STATE/restart-$name"
    pkill -KILL --parent "${first// /}" --exact "$name" || fail "there is no $name to be killed"
    within 60 restarted "$name" || fail "$name was not back within 60 s"
}

restarted() {
    [[ ! -e $STATE/restart-$1 ]] && kubectl --kubeconfig "$STATE/kubeconfig" get --raw /readyz
}

node_ctr() {
    [[ -S $STATE/containerd.sock ]] || fail "the cluster is not up: run hack/cluster up"
    ctr --address "$STATE/containerd.sock" --namespace k8s.io "$@"
}

# One `up` or `down` at a time; whatever is started has to close descriptor 9.
lock() {
    mkdir -p "$CACHE"
    exec 9<"$CACHE"
    flock --timeout 900 9 || fail "another hack/cluster has been at work for a quarter of an hour"
}

ready() {
    [[ -e $STATE/ready ]] && alive "$(cat "$STATE/pid" 2>/dev/null)" &&
        kubectl --kubeconfig "$STATE/kubeconfig" get --raw /readyz >/dev/null 2>&1
}

alive() {
    [[ -n $1 && -e /proc/$1 ]]
}

# Ready, or never to be.
answered() {
    [[ -e $STATE/ready ]] || ! alive "$(cat "$STATE/pid")"
}

pause_image() {
    [[ -e $CACHE/pause.tar ]] && return
    local work
    work=$(mktemp -d)
    gcc -static -O2 -o "$work/pause" "$HELPERS/pause.c"
    tar -C "$work" -cf "$work.tar" pause
    image_archive "$work.tar" "$CACHE/pause.tar" ropewalk.test/pause:1 '{"Entrypoint":["/pause"]}'
    rm -rf "$work" "$work.tar"
}

save_sysctls() {
    local name
    for name in "${SYSCTLS[@]}"; do
        printf '%s=%s\n' "$name" "$(cat "/proc/sys/$name")"
    done >"$STATE/sysctls"
}

# A key for service account tokens, an administrator's token, and the API server's certificate with its authority.
credentials() (
    umask 077
    mkdir -p "$STATE/certs"
    cd "$STATE/certs" || exit
    openssl genrsa -out sa.key 2048 2>/dev/null
    openssl req -x509 -newkey rsa:2048 -nodes -days 365 -keyout ca.key -out ca.crt -subj /CN=ropewalk-test-ca 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -keyout apiserver.key -out apiserver.csr -subj /CN=kube-apiserver 2>/dev/null
    openssl x509 -req -in apiserver.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out apiserver.crt -extfile <(
        printf 'basicConstraints = CA:FALSE\nextendedKeyUsage = serverAuth\n'
        printf 'subjectAltName = IP:%s, DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc, DNS:localhost\n' \
            "$SERVICE_ADDRESS"
    ) 2>/dev/null
    local token
    token=$(openssl rand -hex 16)
    echo "$token,admin,admin,\"system:masters\"" >tokens.csv
    cat >"$STATE/kubeconfig" <<END
apiVersion: v1
kind: Config
clusters:
  - name: ropewalk
    cluster:
      server: https://$SERVICE_ADDRESS
      certificate-authority-data: $(base64 -w 0 ca.crt)
users:
  - name: admin
    user:
      token: $token
contexts:
  - name: ropewalk
    context: { cluster: ropewalk, user: admin }
current-context: ropewalk
END
)

# start BIN: the node's first process. --kill-child ends it, and with it every process of the node, when the one that
# `pid` names is killed.
start() {
    env STATE="$STATE" BIN="$1" CACHE="$CACHE" LINK="$LINK" SERVICE_ADDRESS="$SERVICE_ADDRESS" \
        MOUNT_POINTS="${MOUNT_POINTS[*]}" \
        setsid unshare --mount --pid --fork --kill-child --mount-proc "$HELPERS/node" \
        </dev/null >"$STATE/log/node.log" 2>&1 9<&- &
    echo $! >"$STATE/pid"
}

report() {
    tail -n 3 "$STATE/log/node.log" >&2
    fail "$1; its logs are in $STATE/log, and hack/cluster down removes them"
}

take_down() {
    local pid first name value
    if pid=$(cat "$STATE/pid" 2>/dev/null) && grep -qs unshare "/proc/$pid/comm"; then
        # The node's first process has to be gone, too: it ends last.
        first=$(cat "/proc/$pid/task/$pid/children")
        kill -KILL "$pid"
        for pid in $pid $first; do
            within 30 gone "$pid" || fail "process $pid of the cluster does not end"
        done
    fi
    ip link delete "$LINK" 2>/dev/null || true
    ip address delete "$SERVICE_ADDRESS/32" dev lo 2>/dev/null || true
    if [[ -e $STATE/sysctls ]]; then
        while IFS='=' read -r name value; do echo "$value" >"/proc/sys/$name"; done <"$STATE/sysctls"
    fi
    # The kernel empties a cgroup a moment after its last process.
    within 10 remove_cgroups || true
    verify_gone
}

gone() {
    ! alive "$1"
}

# Of this cluster's containers; containerd's state names them.
cgroups() {
    local id
    for id in "$STATE"/containerd-run/io.containerd.runtime.v2.task/k8s.io/*; do
        find "/sys/fs/cgroup/$CGROUP/${id##*/}" /sys/fs/cgroup/*/"$CGROUP/${id##*/}" -maxdepth 0 2>/dev/null || true
    done
}

remove_cgroups() {
    cgroups | while read -r group; do find "$group" -depth -type d -exec rmdir {} +; done
    rmdir --ignore-fail-on-non-empty /sys/fs/cgroup/$CGROUP /sys/fs/cgroup/*/$CGROUP 2>/dev/null || true
    [[ -z $(cgroups) ]]
}

verify_gone() {
    local left
    left=$(
        pgrep -af -- "$STATE/" || true
        grep -F -- "$STATE" /proc/mounts || true
        ip -brief link show "$LINK" 2>/dev/null || true
        ip -brief address show dev lo to "$SERVICE_ADDRESS/32"
        cgroups
    )
    [[ -z $left ]] || fail "these of the cluster are left: $left"
    rm -rf "$STATE"
    rmdir --ignore-fail-on-non-empty "${MOUNT_POINTS[@]}" 2>/dev/null || true
}
