//! The log: reports lines that were dropped because nothing reads it.

use std::time::Duration;

use super::job::Context;
use crate::degradations::Reason;
use crate::logging;
use crate::store::Result;

/// Time after the last dropped line for which the degradation is shown.
const SHOWN_FOR: Duration = Duration::from_secs(60);

pub(super) async fn run(context: &mut Context) -> Result<()> {
    let degradations = context.store.degradations();
    if logging::since_last_drop().is_some_and(|elapsed| elapsed < SHOWN_FOR) {
        let detail = format!(
            "stderr takes no lines, and {} were dropped; make sure that a program reads the log",
            logging::dropped_lines()
        );
        degradations.raise(Reason::LogLinesDropped, "log", detail);
    } else {
        degradations.clear(Reason::LogLinesDropped, "log");
    }
    Ok(())
}
