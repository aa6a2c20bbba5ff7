//! A set of shards, one bit for each: a server may keep one for each of thousands of queues and waiters.

/// Bits in a word.
const WORD: usize = u64::BITS as usize;

/// A set of shards.
#[derive(Clone, Default, Debug)]
pub(super) struct ShardSet(Vec<u64>);

impl ShardSet {
    pub(super) const EMPTY: ShardSet = ShardSet(Vec::new());

    /// Returns the set of the first `count` shards.
    pub(super) fn first(count: usize) -> Self {
        let mut words = vec![u64::MAX; count.div_ceil(WORD)];
        let unused_bits = words.len() * WORD - count;
        words.last_mut().into_iter().for_each(|last| *last >>= unused_bits);
        ShardSet(words)
    }

    pub(super) fn contains(&self, shard: usize) -> bool {
        self.0.get(shard / WORD).is_some_and(|word| word >> (shard % WORD) & 1 == 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn insert(&mut self, shard: usize) {
        let index = shard / WORD;
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        self.0.get_mut(index).into_iter().for_each(|word| *word |= 1 << (shard % WORD));
    }

    pub(super) fn remove(&mut self, shard: usize) {
        self.0.get_mut(shard / WORD).into_iter().for_each(|word| *word &= !(1 << (shard % WORD)));
    }

    /// Removes the shards of `other`.
    pub(super) fn remove_all(&mut self, other: &ShardSet) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
    }

    /// Removes all shards but those of `other`.
    pub(super) fn keep_all(&mut self, other: &ShardSet) {
        self.0.truncate(other.0.len());
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
    }

    /// Removes the shards that `keeps` rejects.
    pub(super) fn retain(&mut self, keeps: impl Fn(usize) -> bool) {
        for (index, word) in self.0.iter_mut().enumerate() {
            shards_of(index, *word).filter(|shard| !keeps(*shard)).for_each(|shard| *word &= !(1 << (shard % WORD)));
        }
    }

    /// Returns the shards in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(index, word)| shards_of(index, *word))
    }

    /// Returns the first shard from `start` on; behind the last shard follows the first.
    pub(super) fn next_from(&self, start: usize) -> Option<usize> {
        let masked = self.0.get(start / WORD).map_or(0, |word| word & (u64::MAX << (start % WORD)));
        let first = |index: usize, word: u64| (word != 0).then(|| index * WORD + word.trailing_zeros() as usize);
        let behind = self.0.iter().enumerate().skip(start / WORD + 1).find_map(|(index, word)| first(index, *word));
        first(start / WORD, masked).or(behind).or_else(|| self.iter().next())
    }
}

/// Returns the shards of a word in order.
fn shards_of(index: usize, mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let shard = (word != 0).then(|| index * WORD + word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(shard)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn shard_set_has_what_was_inserted() {
        let mut set = ShardSet::default();
        [0, 63, 64, 1023].into_iter().for_each(|shard| set.insert(shard));
        set.remove(63);
        set.remove(5000);
        assert!((0..2000).filter(|shard| set.contains(*shard)).eq([0, 64, 1023]));
    }

    #[test]
    fn shard_set_equals_a_set_of_numbers() {
        for count in [0, 1, 63, 64, 65, 200] {
            let numbers = |step: usize| (0..count).filter(move |shard| shard % step != 1);
            let of = |shards: &mut dyn Iterator<Item = usize>| {
                let mut set = ShardSet::default();
                shards.for_each(|shard| set.insert(shard));
                set
            };
            let (threes, fives) = (of(&mut numbers(3)), of(&mut numbers(5)));
            assert!(ShardSet::first(count).iter().eq(0..count), "{count}");
            assert!(threes.iter().eq(numbers(3)) && threes.len() == numbers(3).count(), "{count}");
            assert_eq!(threes.is_empty(), count == 0);

            let (mut removed, mut kept, mut retained) = (threes.clone(), threes.clone(), threes.clone());
            removed.remove_all(&fives);
            assert!(removed.iter().eq(numbers(3).filter(|shard| !fives.contains(*shard))), "{count}");
            kept.keep_all(&fives);
            assert!(kept.iter().eq(numbers(3).filter(|shard| fives.contains(*shard))), "{count}");
            retained.retain(|shard| fives.contains(shard));
            assert!(retained.iter().eq(kept.iter()), "{count}");

            let ordered: BTreeSet<usize> = numbers(3).collect();
            for start in 0..count + 70 {
                let expected = ordered.range(start..).next().or(ordered.first()).copied();
                assert_eq!(threes.next_from(start), expected, "{count}, from {start}");
            }
        }
    }

    #[test]
    fn longer_and_shorter_sets_intersect() {
        let (mut long, mut short) = (ShardSet::first(200), ShardSet::first(10));
        short.keep_all(&long);
        long.keep_all(&short);
        assert!(short.iter().eq(0..10) && long.iter().eq(0..10));
        short.remove_all(&ShardSet::first(500));
        assert!(short.is_empty() && short.next_from(3).is_none());
    }
}
