//! The sandbox: simulated clouds, GitHub and VMs.
