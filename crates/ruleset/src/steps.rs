//! The way from one list to another.

/// Above this many pairs the part that changed is written anew instead of compared.
const MOST_PAIRS: usize = 1 << 20;

/// A step from one list to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What comes next in both stays.
    Keep,
    /// What comes next in the known one goes.
    Delete,
    /// What comes next in the desired one comes.
    Insert,
}

/// The steps from `known` to `desired`: as few as there can be, but where that is too much to find
/// out.
#[must_use]
pub fn steps<T: PartialEq>(known: &[T], desired: &[T]) -> Vec<Step> {
    let same = |(one, two): &(&T, &T)| one == two;
    let head = known.iter().zip(desired).take_while(same).count();
    let (known, desired) =
        (known.get(head..).unwrap_or_default(), desired.get(head..).unwrap_or_default());
    let tail = known.iter().rev().zip(desired.iter().rev()).take_while(same).count();
    let (known, desired) = (
        known.get(..known.len() - tail).unwrap_or_default(),
        desired.get(..desired.len() - tail).unwrap_or_default(),
    );
    let mut steps = vec![Step::Keep; head];
    if known.len().saturating_mul(desired.len()) > MOST_PAIRS {
        steps.extend(known.iter().map(|_| Step::Delete));
        steps.extend(desired.iter().map(|_| Step::Insert));
    } else {
        steps.extend(shortest(known, desired));
    }
    steps.extend(vec![Step::Keep; tail]);
    steps
}

/// By the longest common subsequence.
fn shortest<T: PartialEq>(known: &[T], desired: &[T]) -> Vec<Step> {
    // common[i][j]: how many rules known[i..] and desired[j..] can keep.
    let width = desired.len() + 1;
    let mut common = vec![0_u32; (known.len() + 1) * width];
    let at = |common: &[u32], i: usize, j: usize| common.get(i * width + j).copied().unwrap_or(0);
    for (i, one) in known.iter().enumerate().rev() {
        for (j, two) in desired.iter().enumerate().rev() {
            let best = if one == two {
                at(&common, i + 1, j + 1) + 1
            } else {
                at(&common, i + 1, j).max(at(&common, i, j + 1))
            };
            if let Some(cell) = common.get_mut(i * width + j) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut steps = Vec::with_capacity(known.len() + desired.len());
    loop {
        steps.push(match (known.get(i), desired.get(j)) {
            (None, None) => return steps,
            (Some(one), Some(two)) if one == two => {
                (i, j) = (i + 1, j + 1);
                Step::Keep
            }
            (Some(_), Some(_)) if at(&common, i, j + 1) > at(&common, i + 1, j) => {
                j += 1;
                Step::Insert
            }
            (Some(_), _) => {
                i += 1;
                Step::Delete
            }
            (None, Some(_)) => {
                j += 1;
                Step::Insert
            }
        });
    }
}
