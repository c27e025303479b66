//! The launcher on its own, for tests and for programs that are not `crrl`.

fn main() {
    crrl_sandbox::launcher::main();
}
