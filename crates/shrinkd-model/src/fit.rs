//! One fit of one population: a model of correlation, a method, the posterior, and the nodes over which effects are averaged.

use super::icc::IccLikelihood;
use super::likelihood::{Likelihood, SketchLikelihood};
use super::normal::{self, Part, Z_75, Z_975};
use super::population::Sketches;
use super::posterior::{
    Heterogeneity, IccPosterior, NEGLIGIBLE, Node, PointEstimate, Posterior, PosteriorError, Summary, TauDistribution,
    condense, dl, known_icc, laplace, ml, pm, quadrature, quadrature_with_icc, reml, variational,
};
use super::prior::Priors;

/// The model of the correlation between the effects of one experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Correlation {
    /// The block as it is: the error of the shared control is modelled, and how alike true effects are, as the prior of the
    /// intraclass correlation says.
    Modelled,
    /// The error of the shared control is modelled, and true effects are independent.
    ControlOnly,
    /// Off-diagonals dropped: the naive model.
    Ignored,
    /// One variant of each experiment, chosen by a stable hash; the others have no estimate.
    OnePerExperiment,
}

/// How mu and tau are estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    Quadrature,
    Laplace,
    Variational,
    Reml,
    Ml,
    /// DerSimonian and Laird.
    Dl,
    /// Paule and Mandel.
    Pm,
}

/// A population's posterior by one method.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    pub posterior: Posterior,
    /// The nodes to average effects over: the posterior's own, condensed to as few as the effects need.
    pub nodes: Vec<Node>,
    /// The predictive distribution of a new true effect.
    pub predictive: Summary,
    /// What is reported with a point estimate; `None` for a posterior, and below two effects.
    pub heterogeneity: Option<Heterogeneity>,
}

impl Correlation {
    /// How many models there are.
    pub const COUNT: usize = 4;

    pub const ALL: [Correlation; Correlation::COUNT] =
        [Correlation::Modelled, Correlation::ControlOnly, Correlation::Ignored, Correlation::OnePerExperiment];

    /// The name in tables, metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Correlation::Modelled => "modelled",
            Correlation::ControlOnly => "control_only",
            Correlation::Ignored => "ignored",
            Correlation::OnePerExperiment => "one_per_experiment",
        }
    }
}

impl Method {
    /// The method's name in tables, metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Quadrature => "quadrature",
            Method::Laplace => "laplace",
            Method::Variational => "variational",
            Method::Reml => "reml",
            Method::Ml => "ml",
            Method::Dl => "dl",
            Method::Pm => "pm",
        }
    }

    /// Whether the method gives a point estimate instead of a posterior, and takes no priors.
    pub fn is_point(self) -> bool {
        matches!(self, Method::Reml | Method::Ml | Method::Dl | Method::Pm)
    }
}

impl Fit {
    /// Fits a population by `method`. Point methods take no priors. Under them tau is taken as known and mu as normal with its
    /// sampling variance `1 / A`, so that effects get the standard errors of best linear unbiased predictions.
    ///
    /// # Errors
    /// [`PosteriorError`] where there is no posterior or no estimate. A fit has nodes, and finite figures only: otherwise it is
    /// [`PosteriorError::NotFinite`].
    pub fn new(likelihood: &impl Likelihood, priors: &Priors, method: Method) -> Result<Fit, PosteriorError> {
        let posterior = match method {
            Method::Quadrature => quadrature(likelihood, priors)?,
            Method::Laplace => laplace(likelihood, priors)?,
            Method::Variational => variational(likelihood, priors)?,
            Method::Reml => return Fit::point(likelihood, reml(likelihood)),
            Method::Ml => return Fit::point(likelihood, ml(likelihood)),
            Method::Dl => return Fit::point(likelihood, dl(likelihood)),
            Method::Pm => return Fit::point(likelihood, pm(likelihood)),
        };
        let nodes = match method {
            Method::Quadrature => condense(likelihood, priors, &posterior.nodes),
            _ => posterior.nodes.clone(),
        };
        Fit::integrated(posterior, nodes)
    }

    /// Fits a population under a model of correlation, of whose sketch this is the likelihood. That with the correlation modelled takes
    /// the prior of the intraclass correlation, but by point methods.
    ///
    /// # Errors
    /// As [`Fit::new`], and [`PosteriorError::UnknownIcc`] where `method` needs an intraclass correlation that is known.
    pub fn of(
        sketches: &Sketches,
        correlation: Correlation,
        likelihood: &SketchLikelihood,
        priors: &Priors,
        method: Method,
    ) -> Result<Fit, PosteriorError> {
        let is_modelled = correlation == Correlation::Modelled && !priors.icc.is_zero() && !method.is_point();
        let Some(all) = is_modelled.then(|| IccLikelihood::new(sketches)).flatten() else {
            return Fit::new(likelihood, priors, method);
        };
        if let Some(icc) = priors.icc.known() {
            let mut fit = Fit::new(&all.at(icc), priors, method)?;
            fit.posterior.nodes.iter_mut().chain(&mut fit.nodes).for_each(|node| node.icc = icc);
            if method == Method::Quadrature {
                fit.posterior.icc = Some(known_icc(&all, priors, icc, &fit.posterior.tau)?);
            }
            return fit.checked();
        }
        if method != Method::Quadrature {
            return Err(PosteriorError::UnknownIcc);
        }
        let (posterior, nodes) = quadrature_with_icc(&all, priors)?;
        Fit::integrated(posterior, nodes)
    }

    fn integrated(posterior: Posterior, nodes: Vec<Node>) -> Result<Fit, PosteriorError> {
        let moments = (posterior.mu.mean.is_some(), posterior.mu.sd.is_some() && posterior.tau.sd.is_some());
        let predictive = predictive(&posterior.nodes, moments);
        Fit { posterior, nodes, predictive, heterogeneity: None }.checked()
    }

    fn point(likelihood: &impl Likelihood, estimate: Option<PointEstimate>) -> Result<Fit, PosteriorError> {
        let Some(estimate) = estimate else {
            return Err(if likelihood.effects() == 0 { PosteriorError::Empty } else { PosteriorError::OneEffect });
        };
        let PointEstimate { mu, tau, mu_variance } = estimate;
        let nodes = vec![Node { weight: 1.0, tau, icc: 0.0, mu_mean: mu, mu_variance }];
        let posterior = Posterior {
            mu: Summary::of_normal(mu, mu_variance.sqrt()),
            tau: Summary { mean: Some(tau), ..Summary::default() },
            icc: None,
            correlation: None,
            log_evidence: None,
            tau_distribution: TauDistribution::known(tau),
            modes: Vec::new(),
            nodes: nodes.clone(),
        };
        let predictive = Summary::of_normal(mu, (mu_variance + tau * tau).sqrt());
        let heterogeneity = Heterogeneity::new(likelihood, &estimate);
        Fit { posterior, nodes, predictive, heterogeneity }.checked()
    }

    /// Whether the true effects of one experiment are independent at every node.
    pub fn has_independent_effects(&self) -> bool {
        self.nodes.iter().all(|node| node.icc == 0.0)
    }

    /// The posterior median of icc; where that is known, the value.
    pub fn icc_median(&self) -> f64 {
        let of_nodes = self.nodes.first().map_or(0.0, |node| node.icc);
        self.posterior.icc.and_then(|icc| icc.icc.median).unwrap_or(of_nodes)
    }

    fn checked(self) -> Result<Fit, PosteriorError> {
        let Fit { posterior, nodes, predictive, heterogeneity } = &self;
        let scalars = [posterior.correlation, posterior.log_evidence];
        let are_finite = |nodes: &[Node]| !nodes.is_empty() && nodes.iter().all(Node::is_finite);
        let figures = [
            ("a figure of mu", posterior.mu.is_finite()),
            ("a figure of tau", posterior.tau.is_finite()),
            ("a figure of the intraclass correlation", posterior.icc.as_ref().is_none_or(IccPosterior::is_finite)),
            ("the evidence or the correlation of mu and tau", scalars.into_iter().flatten().all(f64::is_finite)),
            ("the posterior's mixture over tau", are_finite(&posterior.nodes) && are_finite(nodes)),
            ("a figure of the predictive distribution", predictive.is_finite()),
            ("a figure of the heterogeneity", heterogeneity.as_ref().is_none_or(Heterogeneity::is_finite)),
        ];
        match figures.into_iter().find(|(_, is_finite)| !is_finite) {
            Some((figure, _)) => Err(PosteriorError::NotFinite { figure }),
            None => Ok(self),
        }
    }
}

/// The distribution of a new effect, `N(mu, tau^2)` averaged over the posterior, with the moments that exist (mean, sd).
fn predictive(nodes: &[Node], (has_mean, has_sd): (bool, bool)) -> Summary {
    let part = |node: &Node| Part {
        weight: node.weight,
        mean: node.mu_mean,
        sd: (node.mu_variance + node.tau * node.tau).sqrt(),
    };
    let mut parts: Vec<Part> = nodes.iter().map(part).collect();
    let Some(&middle) = normal::middle(&parts) else { return Summary::default() };
    let mean: f64 = parts.iter().map(|p| p.weight * p.mean).sum();
    let sd = parts.iter().map(|p| p.weight * (p.sd * p.sd + (p.mean - mean).powi(2))).sum::<f64>().sqrt();
    parts.retain(|part| part.weight > NEGLIGIBLE);
    let at = |z: f64| Some(normal::mixture_quantile(&parts, z, middle.mean + z * middle.sd));
    Summary {
        mean: has_mean.then_some(mean),
        sd: has_sd.then_some(sd),
        median: at(0.0),
        q025: at(-Z_975),
        q25: at(-Z_75),
        q75: at(Z_75),
        q975: at(Z_975),
    }
}

/// How far an approximation is from the exact posterior, in the exact one's posterior sds; `None` where that has none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distance {
    /// (mean of mu - exact) / sd of mu.
    pub mu_mean: Option<f64>,
    /// sd of mu / exact - 1.
    pub mu_sd: Option<f64>,
    /// (median of tau - exact) / sd of tau.
    pub tau_median: Option<f64>,
    /// sd of tau / exact - 1.
    pub tau_sd: Option<f64>,
    /// Log evidence (or its lower bound) - exact; for `variational` minus this is its Kullback-Leibler divergence.
    pub log_evidence: Option<f64>,
}

impl Distance {
    /// From an approximate to the exact posterior.
    pub fn new(approximate: &Posterior, exact: &Posterior) -> Distance {
        let finite = |distance: f64| Some(distance).filter(|distance| distance.is_finite());
        let shift = |x: Option<f64>, y: Option<f64>, unit: Option<f64>| finite((x? - y?) / unit?);
        let ratio = |x: Option<f64>, y: Option<f64>| finite(x? / y? - 1.0);
        Distance {
            mu_mean: shift(approximate.mu.mean, exact.mu.mean, exact.mu.sd),
            mu_sd: ratio(approximate.mu.sd, exact.mu.sd),
            tau_median: shift(approximate.tau.median, exact.tau.median, exact.tau.sd),
            tau_sd: ratio(approximate.tau.sd, exact.tau.sd),
            log_evidence: shift(approximate.log_evidence, exact.log_evidence, Some(1.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fit whose figures are all 1.
    fn finite() -> Fit {
        let one = Some(1.0);
        let summary = Summary { mean: one, median: one, sd: one, q025: one, q25: one, q75: one, q975: one };
        let nodes = vec![Node { weight: 1.0, tau: 1.0, icc: 0.0, mu_mean: 1.0, mu_variance: 1.0 }];
        let (mu, tau, correlation, log_evidence) = (summary, summary, one, one);
        let tau_distribution = TauDistribution::known(1.0);
        let modes = Vec::new();
        let posterior =
            Posterior { mu, tau, icc: None, correlation, log_evidence, tau_distribution, modes, nodes: nodes.clone() };
        Fit { posterior, nodes, predictive: summary, heterogeneity: None }
    }

    #[test]
    fn a_fit_has_finite_figures_and_a_posterior_nodes_or_it_is_an_error() {
        assert_eq!(finite().checked(), Ok(finite()));
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let damages: [fn(&mut Fit, f64); 7] = [
                |fit, bad| fit.posterior.mu.q975 = Some(bad),
                |fit, bad| fit.posterior.tau.sd = Some(bad),
                |fit, bad| fit.posterior.log_evidence = Some(bad),
                |fit, bad| fit.posterior.correlation = Some(bad),
                |fit, bad| fit.posterior.nodes[0].weight = bad,
                |fit, bad| fit.nodes[0].mu_variance = bad,
                |fit, bad| fit.predictive.q25 = Some(bad),
            ];
            for damage in damages {
                let mut fit = finite();
                damage(&mut fit, bad);
                assert!(matches!(fit.checked(), Err(PosteriorError::NotFinite { .. })));
            }
        }
        assert!(Fit { nodes: Vec::new(), ..finite() }.checked().is_err());
    }
}
