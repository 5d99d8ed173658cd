//! The map as a picture: a panel for each tau, a cell for each number of variants and control share, with its coverage in it.
//!
//! All coordinates are whole numbers, so that the bytes are the same on every platform.

use shrinkd_model::{Threshold, Thresholds, Verdict};
use svg::Document;
use svg::node::element::{Description, Group, Polygon, Rectangle, Text, Title};

use super::figures::Figures;
use super::map::{Panel, VARIANTS};

/// The size of a cell.
const CELL: (i32, i32) = (38, 24);
/// Between the row of equal shares and the others.
const GAP: i32 = 8;
/// From one panel to the next, across and down.
const PITCH: (i32, i32) = (478, 350);
/// The upper left corner of the first panel's cells.
const ORIGIN: (i32, i32) = (92, 124);
/// The whole picture.
const SIZE: (i32, i32) = (960, 886);

const INK: &str = "#222222";
const FAINT: &str = "#555555";

/// A range of coverage, from the highest to the lowest: YlOrBr of ColorBrewer (Harrower & Brewer, The Cartographic Journal 40,
/// 2003), which people with any colour vision tell apart, and which stays in order in grey.
struct Shade {
    /// The least coverage of the range.
    from: f64,
    fill: &'static str,
    ink: &'static str,
    verdict: Verdict,
}

/// The ranges of the verdict, of which that of `material` is in two parts.
fn shades() -> [Shade; 4] {
    let Threshold { noticeable, material } = Thresholds::default().naive_coverage;
    [
        Shade { from: noticeable, fill: "#fff7bc", ink: INK, verdict: Verdict::Negligible },
        Shade { from: material, fill: "#fec44f", ink: INK, verdict: Verdict::Noticeable },
        Shade { from: 0.8, fill: "#cc4c02", ink: "#ffffff", verdict: Verdict::Material },
        Shade { from: 0.0, fill: DARKEST, ink: "#ffffff", verdict: Verdict::Material },
    ]
}

const DARKEST: &str = "#662506";

/// Draws the map as an SVG document.
pub(super) fn draw(panels: &[Panel]) -> String {
    let mut document = Document::new()
        .set("viewBox", (0, 0, SIZE.0, SIZE.1))
        .set("width", SIZE.0)
        .set("height", SIZE.1)
        .set("role", "img")
        .set("aria-labelledby", "title description")
        .set("font-family", "Helvetica, Arial, 'Liberation Sans', sans-serif")
        .set("font-size", 13)
        .set("fill", INK)
        .add(Title::new("What the naive 95% interval of mu covers").set("id", "title"))
        .add(Description::new().set("id", "description").add(svg::node::Text::new(DESCRIPTION)))
        .add(rectangle((0, 0), SIZE).set("fill", "#ffffff"))
        .add(
            label((28, 38), "What the naive 95% interval of mu covers").set("font-size", 21).set("font-weight", "bold"),
        )
        .add(label((28, 62), SUBTITLE).set("fill", FAINT));
    for (i, panel) in (0..).zip(panels) {
        let corner = (ORIGIN.0 + i % 2 * PITCH.0, ORIGIN.1 + i / 2 * PITCH.1);
        document = document.add(drawn(panel, corner));
    }
    let text = document.add(legend()).to_string();
    format!("{text}\n")
}

const SUBTITLE: &str = "Percent, by the design of the experiments. The naive model ignores that the variants of an experiment \
                        share a control; a correct interval covers 95%.";

const DESCRIPTION: &str = "Four tables of cells, for a heterogeneity tau of 0, a half, one and two standard errors of a raw \
                           effect. Across: one to ten variants per experiment. Down: the control's share of the traffic, \
                           equal to that of each variant, then 10 to 90%. Each cell holds the coverage of the naive 95% \
                           interval of mu in percent. With one variant it is 95. It falls with every further variant, and \
                           rises with the control's share and with tau.";

fn drawn(panel: &Panel, (left, top): (i32, i32)) -> Group {
    let (columns, width) = (VARIANTS.count() as i32, VARIANTS.count() as i32 * CELL.0);
    let mut group = Group::new().set("text-anchor", "middle");
    let heading = label((left, top - 14), title(panel.tau)).set("text-anchor", "start").set("font-weight", "bold");
    group = group.add(heading);
    let mut bottom = top;
    for (i, row) in (0..).zip(&panel.rows) {
        let y = top + i * CELL.1 + if i > 0 { GAP } else { 0 };
        bottom = y + CELL.1;
        group = group.add(label((left - 8, y + 17), &row.label).set("text-anchor", "end"));
        for (j, figures) in (0..).zip(&row.cells) {
            group = cell(group, figures, (left + j * CELL.0, y));
        }
        if i == 0 {
            let outline = rectangle((left, y), (width, CELL.1)).set("fill", "none").set("stroke", INK);
            group = group.add(outline.set("stroke-width", 2));
        }
    }
    for (j, n) in (0..columns).zip(VARIANTS) {
        group = group.add(label((left + j * CELL.0 + CELL.0 / 2, bottom + 18), &n.to_string()));
    }
    let middle = (left - 60, top + (bottom - top) / 2);
    let turned = format!("rotate(-90 {} {})", middle.0, middle.1);
    group
        .add(label((left + width / 2, bottom + 38), "variants per experiment").set("fill", FAINT))
        .add(label(middle, "control's share of the traffic").set("fill", FAINT).set("transform", turned))
}

/// A cell, and in its corner a mark where accuracy makes the verdict material although coverage alone would not.
fn cell(group: Group, figures: &Figures, (x, y): (i32, i32)) -> Group {
    let shades = shades();
    let [.., last] = &shades;
    let shade = shades.iter().find(|shade| figures.naive_coverage >= shade.from).unwrap_or(last);
    let group = group.add(rectangle((x, y), CELL).set("fill", shade.fill).set("stroke", "#ffffff")).add(
        label((x + CELL.0 / 2, y + 16), &format!("{:.1}", 100.0 * figures.naive_coverage))
            .set("font-size", 12)
            .set("fill", shade.ink),
    );
    let is_worse = figures.verdict == Verdict::Material && shade.verdict != Verdict::Material;
    if is_worse { group.add(mark((x + CELL.0, y))) } else { group }
}

/// A triangle that fills the upper right corner of a cell.
fn mark((x, y): (i32, i32)) -> Polygon {
    Polygon::new().set("points", format!("{},{y} {x},{y} {x},{}", x - 7, y + 7)).set("fill", DARKEST)
}

fn legend() -> Group {
    let y = SIZE.1 - 90;
    let mut group = Group::new();
    let shades = shades();
    let mut above = None;
    for (i, shade) in (0..).zip(&shades) {
        let x = ORIGIN.0 + i * 208;
        let range = match (100.0 * shade.from, above.replace(100.0 * shade.from)) {
            (from, None) => format!("above {from:.0}%"),
            (0.0, Some(to)) => format!("below {to:.0}%"),
            (from, Some(to)) => format!("{from:.0} to {to:.0}%"),
        };
        let swatch = rectangle((x, y), (28, 18)).set("fill", shade.fill).set("stroke", FAINT);
        group = group.add(swatch).add(label((x + 36, y + 14), &format!("{range}: {}", shade.verdict)));
    }
    let y = y + 30;
    let [_, noticeable, ..] = &shades;
    let larger = 100.0 * Thresholds::default().rmse_excess.material;
    let (marked, outlined) = (ORIGIN.0, ORIGIN.0 + 416);
    group
        .add(rectangle((marked, y), (28, 18)).set("fill", noticeable.fill).set("stroke", FAINT))
        .add(mark((marked + 28, y)))
        .add(label((marked + 36, y + 14), &format!("material: the naive estimates' error is over {larger:.0}% larger")))
        .add(rectangle((outlined, y), (28, 18)).set("fill", "none").set("stroke", INK).set("stroke-width", 2))
        .add(label((outlined + 36, y + 14), "equal: the control gets as much traffic as each variant"))
        .add(label((ORIGIN.0, y + 44), "Colours go by the numbers before they are rounded.").set("fill", FAINT))
}

fn title(tau: f64) -> &'static str {
    match tau {
        0.0 => "tau = 0: all true effects are the same",
        0.5 => "tau = half a standard error of a raw effect",
        1.0 => "tau = one standard error",
        _ => "tau = two standard errors",
    }
}

fn rectangle((x, y): (i32, i32), (width, height): (i32, i32)) -> Rectangle {
    Rectangle::new().set("x", x).set("y", y).set("width", width).set("height", height)
}

fn label((x, y): (i32, i32), text: &str) -> Text {
    Text::new(text).set("x", x).set("y", y)
}
