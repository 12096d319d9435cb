# shellcheck shell=bash
# What the scripts of the test cluster share.

# What took long to make, and can be made again.
# shellcheck disable=SC2034 # used by whoever sources this
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/ropewalk-cluster

fail() {
    printf 'hack/cluster: %s\n' "$*" >&2
    exit 1
}

# install PACKAGE...: those that are missing, from apt.
install() {
    local package missing=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    # Lists may be absent or old; only a failure to install says so.
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; } ||
        fail "apt-get cannot install ${missing[*]}"
}

# Puts a kubectl in PATH that can build what is in config/, as Debian 12's, of Kubernetes 1.20, cannot.
provide_kubectl() {
    kubectl kustomize config/overlays/kubernetes-1.20 >/dev/null 2>&1 && return
    python3 -m pip --version >/dev/null 2>&1 || install python3-pip
    local newest
    newest=$(hack/newest-kubectl) || fail "there is no kubectl that can build config/: install one of Kubernetes 1.28 or later"
    PATH=$(dirname "$newest"):$PATH
    export PATH
}

# What to install on the cluster of KUBECONFIG: the one built from Debian's packages is older than what config/ is written for.
installation() {
    if [[ $(kubectl get --raw /version) == *'"v1.20.'* ]]; then
        echo config/overlays/kubernetes-1.20
    else
        echo config
    fi
}

# within SECONDS COMMAND...: runs the command until it succeeds, and fails when that takes too long.
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# image_archive LAYER.tar OUT.tar NAME CONFIG: a Docker archive with one layer; CONFIG is the image's `config` in JSON.
image_archive() (
    layer=$(realpath "$1") out=$(realpath "$2") work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work" || exit
    ln -s "$layer" layer.tar
    diff_id=$(sha256sum layer.tar | cut -d' ' -f1)
    printf '{"architecture":"amd64","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$4" "$diff_id" >config.json
    printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$3" >manifest.json
    tar --dereference -cf "$out.new" config.json manifest.json layer.tar
    mv "$out.new" "$out"
)
