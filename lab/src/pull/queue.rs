//! The queue: events of job nodes that wait for this lab.

use super::{PullError, PullJob, Web};
use lab_base::text;
use lab_guard::Id;
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// Events that are asked for at once, as KernelCI's example does.
const AT_ONCE: usize = 1000;
/// A time before every event.
const BEGINNING: &str = "1970-01-01T00:00:00.000000";
/// Maximum length of a time, characters: it comes from the queue and goes into an address again.
const LONGEST_TIME: usize = 40;

/// A queue of jobs.
#[derive(Debug, Clone)]
pub struct JobQueue {
    /// The API's address, for example `https://api.kernelci.org/latest`.
    pub url: String,
    /// The lab's name in KernelCI, for which jobs are scheduled.
    pub runtime: String,
    /// Only jobs for this platform, if set.
    pub platform: Option<String>,
}

/// What the queue has.
#[derive(Debug, Default)]
pub struct JobBatch {
    /// Jobs for this lab, in the order of their events.
    pub jobs: Vec<PullJob>,
    /// Events that can't be read.
    pub refused: Vec<PullError>,
    /// The time of the last event, to ask from there the next time.
    pub until: Option<String>,
}

#[derive(Deserialize)]
struct JobEvent {
    timestamp: String,
    node: JobNode,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct JobNode {
    id: String,
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    artifacts: Option<BTreeMap<String, String>>,
    #[serde(default)]
    data: Value,
}

impl JobQueue {
    /// The jobs that wait, from a time on.
    ///
    /// # Errors
    /// The queue can't be asked, or answers something else.
    pub fn ask(&self, web: Web, from: Option<&str>, scratch: &Path) -> Result<JobBatch, PullError> {
        let from = from.unwrap_or(BEGINNING);
        // Workers of pull labs poll for this state (kernelci-pipeline, src/scheduler.py).
        let url = format!(
            "{}/events?kind=job&state=available&recursive=true&limit={AT_ONCE}&from={from}",
            self.url.trim_end_matches('/')
        );
        let events: Vec<Value> = web.json(&url, "a list of events", scratch)?;
        Ok(self.sort(&url, events))
    }

    fn sort(&self, url: &str, events: Vec<Value>) -> JobBatch {
        let mut batch = JobBatch::default();
        for (number, event) in (1..).zip(events) {
            match self.job(event) {
                Ok((job, until)) => {
                    batch.until = Some(until);
                    batch.jobs.extend(job);
                }
                Err(error) => {
                    let problem = error.to_string();
                    batch.refused.push(PullError::Event { number, url: url.to_owned(), problem });
                }
            }
        }
        batch
    }

    /// The job of an event, if it is for this lab, and the event's time.
    fn job(&self, event: Value) -> Result<(Option<PullJob>, String), EventProblem> {
        let event: JobEvent = serde_json::from_value(event)?;
        let of_time = |byte: u8| byte.is_ascii_alphanumeric() || b"-:.+".contains(&byte);
        if event.timestamp.len() > LONGEST_TIME || !event.timestamp.bytes().all(of_time) {
            return Err(EventProblem::Time(text::line(&event.timestamp, LONGEST_TIME)));
        }
        // Events have the node's data, and with `recursive` the whole node.
        let field = |name: &str| {
            let places = [&event.node.data, &event.data["data"]];
            places.into_iter().find_map(|data| data[name].as_str())
        };
        let ours = field("runtime") == Some(&*self.runtime)
            && self.platform.as_deref().is_none_or(|platform| field("platform") == Some(platform));
        let definition = event.node.artifacts.as_ref().and_then(|artifacts| artifacts.get("job_definition"));
        let job = match definition {
            Some(definition) if ours => Some(PullJob {
                node: Id::new(&event.node.id)?,
                definition: definition.clone(),
                build: event.node.parent.as_deref().map(Id::new).transpose()?,
            }),
            _ => None,
        };
        Ok((job, event.timestamp))
    }
}

/// Why an event is none of a job.
#[derive(Debug, thiserror::Error)]
enum EventProblem {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("`{0}` is no time")]
    Time(String),
    #[error(transparent)]
    Id(#[from] lab_guard::NotAnId),
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn queue() -> JobQueue {
        JobQueue { url: "http://queue".into(), runtime: "our-lab".into(), platform: None }
    }

    fn event(id: &str, runtime: &str) -> Value {
        json!({
            "timestamp": "2026-11-26T02:00:00.000001",
            "data": { "op": "updated", "kind": "job", "data": { "runtime": runtime, "platform": "qemu-x86" } },
            "node": { "id": id, "parent": "b1", "artifacts": { "job_definition": "http://queue/job.json" } },
        })
    }

    #[test]
    fn only_jobs_for_this_lab_are_taken() {
        let mut without = event("a3", "our-lab");
        without["node"]["artifacts"] = Value::Null;
        let batch = queue().sort("u", vec![event("a1", "our-lab"), event("a2", "other-lab"), without]);
        assert!(batch.refused.is_empty(), "{:?}", batch.refused);
        let ids: Vec<&str> = batch.jobs.iter().map(|job| job.node.as_str()).collect();
        assert_eq!(ids, ["a1"]);
        assert_eq!(batch.jobs[0].build.as_ref().map(Id::as_str), Some("b1"));
        let other = JobQueue { platform: Some("beaglebone".into()), ..queue() };
        assert!(other.sort("u", vec![event("a1", "our-lab")]).jobs.is_empty());
    }

    #[test]
    fn a_wrong_event_stops_no_other_one() {
        let mut late = event("a1", "our-lab");
        late["timestamp"] = json!("2026&from=x");
        let all = vec![json!("text"), event("../../etc", "our-lab"), late, event("a4", "our-lab")];
        let batch = queue().sort("http://queue/events", all);
        let told: Vec<String> = batch.refused.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[1].starts_with("event 2 of http://queue/events is not of a job: "), "{told:?}");
        assert!(told[2].ends_with("`2026&from=x` is no time"), "{told:?}");
        assert_eq!(batch.jobs.len(), 1);
    }
}
