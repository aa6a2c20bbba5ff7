//! The binary. All code is in the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Memory of a request is often allocated and freed by different threads, which contend in the system's allocator. Huge
/// pages are off, so that untouched memory of waiters is not resident. docs/performance.md has the measurements.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    slotwheel::cli::main()
}
