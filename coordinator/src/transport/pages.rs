//! Connections to attempts' own pages, each on a stream of its own that the attempt's agent passes on.

use protocol::control::{Opening, PageAnswer, PageRequest};
use protocol::quic::{BytesBothWays, read_frame};

use super::AgentLink;
use crate::handle::{NoPage, Page};

/// Has an agent connect to an attempt's page. Dropped meanwhile, the agent is told that nobody waits any more.
///
/// # Errors
/// Why there is no connection.
pub async fn open_page(link: AgentLink, request: PageRequest) -> Result<Page, NoPage> {
    let (send, receive) = link.open(&Opening::Page(request)).await.map_err(NoPage::NoAgent)?;
    let mut bytes = BytesBothWays::new(send, receive);
    match read_frame::<PageAnswer>(bytes.received()).await {
        Ok(Some(PageAnswer::Opened { token })) => Ok(Page { token, bytes: Box::new(bytes) }),
        Ok(Some(PageAnswer::Refused { reason })) => Err(NoPage::Refused(reason)),
        Ok(None) => Err(NoPage::NoAgent("its agent ended the connection".to_owned())),
        Err(error) => Err(NoPage::NoAgent(error.to_string())),
    }
}
