//! Coverage of theta against the true icc as a picture: a panel for each tau, a line for each model.
//!
//! All coordinates are whole numbers, as those of `docs/when.svg`.

use svg::Document;
use svg::node::element::{Description, Group, Line, Polyline, Rectangle, Text, Title};

use super::tables::COVERAGE_OF_THETA;
use super::{Model, Row, Score, TAUS};

/// The size of a panel.
const PANEL: (i32, i32) = (378, 320);
/// The upper left corner of the first panel, and how far right the next one is.
const ORIGIN: (i32, i32) = (84, 124);
const PITCH: i32 = 460;
/// The whole picture.
const SIZE: (i32, i32) = (960, 560);
/// The least coverage that is drawn; the largest is 1.
const LEAST: f64 = 0.6;

const INK: &str = "#222222";
const FAINT: &str = "#555555";

const TITLE: &str = "What the 95% intervals of true effects cover";
const SUBTITLE: &str = "Percent, by how alike the variants of one experiment are. 80 experiments of three variants that share a \
                        control.";
const DESCRIPTION: &str = "Two panels, for a tau of a half and of one standard error of a raw effect. Across: the true intraclass \
                           correlation, icc, from 0 to 0.9. Up: the coverage of the 95% intervals of true effects, a line for \
                           each model. That of a uniform prior of icc stays above 90%, that of the model which takes icc as 0 falls \
                           as icc rises.";

/// Draws the figure as an SVG document.
pub(super) fn draw(rows: &[Row]) -> String {
    let mut document = Document::new()
        .set("viewBox", (0, 0, SIZE.0, SIZE.1))
        .set("width", SIZE.0)
        .set("height", SIZE.1)
        .set("role", "img")
        .set("aria-labelledby", "title description")
        .set("font-family", "Helvetica, Arial, 'Liberation Sans', sans-serif")
        .set("font-size", 13)
        .set("fill", INK)
        .add(Title::new(TITLE).set("id", "title"))
        .add(Description::new().set("id", "description").add(svg::node::Text::new(DESCRIPTION)))
        .add(rectangle((0, 0), SIZE).set("fill", "#ffffff"))
        .add(label((28, 38), TITLE).set("font-size", 21).set("font-weight", "bold"))
        .add(label((28, 62), SUBTITLE).set("fill", FAINT));
    for (i, tau) in (0..).zip(TAUS) {
        let panel = Panel { left: ORIGIN.0 + i * PITCH, top: ORIGIN.1 };
        document = document.add(panel.draw(tau, rows));
    }
    let text = document.add(legend()).to_string();
    format!("{text}\n")
}

/// Where a panel stands.
struct Panel {
    left: i32,
    top: i32,
}

impl Panel {
    fn draw(&self, tau: f64, rows: &[Row]) -> Group {
        let Panel { left, top } = *self;
        let (right, bottom) = (left + PANEL.0, top + PANEL.1);
        let (low, high) = (self.y(COVERAGE_OF_THETA.0), self.y(COVERAGE_OF_THETA.1));
        let mut group = Group::new()
            .add(label((left, top - 14), title(tau)).set("font-weight", "bold"))
            .add(rectangle((left, high), (PANEL.0, low - high)).set("fill", "#eeeeee"));
        for percent in [60, 70, 80, 90, 95, 100] {
            let y = self.y(f64::from(percent) / 100.0);
            group = group
                .add(line((left, y), (right, y)).set("stroke", if percent == 95 { FAINT } else { "#dddddd" }))
                .add(label((left - 8, y + 5), &format!("{percent}%")).set("text-anchor", "end"));
        }
        for tenths in [0, 2, 4, 6, 8] {
            let icc = f64::from(tenths) / 10.0;
            group = group.add(label((self.x(icc), bottom + 20), &icc.to_string()).set("text-anchor", "middle"));
        }
        let axis = label((left + PANEL.0 / 2, bottom + 42), "true icc").set("text-anchor", "middle").set("fill", FAINT);
        group = group.add(axis);
        for model in Model::ALL {
            let of_tau = rows.iter().filter(|(kind, _)| kind.tau == tau);
            let points: Vec<String> = of_tau
                .map(|(kind, scores)| {
                    let coverage = Score::coverage_of_theta(&scores[model as usize]);
                    format!("{},{}", self.x(kind.icc), self.y(coverage))
                })
                .collect();
            group = group.add(stroke(Polyline::new().set("points", points.join(" ")).set("fill", "none"), model));
        }
        group
    }

    fn x(&self, icc: f64) -> i32 {
        self.left + (icc / 0.9 * f64::from(PANEL.0)).round() as i32
    }

    fn y(&self, coverage: f64) -> i32 {
        self.top + ((1.0 - coverage) / (1.0 - LEAST) * f64::from(PANEL.1)).round() as i32
    }
}

fn legend() -> Group {
    let y = SIZE.1 - 36;
    let names = ["icc uniform", "icc none", "correlation ignored", "one per experiment", "icc known"];
    let mut group = Group::new();
    for ((i, model), name) in (0..).zip(Model::ALL).zip(names) {
        let x = ORIGIN.0 + i * 170;
        let sample = Polyline::new().set("points", format!("{x},{y} {},{y}", x + 32));
        group = group.add(stroke(sample, model)).add(label((x + 40, y + 5), name));
    }
    group
}

/// Colours that people with any colour vision tell apart (Okabe & Ito, Color Universal Design, 2008), and dashes for those who print
/// in grey.
fn stroke(line: Polyline, model: Model) -> Polyline {
    let (colour, width, dashes) = match model {
        Model::Uniform => ("#0072b2", 3, "none"),
        Model::None => ("#d55e00", 2, "none"),
        Model::Ignored => ("#cc79a7", 2, "8 4"),
        Model::OnePerExperiment => ("#009e73", 2, "2 4"),
        Model::Oracle => ("#222222", 1, "12 3 2 3"),
    };
    line.set("stroke", colour).set("stroke-width", width).set("stroke-dasharray", dashes)
}

fn title(tau: f64) -> &'static str {
    if tau < 1.0 { "tau = half a standard error of a raw effect" } else { "tau = one standard error" }
}

fn line(from: (i32, i32), to: (i32, i32)) -> Line {
    Line::new().set("x1", from.0).set("y1", from.1).set("x2", to.0).set("y2", to.1)
}

fn rectangle((x, y): (i32, i32), (width, height): (i32, i32)) -> Rectangle {
    Rectangle::new().set("x", x).set("y", y).set("width", width).set("height", height)
}

fn label((x, y): (i32, i32), text: &str) -> Text {
    Text::new(text).set("x", x).set("y", y)
}
