# Shared by the scripts next to it: sourced, never run. The caller has set -eu.

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$top"

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename -- "$0"): $*"; exit 1; }

# Runs a command with root's rights: directly, or through sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "needs root (and there is no sudo) for: $*"
    fi
}

# Installs the Debian packages that are missing. On other systems it names them and goes on: they may be there
# under another name, and if not, the next step says what it misses.
need_packages() {
    if ! command -v dpkg-query >/dev/null 2>&1; then
        say "no dpkg on this system; expecting the equivalents of these Debian packages: $*"
        return 0
    fi
    missing=
    for package in "$@"; do
        # shellcheck disable=SC2016  # the braces are dpkg-query's, not the shell's
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
            installed) ;;
            *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    say "installing:$missing"
    # Without an index (a fresh image) or with an old one the first try fails: then the index is fetched once.
    # shellcheck disable=SC2086  # a list of words on purpose
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >&2 || {
        as_root apt-get update -q >&2
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >&2
    }
}

# Finds cargo, also where rustup puts it for a shell that has not read its profile, and checks its age.
need_cargo() {
    command -v cargo >/dev/null 2>&1 || PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    export PATH
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    command -v cargo >/dev/null 2>&1 ||
        die "no cargo found: rt needs Rust $wanted or newer; distributions are often older, so use rustup's stable toolchain"
    found=$(rustc --version | awk '{ print $2 }')
    oldest=$(printf '%s\n%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)
    [ "$oldest" = "$wanted" ] || die "Rust $found is too old: rt needs $wanted or newer (rustup update stable)"
}

# Where cargo puts its results: naming a target (.cargo/config.toml) adds a folder with the target's name.
target_dir() { printf '%s/%s\n' "${CARGO_TARGET_DIR:-target}" "$(rustc -vV | sed -n 's/^host: //p')"; }
