//! A pull lab of KernelCI: asks a queue for jobs, fetches the kernel of each, runs what the job names, and submits the results.
//!
//! The protocol is KernelCI's PULL_LABS: events of job nodes, and a job definition per job (kernelci-core,
//! `config/runtime/base/pull_labs.jinja2`; kernelci-pipeline, `doc/connecting-pull-lab.md`). Whatever the queue answers is
//! foreign: it has limits, ids become file names only if they are ids, and a kernel is used only if its hash is the job's.

mod error;
mod job;
mod queue;
mod web;

pub use error::PullError;
pub use job::{PreparedJob, PullJob};
pub use queue::{JobBatch, JobQueue};
pub use web::Web;
