#!/usr/bin/env bash
# Installs the programs that `make clients` and `make bench` use. Idempotent: it installs programs that are
# missing or have another version, and prints one line for each.
# With names of Go programs as arguments it installs only these, which does not need root.
set -euo pipefail

# Debian packages, in the version of the Debian release: package and purpose.
debian_packages='
docker.io        Docker engine and its command line
skopeo           copies images between registries
busybox-static   static program for the content of test images
chromium         tests of the administration
docker-registry  registry to compare the speed with
nginx-light      web server to compare the speed with
wrk              load generator for small requests
podman           container engine without a daemon
buildah          builds images
containerd       image store for ctr; its own ctr is older
mmdebstrap       makes the base of the images that the tests of deploy/ build
systemd          systemd-analyze checks units
prometheus       scrapes the figures, and promtool checks the alerts
'

# Go programs: name, package, version.
go_programs='
crane                  github.com/google/go-containerregistry/cmd/crane           v0.22.1
regctl                 github.com/regclient/regclient/cmd/regctl                  v0.11.7
oras                   oras.land/oras/cmd/oras                                    v1.3.6
helm                   helm.sh/helm/v3/cmd/helm                                   v3.22.0
ctr                    github.com/containerd/containerd/v2/cmd/ctr                v2.4.2
conformance            github.com/opencontainers/distribution-spec/conformance    v0.0.0-20260831232431-97274622c111
minio                  github.com/minio/minio                                     v0.0.0-20260212201848-7aac2a2c5b7c
versitygw              github.com/versity/versitygw/cmd/versitygw                 v1.8.0
distribution-registry  github.com/distribution/distribution/v3/cmd/registry       v3.1.2
cosign                 github.com/sigstore/cosign/v3/cmd/cosign                   v3.1.3
'

# The module proxy does not list the versions of these, so `go install` fails: name, module, package in it,
# version.
go_dependencies='
notation               github.com/notaryproject/notation    cmd/notation          v1.3.2
docker-compose         github.com/docker/compose/v2         cmd                   v2.40.3
'

# Debian packages of the root file system from which the tests of deploy/ build images, because they can pull none:
# Python for the product, and PostgreSQL, Redis and nginx instead of their official images.
image_packages='ca-certificates gettext-base nginx-light postgresql-15 python3 python3-venv redis-server'
image_release='bookworm'

# The tests look here (tests/services/tools.py). Debian packages install to their usual paths.
cache="${STOWAGE_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/stowage-tools}"
bin="$cache/bin"
log="$(mktemp)"
built="$(mktemp -d)"
trap 'rm -rf "$log" "$built"' EXIT

fail() {
    echo "tools: $*" >&2
    exit 1
}

# Runs a command and prints its output only if it fails.
quietly() {
    "$@" </dev/null >"$log" 2>&1 || {
        cat "$log" >&2
        fail "failed: $*"
    }
}

debian_version() { # of an installed package; nothing if it is not
    dpkg-query --show --showformat='${db:Status-Status} ${Version}' "$1" 2>/dev/null | sed -n 's/^installed //p' || true
}

install_debian_packages() {
    command -v apt-get >/dev/null || fail "no apt-get here: install by other means:$debian_packages"
    local package purpose missing=()
    while read -r package purpose; do
        if [ -z "$(debian_version "$package")" ]; then missing+=("$package"); else report "$package" "was there"; fi
    done < <(grep . <<<"$debian_packages")
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" -eq 0 ] || fail "missing: ${missing[*]}. Only root can install them: sudo make tools"

    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get -qq update
    quietly apt-get -qq install --yes --no-install-recommends "${missing[@]}"
    for package in "${missing[@]}"; do report "$package" "installed"; done
}

report() { # package, what happened
    echo "tools: $1 $(debian_version "$1"): $2"
}

go_version_of() { # of an installed program; nothing if it is not
    go version -m "$bin/$1" 2>/dev/null | awk '$1 == "mod" { print $3 }' || true
}

# Makes the root file system anew if another list of packages is wanted.
install_image_base() {
    local base="$cache/images/$image_release.tar" contents="$image_release $image_packages" done_what="was there"
    if [ "$(cat "$base.contents" 2>/dev/null)" != "$contents" ]; then
        mkdir -p "$cache/images"
        rm -f "$base.contents"
        quietly mmdebstrap --variant=minbase --include="${image_packages// /,}" \
            --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' "$image_release" "$built/base.tar"
        mv "$built/base.tar" "$base"
        echo "$contents" >"$base.contents"
        done_what="made"
    fi
    echo "tools: base of images, $image_release: $done_what"
}

only=("$@")

wanted() { # name of a Go program
    [ ${#only[@]} -eq 0 ] || printf '%s\n' "${only[@]}" | grep -qxF "$1"
}

install_go_programs() {
    command -v go >/dev/null || fail "no go here: needed to build$go_programs"
    local name package version done_what
    while read -r name package version; do
        wanted "$name" || continue
        done_what="was there"
        if [ "$(go_version_of "$name")" != "$version" ]; then
            GOBIN="$built" quietly go install "$package@$version"
            mv "$built/${package##*/}" "$bin/$name"
            done_what="installed"
        fi
        echo "tools: $name $version: $done_what"
    done < <(grep . <<<"$go_programs")
}

# Builds a package as a dependency of an empty module, which needs no list of versions.
build_go_dependency() { # name, module, package in it, version
    printf 'module tools\nrequire %s %s\n' "$2" "$4" >"$built/go.mod"
    printf 'package tools\nimport _ "%s/%s"\n' "$2" "$3" >"$built/tools.go"
    quietly go -C "$built" build -mod=mod -o "$built/$1" "$2/$3"
    rm "$built"/go.* "$built/tools.go"
}

install_go_dependencies() {
    local name module package version done_what
    while read -r name module package version; do
        wanted "$name" || continue
        done_what="was there"
        if [ "$(go_version_of "$name")" != "$version" ]; then
            build_go_dependency "$name" "$module" "$package" "$version"
            mv "$built/$name" "$bin/$name"
            done_what="installed"
        fi
        echo "tools: $name $version: $done_what"
    done < <(grep . <<<"$go_dependencies")
}

for name in "${only[@]}"; do
    grep -q "^$name " <<<"$go_programs$go_dependencies" || fail "no Go program here is called $name"
done
mkdir -p "$bin"
[ ${#only[@]} -gt 0 ] || {
    install_debian_packages
    install_image_base
}
install_go_programs
install_go_dependencies
