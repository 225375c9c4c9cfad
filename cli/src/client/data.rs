//! Data locations.

use protocol::api::List;
use protocol::data::DataObject;
use protocol::ids::DataName;

use super::{Client, ClientError, ROOT};

const DATA: &str = "datalocations";

impl Client {
    /// Every data location, with who uses it.
    pub async fn data(&self) -> Result<List<DataObject>, ClientError> {
        self.read(&[ROOT, &[DATA]].concat(), &[]).await
    }

    /// Makes a data location or replaces it; with a resourceVersion, only that version.
    pub async fn set_data(&self, data: &DataObject) -> Result<DataObject, ClientError> {
        self.put(DATA, data.metadata.name.as_str(), data).await
    }

    /// Removes a data location.
    pub async fn delete_data(&self, name: &DataName) -> Result<(), ClientError> {
        self.remove(DATA, name.as_str()).await
    }
}
