//! Freeing disk: stopped containers of older versions of Kamal's apps, and images of theirs that no
//! container uses. Nothing that Kamal did not label, no service beside an app, and no volume.

use std::collections::{BTreeMap, BTreeSet};

use bollard::Docker;
use bollard::query_parameters::{
    ListImagesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
};
use vmkit_agent_protocol::calls::Container;
use vmkit_agent_protocol::care::{Prune, Pruned};

use crate::calls::Fault;
use crate::calls::containers::{containers, is_absent};
use crate::calls::quiesce;
use crate::docker::Engine;
use crate::host::Host;

/// Frees it, or says what would be freed.
pub(super) async fn prune(host: &Host, engine: &Engine, wanted: Prune) -> Result<Pruned, Fault> {
    let docker = engine.get().await.map_err(|error| Fault::docker(&error))?;
    let all = containers(engine).await?;
    let resting: BTreeSet<String> = quiesce::resting(host)?.into_iter().collect();
    let (going, staying) = sorted(all, &resting, wanted.keep);
    let (images, bytes) = images(&docker, &staying).await?;
    let pruned = Pruned {
        containers: going.iter().map(|one| one.name.clone()).collect(),
        images: images.iter().map(|one| one.name.clone()).collect(),
        bytes,
    };
    if wanted.dry_run {
        return Ok(pruned);
    }
    for container in &going {
        // Without force: one that was started meanwhile stays.
        let options = RemoveContainerOptionsBuilder::new().build();
        match docker.remove_container(&container.id, Some(options)).await {
            Err(error) if !is_absent(&error) => return Err(Fault::docker(&error)),
            _ => {}
        }
    }
    for image in &images {
        for name in &image.references {
            // One that a deploy took into use meanwhile stays: Docker says 409.
            let options = RemoveImageOptionsBuilder::new().build();
            match docker.remove_image(name, Some(options), None).await {
                Err(error) if !is_absent(&error) => return Err(Fault::docker(&error)),
                _ => {}
            }
        }
    }
    Ok(pruned)
}

/// Those that may go: stopped ones of an app's role beyond the newest `keep`.
fn sorted(
    all: Vec<Container>,
    resting: &BTreeSet<String>,
    keep: u32,
) -> (Vec<Container>, Vec<Container>) {
    let mut stopped: BTreeMap<(String, String), Vec<Container>> = BTreeMap::new();
    let mut staying = Vec::new();
    for container in all {
        let label =
            |name: &str| container.labels.get(name).filter(|value| !value.is_empty()).cloned();
        let over = ["exited", "dead", "created"].contains(&container.state.as_str());
        match (label("service"), label("role")) {
            (Some(service), Some(role)) if over && !resting.contains(&container.id) => {
                stopped.entry((service, role)).or_default().push(container);
            }
            _ => staying.push(container),
        }
    }
    let mut going = Vec::new();
    for (_, mut these) in stopped {
        these.sort_by_key(|one| std::cmp::Reverse(one.started_at_ms));
        // At least one: an app that was stopped by hand has nothing else to start.
        let kept = these.drain(..(keep.max(1) as usize).min(these.len()));
        staying.extend(kept);
        going.extend(these);
    }
    (going, staying)
}

struct Image {
    name: String,
    references: Vec<String>,
}

/// Kamal's images that none of these containers was made of, and their size in bytes.
async fn images(docker: &Docker, staying: &[Container]) -> Result<(Vec<Image>, u64), Fault> {
    let options = ListImagesOptionsBuilder::new().build();
    let listed = docker.list_images(Some(options)).await.map_err(|error| Fault::docker(&error))?;
    let used: BTreeSet<&str> = staying.iter().map(|one| one.image.as_str()).collect();
    let (mut images, mut bytes) = (Vec::new(), 0);
    for image in listed {
        let ours = image.labels.get("service").is_some_and(|service| !service.is_empty());
        let in_use = used.contains(image.id.as_str())
            || image.repo_tags.iter().any(|tag| used.contains(tag.as_str()));
        if !ours || in_use {
            continue;
        }
        let references =
            if image.repo_tags.is_empty() { vec![image.id.clone()] } else { image.repo_tags };
        bytes += u64::try_from(image.size).unwrap_or(0);
        images.push(Image { name: references[0].clone(), references });
    }
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((images, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, state: &str, labels: &[(&str, &str)], started: i64) -> Container {
        Container {
            id: name.to_owned(),
            name: name.to_owned(),
            state: state.to_owned(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            started_at_ms: Some(started),
            ..Container::default()
        }
    }

    #[test]
    fn only_older_versions_of_apps_go() {
        let web = [("service", "shop-staging"), ("role", "web")];
        let all = vec![
            container("web-1", "exited", &web, 1),
            container("web-2", "exited", &web, 2),
            container("web-3", "exited", &web, 3),
            container("web-4", "running", &web, 4),
            container("resting", "exited", &web, 0),
            container("db", "exited", &[("service", "shop-staging-db")], 1),
            container("somebody's", "exited", &[], 1),
        ];
        let resting = BTreeSet::from(["resting".to_owned()]);
        let names = |keep| {
            let (going, staying) = sorted(all.clone(), &resting, keep);
            assert_eq!(going.len() + staying.len(), all.len());
            going.into_iter().map(|one| one.name).collect::<Vec<_>>()
        };
        assert_eq!(names(1), ["web-2", "web-1"]);
        assert_eq!(names(0), ["web-2", "web-1"], "one always stays");
        assert_eq!(names(2), ["web-1"]);
        assert_eq!(names(9), Vec::<String>::new());
    }
}
