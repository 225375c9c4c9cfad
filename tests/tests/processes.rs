//! System tests on real processes: the `tidewater` program as people start it, killed, stopped, starved of what it needs.
//!
//! Each test has a folder, ports and processes of its own, ends what it started by process id, and fails if anything of it
//! is left. What this machine can't run is listed as ignored, with the reason. `TIDEWATER_SEED=N` chooses other moments
//! for the kills; a failure names the seed that it had.

mod processes {
    pub mod api;
    pub mod attempts;
    pub mod bad_starts;
    pub mod balancer;
    pub mod certificates;
    pub mod commands;
    pub mod cordons;
    pub mod crashes;
    pub mod cut;
    pub mod damage;
    pub mod dashboard;
    pub mod demo;
    pub mod deploy;
    pub mod dev;
    pub mod failover;
    pub mod federation;
    pub mod fenced;
    pub mod gpus;
    pub mod install;
    pub mod kubernetes;
    pub mod large;
    pub mod leadership;
    pub mod ledger;
    pub mod native_ray;
    pub mod nodes;
    pub mod pauses;
    pub mod planes;
    pub mod program;
    pub mod readme;
    pub mod real_node;
    pub mod relay;
    pub mod rights;
    pub mod shares;
    pub mod tokens;
    pub mod world;
}

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use processes::world::World;
use processes::{
    attempts, bad_starts, certificates, commands, cordons, crashes, cut, damage, dashboard, demo, dev, failover,
    install, kubernetes, large, leadership, ledger, nodes, pauses, program, readme, real_node, rights, shares, tokens,
};
use testbed::images::program::PackError;
use testbed::{BuildError, ImageError, NodeLack};

/// What a test comes to: done, or not possible on this machine for this reason.
pub enum Done {
    /// It holds.
    Holds,
    /// It can't be tested here.
    CannotRunHere(String),
}

type Test = fn(&World) -> anyhow::Result<Done>;

// The two long ones first and apart, so that each has light ones beside it.
const TESTS: &[(&str, Test)] = &[
    ("demo::ends_well_and_leaves_nothing", demo::plain),
    ("dev::runs_workloads_and_answers_every_command", dev::answers),
    ("dev::ends_on_sigterm_with_stubborn_workloads_and_takes_up_its_records_again", dev::ends_and_comes_back),
    ("dev::ends_on_a_signal_while_it_starts", dev::ends_while_starting),
    ("dev::killed_finds_what_runs_when_it_is_started_again", dev::killed_and_comes_back),
    ("dev::runs_and_ends_well_where_nobody_reads_what_it_prints", dev::unread),
    ("bad_starts::each_says_one_clear_line_and_leaves_no_process", bad_starts::one_line_each),
    ("bad_starts::roles_name_what_they_cannot_have", bad_starts::roles),
    ("bad_starts::a_full_disk_is_told", bad_starts::full_disk),
    ("ledger::the_check_finds_what_ran_twice_or_not_at_all", ledger::finds_faults),
    ("demo::ends_well_though_its_leader_is_killed", demo::chaos),
    ("crashes::coordinators_killed_at_random_moments_lose_and_double_nothing", crashes::coordinators),
    ("crashes::agents_killed_at_random_moments_lose_and_double_nothing", crashes::agents),
    ("crashes::everything_killed_at_once_loses_and_doubles_nothing", crashes::everything),
    ("crashes::replicas_that_are_back_take_part_at_once", crashes::back_at_once),
    ("attempts::go_on_while_their_agent_is_dead_and_are_reported_once", attempts::outlive_their_agent),
    ("attempts::are_started_once_when_their_agent_is_killed_in_mid_launch", attempts::killed_in_mid_launch),
    ("attempts::end_with_their_guard_and_are_tried_again", attempts::guard_killed),
    ("attempts::are_cancelled_once_their_agent_is_back", attempts::cancelled_without_agent),
    ("attempts::that_a_wiped_agent_left_behind_are_settled_by_a_persons_word", attempts::forgotten),
    ("attempts::end_with_an_agent_that_is_asked_for_it", attempts::ended_with_their_agent),
    ("attempts::never_run_twice_where_two_agents_have_one_identity", attempts::two_agents_of_one_cluster),
    ("attempts::survive_a_full_disk_under_their_agent", attempts::full_disk),
    ("pauses::a_leader_stopped_for_5_s_costs_nothing_but_time", pauses::leader),
    ("pauses::an_agent_stopped_beyond_its_lease_is_lost_and_returns", pauses::agent),
    ("failover::of_a_cluster_that_is_cut_off_never_runs_anything_twice", failover::of_a_cluster_that_is_cut_off),
    ("pauses::everything_stopped_for_12_s_goes_on", pauses::everything),
    ("damage::a_shortened_log_is_mended_whole_or_refused", damage::shortened),
    ("damage::a_flipped_bit_is_never_served", damage::flipped),
    ("damage::a_flipped_bit_of_an_agents_journal_starts_nothing_twice", damage::journal),
    ("install::the_manifests_make_a_federation_that_runs_jobs_though_a_replica_moves", install::as_it_is),
    ("readme::takes_two_kubeconfigs_to_a_federation_as_it_is_written", readme::as_written),
    ("certificates::an_agent_cannot_say_that_it_is_another_cluster", certificates::other_cluster),
    ("certificates::a_replica_of_another_authority_is_not_let_in", certificates::other_authority),
    ("certificates::a_replica_with_anothers_certificate_does_not_start", certificates::other_replica),
    ("nodes::stream_what_they_measure_and_are_stale_while_they_are_silent", nodes::stream),
    ("nodes::of_which_a_gpu_fails_are_named_as_the_cause", nodes::fault),
    ("nodes::are_told_why_they_are_not_let_in", nodes::refused),
    ("nodes::of_one_name_do_not_speak_both", nodes::twins),
    ("commands::bad_input_is_answered_with_place_and_cure", commands::bad_input),
    ("commands::a_log_is_followed_while_the_leader_is_killed", commands::followed_through_a_kill),
    ("dashboard::shows_the_pages_of_real_ray_and_spark_while_they_live", dashboard::of_ray_and_spark),
    ("real_node::ray_spark_and_batch_run_once_and_say_what_they_computed", real_node::frameworks),
    ("cordons::a_drained_cluster_gives_what_runs_there_to_the_other", cordons::drained_and_removed),
    ("kubernetes::workloads_run_once_in_two_clusters_though_an_agent_is_killed", kubernetes::placed_once),
    ("leadership::moves_between_an_agents_replicas_and_nothing_is_lost_or_run_twice", leadership::moves),
    ("cut::of_a_living_agent_moves_what_may_move_and_keeps_what_waits", cut::of_a_living_agent),
    ("rights::the_check_finds_what_is_missing_and_what_is_spare", rights::finds_faults),
    ("rights::the_agent_needs_all_that_it_is_granted_and_no_more", rights::all_and_no_more),
    ("tokens::hold_by_the_keys_that_are_served", tokens::hold_by_the_keys_that_are_served),
    ("shares::of_one_gpu_are_never_more_than_the_whole_of_it", shares::of_one_gpu),
    ("commands::a_gang_that_must_wait_says_why_and_starts_when_there_is_room", commands::waiting_gang),
    // Last, for it leaves little of the machine to others.
    ("large::a_thousand_nodes_run_two_thousand_workloads_once_each", large::of_a_thousand_nodes),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each test starts several processes: more of them at a time would only measure the machine.
    arguments.test_threads.get_or_insert(2);
    if !arguments.list
        && let Err(error) = program::build()
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let trials = TESTS.iter().map(|(name, test)| Trial::ignorable_test(*name, move || run(name, *test))).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(name: &str, test: Test) -> Result<Completion, Failed> {
    let began = std::time::Instant::now();
    let world = World::new(name).map_err(|e| format!("{e:#}"))?;
    let outcome = test(&world);
    // What is left is told only of a test that held: one that broke off ends its processes, and says why it broke off.
    let outcome = outcome.and_then(|done| world.finish().map(|()| done));
    eprintln!("    {name}: {:.1} s", began.elapsed().as_secs_f64());
    match outcome {
        Ok(Done::Holds) => Ok(Completion::Completed),
        Ok(Done::CannotRunHere(why)) => Ok(Completion::ignored_with(why)),
        Err(error) if is_lack(&error) => Ok(Completion::ignored_with(format!("{error:#}"))),
        Err(error) => Err(format!("{error:#}").into()),
    }
}

/// Whether an error of the test bed says that this machine lacks what a test needs.
fn is_lack(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(BuildError::is_lack)
        || error.downcast_ref().is_some_and(ImageError::is_lack)
        || error.is::<NodeLack>()
        || matches!(error.downcast_ref(), Some(PackError::Licence(_)))
}
