//! Several lines of accuracy against parameters, as an SVG drawing.

use super::ReportError;
use super::chart::{GRID, HEIGHT, WIDTH, panel};
use plotters::prelude::{
    Circle, Color, IntoDrawingArea, LineSeries, PathElement, RGBColor, SVGBackend,
    SeriesLabelPosition, WHITE,
};

/// One line and what it is the mean of.
pub(super) struct Curve {
    /// What the line is of.
    pub name: String,
    /// Percent kept and percent right.
    pub line: Vec<(f64, f64)>,
    /// The same of single runs.
    pub points: Vec<(f64, f64)>,
}

// Paul Tol's bright colours, which people tell apart who see few.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x44, 0x77, 0xaa),
    RGBColor(0xee, 0x66, 0x77),
    RGBColor(0x22, 0x88, 0x33),
    RGBColor(0xcc, 0xbb, 0x44),
    RGBColor(0x66, 0xcc, 0xee),
    RGBColor(0xaa, 0x33, 0x77),
];

/// Draws `curves`.
///
/// # Errors
/// [`ReportError`] where the drawing fails.
pub(super) fn draw_curves(curves: &[Curve]) -> Result<String, ReportError> {
    let mut svg = String::new();
    draw(&mut svg, curves).map_err(|problem| ReportError::Chart(problem.to_string()))?;
    Ok(svg)
}

fn draw(svg: &mut String, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let all = curves
        .iter()
        .flat_map(|curve| curve.line.iter().chain(&curve.points));
    let area = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
    let mut chart = panel(
        &area,
        0.0..102.0,
        all.map(|point| point.1),
        ["parameters kept, %", "test top-1, %"],
    )?;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(LineSeries::new(
                curve.line.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(curve.name.clone())
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        let circles = curve.points.iter();
        chart.draw_series(circles.map(|&point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(GRID)
        .draw()?;
    area.present()?;
    Ok(())
}
