//! Notices permissions that the user of Redis loses or gains while the server runs.

use super::job::Context;
use crate::store::Result;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    context.permissions.check(&context.store).await
}
