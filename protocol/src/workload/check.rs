//! What is wrong with a specification, each fault with its field.

use std::collections::BTreeSet;

use super::{
    GroupSpec, HeadSpec, MAX_DATA, MAX_DEPENDENCIES, MAX_GROUPS, MAX_MEMBERS, MAX_TEXT, MIN_FAILOVER_AFTER,
    MIN_IDLE_TIMEOUT, NativeManifest, OnClusterLoss, SpecError, WorkloadSpec, is_fixed,
};
use crate::resources::Span;

impl WorkloadSpec {
    /// Everything that is wrong with it, each with its field. Empty: it can be accepted.
    pub fn problems(&self) -> Vec<SpecError> {
        let mut found = Vec::new();
        let mut bad = |field: String, problem: String| found.push(SpecError { field, problem });
        if let Err(e) = self.framework() {
            // All that is wrong with an object, not the first of it.
            let native = self.manifest.as_ref().map(NativeManifest::problems).unwrap_or_default();
            if native.contains(&e) {
                return native;
            }
            bad(e.field, e.problem);
            return found;
        }
        for (field, text) in self.texts() {
            if text.len() > MAX_TEXT {
                bad(field, format!("it has {} bytes; at most {MAX_TEXT} are allowed", text.len()));
            } else if text.contains('\0') {
                bad(field, "it has a NUL character, which no command line can carry".into());
            }
        }
        for name in self.env.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                bad(format!("spec.env[{name:?}]"), "a variable's name is not empty and has no '='".into());
            }
        }
        self.check_times(&mut bad);
        self.check_dependencies(&mut bad);
        self.check_data(&mut bad);
        self.check_secrets(&mut bad);
        self.check_tokens(&mut bad);
        let (at, groups): (&str, Vec<&GroupSpec>) = match (&self.ray, &self.spark, &self.batch) {
            (Some(ray), ..) => {
                if ray.entrypoint.trim().is_empty() {
                    bad("spec.ray.entrypoint".into(), "it is empty: write the command that the job runs".into());
                }
                check_head("spec.ray.head", &ray.head, &mut bad);
                ("spec.ray.workers", ray.workers.iter().collect())
            }
            (_, Some(spark), _) => {
                if spark.main.trim().is_empty() {
                    bad("spec.spark.main".into(), "it is empty: name the application's file".into());
                }
                check_head("spec.spark.driver", &spark.driver, &mut bad);
                ("spec.spark.executors", vec![&spark.executors])
            }
            (_, _, Some(batch)) => {
                if batch.command.first().is_none_or(|c| c.is_empty()) {
                    bad("spec.batch.command".into(), "it is empty: write the program and its arguments".into());
                }
                if batch.groups.is_empty() {
                    bad("spec.batch.groups".into(), "it is empty: at least one group runs the command".into());
                }
                ("spec.batch.groups", batch.groups.iter().collect())
            }
            _ => {
                self.check_native(&mut bad);
                return found;
            }
        };
        if groups.len() > MAX_GROUPS {
            bad(at.into(), format!("{} groups; at most {MAX_GROUPS} are allowed", groups.len()));
        }
        let mut names = BTreeSet::new();
        let mut members = 0u64;
        for (i, group) in groups.iter().enumerate() {
            let place = if self.spark.is_some() { at.to_owned() } else { format!("{at}[{i}]") };
            members += u64::from(group.most());
            if !names.insert(group.name.as_str()) || is_fixed(&group.name) {
                bad(format!("{place}.name"), format!("{} is taken: each group needs a name of its own", group.name));
            }
            check_group(&place, group, &mut bad);
            if group.is_elastic() {
                check_elastic(&place, group, self.not_elastic(), &mut bad);
            }
        }
        if members > u64::from(MAX_MEMBERS) {
            bad(at.into(), format!("{members} members in all; at most {MAX_MEMBERS} are allowed"));
        }
        found
    }

    /// What an object asks for was read with it; how much of it there may be is the same for all.
    fn check_native(&self, bad: &mut impl FnMut(String, String)) {
        let Some(manifest) = &self.manifest else { return };
        for SpecError { field, problem } in manifest.problems() {
            bad(field, problem);
        }
        let groups = manifest.gang().map(|gang| gang.groups.as_slice()).unwrap_or_default();
        let members: u64 = groups.iter().map(|group| u64::from(group.count)).sum();
        if groups.len() > MAX_GROUPS {
            bad("spec.manifest".into(), format!("{} groups; at most {MAX_GROUPS} are allowed", groups.len()));
        }
        if members > u64::from(MAX_MEMBERS) {
            bad("spec.manifest".into(), format!("{members} members in all; at most {MAX_MEMBERS} are allowed"));
        }
    }

    /// Why its groups can't grow; none: they can.
    fn not_elastic(&self) -> Option<&'static str> {
        match (&self.spark, &self.batch) {
            (Some(_), _) => Some("an application is told at its start how many executors it has"),
            (_, Some(_)) => Some("the world's size is told to every rank at its start"),
            _ => None,
        }
    }

    fn check_times(&self, bad: &mut impl FnMut(String, String)) {
        if self.expected_duration == Some(Span(0)) {
            bad("spec.expectedDuration".into(), "it is 0: write how long it runs, such as 6h, or leave it out".into());
        }
        if let Some(short) = self.idle_timeout.filter(|t| *t < MIN_IDLE_TIMEOUT) {
            let problem =
                format!("{short} is too short: at least {MIN_IDLE_TIMEOUT}, for a program that loads is idle too");
            bad("spec.idleTimeout".into(), problem);
        }
        let Some(after) = self.failover_after else { return };
        if self.on_cluster_loss == OnClusterLoss::Wait {
            let problem = "it says after how long the workload is started elsewhere: set onClusterLoss to failover, or leave it out";
            bad("spec.failoverAfter".into(), problem.into());
        } else if after < MIN_FAILOVER_AFTER {
            let problem = format!(
                "{after} is too short: at least {MIN_FAILOVER_AFTER}, for an agent may be started again meanwhile"
            );
            bad("spec.failoverAfter".into(), problem);
        }
    }

    fn check_dependencies(&self, bad: &mut impl FnMut(String, String)) {
        let all = &self.depends_on;
        if all.len() > MAX_DEPENDENCIES {
            bad("spec.dependsOn".into(), format!("{} workloads; at most {MAX_DEPENDENCIES} are allowed", all.len()));
        }
        for (i, dependency) in all.iter().enumerate() {
            if all[..i].contains(dependency) {
                bad(format!("spec.dependsOn[{i}]"), format!("{} is named twice: once is enough", dependency.workload));
            }
        }
    }

    fn check_data(&self, bad: &mut impl FnMut(String, String)) {
        let all = &self.placement.data;
        if all.len() > MAX_DATA {
            bad("spec.placement.data".into(), format!("{} data locations; at most {MAX_DATA} are allowed", all.len()));
        }
        for (i, need) in all.iter().enumerate() {
            if all[..i].iter().any(|other| other.name == need.name) {
                bad(format!("spec.placement.data[{i}].name"), format!("{} is named twice: once is enough", need.name));
            }
        }
    }

    fn texts(&self) -> Vec<(String, &str)> {
        let mut texts: Vec<(String, &str)> = Vec::new();
        for (name, value) in &self.env {
            texts.push((format!("spec.env[{name:?}]"), value));
        }
        if let Some(dir) = &self.working_dir {
            texts.push(("spec.workingDir".into(), dir));
        }
        if let Some(ray) = &self.ray {
            texts.push(("spec.ray.entrypoint".into(), &ray.entrypoint));
        }
        if let Some(spark) = &self.spark {
            texts.push(("spec.spark.main".into(), &spark.main));
            texts.extend(
                spark.arguments.iter().enumerate().map(|(i, a)| (format!("spec.spark.arguments[{i}]"), a.as_str())),
            );
            texts.extend(spark.conf.iter().map(|(k, v)| (format!("spec.spark.conf[{k:?}]"), v.as_str())));
        }
        if let Some(batch) = &self.batch {
            texts.extend(
                batch.command.iter().enumerate().map(|(i, a)| (format!("spec.batch.command[{i}]"), a.as_str())),
            );
        }
        texts
    }
}

fn check_head(place: &str, head: &HeadSpec, bad: &mut impl FnMut(String, String)) {
    if head.cpu.0 == 0 {
        bad(format!("{place}.cpu"), "it is 0: ask for at least 1m".into());
    }
    if head.memory.0 == 0 {
        bad(format!("{place}.memory"), "it is 0: ask for at least 1Mi".into());
    }
}

fn check_group(place: &str, group: &GroupSpec, bad: &mut impl FnMut(String, String)) {
    check_head(place, &HeadSpec { cpu: group.cpu, memory: group.memory }, bad);
    if group.count == Some(0) {
        bad(format!("{place}.count"), "it is 0: a group has at least one member".into());
    }
    if group.gpus.0 > 1000 && !group.gpus.0.is_multiple_of(1000) {
        let problem =
            format!("{} is no whole number of GPUs, and a share is a part of one: ask for less than 1", group.gpus);
        bad(format!("{place}.gpus"), problem);
    }
    if group.gpus.0 == 0 && !group.gpu.is_empty() {
        bad(format!("{place}.gpu"), "models are named, but gpus is 0: set gpus, or leave gpu out".into());
    }
}

fn check_elastic(place: &str, group: &GroupSpec, never: Option<&str>, bad: &mut impl FnMut(String, String)) {
    if let Some(why) = never {
        return bad(
            format!("{place}.{}", if group.min.is_some() { "min" } else { "max" }),
            format!("only Ray's workers may come and go, for {why}: write count"),
        );
    }
    match (group.count, group.min, group.max) {
        (Some(_), ..) => {
            bad(format!("{place}.count"), "min and max stand in place of count: leave it out, or them".into());
        }
        (None, Some(0), _) => bad(
            format!("{place}.min"),
            "it is 0: at least one member starts with the gang and says on which model it runs".into(),
        ),
        (None, Some(min), Some(max)) if min > max => {
            bad(format!("{place}.min"), format!("it is {min}, which is more than max, {max}"));
        }
        (None, Some(_), Some(_)) => {}
        (None, Some(_), None) => bad(format!("{place}.min"), "max is needed too: the most members".into()),
        (None, None, _) => bad(format!("{place}.max"), "min is needed too: the members that start together".into()),
    }
}
