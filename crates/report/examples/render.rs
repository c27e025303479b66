//! Renders runs to a file without the binary: `cargo run -p crrl-report --example render -- FILE RUN...`

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let out = arguments.next().ok_or("usage: render FILE RUN...")?;
    let facts = arguments.map(|run| crrl_report::read(&run)).collect::<Result<Vec<_>, _>>()?;
    let report = crrl_report::Report::of(&facts);
    let json = Path::new(&out).with_extension("json");
    std::fs::write(json, serde_json::to_string_pretty(&report)?)?;
    crrl_report::write(&out, &report.html())?;
    Ok(())
}
