//! The containers of a machine as they lie on its disk.

use std::sync::Arc;

use super::{Container, Docker, free_port};
use crate::SandboxError;
use crate::machines::container::ContainerSpec;
use crate::machines::disk::SavedContainer;

impl Docker {
    /// What a copy of the disk holds of its containers.
    pub(in crate::machines) fn saved(&self) -> Vec<SavedContainer> {
        let save = |container: &Arc<Container>| {
            let state = container.state();
            SavedContainer {
                id: container.id.clone(),
                name: state.name.clone(),
                spec: container.spec.clone(),
                stopped: state.stop_asked,
                exit_code: state.exit_code,
                published: state.published.clone(),
            }
        };
        self.all().iter().map(save).collect()
    }

    /// Has the containers of a copied disk, none of them running yet. The process behind each
    /// listens on another port, which only the proxy knows.
    pub(in crate::machines) fn restore(
        &self,
        saved: &[SavedContainer],
    ) -> Result<(), SandboxError> {
        for one in saved {
            let builtin = one.published.first().map(|(_, outside)| *outside);
            let port = match builtin {
                Some(port) => port,
                None => free_port().map_err(SandboxError::NoPort)?,
            };
            let spec = ContainerSpec { name: one.name.clone(), ..one.spec.clone() };
            let mut container = Container::new(spec, port);
            container.id.clone_from(&one.id);
            {
                let mut state = container.state();
                state.stop_asked = one.stopped;
                state.exit_code = one.exit_code;
                state.published.clone_from(&one.published);
            }
            self.containers().push(Arc::new(container));
        }
        Ok(())
    }
}
