//! The writer of the log: a bounded buffer, and a thread that writes it to stderr.
//!
//! Guarantee: no other thread waits for stderr. While nothing reads it, lines fill the buffer; further lines are dropped and
//! counted. The log belongs to the process, and so do its buffer and its count: servers in one process share them.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Maximum of lines in the buffer.
const MAX_LINES: usize = 4096;
/// Maximum of their bytes.
const MAX_BYTES: usize = 4 << 20;
/// Pause between two checks of a flush.
const FLUSH_POLL_INTERVAL: Duration = Duration::from_millis(1);

static BUFFER: OnceLock<LogBuffer> = OnceLock::new();

/// Lines on their way to a writer.
#[derive(Debug)]
pub struct LogBuffer {
    lines: SyncSender<Vec<u8>>,
    started_at: Instant,
    buffered_bytes: AtomicUsize,
    dropped: AtomicU64,
    /// Time of the last drop, in ms since `started_at`, plus 1. 0: none.
    last_drop_ms: AtomicU64,
}

impl LogBuffer {
    fn new() -> (Self, Receiver<Vec<u8>>) {
        let (sender, receiver) = sync_channel(MAX_LINES);
        let buffer = LogBuffer {
            lines: sender,
            started_at: Instant::now(),
            buffered_bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            last_drop_ms: AtomicU64::new(0),
        };
        (buffer, receiver)
    }

    fn push(&self, line: &[u8]) {
        let has_room = self.buffered_bytes.fetch_add(line.len(), Ordering::AcqRel) + line.len() <= MAX_BYTES;
        if !(has_room && self.lines.try_send(line.to_vec()).is_ok()) {
            self.buffered_bytes.fetch_sub(line.len(), Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            let elapsed_ms = u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
            self.last_drop_ms.store(elapsed_ms + 1, Ordering::Relaxed);
        }
    }

    /// Writes all lines, as they come. An error of the writer loses a line and nothing else.
    fn write_to(&self, mut writer: impl Write, lines: &Receiver<Vec<u8>>) {
        for line in lines {
            let _ = writer.write_all(&line);
            self.buffered_bytes.fetch_sub(line.len(), Ordering::AcqRel);
        }
    }

    /// Waits until all lines are written, for at most `timeout`.
    fn flush_within(&self, timeout: Duration) {
        let started_at = Instant::now();
        while self.buffered_bytes.load(Ordering::Acquire) > 0 && started_at.elapsed() < timeout {
            std::thread::sleep(FLUSH_POLL_INTERVAL);
        }
    }

    fn since_last_drop(&self) -> Option<Duration> {
        let last_drop_ms = self.last_drop_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.started_at.elapsed().saturating_sub(Duration::from_millis(last_drop_ms)))
    }
}

impl Write for &LogBuffer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the buffer of the process. The first call starts the thread that writes to stderr.
///
/// # Errors
/// If no thread can be started.
pub fn stderr_buffer() -> io::Result<&'static LogBuffer> {
    if let Some(buffer) = BUFFER.get() {
        return Ok(buffer);
    }
    let (buffer, lines) = LogBuffer::new();
    let is_first = BUFFER.set(buffer).is_ok();
    let buffer = BUFFER.get().ok_or_else(|| io::Error::other("the log has no buffer"))?;
    if is_first {
        let write = move || buffer.write_to(io::stderr(), &lines);
        std::thread::Builder::new().name("log".to_owned()).spawn(write)?;
    }
    Ok(buffer)
}

/// Whether this process writes its log through the buffer.
pub fn is_buffered() -> bool {
    BUFFER.get().is_some()
}

/// Waits until the log is written, for at most `timeout`: before the process ends.
pub fn flush(timeout: Duration) {
    if let Some(buffer) = BUFFER.get() {
        buffer.flush_within(timeout);
    }
}

/// Returns the number of lines dropped so far.
pub fn dropped_lines() -> u64 {
    BUFFER.get().map_or(0, |buffer| buffer.dropped.load(Ordering::Relaxed))
}

/// Returns the time since the last line was dropped. `None`: none was.
pub fn since_last_drop() -> Option<Duration> {
    BUFFER.get()?.since_last_drop()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A writer that blocks while its lock is held.
    struct Pipe(Arc<Mutex<Vec<u8>>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_beyond_the_buffer_are_dropped_while_the_writer_blocks() {
        let (buffer, lines) = LogBuffer::new();
        let buffer: &LogBuffer = Box::leak(Box::new(buffer));
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let blocked = written.lock().unwrap();
        let pipe = Pipe(written.clone());
        std::thread::spawn(move || buffer.write_to(pipe, &lines));

        for _ in 0..MAX_LINES + 100 {
            buffer.push(b"line\n");
        }
        let dropped = buffer.dropped.load(Ordering::Relaxed);
        // One line may be with the writer.
        assert!((99..=100).contains(&dropped), "{dropped}");
        assert!(buffer.since_last_drop().is_some());
        drop(blocked);
        buffer.flush_within(Duration::from_secs(10));

        let lines = written.lock().unwrap().len() / 5;
        assert_eq!(lines as u64 + dropped, MAX_LINES as u64 + 100);
    }

    #[test]
    fn large_lines_are_dropped_beyond_the_limit_of_bytes() {
        let (buffer, _lines) = LogBuffer::new();
        for _ in 0..5 {
            buffer.push(&vec![b'x'; MAX_BYTES / 4]);
        }
        assert_eq!(buffer.dropped.load(Ordering::Relaxed), 1);
    }
}
