//! s6-setuidgid: become another user (spec/logging-and-chainloaders.md 7).

use super::applyuidgid::without_variables;
use super::envuidgid::{find_account, unknown_user};
use super::identity::Identity;
use crate::cli::Args;
use crate::error::{Die, Exec, Exit, Program};
use crate::text::parse_u32;

/// Takes the identity of an account, by name or as `uid:gid`, then executes the rest of its command line.
pub const PROGRAM: Program = Program { name: "s6-setuidgid", usage: "s6-setuidgid account prog...", run };

fn run(args: Args) -> Result<Exit, Die> {
    let words = args.operands();
    let (Some(account), Some(_)) = (words.get(0), words.get(1)) else { return Err(Die::usage()) };
    let (account, exec) = (account.to_bytes(), Exec::operands(words.from(1)));
    if account.is_empty() {
        return Ok(exec.into());
    }
    if let Some(colon) = account.iter().position(|&b| b == b':') {
        let number = |text| parse_u32(text).ok_or_else(Die::usage);
        let (uid, gid) = (number(&account[..colon])?, number(&account[colon + 1..])?);
        Identity { uid, gid, groups: Some(Vec::new()) }.apply()?;
        return Ok(exec.into());
    }
    find_account(account)?.ok_or_else(|| unknown_user(account))?.apply()?;
    Ok(exec.with_env(without_variables()).into())
}
