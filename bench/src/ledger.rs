//! The ledger of a system's tasks: submitted and finished. Every task has its number in its payload, so lost or
//! duplicate work is detected, whatever the ids of the system are.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;

use anyhow::{Result, bail};
use memchr::memmem;

/// For each submitted task whether it is finished; and the number of finished ones.
#[derive(Default)]
pub struct Ledger {
    finished: RefCell<Vec<bool>>,
    count: Cell<u64>,
}

impl Ledger {
    /// Numbers the next task, before it is sent.
    pub fn number(&self) -> u64 {
        let mut finished = self.finished.borrow_mut();
        finished.push(false);
        finished.len() as u64 - 1
    }

    /// Records a finished task; an error if it was never submitted, or was finished before.
    pub fn finish(&self, number: u64) -> Result<()> {
        match self.finished.borrow_mut().get_mut(number as usize) {
            None => bail!("task {number} was delivered but never submitted"),
            Some(true) => bail!("task {number} was finished twice"),
            Some(finished) => *finished = true,
        }
        self.count.set(self.count.get() + 1);
        Ok(())
    }

    /// The number of unfinished tasks.
    pub fn unfinished(&self) -> u64 {
        self.finished.borrow().len() as u64 - self.count.get()
    }
}

/// Returns a payload of exactly `size` bytes of JSON text (at least 32) that contains the number.
pub fn payload(number: u64, size: usize) -> String {
    let mut text = String::with_capacity(size);
    let _ = write!(text, "{{\"n\":{number},\"text\":\"");
    while text.len() + 2 < size {
        text.push('x');
    }
    text.push_str("\"}");
    text
}

/// Finds the number of a payload anywhere in `text`; returns it and the text behind it.
pub fn number_in(text: &[u8]) -> Option<(u64, &[u8])> {
    let rest = &text[memmem::find(text, b"\"n\":")? + 4..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = rest[..digits].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    (digits > 0).then_some((number, &rest[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_has_its_size_and_returns_its_number() {
        for (number, size) in [(0, 100), (1_234_567, 100), (u64::MAX, 1024)] {
            let payload = payload(number, size);
            assert_eq!(payload.len(), size);
            assert_eq!(number_in(format!("before {payload}").as_bytes()).unwrap().0, number);
            assert!(serde_json::from_str::<serde_json::Value>(&payload).is_ok());
        }
        assert_eq!(number_in(b"{}"), None);
    }

    #[test]
    fn ledger_detects_lost_duplicate_and_invented_tasks() {
        let ledger = Ledger::default();
        let (first, _lost) = (ledger.number(), ledger.number());
        ledger.finish(first).unwrap();
        assert!(ledger.finish(first).unwrap_err().to_string().contains("twice"));
        assert!(ledger.finish(2).unwrap_err().to_string().contains("never submitted"));
        assert_eq!(ledger.unfinished(), 1);
    }
}
