//! How far the next round goes (docs/method.md, section 5).

/// How much one round removes: a share of what is left. It grows until a cut fails, then the limit
/// is closed in on, each round halving the way to the size that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub step: f64,
    least: f64,
    /// The share of what is left whose removal has failed.
    failed: Option<f64>,
}

impl Pace {
    pub fn new(step: f64, halvings: usize) -> Self {
        let halvings = i32::try_from(halvings).unwrap_or(i32::MAX);
        Self {
            step,
            least: step * 0.5_f64.powi(halvings),
            failed: None,
        }
    }

    /// After a cut that was kept; `spent` is the share of the accuracy budget that is used up.
    /// `false` where the next step would be less than is worth a try.
    pub fn succeeded(&mut self, spent: Option<f64>) -> bool {
        match self.failed {
            Some(failed) => self.close_in(1.0 - (1.0 - failed) / (1.0 - self.step)),
            None => {
                if spent.is_some_and(|spent| spent < 0.5) {
                    self.step = (1.5 * self.step).min(0.5);
                }
                true
            }
        }
    }

    /// After a cut that was taken back.
    pub fn failed(&mut self) -> bool {
        self.close_in(self.step)
    }

    fn close_in(&mut self, failed: f64) -> bool {
        self.failed = Some(failed);
        self.step = failed / 2.0;
        self.step >= self.least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_grows_while_the_budget_lasts() {
        let mut pace = Pace::new(0.2, 2);
        assert!(pace.succeeded(Some(0.4)));
        assert!((pace.step - 0.3).abs() < 1e-12);
        // Half of the budget spent, or no budget: no growth.
        assert!(pace.succeeded(Some(0.5)) && pace.succeeded(None));
        assert!((pace.step - 0.3).abs() < 1e-12);
        let mut far = Pace::new(0.4, 0);
        assert!(far.succeeded(Some(0.0)));
        assert!((far.step - 0.5).abs() < 1e-12, "no more than half at once");
    }

    #[test]
    fn after_a_failure_each_round_halves_the_way_to_it() {
        let mut pace = Pace::new(0.4, 3);
        // 0.6 of the size is too little, 0.8 is kept: 0.2 / 0.8 of it is left to look at.
        assert!(pace.failed());
        assert!((pace.step - 0.2).abs() < 1e-12);
        assert!(pace.succeeded(Some(0.0)));
        assert!((pace.step - 0.125).abs() < 1e-12);
        // 0.7 is too little as well.
        assert!(pace.failed());
        assert!((pace.step - 0.0625).abs() < 1e-12);
        // 0.75 is kept: a step below an eighth of the first is not worth a try.
        assert!(!pace.succeeded(Some(0.0)));
    }
}
