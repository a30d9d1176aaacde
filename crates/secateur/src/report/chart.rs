//! Validation accuracy against parameters over the rounds, as an SVG drawing.

use super::{CompressReport, ReportError, Round};
use plotters::prelude::{
    ChartBuilder, Circle, Color, IntoDrawingArea, LineSeries, RGBColor, SVGBackend, TRANSPARENT,
};

pub(super) const WIDTH: u32 = 720;
pub(super) const HEIGHT: u32 = 360;
const KEPT: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const TAKEN_BACK: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
pub(super) const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
pub(super) const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

impl CompressReport {
    /// The chart as one `<svg>` element; `None` before the first cut, and where there is no accuracy.
    ///
    /// # Errors
    /// [`ReportError`] where the drawing fails.
    pub fn chart(&self) -> Result<Option<String>, ReportError> {
        let points: Vec<(f64, f64, &Round)> = self
            .rounds
            .iter()
            .filter(|round| round.output_error.is_none())
            .map(|round| {
                (
                    round.size.params as f64 / 1e6,
                    100.0 * round.val_top1,
                    round,
                )
            })
            .filter(|(x, y, _)| x.is_finite() && y.is_finite())
            .collect();
        if points.len() < 2 {
            return Ok(None);
        }
        let mut svg = String::new();
        draw(&mut svg, &points).map_err(|problem| ReportError::Chart(problem.to_string()))?;
        Ok(Some(svg))
    }
}

fn draw(svg: &mut String, points: &[(f64, f64, &Round)]) -> Result<(), Box<dyn std::error::Error>> {
    let largest = points.iter().map(|point| point.0).fold(0.0, f64::max);
    let (low, high) = points
        .iter()
        .fold((f64::MAX, f64::MIN), |(low, high), point| {
            (low.min(point.1), high.max(point.1))
        });
    let margin = ((high - low) * 0.1).max(0.5);
    let area = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
    area.fill(&TRANSPARENT)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(
            0.0..(largest * 1.05).max(1e-9),
            (low - margin)..(high + margin),
        )?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_desc("parameters, M")
        .y_desc("validation top-1, %")
        .y_label_formatter(&|y| format!("{y:.1}"))
        .draw()?;
    let kept = points
        .iter()
        .filter(|point| point.2.accepted)
        .map(|point| (point.0, point.1));
    chart.draw_series(LineSeries::new(kept, KEPT.stroke_width(2)))?;
    chart.draw_series(points.iter().map(|(x, y, round)| {
        let style = if round.accepted {
            KEPT.filled()
        } else {
            TAKEN_BACK.stroke_width(2)
        };
        Circle::new((*x, *y), 4, style)
    }))?;
    area.present()?;
    Ok(())
}
