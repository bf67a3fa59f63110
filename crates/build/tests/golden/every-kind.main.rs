fn main() -> ::std::process::ExitCode {
    ::leatworks::main_topology(&::demo::topologies::every_kind::TOPOLOGY)
}
