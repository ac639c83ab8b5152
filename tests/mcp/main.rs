//! VMKit as its clients meet it: real processes, real MCP clients of both eras, stdio and HTTP.

mod adopt;
mod configured;
mod diagnosis;
mod digitalocean;
mod gateway;
mod hooks;
mod money;
mod releases;
mod rig;
mod sharing;
mod stdio;
mod story;
mod terminal;
mod trouble;
mod webhooks;
mod worker;
