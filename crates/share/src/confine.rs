//! Restricts the serving thread to the directories that it serves (Landlock): a fault in this crate then opens nothing else,
//! and writes nowhere but in writable exports.

use crate::tree::{Content, Tree};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};

/// Landlock rights of Linux 6.12; older kernels apply those that they support.
const RIGHTS: ABI = ABI::V6;

/// Restricts the calling thread, and no other one. On a kernel without Landlock nothing happens.
///
/// # Errors
/// The kernel supports Landlock but refuses the rules.
pub fn confine_thread(tree: &Tree) -> Result<(), RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let devices = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::MakeFifo;
    let write: BitFlags<AccessFs> = AccessFs::from_all(RIGHTS) & !(devices | AccessFs::Execute | AccessFs::IoctlDev);
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RIGHTS))?
        .handle_access(AccessNet::from_all(RIGHTS))?
        .scope(Scope::from_all(RIGHTS))?
        .create()?;
    let exports = tree.items.iter().filter_map(|item| match &item.content {
        Content::Host(host) => {
            Some(Ok::<_, RulesetError>(PathBeneath::new(&host.root, if host.budget.is_some() { write } else { read })))
        }
        _ => None,
    });
    // This also sets no_new_privs, for this thread.
    rules.add_rules(exports)?.restrict_self().map(drop)
}
