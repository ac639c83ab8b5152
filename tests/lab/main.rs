//! The main job and its failures with real cloud-init, Docker, SSH, bash, Kamal, registry and
//! certificates; only the APIs of the cloud and of GitHub are simulated. Needs a Docker engine and
//! root, and takes minutes; where it cannot be, it says so.

mod adopt;
mod handover;
#[path = "../support/hour.rs"]
mod hour;
mod life;
mod load;
mod more;
mod neighbours;
mod record;
mod refused;
mod repo;
mod rig;
#[path = "../support/skips.rs"]
mod skips;
mod steps;
mod story;
mod trouble;
