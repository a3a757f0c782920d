//! Containers from create to remove, with the real warden, kernel and network.
//!
//! Every test is a process of its own in a network and mount namespace of its own, with its own
//! data directory, cgroup parent and warden; this program starts itself as each of them. At the
//! end of each nothing may be left.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, reason = "a test calls other programs as users do")]

mod containers;
mod failures;
mod health;
mod ids;
mod images;
mod kernel;
mod many;
mod mounts;
mod names;
mod networks;
mod recovery;
mod rig;
mod user_networks;

use std::panic::AssertUnwindSafe;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use rig::Rig;

type Test = (&'static str, fn() -> rig::Running);

macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$((concat!(stringify!($module), "::", stringify!($name)), || {
            Box::pin(async {
                let mut rig = Rig::new().await;
                let test = async {
                    rig.import_busybox().await;
                    $module::$name(&mut rig).await;
                };
                let test = AssertUnwindSafe(test).catch_unwind().await;
                if test.is_err() {
                    rig.clear_after_failure().await;
                }
                test.is_ok()
            })
        })),*]
    };
}

fn main() -> ExitCode {
    let tests: &[Test] = &tests![
        containers::a_program_runs_and_its_output_is_kept,
        containers::a_container_is_isolated,
        containers::signals_stop_and_kill,
        containers::pause_freezes,
        containers::commands_run_inside_a_running_container,
        containers::a_terminal_and_stdin,
        containers::files_come_from_binds_volumes_and_tmpfs,
        containers::namespaces_are_shared_on_request,
        containers::removed_by_itself,
        containers::one_that_goes_with_its_end_is_restarted,
        containers::what_goes_with_its_end_waits_for_no_disk,
        containers::build_steps_become_layers,
        containers::limits_hold,
        containers::privileges_are_what_was_asked_for,
        containers::many_at_once,
        health::a_container_is_found_healthy_and_then_not,
        health::a_probe_that_takes_too_long_is_ended_with_what_it_started,
        health::what_follows_when_it_is_unhealthy,
        health::paused_containers_are_not_probed,
        health::no_probe_outlives_its_engine_or_its_warden,
        ids::large_ids_are_a_containers_own,
        kernel::ping_needs_no_privilege,
        kernel::devices_have_the_owners_of_the_host,
        kernel::mounts_and_files_are_as_dockers,
        kernel::real_time_signals_stop_and_kill,
        kernel::an_environment_of_many_lines,
        kernel::a_kill_for_want_of_memory_is_told_at_once,
        kernel::limits_are_changed_while_it_runs,
        kernel::paths_and_addresses_are_those_of_the_request,
        failures::every_failure_is_told_and_leaves_nothing,
        failures::restarts_follow_the_policy,
        images::one_whose_content_is_missing_is_listed,
        images::a_commit_has_what_the_container_made_and_no_more,
        images::a_pruned_build_cache_frees_its_layers,
        many::are_torn_down_whoever_else_stops_them,
        many::are_adopted_at_once,
        many::come_and_go_on_a_small_network,
        many::readers_that_never_read_hold_little,
        mounts::volumes_are_furnished_when_a_container_is_created,
        mounts::only_the_part_that_was_asked_for_is_seen,
        mounts::sources_and_what_lies_below_them,
        mounts::volumes_of_other_kinds,
        networks::links_names_and_published_ports,
        networks::a_bridge_with_containers_keeps_its_address,
        networks::an_address_is_free_when_its_container_has_ended,
        names::they_are_answered_while_the_engine_is_away,
        names::another_resolver_takes_over,
        names::they_follow_connections_and_renames,
        user_networks::one_is_made_used_and_removed,
        user_networks::requests_that_cannot_be_met,
        user_networks::addresses_are_those_that_were_asked_for,
        user_networks::containers_are_connected_while_they_run,
        user_networks::several_networks_have_one_default_route,
        user_networks::they_survive_the_engine,
        recovery::a_running_container_survives_its_engine,
        recovery::ends_that_nobody_saw_are_recorded,
        recovery::a_killed_warden_is_replaced,
        recovery::warden_and_engine_die_at_once,
        recovery::orphans_are_removed,
        recovery::volumes_outlive_a_lost_store,
        recovery::a_killed_engine_is_repaired,
        recovery::an_engine_killed_at_any_step_is_repaired,
        recovery::ends_that_the_store_refuses_are_recorded_later,
        recovery::a_restart_in_the_full_moment_happens_later,
        recovery::what_ended_with_the_engine_starts_with_the_next,
    ];
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["resolver", "--socket", socket] => match bulkhead_resolver::serve(socket.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("resolver: {error}");
                ExitCode::FAILURE
            }
        },
        ["warden", "--socket", socket] => match bulkhead_warden::serve(socket.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("warden: {error}");
                ExitCode::FAILURE
            }
        },
        ["--one", name] => one(tests, name),
        // the workspace's runner has a process for each test anyway
        ["--exact", name] => {
            let ended = one(tests, name);
            let word = if ended == ExitCode::SUCCESS { "ok" } else { "FAILED" };
            println!("test {name} ... {word}");
            ended
        }
        ["--engine", directory] => recovery::engine_to_be_killed(directory.as_ref()),
        rest => all(tests, rest),
    }
}

/// Runs the tests whose name holds any of the filters, two at a time.
fn all(tests: &[Test], arguments: &[&str]) -> ExitCode {
    if arguments.contains(&"--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&&str> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|it| name.contains(**it));
    let queue = Mutex::new(tests.iter().filter(|(name, _)| wanted(name)));
    let failed = AtomicBool::new(false);
    let next = || queue.lock().expect("no test panics here").next();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((name, _)) = next() {
                    let started = std::time::Instant::now();
                    let output = Command::new(std::env::current_exe().expect("/proc is mounted"))
                        .args(["--one", name])
                        .stdin(Stdio::null())
                        .output()
                        .expect("this program can be started");
                    let took = started.elapsed();
                    let passed = output.status.success();
                    println!(
                        "test {name} ... {} ({took:.2?})",
                        if passed { "ok" } else { "FAILED" }
                    );
                    let text = String::from_utf8_lossy(&output.stderr);
                    if !passed || text.contains("skipped ") || arguments.contains(&"--nocapture") {
                        println!("{text}");
                        failed.fetch_or(!passed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    if failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn one(tests: &[Test], name: &str) -> ExitCode {
    let Some((_, test)) = tests.iter().find(|(own, _)| *own == name) else {
        eprintln!("there is no test {name}");
        return ExitCode::FAILURE;
    };
    if !std::path::Path::new("/bin/busybox").exists() {
        bulkhead_sys::testing::skip("/bin/busybox (busybox-static) is not installed");
        return ExitCode::SUCCESS;
    }
    // Before there is any other thread: all of them, and the warden, are to be inside.
    rig::enter_own_namespaces();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    if runtime.block_on(test()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
