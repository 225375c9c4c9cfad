//! Shares of GPUs, from what a person submits to what the members are told.

use anyhow::ensure;
use serde_json::{Value, json};

use super::api::{batch, phase};
use super::federation::Federation;
use super::world::{MARK, PATIENCE, World, wait_for};
use crate::Done;

const FLEET: &str = r#"
[[cluster]]
name = "north"
region = "eu"
nodes = [{ name = "g", count = 1, sku = "H100", gpus = 1, cpu = 8, memory = "16Gi" }]

[[cluster]]
name = "south"
region = "us"
nodes = [{ name = "s", count = 1, cpu = 8, memory = "16Gi" }]
"#;

/// Attempts have parts of one GPU, the whole of it and no more; an agent that was killed knows again who has which.
pub fn of_one_gpu(world: &World) -> anyhow::Result<Done> {
    let mut federation = Federation::start_on(world, FLEET)?;
    let file = world.path("told");
    let told = || std::fs::read_to_string(&file).unwrap_or_default().lines().map(String::from).collect::<Vec<_>>();
    let share = |name: &str, gpus: f64| -> Value {
        let env = [("TOLD", file.display().to_string()), (MARK, world.mark().to_owned())];
        let say = "echo $TIDEWATER_WORKLOAD $CUDA_VISIBLE_DEVICES $TIDEWATER_GPU_SHARE >> $TOLD; exec sleep 600";
        let mut workload = batch(name, &["sh", "-c", say], 1, &env);
        workload["spec"]["batch"]["groups"][0]["gpus"] = json!(gpus);
        workload
    };
    federation.api.submit(&share("a", 0.5))?;
    federation.api.until("a", &["Running"], PATIENCE)?;
    federation.api.submit(&share("b", 0.4))?;
    federation.api.until("b", &["Running"], PATIENCE)?;

    federation.kill_agent(0);
    federation.start_agent(0)?;
    federation.until_cluster("north", "Ready")?;
    federation.api.submit(&share("c", 0.25))?;
    federation.api.submit(&share("d", 0.1))?;
    federation.api.until("d", &["Running"], PATIENCE)?;
    let waits = federation.api.workload("c")?;
    ensure!(phase(&waits) == "Queued", "more than a GPU is given out: {}", waits["status"]);
    federation.api.cancel("a")?;
    federation.api.until("c", &["Running"], PATIENCE)?;
    wait_for("what each was told", PATIENCE, || Ok((told().len() >= 4).then_some(())))?;
    let expected = ["default/a 0 0.5", "default/b 0 0.4", "default/d 0 0.1", "default/c 0 0.25"];
    ensure!(told() == expected, "they were told {:?}", told());

    for name in ["b", "c", "d"] {
        federation.api.cancel(name)?;
        federation.api.until(name, &["Cancelled"], PATIENCE)?;
    }
    federation.stop()?;
    Ok(Done::Holds)
}
