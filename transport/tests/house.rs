//! Which crate may see which: the rings know nothing of types, nobody uses the programs. Read from
//! the manifests and from the `use` lines, so that neither can drift.

use std::fs;
use std::path::{Path, PathBuf};

/// A package's folder, its name in Rust, and which of the others it may use.
const HOUSE: [(&str, &str, &[&str]); 7] = [
    ("shm-ring", "ringway_shm", &[]),
    ("net-uring", "ringway_net", &[]),
    ("transport/derive", "ringway_derive", &[]),
    ("transport", "ringway", &["ringway_shm", "ringway_net", "ringway_derive"]),
    ("bench", "ringway_bench", &["ringway", "ringway_shm"]),
    ("tools", "ringway_tools", &["ringway"]),
    // For tests, which may use it anywhere.
    ("testing", "ringway_testing", &[]),
];

/// Crates that a user who links a library would have to pay for.
const PROGRAMS_ONLY: [&str; 6] =
    ["clap", "ratatui", "plotters", "hdrhistogram", "serde_json", "criterion"];

#[test]
fn arrows_run_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut seen = 0;
    for (folder, name, allowed) in HOUSE {
        let package = root.join(folder);
        if !package.is_dir() {
            continue;
        }
        seen += 1;
        let forbidden: Vec<&str> = HOUSE
            .iter()
            .map(|(_, other, _)| *other)
            .filter(|other| *other != name && !allowed.contains(other))
            .collect();
        for dependency in dependencies(&package) {
            assert!(
                !forbidden.contains(&dependency.as_str()),
                "{folder}/Cargo.toml depends on {dependency}"
            );
        }
        for file in sources(&package) {
            let text = fs::read_to_string(&file).unwrap();
            // The derive writes `::ringway` paths into its users' code; what it uses itself stands
            // behind `use`.
            let uses = text.lines().map(|line| line.trim_start().trim_start_matches("pub "));
            for used in uses.filter_map(|line| line.strip_prefix("use ")) {
                let first = used.trim_start_matches(':').split([':', ';', ' ']).next();
                assert!(
                    !forbidden.iter().any(|other| Some(*other) == first),
                    "{}: use {used}",
                    file.display()
                );
            }
        }
    }
    assert!(seen >= 5, "the house moved");
}

#[test]
fn libraries_stay_lean() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for folder in ["shm-ring", "net-uring", "transport"] {
        for dependency in dependencies(&root.join(folder)) {
            assert!(
                !PROGRAMS_ONLY.contains(&dependency.as_str()),
                "{folder} makes its users pay for {dependency}"
            );
        }
    }
}

/// Names under `[dependencies]`, as Rust writes them.
fn dependencies(package: &Path) -> Vec<String> {
    let Ok(manifest) = fs::read_to_string(package.join("Cargo.toml")) else { return Vec::new() };
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', '=', ' ']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// The package's own sources; what it tests with may look further.
fn sources(package: &Path) -> Vec<PathBuf> {
    let mut folders = vec![package.join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}
