//! Parts on top of each other: bars, or areas that join neighbours.

use super::colour;
use super::frame::{ACROSS, Below, SIZE, UP, draw};
use super::lines::shown;
use super::scale::{Fit, Scale};
use super::svg::Svg;
use crate::model::{Bar, Stack, Unit};
use crate::number;
use crate::text;

/// Pixels between bars that are wide enough to be told apart.
const GAP: f64 = 1.5;

/// Draws a stack.
#[must_use]
pub fn stack(stack: &Stack) -> String {
    let joined = stack.areas && stack.bars.iter().filter(|bar| !bar.parts.is_empty()).count() > 1;
    let ends = || {
        let ends = |bar: &Bar| {
            if joined { [bar.middle_step(); 2] } else { [bar.from, bar.to] }
        };
        stack.bars.iter().flat_map(ends)
    };
    let x = Scale::over(ends(), 7, true, Fit::Tight, ACROSS);
    let y = heights(stack);
    let mut svg = Svg::new(&stack.id, SIZE, &stack.title, &description(stack));
    let names = (stack.x_name.as_str(), stack.unit);
    let single: Vec<(f64, String)>;
    // A bar is a step's: its number belongs under its middle.
    let wide = ends().fold(0.0, f64::max) <= 12.0;
    let below = if wide && !joined {
        single = stack
            .bars
            .iter()
            .map(|bar| (f64::midpoint(x.at(bar.from), x.at(bar.to)), number::count(bar.to as u64)))
            .collect();
        Below::Fixed(&single)
    } else {
        Below::Numbers
    };
    draw(&mut svg, &x, &y, names, below, ACROSS.1);
    if joined {
        areas(&mut svg, stack, &x, &y);
    } else {
        bars(&mut svg, stack, &x, &y);
    }
    svg.finish()
}

/// The y axis: to 100 % of shares that add up to it.
pub(crate) fn heights(stack: &Stack) -> Scale {
    let tops = stack.bars.iter().map(|bar| bar.parts.iter().sum::<f64>());
    if stack.unit == Unit::Share {
        return Scale::over([0.0, 1.0], 5, false, Fit::Round, UP);
    }
    Scale::over(tops.chain([0.0]), 5, false, Fit::Round, UP)
}

/// Draws every bar.
pub(crate) fn bars(svg: &mut Svg, stack: &Stack, x: &Scale, y: &Scale) {
    for bar in &stack.bars {
        let (from, to) = (x.at(bar.from), x.at(bar.to));
        let gap = if to - from > 4.0 * GAP { GAP } else { 0.0 };
        let mut below = 0.0;
        for (at, part) in bar.parts.iter().enumerate().filter(|(_, part)| **part > 0.0) {
            let (bottom, top) = (y.at(below), y.at(below + part));
            below += part;
            let hint = format!("{}: {}", stack.names[at], shown(*part, stack.unit));
            let class = format!("part f{}", colour(at));
            svg.rect(&class, (from + gap / 2.0, top), (to - from - gap, bottom - top), &hint);
        }
    }
}

fn areas(svg: &mut Svg, stack: &Stack, x: &Scale, y: &Scale) {
    let known: Vec<&Bar> = stack.bars.iter().filter(|bar| !bar.parts.is_empty()).collect();
    let place = |at: usize| x.at(known[at].middle_step());
    for (part, name) in stack.names.iter().enumerate() {
        let edge = |upto: usize| {
            let height = |bar: &&Bar| y.at(bar.parts[..upto].iter().sum());
            known.iter().map(height).enumerate().map(|(at, y)| (place(at), y)).collect::<Vec<_>>()
        };
        let (upper, mut lower) = (edge(part + 1), edge(part));
        lower.reverse();
        let points: Vec<_> = upper.into_iter().chain(lower).collect();
        svg.polygon(&format!("part f{}", colour(part)), &points, name);
    }
}

/// The stack in words, as HTML: each part at the beginning and at the end.
pub(crate) fn description(stack: &Stack) -> String {
    let known: Vec<&Bar> = stack.bars.iter().filter(|bar| !bar.parts.is_empty()).collect();
    let (Some(first), Some(last)) = (known.first(), known.last()) else { return String::new() };
    let mut out = String::from("At the beginning and at the end: ");
    for (at, name) in stack.names.iter().enumerate() {
        let (from, to) = (shown(first.parts[at], stack.unit), shown(last.parts[at], stack.unit));
        out += &format!("{} {from} and {to}; ", text::attribute(name));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(areas: bool, parts: &[&[f64]]) -> Stack {
        let bars = parts.iter().zip(0_u32..).map(|(parts, at)| Bar {
            from: f64::from(at),
            to: f64::from(at) + 1.0,
            parts: parts.to_vec(),
        });
        Stack {
            id: "s".into(),
            title: "T".into(),
            x_name: "step".into(),
            unit: Unit::Seconds,
            about: String::new(),
            names: vec!["a".into(), "<b>".into()],
            bars: bars.collect(),
            areas,
        }
    }

    #[test]
    fn areas_join_neighbours_and_one_stretch_is_a_bar() {
        assert_eq!(
            stack(&made(true, &[&[1.0, 2.0], &[], &[2.0, 1.0]])).matches("<polygon").count(),
            2
        );
        assert_eq!(stack(&made(true, &[&[1.0, 2.0]])).matches("<rect").count(), 2);
        assert_eq!(stack(&made(false, &[&[1.0, 0.0], &[1.0, 3.0]])).matches("<rect").count(), 3);
        assert!(stack(&made(true, &[])).ends_with("</svg>"));
    }

    #[test]
    fn parts_are_told_in_words() {
        let svg = stack(&made(true, &[&[1.0, 2.0], &[2.0, 0.5]]));
        assert!(svg.contains("a 1.000 s and 2.000 s; &lt;b&gt; 2.000 s and 0.500 s"), "{svg}");
    }
}
