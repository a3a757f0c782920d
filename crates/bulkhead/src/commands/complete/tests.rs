use clap::CommandFactory;

use super::*;
use crate::cli::Cli;

fn asked(line: &str) -> Vec<Wanted> {
    let mut program = Cli::command();
    program.build();
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let last = words.pop().expect("a word");
    wanted(&program, &words, &last).0
}

fn words(line: &str) -> Vec<String> {
    let word = |one| match one {
        Wanted::Word(word, _) => Some(word),
        Wanted::Names(_) => None,
    };
    asked(line).into_iter().filter_map(word).collect()
}

#[test]
fn what_follows_comes_from_the_definitions() {
    let has = |line: &str, word: &str| words(line).iter().any(|one| one == word);
    assert!(has("", "run") && has("", "network") && !has("", "__complete"));
    assert!(has("network ", "connect") && !has("network ", "run"));
    assert!(has("run --", "--volumes-from") && !has("run --", "-v"));
    assert!(!has("run box ", "--rm") && words("run box --").is_empty());
    assert!(has("run --restart ", "always"));
    let names = |kind| vec![Wanted::Names(kind)];
    for (line, expected) in [
        ("exec ", names(Names::Running)),
        ("exec -it ", names(Names::Running)),
        ("exec -e A ", names(Names::Running)),
        ("container rm -f ", names(Names::Containers)),
        ("rm one ", names(Names::Containers)),
        ("run --network ", names(Names::Networks)),
        ("run --network=web ", names(Names::Images)),
        ("run --name x ", names(Names::Images)),
        ("volume rm ", names(Names::Volumes)),
        ("volume export -o x ", names(Names::Volumes)),
        ("volume import ", names(Names::Volumes)),
        ("network inspect ", names(Names::Networks)),
        ("rmi ", names(Names::Images)),
        ("netns exec ", names(Names::Namespaces)),
        ("context use ", names(Names::Contexts)),
        ("exec web ", vec![]),
    ] {
        assert_eq!(asked(line), expected, "{line:?}");
    }
}
