//! Arms that were sent as successes: variances that do not follow the arms' own noise.
//!
//! An arm that happens to have few successes would also have a small variance, so that it would count for more than one that
//! happens to have many: the mean of all effects would be biased. The variances of one experiment are therefore those of arms
//! shrunk to their pool, `p_i* = p + B (p_i - p)` with p the pooled rate and `B = max(0, 1 - n / X^2)`, where `X^2` is
//! Pearson's homogeneity statistic on n degrees of freedom (n treatments and a control). Where the arms differ by no more
//! than chance they all get the pooled variance; where they really differ, each its own. B is the positive-part
//! estimator of Efron & Morris ("Stein's estimation rule and its competitors", JASA 68, 1973) with n in place of n - 2, by
//! which homogeneous arms are pooled wholly in about half of all experiments.

/// Units and successes of one arm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    pub n: u64,
    pub successes: u64,
}

/// The arms of one experiment together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pool {
    arms: usize,
    units: f64,
    successes: f64,
    /// Strictly between 0 and 1: half an event is added where no unit, or every one, succeeded.
    rate: f64,
    /// B: 0 where the arms differ by no more than chance.
    spread: f64,
}

impl Count {
    pub fn rate(self) -> f64 {
        self.successes as f64 / self.n as f64
    }

    /// `(s + 1/2) / (n + 1)`: never 0 or 1.
    pub fn smoothed_rate(self) -> f64 {
        (self.successes as f64 + 0.5) / (self.n as f64 + 1.0)
    }
}

impl Pool {
    /// The pool of a control and at least one treatment.
    pub fn of(arms: impl Iterator<Item = Count> + Clone) -> Pool {
        let units: f64 = arms.clone().map(|arm| arm.n as f64).sum();
        let successes: f64 = arms.clone().map(|arm| arm.successes as f64).sum();
        let is_constant = successes == 0.0 || successes == units;
        let rate = if is_constant { (successes + 0.5) / (units + 1.0) } else { successes / units };
        let homogeneity: f64 = arms
            .clone()
            .map(|arm| {
                let difference = arm.rate() - rate;
                arm.n as f64 * difference * difference / (rate * (1.0 - rate))
            })
            .sum();
        let arms = arms.count();
        let spread = if is_constant { 0.0 } else { spread(homogeneity, arms) };
        Pool { arms, units, successes, rate, spread }
    }

    pub fn has_events(&self) -> bool {
        self.successes > 0.0
    }

    /// Events per arm.
    pub fn events_per_arm(&self) -> f64 {
        self.successes / self.arms as f64
    }

    /// Events per arm, or units without one, of which there are fewer.
    pub fn rarer_per_arm(&self) -> f64 {
        self.successes.min(self.units - self.successes) / self.arms as f64
    }

    /// The pooled rate.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The events that an arm of n units is expected to have.
    pub fn expected_events(&self, n: u64) -> f64 {
        n as f64 * self.successes.min(1.0) * self.rate
    }

    /// The rate of an arm, shrunk to the pool.
    pub fn shrunk(&self, arm: Count) -> f64 {
        self.rate + self.spread * (arm.rate() - self.rate)
    }

    /// The coefficient of variation that the mean of n units of the pool has.
    pub fn variation(&self, n: u64) -> f64 {
        variation(self.rate, n)
    }
}

/// The coefficient of variation of the mean of n units that succeed at this rate: `sqrt((1 - p) / (n p))`.
pub(super) fn variation(rate: f64, n: u64) -> f64 {
    ((1.0 - rate) / (n as f64 * rate)).sqrt()
}

/// `B = max(0, 1 - n / X^2)` of a control and n treatments with this homogeneity statistic.
pub(super) fn spread(homogeneity: f64, arms: usize) -> f64 {
    let degrees = (arms - 1) as f64;
    if homogeneity <= degrees { 0.0 } else { 1.0 - degrees / homogeneity }
}
