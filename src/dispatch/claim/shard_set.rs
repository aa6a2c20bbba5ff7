//! A set of shards, one bit for each: a server may keep one for each of thousands of queues.

/// A set of shards.
#[derive(Default)]
pub(super) struct ShardSet(Vec<u64>);

impl ShardSet {
    pub(super) fn contains(&self, shard: usize) -> bool {
        self.0.get(shard / 64).is_some_and(|word| word >> (shard % 64) & 1 == 1)
    }

    pub(super) fn insert(&mut self, shard: usize) {
        let index = shard / 64;
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        self.0.get_mut(index).into_iter().for_each(|word| *word |= 1 << (shard % 64));
    }

    pub(super) fn remove(&mut self, shard: usize) {
        self.0.get_mut(shard / 64).into_iter().for_each(|word| *word &= !(1 << (shard % 64)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_set_has_what_was_inserted() {
        let mut set = ShardSet::default();
        [0, 63, 64, 1023].into_iter().for_each(|shard| set.insert(shard));
        set.remove(63);
        set.remove(5000);
        assert!((0..2000).filter(|shard| set.contains(*shard)).eq([0, 64, 1023]));
    }
}
