//! Turns `Project.toml` into code and binaries.

fn main() {
    leatworks_build::project();
}
