//! The capacity stream: a mirror fed by frames equals the table at all times, at the pace that was asked for.

use proptest::prelude::*;
use protocol::capacity::*;
use protocol::codec::{decode_frame, encode_frame};

use super::kubernetes::{cluster_node, others};
use super::nodes::{open_nodes, read};
use super::table::{device, frame};
use super::*;

/// What a replica makes of the frames. Shares no code with the sender.
#[derive(Default)]
struct Mirror {
    sequence: u64,
    watermark: u64,
    columns: Columns,
}

fn apply<T: Copy>(column: &mut [T], changes: &Changes<T>) {
    let mut row = 0usize;
    for (gap, value) in changes.gaps.iter().zip(&changes.values) {
        row += *gap as usize;
        column[row] = *value;
        row += 1;
    }
}

impl Mirror {
    fn take(&mut self, frame: &CapacityFrame) {
        match decode_frame(&encode_frame(frame).unwrap()).unwrap() {
            CapacityFrame::Snapshot(s) => {
                (self.sequence, self.watermark, self.columns) = (s.sequence, s.watermark.0, s.columns);
            }
            CapacityFrame::Delta(d) => {
                assert_eq!(d.sequence, self.sequence + 1, "a frame is missing");
                (self.sequence, self.watermark) = (d.sequence, d.watermark.0);
                let c = &mut self.columns;
                apply(&mut c.state, &d.state);
                apply(&mut c.free_cpu_milli, &d.free_cpu_milli);
                apply(&mut c.free_memory_mib, &d.free_memory_mib);
                apply(&mut c.device_state, &d.device_state);
                apply(&mut c.activity, &d.activity);
                apply(&mut c.left_milli, &d.left_milli);
                let mut row = 0usize;
                for (gap, moved) in d.memory_moved_mib.gaps.iter().zip(&d.memory_moved_mib.values) {
                    row += *gap as usize;
                    c.memory_used_mib[row] = c.memory_used_mib[row].wrapping_add_signed(*moved);
                    row += 1;
                }
            }
        }
    }
}

fn frames(out: &[Output], to: ReplicaId) -> Vec<CapacityFrame> {
    out.iter()
        .filter_map(|o| match o {
            Output::Send { replica, message: AgentMessage::Capacity(f) } if *replica == to => Some(f.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn frames_come_at_their_pace_and_an_empty_one_each_second() {
    let mut a = open(&Disk::default(), vec![]).0;
    open_nodes(&mut a);
    let mut times = Vec::new();
    for now in (0..4_000).step_by(50) {
        let input = match now {
            0 => Input::Connected { replica: R1 },
            // Changes for the first second, then silence.
            1..1_000 => read(frame("a", 1, true, vec![device(0, Some(now))])),
            _ => Input::Tick,
        };
        for f in frames(&step(&mut a, now, input), R1) {
            times.push((now, matches!(f, CapacityFrame::Snapshot(_))));
        }
    }
    let at: Vec<u64> = times.iter().map(|t| t.0).collect();
    assert_eq!(at, [0, 200, 400, 600, 800, 1_000, 2_000, 3_000]);
    assert_eq!(times.iter().filter(|t| t.1).count(), 2, "one at first, one when the node's shape changed");
}

#[test]
fn a_launch_and_its_watermark_travel_in_one_frame() {
    let mut a = open(&Disk::default(), vec![]).0;
    connect(&mut a, 0, R1, 1, 30_000);
    assert!(frames(&step(&mut a, 100, command(R1, 1, 1, launch(1, 1, 2))), R1).is_empty());
    let sent = frames(&step(&mut a, 200, Input::Tick), R1);
    let [CapacityFrame::Delta(d)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(d.watermark, CommandNumber(1));
    assert_eq!(d.device_state, Changes { gaps: vec![0, 0], values: vec![DeviceState::Held; 2] });
    assert_eq!(d.free_cpu_milli, Changes { gaps: vec![0], values: vec![63_000] });
    assert!(d.activity.is_empty() && d.memory_moved_mib.is_empty() && d.state.is_empty());
}

#[derive(Debug, Clone)]
enum Move {
    Reading { node: u8, device: u32, memory: u64, gap: bool },
    Full { node: u8, devices: u32 },
    Launch { gpus: u64 },
    Share { milli: u64 },
    End(u8),
    Reconnect(u64),
    SnapshotWanted(u64),
    Kubernetes { node: u8, devices: u16, foreign: u64, closed: bool },
    KubernetesGone(u8),
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        6 => (0u8..4, 0u32..9, prop_oneof![0u64..600, 60_000u64..81_000], prop::bool::weighted(0.1))
            .prop_map(|(node, device, memory, gap)| Move::Reading { node, device, memory, gap }),
        1 => (0u8..4, 0u32..9).prop_map(|(node, devices)| Move::Full { node, devices }),
        2 => (0u64..4).prop_map(|gpus| Move::Launch { gpus }),
        2 => (1u64..1000).prop_map(|milli| Move::Share { milli }),
        2 => (1u8..20).prop_map(Move::End),
        1 => (1u64..3).prop_map(Move::Reconnect),
        1 => (1u64..3).prop_map(Move::SnapshotWanted),
        3 => (0u8..4, 0u16..9, 0u64..4, any::<bool>())
            .prop_map(|(node, devices, foreign, closed)| Move::Kubernetes { node, devices, foreign, closed }),
        1 => (0u8..4).prop_map(Move::KubernetesGone),
        5 => (0u64..7_000).prop_map(Move::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_mirror_of_the_frames_equals_the_table(moves in prop::collection::vec(moves(), 1..80)) {
        let mut a = open(&Disk::default(), vec![]).0;
        open_nodes(&mut a);
        let mut mirrors = [Mirror::default(), Mirror::default()];
        let (mut now, mut number, mut sequences) = (0, 0, [0u64; 4]);
        let mut watermark = 0;
        connect(&mut a, 0, R1, 1, 1 << 40);
        let mut out = step(&mut a, 0, Input::Connected { replica: R2 });
        // The first session's snapshot went with its connection; asked for again here.
        out.extend(step(&mut a, 1_000, Input::FromCoordinator { replica: R1, message: CoordinatorMessage::SnapshotWanted }));
        now += 1_000;
        for mv in moves {
            for (r, mirror) in [R1, R2].into_iter().zip(&mut mirrors) {
                frames(&out, r).iter().for_each(|f| mirror.take(f));
            }
            let name = |n: u8| ["a", "b", "c", "d"][usize::from(n)];
            let input = match mv {
                Move::Reading { node, device: d, memory, gap } => {
                    sequences[usize::from(node)] += if gap { 2 } else { 1 };
                    read(frame(name(node), sequences[usize::from(node)], false, vec![device(d, Some(memory))]))
                }
                Move::Full { node, devices } => {
                    sequences[usize::from(node)] += 1;
                    let devices = (0..devices).map(|d| device(d, Some(0))).collect();
                    read(frame(name(node), sequences[usize::from(node)], true, devices))
                }
                Move::Launch { gpus } => {
                    number += 1;
                    command(R1, number, 1, launch(number.into(), 1, gpus))
                }
                Move::Share { milli } => {
                    number += 1;
                    let Order::Launch(mut order) = launch(number.into(), 1, 1) else { unreachable!() };
                    order.placement[0].each.gpu_milli = milli;
                    command(R1, number, 1, Order::Launch(order))
                }
                Move::End(w) => Input::Runtime { attempt: attempt(w.into()), state: AttemptState::Succeeded },
                Move::Reconnect(r) => {
                    mirrors[r as usize - 1] = Mirror::default();
                    Input::Connected { replica: ReplicaId(r) }
                }
                Move::SnapshotWanted(r) => {
                    Input::FromCoordinator { replica: ReplicaId(r), message: CoordinatorMessage::SnapshotWanted }
                }
                Move::Kubernetes { node, devices, foreign, closed } => {
                    let there = ClusterNode { closed: closed.then(String::new), ..cluster_node(name(node), devices) };
                    let nodes = vec![(there, others(foreign * 100, foreign))];
                    Input::Kubernetes(KubernetesInput::Changed { nodes, gone: vec![] })
                }
                Move::KubernetesGone(node) => {
                    let gone = vec![super::node(name(node))];
                    Input::Kubernetes(KubernetesInput::Changed { nodes: vec![], gone })
                }
                Move::Wait(ms) => {
                    now += ms;
                    Input::Tick
                }
            };
            out = step(&mut a, now, input);
            watermark = watermark.max(a.last_command().0);
        }
        // A frame's time later both mirrors are level, whatever happened before.
        out.extend(step(&mut a, now + 200, Input::Tick));
        for (r, mirror) in [R1, R2].into_iter().zip(&mut mirrors) {
            frames(&out, r).iter().for_each(|f| mirror.take(f));
            prop_assert_eq!(&mirror.columns, &a.table().columns());
            prop_assert_eq!(mirror.watermark, watermark);
        }
    }
}
