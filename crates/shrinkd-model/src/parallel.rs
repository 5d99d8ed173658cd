//! Work over many items on several threads, with results that do not depend on their number.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Applies `work` to consecutive chunks of `items` and returns the results in order. Chunks are of `chunk` items whatever
/// the number of threads, so that sums over a chunk, and their sum, come out the same.
pub fn map_chunks<T: Sync, R: Send>(
    items: &[T],
    chunk: usize,
    threads: usize,
    work: impl Fn(&[T]) -> R + Sync,
) -> Vec<R> {
    let chunks: Vec<&[T]> = items.chunks(chunk.max(1)).collect();
    if threads <= 1 || chunks.len() <= 1 {
        return chunks.into_iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(chunks.len()));
    thread::scope(|scope| {
        for _ in 0..threads.min(chunks.len()) {
            scope.spawn(|| {
                while let Some((index, items)) = take(&next, &chunks) {
                    let result = work(items);
                    // A poisoned lock means that another thread panicked: the scope passes that on.
                    if let Ok(mut done) = done.lock() {
                        done.push((index, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The size of chunks for sums that are exact, so that their grouping changes no bit: a few for each thread, as every chunk has sums of
/// its own in memory.
pub fn chunk_of_exact_sums(items: usize, threads: usize) -> usize {
    const LEAST: usize = 256;
    items.div_ceil(4 * threads.max(1)).max(LEAST)
}

fn take<'a, T>(next: &AtomicUsize, chunks: &[&'a [T]]) -> Option<(usize, &'a [T])> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    chunks.get(index).map(|items| (index, *items))
}

/// The number of threads that the machine can run in parallel; 1 where it is unknown.
pub fn available_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_on_many_threads_comes_back_in_order() {
        let numbers: Vec<usize> = (0..100).collect();
        let squares: Vec<usize> = numbers.iter().map(|i| i * i).collect();
        for (chunk, threads) in [(1, 1), (1, 3), (7, 3), (1, 64), (1_000, 2)] {
            let chunks = map_chunks(&numbers, chunk, threads, |chunk| chunk.iter().map(|i| i * i).collect::<Vec<_>>());
            assert_eq!(chunks.concat(), squares, "chunks of {chunk} on {threads} threads");
        }
        assert_eq!(map_chunks(&numbers[..0], 1, 2, <[usize]>::len), [0; 0]);
    }
}
