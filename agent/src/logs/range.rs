//! The newest lines of a range, of one or several containers.

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, LogsOptionsBuilder};
use futures::StreamExt;
use regex::Regex;
use vmkit_agent_protocol::logs::{Line, LogRange, LogRangeReply};

use super::lines::Assembler;
use super::newest::{FirstMoment, Newest, SPARE, pattern};
use super::{gone, journal, source, wanted};
use crate::agent::Agent;
use crate::calls::Fault;
use crate::calls::containers::is_absent;

pub(crate) async fn read(agent: &Agent, range: LogRange) -> Result<LogRangeReply, Fault> {
    let grep = pattern(range.grep.as_deref())?;
    let engine = agent.engine();
    let mut newest = Newest::new(range.tail);
    let mut there = Vec::new();
    let docker = match engine.get().await {
        Ok(docker) => docker,
        // Without its engine the journal tells what containers said.
        Err(_) if journal::is_there(agent.host()) => {
            gone::read(agent.host(), &range, grep.as_ref(), &there, &mut newest).await?;
            return Ok(newest.into_reply());
        }
        Err(error) => return Err(Fault::docker(&error)),
    };
    let all = ListContainersOptionsBuilder::new().all(true).build();
    let listed = match docker.list_containers(Some(all)).await {
        Ok(listed) => listed,
        Err(error) => {
            engine.forget().await;
            return Err(Fault::docker(&error));
        }
    };
    for summary in listed {
        let source = source(&summary);
        there.push(source.container.clone());
        if wanted(&range.selector, &summary, &source) {
            let place = newest.source(source);
            match read_one(&docker, place, &range, grep.as_ref(), &mut newest).await {
                Ok(()) => {}
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(Fault::docker(&error)),
            }
        }
    }
    gone::read(agent.host(), &range, grep.as_ref(), &there, &mut newest).await?;
    Ok(newest.into_reply())
}

async fn read_one(
    docker: &Docker,
    source: usize,
    range: &LogRange,
    grep: Option<&Regex>,
    newest: &mut Newest,
) -> Result<(), bollard::errors::Error> {
    let mut options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true);
    if let Some(since_ms) = range.since_ms {
        options = options.since(seconds(since_ms.div_euclid(1000)));
    }
    // Docker counts its tail before it looks at the end, and knows no patterns.
    let tail = newest.limit() + SPARE;
    let cut_possible = grep.is_none() && range.until_ms.is_none();
    if cut_possible {
        options = options.tail(&tail.to_string());
    }
    if let Some(until_ms) = range.until_ms {
        options = options.until(seconds(until_ms.div_euclid(1000) + 1));
    }
    let id = newest.container(source).to_owned();
    let mut frames = docker.logs(&id, Some(options.build()));
    let (mut assembler, mut count) = (Assembler::default(), 0);
    let mut lines = Vec::new();
    let mut first = FirstMoment::default();
    let since_ns = range.since_ms.map_or(i64::MIN, |ms| ms.saturating_mul(1_000_000));
    let until_ns = range.until_ms.map_or(i64::MAX, |ms| ms.saturating_mul(1_000_000));
    let mut keep = |line: Line, newest: &mut Newest| {
        let inside = (since_ns..until_ns).contains(&line.time_ns);
        let at_first = cut_possible && first.holds(&line);
        if inside && grep.is_none_or(|grep| grep.is_match(&line.text)) {
            if at_first {
                lines.push(line);
            } else {
                newest.add(source, line);
            }
        }
    };
    while let Some(frame) = frames.next().await {
        count += 1;
        assembler.push(&frame?, |line| keep(line, newest));
    }
    assembler.finish(false, |line| keep(line, newest));
    if cut_possible && count >= tail {
        // The reading may begin in the middle of a moment, where lines cannot be numbered.
        newest.leave_out();
    } else {
        for line in lines {
            newest.add(source, line);
        }
    }
    Ok(())
}

/// Docker takes whole seconds.
fn seconds(seconds: i64) -> i32 {
    i32::try_from(seconds.max(0)).unwrap_or(i32::MAX)
}
