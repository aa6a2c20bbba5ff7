//! The binary: everything is in the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Requests are taken up by one thread and finished by another: the system's allocator makes threads wait for each other
/// then. Without huge pages: what waiters hold and do not touch takes no memory. docs/performance.md has the figures.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    slotwheel::cli::main()
}
