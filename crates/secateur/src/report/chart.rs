//! Validation accuracy against parameters over the rounds, as an SVG drawing.

use super::{CompressReport, ReportError, Round};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    Cartesian2d, ChartBuilder, ChartContext, Circle, Color, DrawingArea, IntoDrawingArea,
    LineSeries, RGBColor, SVGBackend, TRANSPARENT,
};
use std::ops::Range;

/// A chart with its axes drawn.
pub(super) type Panel<'a> =
    ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

pub(super) const WIDTH: u32 = 720;
pub(super) const HEIGHT: u32 = 360;
const KEPT: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const TAKEN_BACK: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
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
    let area = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
    let mut chart = panel(
        &area,
        0.0..(largest * 1.05).max(1e-9),
        points.iter().map(|point| point.1),
        ["parameters, M", "validation top-1, %"],
    )?;
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

/// Axes and grid of a chart of accuracies `ys`, in percent, with the descriptions of `[x, y]`.
pub(super) fn panel<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    xs: Range<f64>,
    ys: impl Iterator<Item = f64>,
    [x_desc, y_desc]: [&str; 2],
) -> Result<Panel<'a>, Box<dyn std::error::Error>> {
    let (low, high) = ys.fold((f64::MAX, f64::MIN), |(low, high), y| {
        (low.min(y), high.max(y))
    });
    let margin = ((high - low) * 0.1).max(0.5);
    area.fill(&TRANSPARENT)?;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(xs, (low - margin)..(high + margin))?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_desc(x_desc)
        .y_desc(y_desc)
        .y_label_formatter(&|y| format!("{y:.1}"))
        .draw()?;
    Ok(chart)
}
