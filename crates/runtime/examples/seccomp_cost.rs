//! What a seccomp profile costs a start: `cargo run --release --package bulkhead-runtime --example
//! seccomp_cost -- FILE`, where FILE is the `linux.seccomp` object of a `config.json`.

use std::time::{Duration, Instant};

use bulkhead_runtime::seccomp::{Cache, CompileOptions, compile_oci};
use bulkhead_types::oci::Seccomp;

const ROUNDS: u32 = 2000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os().nth(1).ok_or("name a file with a profile")?;
    let text = std::fs::read_to_string(file)?;
    let parse = || serde_json::from_str::<Seccomp>(&text);
    let options = CompileOptions::default();

    let start = Instant::now();
    let profile = parse()?;
    let parsed = start.elapsed();
    let compiled = compile_oci(&profile, options)?.ok_or("the profile is no filter")?;
    let all = start.elapsed();
    println!("first parse {parsed:?}, first compile {:?}, sum {all:?}", all - parsed);
    println!("{} bytes, {} instructions", text.len(), compiled.instructions.len());

    let directory = std::env::temp_dir().join(format!("seccomp-cost-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let cache = Cache::open(std::fs::File::open(&directory)?.into())?;
    cache.filter(&profile, options)?;
    mean("parse", || drop(parse()));
    mean("compile", || drop(compile_oci(&profile, options)));
    mean("find in the cache", || drop(cache.filter(&profile, options)));
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

fn mean(what: &str, mut act: impl FnMut()) {
    let mut least = Duration::MAX;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        let round = Instant::now();
        act();
        least = least.min(round.elapsed());
    }
    println!("{what}: mean {:?}, least {least:?}", start.elapsed() / ROUNDS);
}
