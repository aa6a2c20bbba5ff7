//! Slots and shards: key → slot → shard, by the rule of Redis Cluster.

use crc16::{State, XMODEM};

/// Number of slots.
pub const SLOT_COUNT: u16 = 16384;

/// One of the 16384 slots.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Slot(u16);

impl Slot {
    /// Returns the slot with this number; `None` from 16384 on.
    pub fn new(number: u16) -> Option<Self> {
        (number < SLOT_COUNT).then_some(Slot(number))
    }

    /// Returns the slot in the last 14 bits.
    pub(super) fn from_low_bits(bits: u16) -> Self {
        Slot(bits % SLOT_COUNT)
    }

    /// Returns the slot of a key: CRC16/XMODEM of the key, or of its hash tag, modulo 16384.
    ///
    /// The hash tag is the text between the first `{` and the next `}`, unless empty (Redis Cluster specification,
    /// "Hash tags"). The result equals `CLUSTER KEYSLOT key`.
    pub fn of_key(key: &[u8]) -> Self {
        Slot(State::<XMODEM>::calculate(hash_tag(key).unwrap_or(key)) % SLOT_COUNT)
    }

    /// Returns the number, 0 to 16383.
    pub fn number(&self) -> u16 {
        self.0
    }
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let rest = key.get(open + 1..)?;
    let close = rest.iter().position(|&byte| byte == b'}')?;
    rest.get(..close).filter(|tag| !tag.is_empty())
}

/// The division of the slots into shards: a power of two of equal, contiguous ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shards(u16);

impl Shards {
    /// Maximum number of shards.
    pub const MAX: u16 = 1024;

    /// Returns the division into `count` shards; `None` unless `count` is a power of two from 1 to [`Shards::MAX`].
    pub fn new(count: u16) -> Option<Self> {
        (count.is_power_of_two() && count <= Self::MAX).then_some(Shards(count))
    }

    /// Returns the number of shards.
    pub fn count(&self) -> u16 {
        self.0
    }

    /// Returns the index of the shard that contains `slot`.
    pub fn shard_of(&self, slot: Slot) -> usize {
        usize::from(slot.0 / (SLOT_COUNT / self.0))
    }

    /// Returns the slot of tasks of `queue` without a key: one slot per shard, so that such tasks form one FIFO per
    /// shard. `choice` is any number; it selects the shard.
    pub fn keyless_slot(&self, queue: &str, choice: u16) -> Slot {
        let slots_per_shard = SLOT_COUNT / self.0;
        let first = (choice % self.0).saturating_mul(slots_per_shard);
        Slot::from_low_bits(first + Slot::of_key(queue.as_bytes()).0 % slots_per_shard)
    }

    /// Returns the first and the last slot of shard `index`, both inclusive.
    pub fn slot_range(&self, index: usize) -> (u16, u16) {
        let slots_per_shard = SLOT_COUNT / self.0;
        let first = (index as u16).saturating_mul(slots_per_shard);
        (first, first.saturating_add(slots_per_shard - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_have_their_slots() {
        // "123456789" is the check value of CRC16/XMODEM: 0x31C3.
        assert_eq!(Slot::of_key(b"123456789").number(), 0x31C3);
        assert_eq!(Slot::of_key(b"a{123456789}b"), Slot::of_key(b"123456789"));
        assert_eq!(Slot::of_key(b"").number(), 0);
    }

    #[test]
    fn empty_or_unclosed_tag_is_ignored() {
        for key in [&b"a{}b{123}"[..], b"a{b", b"}a{"] {
            assert_eq!(hash_tag(key), None);
        }
        assert_eq!(hash_tag(b"x{{a}}"), Some(&b"{a"[..]));
    }

    #[test]
    fn keyless_tasks_have_one_slot_in_each_shard() {
        let sixteen = Shards::new(16).unwrap();
        for shard in 0..16 {
            assert_eq!(sixteen.shard_of(sixteen.keyless_slot("q", shard)), usize::from(shard));
        }
        assert_eq!(Shards::new(1).unwrap().keyless_slot("q", 7), Slot::of_key(b"q"));
    }

    #[test]
    fn shards_cover_each_slot_once() {
        for count in [1, 2, 16, 1024] {
            let shards = Shards::new(count).unwrap();
            for number in 0..SLOT_COUNT {
                let (first, last) = shards.slot_range(shards.shard_of(Slot(number)));
                assert!((first..=last).contains(&number));
            }
        }
        assert!(Shards::new(3).is_none() && Shards::new(0).is_none() && Shards::new(2048).is_none());
    }
}
