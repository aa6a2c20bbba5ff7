//! Background tasks of a server: each logs its start under a name.
//!
//! A panic in a background task ends the process: see [`abort_on_panic`](crate::cli::abort_on_panic).

use tokio_util::task::TaskTracker;

/// Spawns a task that runs as long as the server.
pub fn spawn<F>(tasks: &TaskTracker, name: &'static str, task: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    tasks.spawn(run(name, task));
}

/// Logs the start of a task, and runs it.
pub async fn run<F: Future<Output = ()>>(name: &'static str, task: F) {
    tracing::debug!(background_task = name, "started");
    task.await;
}
