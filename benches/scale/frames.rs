//! How long a screen of the inspector takes to draw.

use std::time::Instant;

use crrl_cluster::Snapshot;
use crrl_inspect::frame::{Frame, Link};
use crrl_inspect::state::{App, Screen, World};
use crrl_inspect::view::{self, Palette, Scene};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::json;

use crate::made_work::{report, worker};
use crate::usage;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Actors of each, and as many episodes.
    #[arg(long, default_value_t = 10)]
    actors: usize,
    /// Columns.
    #[arg(long, default_value_t = 200)]
    width: u16,
    /// Lines.
    #[arg(long, default_value_t = 50)]
    height: u16,
    /// Frames of each screen.
    #[arg(long, default_value_t = 200)]
    frames: usize,
}

fn frame(args: &Args, beat: u64) -> Frame {
    let nodes = (0..args.nodes).map(|at| report(&worker(at), beat, args.actors, args.actors));
    let snapshot = Snapshot { nodes: nodes.collect(), ..Snapshot::default() };
    Frame { at_ms: 1_000_000 + beat * 1000, snapshot, processes: Vec::new() }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let before_kib = usage::resident_kib("self");
    let mut world = World::new();
    let mut fold_ms = Vec::new();
    for beat in 1..=20 {
        let frame = frame(args, beat);
        let began = Instant::now();
        world.fold(frame);
        fold_ms.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let memory_kib = usage::resident_kib("self").saturating_sub(before_kib);
    let mut app = App::new("scale");
    let palette = Palette::new(true);
    let link = Link::Live;
    let mut terminal = Terminal::new(TestBackend::new(args.width, args.height))?;
    for (_, screen) in Screen::NUMBERED {
        app.screen = screen;
        let (mut draw_ms, mut tick_ms) = (Vec::new(), Vec::new());
        for frame in 0..args.frames {
            // Something moves every time, as it does before a person's eyes.
            app.list_mut().selected = frame * 31 % (args.nodes * args.actors);
            let began = Instant::now();
            world.tick(1_030_000 + frame as u64 * 50);
            tick_ms.push(began.elapsed().as_secs_f64() * 1e3);
            let scene = Scene { world: &world, link: &link, palette };
            let began = Instant::now();
            terminal.draw(|frame| view::draw(frame, &mut app, &scene))?;
            draw_ms.push(began.elapsed().as_secs_f64() * 1e3);
        }
        println!(
            "{}",
            json!({
                "bench": "frames", "screen": format!("{screen:?}"),
                "rows": args.nodes * args.actors, "size": format!("{}x{}", args.width, args.height),
                "draw_ms_p50": usage::quantile(&mut draw_ms, 0.5),
                "draw_ms_p99": usage::quantile(&mut draw_ms, 0.99),
                "tick_ms_p50": usage::quantile(&mut tick_ms, 0.5),
                "fold_ms_p50": usage::quantile(&mut fold_ms, 0.5),
                "memory_mib": memory_kib as f64 / 1024.0,
            })
        );
    }
    Ok(())
}
