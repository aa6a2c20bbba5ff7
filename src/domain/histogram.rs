//! Histogram of waiting times. Its buckets can be summed over time, queues and shards.
//!
//! A bucket holds whole milliseconds. Each value below 16 ms has its own bucket; from there each doubling is divided
//! into 16 buckets. A bucket is therefore at most 6.25 % wide, and 800 buckets reach 2^53 ms. Scripts use the same
//! rule. Bucket numbers are stored, so their meaning never changes.

use std::collections::BTreeMap;

/// Longest wait with its own bucket, ms. Integers in Lua are exact up to this value.
pub const MAX_WAIT_MS: u64 = (1 << 53) - 1;

/// Number of buckets.
pub const BUCKET_COUNT: u16 = 800;

/// A bucket of the histogram, ordered by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bucket(u16);

impl Bucket {
    /// Returns the bucket of a wait: `ms` itself below 16, else `16*(e-3) + floor(ms / 2^(e-4)) - 16` with
    /// `e = floor(log2 ms)`. A wait above [`MAX_WAIT_MS`] belongs to the last bucket.
    pub fn of_ms(ms: u64) -> Self {
        let ms = ms.min(MAX_WAIT_MS);
        if ms < 16 {
            return Bucket(ms as u16);
        }
        let exponent = ms.ilog2();
        Bucket((16 * (exponent - 3) - 16) as u16 + (ms >> (exponent - 4)) as u16)
    }

    /// Returns the bucket with this number; `None` from [`BUCKET_COUNT`] on.
    pub fn new(number: u16) -> Option<Self> {
        (number < BUCKET_COUNT).then_some(Bucket(number))
    }

    /// Returns the lowest wait in the bucket, and the lowest wait above it, ms.
    pub fn bounds(&self) -> (u64, u64) {
        let number = u64::from(self.0);
        if number < 16 {
            return (number, number + 1);
        }
        let doublings = number / 16 - 1;
        let sixteenths = number % 16 + 16;
        (sixteenths << doublings, (sixteenths + 1) << doublings)
    }
}

/// Number of waits per bucket. Empty buckets use no memory.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct WaitHistogram(BTreeMap<Bucket, u64>);

impl WaitHistogram {
    /// Adds `count` waits to `bucket`.
    pub fn add(&mut self, bucket: Bucket, count: u64) {
        if count > 0 {
            let total = self.0.entry(bucket).or_default();
            *total = total.saturating_add(count);
        }
    }

    /// Returns the number of waits.
    pub fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Returns the quantile `q` (0 to 1) of all waits, ms; `None` if there are none.
    ///
    /// Interpolates as if the waits of a bucket were spread evenly over its milliseconds: exact below 32 ms, and with
    /// an error of at most 6.25 % above.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        let rank = ((q * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0_u64;
        for (bucket, in_bucket) in &self.0 {
            if below.saturating_add(*in_bucket) >= rank {
                let (lowest, end) = bucket.bounds();
                let fraction = ((rank - below) as f64 - 0.5) / *in_bucket as f64;
                return Some(lowest as f64 + (end - 1 - lowest) as f64 * fraction);
            }
            below = below.saturating_add(*in_bucket);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_waits_have_their_buckets() {
        for (ms, number) in [(0, 0), (15, 15), (16, 16), (31, 31), (32, 32), (33, 32), (63, 47), (64, 48), (1000, 111)]
        {
            assert_eq!(Bucket::of_ms(ms).0, number, "{ms} ms");
        }
        assert_eq!(Bucket::of_ms(MAX_WAIT_MS).0, BUCKET_COUNT - 1);
        assert_eq!(Bucket::of_ms(u64::MAX).0, BUCKET_COUNT - 1);
        assert_eq!(Bucket::new(BUCKET_COUNT), None);
    }

    #[test]
    fn buckets_are_narrow_and_cover_every_wait() {
        let mut next = 0;
        for number in 0..BUCKET_COUNT {
            let bucket = Bucket::new(number).unwrap();
            let (lowest, end) = bucket.bounds();
            assert_eq!(lowest, next);
            assert!(end > lowest && (end - lowest == 1 || (end - lowest) * 16 <= lowest));
            assert_eq!([lowest, end - 1].map(Bucket::of_ms), [bucket; 2]);
            next = end;
        }
        assert_eq!(next, MAX_WAIT_MS + 1);
    }

    #[test]
    fn empty_histogram_has_no_quantile_and_zero_waits_have_zero() {
        let mut histogram = WaitHistogram::default();
        histogram.add(Bucket::of_ms(7), 0);
        assert_eq!((histogram.count(), histogram.quantile(0.5)), (0, None));
        histogram.add(Bucket::of_ms(0), 3);
        assert_eq!((histogram.count(), histogram.quantile(0.99)), (3, Some(0.0)));
    }

    /// Waits of every magnitude, with equal weight.
    fn waits() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec((0_u32..54, any::<u64>()).prop_map(|(bits, any)| any & ((1 << bits) - 1)), 1..200)
    }

    fn histogram_of(waits: &[u64]) -> WaitHistogram {
        let mut histogram = WaitHistogram::default();
        waits.iter().for_each(|ms| histogram.add(Bucket::of_ms(*ms), 1));
        histogram
    }

    proptest! {
        #[test]
        fn wait_lies_within_the_bounds_of_its_bucket(ms in 0..=MAX_WAIT_MS, bits in 0_u32..53) {
            for ms in [ms, ms >> bits] {
                let (lowest, end) = Bucket::of_ms(ms).bounds();
                prop_assert!((lowest..end).contains(&ms));
            }
        }

        #[test]
        fn bucket_formula_is_that_of_the_scripts(ms in 16..=MAX_WAIT_MS, bits in 0_u32..49) {
            let ms = (ms >> bits).max(16);
            // As in Lua: doubles, with the exponent from `math.frexp`.
            let exponent = ((ms as f64).to_bits() >> 52) as f64 - 1023.0;
            let number = 16.0 * (exponent - 3.0) + (ms as f64 / 2_f64.powf(exponent - 4.0)).floor() - 16.0;
            prop_assert_eq!(f64::from(Bucket::of_ms(ms).0), number);
        }

        #[test]
        fn quantile_lies_in_the_bucket_of_the_exact_one(mut waits in waits(), q in 0.0_f64..=1.0) {
            let estimate = histogram_of(&waits).quantile(q).unwrap();
            waits.sort_unstable();
            let rank = (q * waits.len() as f64).ceil() as usize;
            let exact = waits[rank.saturating_sub(1)];
            let (lowest, end) = Bucket::of_ms(exact).bounds();
            prop_assert!(lowest as f64 <= estimate && estimate < end as f64, "{estimate}, exactly {exact}");
        }

        #[test]
        fn quantile_of_any_counts_is_a_number(
            counts in prop::collection::vec((0..BUCKET_COUNT, any::<u64>()), 0..20),
            q in any::<f64>(),
        ) {
            let mut histogram = WaitHistogram::default();
            counts.iter().for_each(|(number, count)| histogram.add(Bucket::new(*number).unwrap(), *count));
            let quantile = histogram.quantile(q);
            prop_assert_eq!(quantile.is_some(), histogram.count() > 0);
            prop_assert!(quantile.unwrap_or(0.0).is_finite());
        }
    }
}
