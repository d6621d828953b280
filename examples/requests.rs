//! Requests of an asynchronous program, each answered by a pool: what takes long runs in workers, and the program's threads
//! stay free. A request that takes too long is dropped, and its job with it.
//!
//! ```text
//! cargo run --release --example requests
//! ```
//!
//! prints
//!
//! ```text
//! request 1: 168 primes below 1000
//! request 2: 1229 primes below 10000
//! request 3: 9592 primes below 100000
//! request 4: took too long, and was cancelled
//! request 5: 78498 primes below 1000000
//! ```

use std::{sync::Arc, time::Duration};

use swathe::{Pool, Result};
use tokio::time::timeout;

/// So many numbers are tried by one call of the task.
const SPAN: u64 = 1000;

/// How many primes there are in a span of numbers.
fn primes(first: u64) -> u64 {
    let is_prime = |n: u64| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (first..first + SPAN).filter(|&n| is_prime(n)).count() as u64
}

/// Never comes to an end.
fn endless(_: u64) -> u64 {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

async fn count(pool: &Pool, below: u64) -> Result<u64> {
    let spans: Vec<u64> = (0..below).step_by(SPAN as usize).collect();
    let counts = pool.map_async(primes, spans)?.await?;
    Ok(counts.iter().sum())
}

async fn answer(pool: Arc<Pool>, request: u32) -> Result<String> {
    if request == 4 {
        let hopeless = pool.map_async(endless, 0..10)?.cancel_on_drop();
        return Ok(match timeout(Duration::from_millis(50), hopeless).await {
            Ok(values) => format!("{} values", values?.len()),
            Err(_) => "took too long, and was cancelled".to_owned(),
        });
    }
    let below = 10_u64.pow(if request == 5 { 6 } else { request + 2 });
    let found = count(&pool, below).await?;
    Ok(format!("{found} primes below {below}"))
}

// The runtime starts its threads here, behind `init`.
#[tokio::main]
async fn serve() -> Result<()> {
    let pool = Arc::new(Pool::new()?);
    let answers: Vec<_> = (1..=5)
        .map(|request| tokio::spawn(answer(pool.clone(), request)))
        .collect();
    for (request, answer) in (1..).zip(answers) {
        println!("request {request}: {}", answer.await.expect("no request panics")?);
    }
    Ok(())
}

fn main() -> Result<()> {
    swathe::init();
    serve()
}
