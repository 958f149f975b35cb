#!/usr/bin/env bash
# Checks what the build and the tests need, and installs what is missing where it can: a C compiler,
# the Rust toolchain of rust-toolchain.toml, with rustup where there is none, and on Linux a Vulkan driver
# (a software one where there is no GPU). Safe to run again; it changes nothing that is there.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '==> %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

install_packages() {
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo > /dev/null || fail "installing $* needs root and there is no sudo; install them by hand"
        as_root=(sudo)
    fi
    say "installing $*"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

# --- a C compiler and linker, which cargo calls ---
if ! command -v cc > /dev/null; then
    if command -v apt-get > /dev/null; then
        install_packages build-essential
    else
        fail "no C compiler (cc); install gcc or clang"
    fi
fi

# --- Rust ---
version=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
[ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
if ! command -v cargo > /dev/null; then
    command -v curl > /dev/null ||
        fail "no cargo; install Rust $version: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
    say "no cargo: installing Rust $version into $HOME/.cargo and $HOME/.rustup with https://sh.rustup.rs; shell profiles stay as they are"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
        sh -s -- -y --profile minimal --default-toolchain "$version" --no-modify-path
    . "$HOME/.cargo/env"
fi
if ! rustc --version > /dev/null 2>&1; then
    command -v rustup > /dev/null || fail "rustc does not run and there is no rustup; install Rust $version"
    say "installing Rust $version"
    rustup toolchain install "$version" --profile minimal --component rustfmt --component clippy
fi
found=$(rustc --version)
oldest=$(printf '%s\n' "$version" "$(echo "$found" | cut -d' ' -f2)" | sort -V | head -n 1)
[ "$oldest" = "$version" ] || fail "$found is older than $version; run: rustup update"
say "$found"

# --- a Vulkan driver ---
if [ "$(uname -s)" = Linux ]; then
    has_driver() {
        [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] ||
            compgen -G '/usr/share/vulkan/icd.d/*.json' > /dev/null ||
            compgen -G '/usr/local/share/vulkan/icd.d/*.json' > /dev/null ||
            compgen -G '/etc/vulkan/icd.d/*.json' > /dev/null
    }
    # ldconfig lies in /sbin, which is not on every user's path.
    has_loader() { [[ $(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p) == *libvulkan.so.1* ]]; }
    if has_driver && has_loader; then
        say "Vulkan loader and driver are there"
    elif command -v apt-get > /dev/null; then
        install_packages libvulkan1 mesa-vulkan-drivers
    else
        say "no Vulkan loader or driver; the CPU backend works, the wgpu tests will fail."
        say "Install them: Fedora: vulkan-loader mesa-vulkan-drivers; Arch: vulkan-icd-loader vulkan-swrast"
    fi
fi
