//! `man`: manual pages from the definitions of the commands.

use std::path::Path;

use clap_mangen::Man;

use crate::failure::Failure;

/// Writes `bulkhead.1`, `bulkhead-run.1`, `bulkhead-network-create.1` and so on.
pub fn write(mut program: clap::Command, directory: &Path) -> Result<(), Failure> {
    let cannot = |path: &Path, cause: std::io::Error| {
        Failure::new(format!("cannot write {}: {cause}", path.display()))
    };
    std::fs::create_dir_all(directory).map_err(|cause| cannot(directory, cause))?;
    program.build();
    let mut waiting = vec![("bulkhead".to_owned(), program)];
    let mut pages = 0;
    while let Some((name, command)) = waiting.pop() {
        let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set());
        waiting.extend(
            inner
                .filter(|inner| inner.get_name() != "help")
                .map(|inner| (format!("{name}-{}", inner.get_name()), inner.clone())),
        );
        let mut page = Vec::new();
        Man::new(command.disable_help_subcommand(true))
            .render(&mut page)
            .map_err(|cause| Failure::new(cause.to_string()))?;
        let path = directory.join(format!("{name}.1"));
        std::fs::write(&path, page).map_err(|cause| cannot(&path, cause))?;
        pages += 1;
    }
    println!("{pages} pages are in {}", directory.display());
    Ok(())
}
