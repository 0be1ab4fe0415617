//! The first inputs of a target, written by itself before the engine reads its corpus.

use std::fs;
use std::path::PathBuf;

/// Writes the seeds into the directory that `RINGWAY_FUZZ_SEEDS` names, if it does.
pub fn write(seeds: impl IntoIterator<Item = Vec<u8>>) {
    let Some(directory) = std::env::var_os("RINGWAY_FUZZ_SEEDS").map(PathBuf::from) else { return };
    fs::create_dir_all(&directory).expect("the directory for seeds can be made");
    for (index, seed) in seeds.into_iter().enumerate() {
        fs::write(directory.join(format!("seed-{index:03}")), seed).expect("a seed can be written");
    }
}
