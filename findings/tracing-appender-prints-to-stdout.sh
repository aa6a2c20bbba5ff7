#!/usr/bin/env bash
# The guard of a non-blocking log writer prints to the program's standard output, if the buffer is full when it is dropped.
#
# Seen with tracing-appender 0.2.5. The guard sends the shutdown signal through the buffer of the lines. If the writer takes
# no line within 100 ms, the guard prints a line with println!, whatever the writer is. A program whose standard output is
# its result has that line in it; one whose standard output is a pipe that nobody reads waits there, at its end. A guess
# would be that a logger which drops lines rather than wait does neither, and writes to its own writer alone.
# Output seen: "stdout: Failed to send shutdown signal to logging worker. Error: Shutdown".
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cargo --version
mkdir src
cat > Cargo.toml << 'END'
[package]
name = "probe"
version = "0.1.0"
edition = "2021"
[dependencies]
tracing-appender = { version = "=0.2.5", default-features = false }
END
cat > src/main.rs << 'END'
use std::io::Write;
use std::sync::mpsc::{channel, Receiver, Sender};

/// A writer that takes a line only after the end of the guard, like a pipe whose reader is slow.
struct Slow(Sender<()>, Receiver<()>);

impl Write for Slow {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(());
        let _ = self.1.recv();
        std::io::stderr().write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn main() {
    let (begins, begun) = channel();
    let (go_on, told) = channel();
    let builder = tracing_appender::non_blocking::NonBlockingBuilder::default().buffered_lines_limit(1);
    let (mut log, guard) = builder.lossy(true).finish(Slow(begins, told));
    log.write_all(b"first\n").unwrap();
    begun.recv().unwrap();
    log.write_all(b"second\n").unwrap();
    drop(guard);
    drop(go_on);
}
END
cargo build --quiet
printed=$(./target/debug/probe 2> log.txt)
echo "stdout: ${printed:-nothing}"
[[ $printed == "Failed to send shutdown signal"* ]] ||
  { echo "tracing-appender behaves differently now" >&2; exit 1; }
