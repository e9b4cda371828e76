//! The threads of a process.

use tokio::runtime::Builder;

/// Threads for reading and writing files. Opening a table reads hundreds of commits at once, and without a bound as many threads
/// come of it, each with memory of its own; steady work then keeps every one of them.
const FILE_THREADS: usize = 64;

/// A runtime with everything, whose threads are bounded.
pub fn threads() -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all().max_blocking_threads(FILE_THREADS);
    builder
}
