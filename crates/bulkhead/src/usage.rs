//! What a command line that makes no sense is answered.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli::{Cli, refused};
use crate::nearest::nearest_of;

/// Docker's exit status for it.
const USAGE: u8 = 125;

/// Prints what is wrong, or the help that was asked for, and returns the exit status.
pub fn explain(wrong: clap::Error, arguments: &[OsString]) -> ExitCode {
    // A closed stream leaves nobody to tell.
    match wrong.kind() {
        // nothing was asked, so nothing is wrong
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            print!("{}", wrong.render());
            return ExitCode::SUCCESS;
        }
        // `-h` takes a host name in these, and alone it asks for help
        ErrorKind::InvalidValue | ErrorKind::MissingRequiredArgument
            if let Some(name) = asks_for_help(arguments) =>
        {
            let mut program = Cli::command();
            program.build();
            if let Some(command) = program.find_subcommand_mut(name) {
                let _ = command.print_help();
                return ExitCode::SUCCESS;
            }
        }
        ErrorKind::UnknownArgument
            if let Some(ContextValue::String(flag)) = wrong.get(ContextKind::InvalidArg)
                && let Some(why) = refused::flag(&words(arguments).0, flag)
                    .or_else(|| refused::flag("", flag)) =>
        {
            let flag = flag.split('=').next().unwrap_or(flag);
            eprintln!("bulkhead: {flag} is not supported: {why}");
            return ExitCode::from(USAGE);
        }
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument
            if let (mut words, Some(word)) = words(arguments)
                && let Some(why) = {
                    words.push_str(if words.is_empty() { "" } else { " " });
                    refused::command(&(words.clone() + &word))
                } =>
        {
            eprintln!("bulkhead: `{words}{word}` is not supported: {why}");
            return ExitCode::from(USAGE);
        }
        ErrorKind::InvalidSubcommand
            if let Some(ContextValue::String(word)) = wrong.get(ContextKind::InvalidSubcommand) =>
        {
            eprintln!("bulkhead: there is no command {word:?}");
            let near = nearest(word);
            if !near.is_empty() {
                eprintln!("Did you mean {}?", near.join(" or "));
            }
            eprintln!("`bulkhead --help` lists the commands.");
            return ExitCode::from(USAGE);
        }
        _ => {}
    }
    let _ = wrong.print();
    if wrong.use_stderr() { ExitCode::from(status(&wrong)) } else { ExitCode::SUCCESS }
}

/// Docker ends with 1 where words are too few or too many, and with 125 where a flag is wrong.
fn status(wrong: &clap::Error) -> u8 {
    let word = |kind| match wrong.get(kind) {
        Some(ContextValue::String(word)) => !word.starts_with('-'),
        Some(ContextValue::Strings(words)) => words.iter().all(|word| word.starts_with('<')),
        _ => false,
    };
    match wrong.kind() {
        ErrorKind::MissingRequiredArgument if word(ContextKind::InvalidArg) => 1,
        ErrorKind::UnknownArgument if word(ContextKind::InvalidArg) => 1,
        _ => USAGE,
    }
}

/// The words of the command that a line names, and the first word behind them.
fn words(arguments: &[OsString]) -> (String, Option<String>) {
    let mut program = Cli::command();
    program.build();
    let (mut command, mut words, mut next) = (&program, Vec::new(), None);
    let arguments = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    for argument in arguments.filter(|argument| !argument.starts_with('-')) {
        match command.find_subcommand(argument) {
            Some(inner) => {
                command = inner;
                words.push(inner.get_name());
                next = None;
            }
            None if next.is_none() => next = Some(argument.to_owned()),
            None => {}
        }
        if !command.has_subcommands() {
            break;
        }
    }
    (words.join(" "), next)
}

/// The command, if the line ends with it and a `-h`.
fn asks_for_help(arguments: &[OsString]) -> Option<&'static str> {
    let [.., command, flag] = arguments else { return None };
    ["run", "create"].into_iter().find(|name| command == name && flag == "-h")
}

/// The commands whose names are as near to a word as any, and near enough to be meant.
fn nearest(word: &str) -> Vec<String> {
    let program = Cli::command();
    let names = program.get_subcommands().filter(|command| !command.is_hide_set());
    let names: Vec<&str> = names.map(clap::Command::get_name).collect();
    nearest_of(word, names).into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_understood() {
        assert_eq!(nearest("rnu"), ["run"]);
        assert_eq!(nearest("imgaes"), ["images"]);
        assert_eq!(nearest("unpaus"), ["unpause"]);
        assert!(nearest("frobnicate").is_empty());
    }
}
