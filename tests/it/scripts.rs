//! `scripts/setup.sh` on machines that lack something, made of a folder of programs.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// What the script and the made-up installer call, as the machine has it.
const TOOLS: [&str; 11] = [
    "bash", "cat", "chmod", "cut", "dirname", "head", "mkdir", "sed", "sh", "sort", "uname",
];
/// Stands for what `curl` brings: keeps its arguments and installs programs that only tell their version.
const INSTALLER: &str = r#"#!/bin/sh
cat << 'END'
echo "$@" > "$HOME/arguments"
mkdir -p "$HOME/.cargo/bin"
for program in cargo rustc; do
    printf '#!/bin/sh\necho "%s 1.999.0 (made up)"\n' $program > "$HOME/.cargo/bin/$program"
    chmod +x "$HOME/.cargo/bin/$program"
done
echo 'export PATH="$HOME/.cargo/bin:$PATH"' > "$HOME/.cargo/env"
END
"#;

fn program(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Runs the script where there are a C compiler, a Vulkan driver and these programs, and no Rust.
fn set_up(home: &Path, programs: &[(&str, &str)]) -> Output {
    let bin = home.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let folders = std::env::var_os("PATH").unwrap();
    for tool in TOOLS {
        let mut found = std::env::split_paths(&folders).map(|folder| folder.join(tool));
        let found = found.find(|path| path.exists());
        symlink(found.unwrap(), bin.join(tool)).unwrap();
    }
    program(&bin, "cc", "#!/bin/sh\n");
    program(&bin, "ldconfig", "#!/bin/sh\necho libvulkan.so.1\n");
    for (name, text) in programs {
        program(&bin, name, text);
    }
    Command::new(bin.join("bash"))
        .arg(Path::new(ROOT).join("scripts/setup.sh"))
        .env_clear()
        .env("HOME", home)
        .env("PATH", &bin)
        .env("VK_DRIVER_FILES", "a driver")
        .output()
        .unwrap()
}

#[test]
fn rust_is_installed_where_there_is_none() {
    let home = tempfile::tempdir().unwrap();
    let done = set_up(home.path(), &[("curl", INSTALLER)]);
    let stdout = String::from_utf8(done.stdout).unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{stdout}{stderr}");
    let told = stdout.find("https://sh.rustup.rs").unwrap();
    let installed = stdout.find("rustc 1.999.0").unwrap();
    assert!(told < installed, "{stdout}");
    let toolchain = std::fs::read_to_string(Path::new(ROOT).join("rust-toolchain.toml")).unwrap();
    let version = toolchain.split('"').nth(1).unwrap();
    let arguments = std::fs::read_to_string(home.path().join("arguments")).unwrap();
    let expected = format!("-y --profile minimal --default-toolchain {version} --no-modify-path\n");
    assert_eq!(arguments, expected);
}

#[test]
fn without_rust_and_curl_the_command_is_named() {
    let home = tempfile::tempdir().unwrap();
    let done = set_up(home.path(), &[]);
    assert_eq!(done.status.code(), Some(1));
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert!(
        stderr.starts_with("setup: no cargo; install Rust"),
        "{stderr}"
    );
    assert!(stderr.contains("https://sh.rustup.rs"), "{stderr}");
}
