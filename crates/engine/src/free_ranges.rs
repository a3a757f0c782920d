//! The numbers of a range that nobody has, as the ranges between those that somebody has.

use std::collections::BTreeMap;

/// Gives out the lowest number first. What it costs grows with the logarithm of the gaps, not with the
/// numbers that are taken: the thousandth container asks no more than the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FreeRanges {
    /// First number of each gap → last one; none touch.
    gaps: BTreeMap<u32, u32>,
}

impl FreeRanges {
    /// All numbers from `first` to `last`, both of them too; none where `first` is behind `last`.
    pub(crate) fn new(first: u32, last: u32) -> Self {
        let gaps = if first <= last { BTreeMap::from([(first, last)]) } else { BTreeMap::new() };
        Self { gaps }
    }

    pub(crate) fn take_lowest(&mut self) -> Option<u32> {
        let (first, last) = self.gaps.pop_first()?;
        if first < last {
            self.gaps.insert(first + 1, last);
        }
        Some(first)
    }

    /// Takes this one; one that is taken, or was never there, stays so.
    pub(crate) fn take(&mut self, number: u32) {
        let Some((&first, &last)) = self.gaps.range(..=number).next_back() else { return };
        if number > last {
            return;
        }
        self.gaps.remove(&first);
        if first < number {
            self.gaps.insert(first, number - 1);
        }
        if number < last {
            self.gaps.insert(number + 1, last);
        }
    }

    /// Gives back a number that was taken.
    pub(crate) fn give_back(&mut self, number: u32) {
        let (mut first, mut last) = (number, number);
        if let Some((&before, &end)) = self.gaps.range(..=number).next_back() {
            if number <= end {
                return;
            }
            if end + 1 == number {
                first = before;
            }
        }
        if let Some(next) = number.checked_add(1)
            && let Some(end) = self.gaps.remove(&next)
        {
            last = end;
        }
        self.gaps.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Lowest,
        Take(u32),
        GiveBack(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let number = 95_u32..125;
        prop_oneof![
            3 => Just(Step::Lowest),
            1 => number.clone().prop_map(Step::Take),
            2 => number.prop_map(Step::GiveBack),
        ]
    }

    proptest! {
        /// Against the scan that it replaces.
        #[test]
        fn the_lowest_free_number_is_that_of_a_scan(steps in prop::collection::vec(step(), 0..200)) {
            let (first, last) = (100, 119);
            let mut free = FreeRanges::new(first, last);
            let mut taken = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Lowest => {
                        let scanned = (first..=last).find(|number| !taken.contains(number));
                        prop_assert_eq!(free.take_lowest(), scanned);
                        taken.extend(scanned);
                    }
                    Step::Take(number) => {
                        free.take(number);
                        if (first..=last).contains(&number) {
                            taken.insert(number);
                        }
                    }
                    Step::GiveBack(number) => {
                        if taken.remove(&number) {
                            free.give_back(number);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn gaps_that_touch_are_one() {
        let mut free = FreeRanges::new(0, u32::MAX);
        for number in [5, 6, 7, 0, u32::MAX] {
            free.take(number);
        }
        for number in [6, u32::MAX, 5, 7, 0, 0] {
            free.give_back(number);
        }
        assert_eq!(free, FreeRanges::new(0, u32::MAX));
        assert_eq!(FreeRanges::new(2, 1).take_lowest(), None);
    }
}
