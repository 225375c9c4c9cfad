//! A `RayJob` as it is, from a file, beside the other frameworks on the real node.

use anyhow::ensure;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use serde_json::json;
use testbed::Image;
use testbed::images::RAY_VERSION;

use super::world::World;

/// Its name, and that of the ConfigMap with its program.
pub const NAME: &str = "cubes";
/// What its log says. As whose work its pods know only from what was put into them.
pub const ANSWER: &str = "CUBES 36100 NODES 3 OF default/cubes";

const OBJECT: &str = include_str!("cubes.yaml");
const PROGRAM: &str = include_str!("cubes.py");

/// The file with the job.
pub fn file(world: &World) -> anyhow::Result<String> {
    let (image, version) = (format!("image: {}\n", Image::Ray.reference()), format!("rayVersion: \"{RAY_VERSION}\"\n"));
    ensure!(
        OBJECT.matches(&image).count() == 2 && OBJECT.contains(&version),
        "cubes.yaml names another Ray than the test bed has: write {image}and {version}there"
    );
    world.write("cubes.yaml", OBJECT)
}

/// Its program, as whoever wrote the job put it into the cluster.
pub async fn make_program(client: &Client) -> anyhow::Result<()> {
    let map = serde_json::from_value(json!({"metadata": {"name": NAME}, "data": {"cubes.py": PROGRAM}}))?;
    Api::<ConfigMap>::namespaced(client.clone(), "default").create(&Default::default(), &map).await?;
    Ok(())
}
