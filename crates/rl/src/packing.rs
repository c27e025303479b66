//! Micro-batches by length: which sequences share one forward and backward pass.

/// Puts sequences into as few bins of at most `budget` tokens as first-fit-decreasing finds. A
/// sequence longer than the budget gets a bin of its own. Longest bins first, so that a run that
/// does not fit memory fails at its first micro-batch and not at its last.
///
/// Returns indices into `lengths`; every index occurs exactly once.
#[must_use]
pub fn plan(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(lengths[*i]), *i));
    let mut bins: Vec<(usize, Vec<usize>)> = Vec::new();
    for i in order {
        let length = lengths[i];
        match bins.iter_mut().find(|(used, _)| used + length <= budget) {
            Some((used, bin)) => {
                *used += length;
                bin.push(i);
            }
            None => bins.push((length, vec![i])),
        }
    }
    bins.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
    bins.into_iter().map(|(_, bin)| bin).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::plan;

    #[test]
    fn short_sequences_fill_the_gaps() {
        assert_eq!(plan(&[3, 7, 5, 5, 20], 10), vec![vec![4], vec![1, 0], vec![2, 3]]);
        assert_eq!(plan(&[], 10), Vec::<Vec<usize>>::new());
    }

    proptest! {
        #[test]
        fn every_sequence_is_there_once_and_bins_keep_the_budget(
            lengths in prop::collection::vec(1usize..400, 0..60), budget in 1usize..600) {
            let bins = plan(&lengths, budget);
            let mut seen: Vec<usize> = bins.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for bin in bins {
                let used: usize = bin.iter().map(|i| lengths[*i]).sum();
                prop_assert!(used <= budget || bin.len() == 1);
            }
        }
    }
}
