//! Writes a made-up run to a folder, to look at its report:
//! `cargo run -p crrl-report --example specimen -- FOLDER STEPS SLOPE`

#[path = "../tests/world/mod.rs"]
mod world;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, steps, slope] = arguments.as_slice() else {
        return Err("usage: specimen FOLDER STEPS SLOPE".into());
    };
    let world = world::World {
        steps: steps.parse()?,
        groups: 12,
        held_out: 200,
        text: "`pop` \u{202e}compares\u{200b} <b>the wrong way</b> round".into(),
        slope: slope.parse()?,
        ..world::World::default()
    };
    world.write(std::path::Path::new(folder));
    Ok(())
}
