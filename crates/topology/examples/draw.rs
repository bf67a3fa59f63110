//! Draws every topology of a project in all four forms: `cargo run -p leatworks-topology --example draw -- PROJECT FOLDER`.

use std::error::Error;
use std::path::PathBuf;

use leatworks_topology::{draw, load};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(project), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: draw PROJECT FOLDER".into());
    };
    let project = load(&project).map_err(|diagnostics| diagnostics.render(false))?;
    std::fs::create_dir_all(&folder)?;
    for topology in project.topologies() {
        let drawings = [
            ("mmd", draw::mermaid(topology)),
            ("dot", draw::dot(topology)),
            ("svg", draw::svg(topology)),
            ("txt", draw::text(topology, true)),
        ];
        for (extension, drawing) in drawings {
            std::fs::write(folder.join(format!("{}.{extension}", topology.name())), drawing)?;
        }
        print!("{}", draw::text(topology, true));
    }
    Ok(())
}
