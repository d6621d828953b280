//! The picture: SNR over the plane of the two masses.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::Result;
use crate::bank::Grid;
use crate::filter::{Peak, chirp_mass};

/// Size of the picture and of the strip at its right for the colour bar, in pixels.
const SIZE: (u32, u32) = (900, 800);
const STRIP: u32 = 130;
const MARGIN: u32 = 22;
const X_LABELS: u32 = 62;
const INK: RGBColor = RGBColor(38, 42, 50);
const RULE: RGBColor = RGBColor(120, 126, 138);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plane<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws `peaks`, in the order of `grid.pairs()`, into the SVG file `path`, with a marker on the pair at `loudest`.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn draw(path: &Path, grid: &Grid, peaks: &[Peak], loudest: usize) -> Result<()> {
    let low = peaks
        .iter()
        .map(|peak| peak.snr)
        .fold(f64::INFINITY, f64::min)
        .floor();
    let high = peaks[loudest].snr.ceil().max(low + 1.0);
    let colour = |snr: f64| ViridisRGB.get_color_normalized(snr, low, high);
    let (m1s, m2s) = grid.pairs();

    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (m1, m2) = (m1s[loudest], m2s[loudest]);
    let legend = format!(
        "circle: the loudest, {m1} + {m2} solar masses, SNR {:.2}; curve: its chirp mass, {:.2} solar masses",
        peaks[loudest].snr,
        chirp_mass(m1, m2),
    );
    let below = root
        .margin(12, 0, 0, 0)
        .titled("Matched filter: loudest SNR of every template", text(32))?
        .titled(&legend, text(20))?;
    let (left, right) = below.split_horizontally(SIZE.0 - STRIP);

    let half = grid.step / 2.0;
    let (start, end) = (grid.low - half, grid.masses().last().unwrap_or(grid.low) + half);
    let mut plane = ChartBuilder::on(&left)
        .margin(MARGIN)
        .margin_right(8)
        .x_label_area_size(X_LABELS)
        .y_label_area_size(84)
        .build_cartesian_2d(start..end, start..end)?;
    plane
        .configure_mesh()
        .disable_mesh()
        .x_desc("m1 (solar masses)")
        .y_desc("m2 (solar masses)")
        .axis_style(RULE)
        .label_style(text(21))
        .axis_desc_style(text(24))
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .draw()?;
    plane.draw_series(m1s.iter().zip(&m2s).zip(peaks).map(|((m1, m2), peak)| {
        Rectangle::new(
            [(m1 - half, m2 - half), (m1 + half, m2 + half)],
            colour(peak.snr).filled(),
        )
    }))?;
    mark(&mut plane, (start, end), (m1, m2))?;
    colour_bar(&right, (low, high), &colour)?;
    root.present()?;
    Ok(())
}

/// The loudest pair, and the curve of its chirp mass: along it templates look alike.
fn mark(plane: &mut Plane<'_>, (start, end): (f64, f64), (m1, m2): (f64, f64)) -> Result<()> {
    let chirp = chirp_mass(m1, m2);
    let curve = (0..100).map(|i| {
        let q = 0.94f64.powi(i); // m2 / m1
        let m1 = chirp * (1.0 + q).powf(0.2) / q.powf(0.6);
        (m1, q * m1)
    });
    let inside = curve.filter(|(m1, m2)| *m1 <= end && *m2 >= start);
    plane.draw_series([PathElement::new(
        inside.collect::<Vec<_>>(),
        INK.mix(0.6).stroke_width(2),
    )])?;
    plane.draw_series([Circle::new((m1, m2), 9, INK.stroke_width(3))])?;
    Ok(())
}

/// The scale of the colours, in the strip at the right.
fn colour_bar(strip: &Area<'_>, (low, high): (f64, f64), colour: &impl Fn(f64) -> RGBColor) -> Result<()> {
    let mut bar = ChartBuilder::on(strip)
        .margin(MARGIN)
        .margin_left(8)
        .margin_bottom(MARGIN + X_LABELS) // in line with the plane
        .right_y_label_area_size(70)
        .build_cartesian_2d(0.0..1.0, low..high)?;
    bar.configure_mesh()
        .disable_mesh()
        .y_desc("SNR")
        .axis_style(RULE)
        .label_style(text(21))
        .axis_desc_style(text(24))
        .y_label_formatter(&label)
        .draw()?;
    let step = (high - low) / 128.0;
    bar.draw_series((0..128).map(|i| {
        let snr = low + i as f64 * step;
        // Each up to the top, for the next to cover: no seams when the picture is scaled.
        Rectangle::new([(0.0, snr), (1.0, high)], colour(snr + step / 2.0).filled())
    }))?;
    Ok(())
}

/// Without the trailing digits of a step that has no exact binary form.
fn label(value: &f64) -> String {
    ((value * 1e6).round() / 1e6).to_string()
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_cell_a_template_and_names_the_loudest() {
        let grid: Grid = "10:30:10".parse().unwrap();
        let peaks: Vec<Peak> = (0..6)
            .map(|i| Peak {
                snr: 4.0 + i as f64,
                time: 0.0,
            })
            .collect();
        let path = std::env::temp_dir().join(format!("swathe-plot-{}.svg", std::process::id()));
        draw(&path, &grid, &peaks, 5).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(svg.contains("30 + 30 solar masses, SNR 9.00") && svg.contains("m2 (solar masses)"));
        assert_eq!(
            svg.matches("<rect").count(),
            1 + 6 + 128,
            "background, cells, colour bar"
        );
        assert!(draw(Path::new("no such folder/peaks.svg"), &grid, &peaks, 5).is_err());
    }
}
