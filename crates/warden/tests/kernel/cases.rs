use crate::fixture::*;

pub const ALL: &[(&str, fn())] =
    &[("a_program_runs_and_its_output_is_logged", a_program_runs_and_its_output_is_logged)];

fn a_program_runs_and_its_output_is_logged() {
    let ship = Ship::launch();
    assert_eq!(ship.sh("echo hello; exit 3"), (3, "hello\n".into()));
}
