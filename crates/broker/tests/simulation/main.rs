//! Broker and dispatchers in one thread, on a simulated disk, with every order and every fault decided by a seed.

mod graph;
mod oracle;
mod others;
mod producer;
mod random;
mod shared;
mod worker;
mod world;

#[test]
fn no_seed_finds_anything() {
    let first: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(50);
    let mut counts = world::Counts::default();
    let began = std::time::Instant::now();
    let mut bad = 0;
    for seed in first..first + count {
        let run = world::run(seed);
        match run.result {
            Ok(more) => counts += more,
            Err(found) => {
                bad += 1;
                println!("seed {seed}: {found:?}");
                if std::env::var("TRACE").is_ok() {
                    println!("{}", run.trace);
                }
            }
        }
    }
    println!("{counts:?} in {:?}", began.elapsed());
    assert_eq!(bad, 0);
}
