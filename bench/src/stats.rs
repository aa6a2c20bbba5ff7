//! Statistics of alternating pairs. Each pair gives one figure, mostly a ratio. The summary is the median and the
//! interval of the sign test, which depends on the order of the figures alone, not on their distribution.

/// The median of some figures, and an interval that contains the true median with a confidence of at least 95 %, if
/// there are at least six figures.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// Lower and upper bound.
    pub interval: Option<(f64, f64)>,
    /// Number of figures.
    pub of: usize,
}

impl Estimate {
    /// Returns `None` for no figures.
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let of = figures.len();
        let (&lower, &upper) = (figures.get(of.checked_sub(1)? / 2)?, figures.get(of / 2)?);
        let interval = rank(of).map(|rank| (figures[rank - 1], figures[of - rank]));
        Some(Self { median: (lower + upper) / 2.0, interval, of })
    }

    /// Of a single measurement of a size that does not vary.
    pub fn as_it_is(self) -> Self {
        Self { interval: Some((self.median, self.median)), ..self }
    }
}

/// The largest k for which the interval from the k-th to the k-th last of `count` figures contains the median with 95
/// %: the probability that fewer than k figures lie on one side is that of `count` coin tosses.
fn rank(count: usize) -> Option<usize> {
    let (mut tail, mut term, mut rank) = (0.0, 0.5_f64.powi(count as i32), 0);
    loop {
        tail += term;
        if 2.0 * tail > 0.05 {
            return (rank > 0).then_some(rank);
        }
        rank += 1;
        term *= (count + 1 - rank) as f64 / rank as f64;
    }
}

/// A goal for a figure.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Wanted {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

/// The verdict on a goal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The whole interval meets the goal.
    Holds,
    /// No part of the interval meets it.
    DoesNotHold,
    /// The goal's bound lies within the interval, or there are too few figures for one.
    Undecided,
}

impl Wanted {
    /// Compares an estimate with the goal.
    pub fn verdict(self, estimate: &Estimate) -> Verdict {
        let Some((low, high)) = estimate.interval else { return Verdict::Undecided };
        match self {
            Self::AtMost(bound) if high <= bound => Verdict::Holds,
            Self::AtMost(bound) if low > bound => Verdict::DoesNotHold,
            Self::AtLeast(bound) if low >= bound => Verdict::Holds,
            Self::AtLeast(bound) if high < bound => Verdict::DoesNotHold,
            Self::AtMost(_) | Self::AtLeast(_) => Verdict::Undecided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_sign_test_tables() {
        // From the published tables for 95 %.
        let table = [(5, None), (6, Some(1)), (8, Some(1)), (9, Some(2)), (12, Some(3)), (15, Some(4)), (20, Some(6))];
        for (count, wanted) in table {
            assert_eq!(rank(count), wanted, "{count}");
        }
    }

    #[test]
    fn interval_of_twelve_pairs_is_the_third_to_the_tenth() {
        let figures = (1..=12).rev().map(f64::from).collect();
        assert_eq!(Estimate::of(figures), Some(Estimate { median: 6.5, interval: Some((3.0, 10.0)), of: 12 }));
        assert_eq!(Estimate::of(vec![2.0]), Some(Estimate { median: 2.0, interval: None, of: 1 }));
        assert_eq!(Estimate::of(Vec::new()), None);
    }

    #[test]
    fn bound_within_the_interval_decides_nothing() {
        let estimate = Estimate { median: 2.0, interval: Some((1.5, 2.5)), of: 12 };
        for (wanted, verdict) in [
            (Wanted::AtMost(2.5), Verdict::Holds),
            (Wanted::AtMost(2.0), Verdict::Undecided),
            (Wanted::AtMost(1.4), Verdict::DoesNotHold),
            (Wanted::AtLeast(1.5), Verdict::Holds),
            (Wanted::AtLeast(2.0), Verdict::Undecided),
            (Wanted::AtLeast(2.6), Verdict::DoesNotHold),
        ] {
            assert_eq!(wanted.verdict(&estimate), verdict, "{wanted:?}");
        }
        let single = Estimate { median: 1.0, interval: None, of: 1 };
        assert_eq!(Wanted::AtMost(9.0).verdict(&single), Verdict::Undecided);
    }
}
