//! At least one value of every variant of every type that crosses the wire.

use protocol::capacity::{
    ACTIVITY_UNKNOWN, CapacityFrame, Changes, Columns, Delta, DeviceState, MEMORY_UNKNOWN, NodeState, Sharing,
    Snapshot, Source,
};
use protocol::control::{
    AgentMessage, AttemptReport, AttemptState, ClusterInfo, CoordinatorMessage, GroupPlacement, LaunchOrder,
    LogRequest, NodeShare, Opening, Order, PageAnswer, PageRequest, Price, ResizeOrder, Resized, StopCause, StopOrder,
};
use protocol::errors::FailureClass;
use protocol::ids::{
    AttemptId, AttemptNumber, ClusterName, CommandNumber, DataName, Epoch, GroupName, Incarnation, Namespace, NodeName,
    Region, ReplicaId, Uid, UnixMs, WorkloadKey, WorkloadName,
};
use protocol::node::{
    Activity, ActivitySource, DeviceHealth, DeviceReport, DriverState, GpuProcess, Holders, NodeFrame, PodDevices, Xids,
};
use protocol::resources::{Cpu, Gpus, Memory, Money, Resources, Span};
use protocol::sku::Sku;
use protocol::token::{TokenAnswer, TokenRequest, TokenText};
use protocol::workload::{
    BatchSpec, DataNeed, Dependency, Framework, GroupSpec, HeadSpec, PlacementSpec, RaySpec, RegionSpec, RetrySpec,
    SecretUse, SparkSpec, Spread, TokenUse, WorkloadSpec,
};

fn attempt() -> AttemptId {
    AttemptId { workload: Uid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef), number: AttemptNumber(2) }
}

fn sku() -> Sku {
    Sku::parse("H100").unwrap()
}

fn group() -> GroupSpec {
    GroupSpec {
        name: GroupName::new("train").unwrap(),
        count: Some(4),
        min: None,
        max: None,
        cpu: Cpu(16_500),
        memory: Memory(65_536),
        gpus: Gpus(8_000),
        gpu: vec![sku(), Sku::parse("A100-80GB").unwrap()],
    }
}

fn head() -> HeadSpec {
    HeadSpec { cpu: Cpu(1_000), memory: Memory(2_048) }
}

pub fn specs() -> Vec<(&'static str, WorkloadSpec)> {
    let ray = WorkloadSpec {
        priority: -5,
        ray: Some(RaySpec {
            entrypoint: "python train.py".into(),
            image: Some("train:1".into()),
            head: head(),
            workers: vec![group()],
        }),
        placement: PlacementSpec {
            regions: RegionSpec { prefer: vec![Region::new("eu-west").unwrap()], require: vec![] },
            spread: Spread::Nodes,
            same_cluster_as: Some(WorkloadName::new("prepare").unwrap()),
            max_cost_per_hour: Some(Money(400_500)),
            data: vec![DataNeed { name: DataName::new("imagenet").unwrap(), require: true }],
        },
        retries: RetrySpec { limit: 3, backoff: Span(30_000) },
        env: [("A".to_owned(), "ä".to_owned())].into(),
        working_dir: Some("/home/me".into()),
        depends_on: vec![Dependency { workload: WorkloadName::new("prepare").unwrap() }],
        expected_duration: Some(Span(6 * 3_600_000)),
        idle_timeout: Some(Span(1_800_000)),
        ttl_after_finished: Some(Span(86_400_000)),
        secrets: vec![
            SecretUse { name: "hf".into(), mount_path: Some("/run/hf".into()), env: None, key: None },
            SecretUse { name: "hf".into(), mount_path: None, env: Some("HF".into()), key: Some("token".into()) },
        ],
        tokens: vec![
            TokenUse { audience: "sts.amazonaws.com".into(), mount_path: "/run/aws".into(), expiration: None },
            TokenUse { audience: "vault".into(), mount_path: "/run/vault".into(), expiration: Some(Span(600_000)) },
        ],
        ..WorkloadSpec::default()
    };
    let spark = WorkloadSpec {
        spark: Some(SparkSpec {
            main: "sum.py".into(),
            class: None,
            arguments: vec!["10".into()],
            image: None,
            conf: [("spark.sql.shuffle.partitions".to_owned(), "8".to_owned())].into(),
            driver: head(),
            executors: GroupSpec { gpus: Gpus(0), gpu: vec![], ..group() },
        }),
        ..WorkloadSpec::default()
    };
    let batch = WorkloadSpec {
        batch: Some(BatchSpec { command: vec!["true".into()], image: None, groups: vec![group()] }),
        ..WorkloadSpec::default()
    };
    let elastic = WorkloadSpec {
        ray: Some(RaySpec {
            entrypoint: "python train.py".into(),
            image: None,
            head: head(),
            workers: vec![GroupSpec { count: None, min: Some(2), max: Some(8), ..group() }],
        }),
        ..WorkloadSpec::default()
    };
    vec![("ray", ray), ("spark", spark), ("batch", batch), ("elastic", elastic)]
}

pub fn node_frames() -> Vec<(&'static str, NodeFrame)> {
    let ready = || DriverState::Ready { version: "580.159.04".into() };
    let frame = |driver, devices| NodeFrame {
        node: NodeName::new("gpu-1.rack.2").unwrap(),
        sequence: 300,
        full: true,
        at: UnixMs(1_700_000_000_000),
        driver,
        devices,
        holders: None,
    };
    let known = DeviceReport {
        index: 0,
        uuid: "GPU-00000000-1111-2222-3333-444444444444".into(),
        sku: sku(),
        mig: Some(false),
        slices: vec![],
        activity: Some(Activity { percent: 59, source: ActivitySource::GpmSm }),
        memory_total_mib: Some(81_559),
        memory_used_mib: Some(480),
        processes: Some(vec![GpuProcess { pid: 416, memory_mib: None }]),
        temperature_c: Some(33),
        power_mw: Some(73_580),
        health: DeviceHealth::Ok,
        xids: Xids::default(),
    };
    let unknown = DeviceReport {
        mig: None,
        activity: None,
        memory_total_mib: None,
        memory_used_mib: None,
        processes: None,
        temperature_c: None,
        power_mw: None,
        health: DeviceHealth::Lost { cause: "GPU is lost".into() },
        ..known.clone()
    };
    let sick = DeviceReport {
        activity: Some(Activity { percent: 100, source: ActivitySource::Utilization }),
        health: DeviceHealth::Sick { cause: "XID 79".into() },
        xids: Xids { count: 300, last: vec![31, 79] },
        ..known.clone()
    };
    let cut = DeviceReport { mig: Some(true), slices: vec!["MIG-5".into()], ..known.clone() };
    let pod = PodDevices {
        namespace: "vision".into(),
        pod: "train-0".into(),
        container: "main".into(),
        devices: vec!["GPU-7::3".into()],
    };
    let held = |holders| NodeFrame { full: false, holders: Some(holders), ..frame(ready(), vec![]) };
    vec![
        ("cut", frame(ready(), vec![cut])),
        ("held", held(Holders::Known { pods: vec![pod] })),
        ("held by nobody knows whom", held(Holders::Unknown { cause: "no socket".into() })),
        ("ready", frame(ready(), vec![known, unknown, sick])),
        ("missing", frame(DriverState::Missing { cause: "no library".into() }, vec![])),
        ("stalled", frame(DriverState::Stalled { call: "nvmlDeviceGetMemoryInfo".into(), for_ms: 2_500 }, vec![])),
    ]
}

pub fn capacity_frames() -> Vec<(&'static str, CapacityFrame)> {
    let columns = Columns {
        name: ["gpu-1", "cpu-1", "cpu-2"].map(|name| NodeName::new(name).unwrap()).to_vec(),
        skus: vec![sku()],
        sku: vec![1, 0, 0],
        devices: vec![5, 0, 0],
        source: vec![Source::Measured, Source::Declared, Source::Label],
        sharing: vec![Sharing::Parts(4), Sharing::Any, Sharing::Whole],
        cpu_milli: vec![64_000, 32_000, 16_000],
        memory_mib: vec![524_288, 131_072, 65_536],
        state: vec![NodeState::Ready, NodeState::Cordoned, NodeState::Ready],
        free_cpu_milli: vec![48_000, 32_000, 16_000],
        free_memory_mib: vec![262_144, 131_072, 65_536],
        device_state: vec![
            DeviceState::Free,
            DeviceState::Held,
            DeviceState::Ghost,
            DeviceState::Sick,
            DeviceState::Foreign,
        ],
        activity: vec![0, 100, 7, ACTIVITY_UNKNOWN, 12],
        memory_used_mib: vec![480, 70_000, 900, MEMORY_UNKNOWN, 20_000],
        left_milli: vec![0, 750, 0, 0, 0],
    };
    let delta = Delta {
        sequence: 8,
        watermark: CommandNumber(6),
        state: Changes { gaps: vec![1], values: vec![NodeState::Stale] },
        free_cpu_milli: Changes { gaps: vec![0], values: vec![64_000] },
        free_memory_mib: Changes { gaps: vec![0], values: vec![524_288] },
        device_state: Changes { gaps: vec![1], values: vec![DeviceState::Free] },
        activity: Changes { gaps: vec![0, 0], values: vec![3, 99] },
        memory_moved_mib: Changes { gaps: vec![2], values: vec![-1_000] },
        left_milli: Changes { gaps: vec![1], values: vec![250] },
    };
    vec![
        ("snapshot", CapacityFrame::Snapshot(Snapshot { sequence: 7, watermark: CommandNumber(5), columns })),
        ("delta", CapacityFrame::Delta(delta)),
        ("heartbeat", CapacityFrame::Delta(Delta { sequence: 9, watermark: CommandNumber(6), ..Delta::default() })),
    ]
}

fn report(state: AttemptState) -> AttemptReport {
    AttemptReport { attempt: attempt(), revision: 3, state, resized: None, at: UnixMs(1_700_000_000_123) }
}

pub fn agent_messages() -> Vec<(&'static str, AgentMessage)> {
    let failed = AttemptState::Failed { class: FailureClass::User, message: "exit code 3".into(), exit_code: Some(3) };
    let hello = AgentMessage::Hello {
        cluster: ClusterInfo {
            name: ClusterName::new("eu-west-1").unwrap(),
            region: Region::new("eu-west").unwrap(),
            frameworks: vec![Framework::Ray, Framework::Spark, Framework::Batch],
            fences: true,
            secrets: true,
            manifests: vec![Framework::Ray],
            prices: vec![Price { sku: sku(), milli_per_gpu_hour: 2_500 }],
        },
        incarnation: Incarnation(42),
        last_command: CommandNumber(9),
        attempts: vec![report(AttemptState::Accepted), report(AttemptState::Running)],
    };
    let missing = GroupPlacement {
        group: GroupName::new("train").unwrap(),
        each: Resources { cpu_milli: 16_500, memory_mib: 65_536, gpu_milli: 8_000 },
        sku: Some(sku()),
        nodes: vec![NodeShare { node: NodeName::new("gpu-1").unwrap(), members: 1 }],
    };
    let resized = Some(Resized { number: CommandNumber(8), settled: true, missing: vec![missing] });
    let resized = AttemptReport { resized, ..report(AttemptState::Running) };
    vec![
        ("hello", hello),
        ("resized", AgentMessage::Report(resized)),
        ("lease request", AgentMessage::LeaseRequest { nonce: 1 << 40 }),
        ("starting", AgentMessage::Report(report(AttemptState::Starting { waiting_for: "Ray".into() }))),
        ("succeeded", AgentMessage::Report(report(AttemptState::Succeeded))),
        ("failed", AgentMessage::Report(report(failed))),
        ("stopped", AgentMessage::Report(report(AttemptState::Stopped))),
        ("capacity", AgentMessage::Capacity(capacity_frames().remove(1).1)),
    ]
}

pub fn coordinator_messages() -> Vec<(&'static str, CoordinatorMessage)> {
    let launch = LaunchOrder {
        attempt: attempt(),
        key: WorkloadKey { namespace: Namespace::new("vision").unwrap(), name: WorkloadName::new("llama-ft").unwrap() },
        spec: specs().remove(2).1,
        placement: vec![GroupPlacement {
            group: GroupName::new("train").unwrap(),
            each: Resources { cpu_milli: 16_500, memory_mib: 65_536, gpu_milli: 8_000 },
            sku: Some(sku()),
            nodes: vec![NodeShare { node: NodeName::new("gpu-1").unwrap(), members: 4 }],
        }],
    };
    let resize = ResizeOrder { attempt: attempt(), placement: launch.placement.clone(), grace_ms: 10_000 };
    let stop = |cause| Order::Stop(StopOrder { attempt: attempt(), cause, grace_ms: 10_000 });
    let command = |order| CoordinatorMessage::Command { number: CommandNumber(7), epoch: Epoch(3), order };
    vec![
        ("welcome", CoordinatorMessage::Welcome { replica: ReplicaId(2) }),
        (
            "lease",
            CoordinatorMessage::Lease { nonce: 1 << 40, epoch: Epoch(3), ttl_ms: 30_000, attempts: vec![attempt()] },
        ),
        ("launch", command(Order::Launch(Box::new(launch)))),
        ("resize", command(Order::Resize(Box::new(resize)))),
        ("stop cancelled", command(stop(StopCause::Cancelled))),
        ("stop orphaned", command(stop(StopCause::Orphaned))),
        ("stop idle", command(stop(StopCause::Idle))),
        ("stop drained", command(stop(StopCause::Drained))),
        ("report committed", CoordinatorMessage::ReportCommitted { attempt: attempt(), revision: 3 }),
        ("snapshot wanted", CoordinatorMessage::SnapshotWanted),
        ("hello wanted", CoordinatorMessage::HelloWanted),
        ("refused", CoordinatorMessage::Refused { reason: "wrong cluster".into() }),
    ]
}

pub fn openings() -> Vec<(&'static str, Opening)> {
    let log = |follow, worker| Opening::Log(LogRequest { attempt: attempt(), follow, worker });
    vec![
        ("log that is followed", log(true, None)),
        ("log of a worker", log(false, Some(3))),
        ("page", Opening::Page(PageRequest { attempt: attempt() })),
    ]
}

pub fn page_answers() -> Vec<(&'static str, PageAnswer)> {
    vec![
        ("opened", PageAnswer::Opened { token: None }),
        ("opened to whoever has the token", PageAnswer::Opened { token: Some("secret".into()) }),
        ("refused", PageAnswer::Refused { reason: "it has ended".into() }),
    ]
}

pub fn token_requests() -> Vec<(&'static str, TokenRequest)> {
    vec![("token", TokenRequest { attempt: attempt(), audience: "sts.amazonaws.com".into() })]
}

pub fn token_answers() -> Vec<(&'static str, TokenAnswer)> {
    vec![
        ("issued", TokenAnswer::Issued { token: TokenText::new("head.body.signature"), life_ms: 3_600_000 }),
        ("refused", TokenAnswer::Refused { reason: "it has ended".into() }),
    ]
}
