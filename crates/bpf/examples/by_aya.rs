//! A loader as aya's users write one, for tests of the witness: `by_aya OBJECT PROGRAM DEVICE` attaches the program at the device's
//! ingress with [`aya::programs::SchedClassifier::attach`], which chooses the mechanism, and ends.

use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType},
};
use std::{env, error::Error};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [object, program, device] = &*words else { return Err("usage: by_aya OBJECT PROGRAM DEVICE".into()) };
    let mut ebpf = Ebpf::load_file(object)?;
    let found = ebpf.program_mut(program).ok_or_else(|| format!("{object} has no program {program}"))?;
    let classifier: &mut SchedClassifier = found.try_into()?;
    classifier.load()?;
    classifier.attach(device, TcAttachType::Ingress)?;
    println!("attached");
    Ok(())
}
