//! Machines side by side: each has one processor, so two at a time.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How many run at a time.
const MACHINES: usize = 2;

/// Something that runs in a machine of its own.
pub struct Job<'a, T> {
    /// What is told of it.
    pub name: String,
    /// Does it.
    pub run: Box<dyn FnOnce() -> Result<T> + Send + 'a>,
}

/// What came of a job.
#[derive(Debug)]
pub struct Ended<T> {
    /// As in the job.
    pub name: String,
    /// How long it took.
    pub took: Duration,
    /// Its result.
    pub result: Result<T>,
}

/// Runs all, the next as soon as one has ended; what came of them, in the order given.
pub fn run<T: Send>(jobs: Vec<Job<'_, T>>) -> Vec<Ended<T>> {
    let names: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let mut ended: Vec<(usize, Ended<T>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..MACHINES)
            .map(|_| scope.spawn(|| work(&queue)))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_default())
            .collect()
    });
    // A worker that panicked took its results along.
    for (number, name) in names.into_iter().enumerate() {
        if ended.iter().all(|(known, _)| *known != number) {
            let result = Err(anyhow!("its thread panicked"));
            let took = Duration::ZERO;
            ended.push((number, Ended { name, took, result }));
        }
    }
    ended.sort_by_key(|(number, _)| *number);
    ended.into_iter().map(|(_, ended)| ended).collect()
}

fn work<'a, T>(queue: &Mutex<impl Iterator<Item = (usize, Job<'a, T>)>>) -> Vec<(usize, Ended<T>)> {
    let mut all = Vec::new();
    loop {
        let next = match queue.lock() {
            Ok(mut queue) => queue.next(),
            Err(_) => None,
        };
        let Some((number, Job { name, run })) = next else {
            return all;
        };
        let start = Instant::now();
        let result = run();
        let took = start.elapsed();
        all.push((number, Ended { name, took, result }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn job(number: u32) -> Job<'static, u32> {
        Job {
            name: number.to_string(),
            run: Box::new(move || match number {
                3 => bail!("three"),
                4 => panic!("four"),
                _ => Ok(number),
            }),
        }
    }

    #[test]
    fn everything_is_run_and_told_of_in_its_order() {
        let ended = run((0..4).map(job).collect());
        let names: Vec<&str> = ended.iter().map(|ended| ended.name.as_str()).collect();
        assert_eq!(names, ["0", "1", "2", "3"]);
        let good: Vec<u32> = ended.into_iter().flat_map(|ended| ended.result).collect();
        assert_eq!(good, [0, 1, 2]);
    }

    #[test]
    fn a_job_that_panics_has_failed() {
        let ended = run(vec![job(4)]);
        assert!(ended[0].result.is_err());
    }
}
