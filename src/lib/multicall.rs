//! s6-rs: every program in one file, for small installations. It is the program that its own name says, if it was
//! called by a link; else the one that its first argument names.

use crate::cli::Args;
use crate::die;
use crate::error::{Die, Exit, Program, USAGE, message, report};
use crate::programs;
use crate::sys::fd;

/// The multi-call binary as a program: what it is when no program is named.
pub const PROGRAM: Program = Program { name: "s6-rs", usage: "s6-rs program [ argument... ]", run };

/// The program that a command line means, and its words: the last component of the first word is a program's name, or
/// the second word is, with or without `s6-`.
pub fn choose(args: Args) -> (&'static Program, Args) {
    let name = |index| args.get(index).map_or(&b""[..], |word| word.to_bytes());
    let called_as = name(0).rsplit(|&b| b == b'/').next().unwrap_or_default();
    if let Some(program) = programs::all().find(|p| p.name.as_bytes() == called_as) {
        return (program, args);
    }
    match programs::find(name(1)) {
        Some(program) => (program, args.from(1)),
        None => (&PROGRAM, args),
    }
}

/// Says what there is to choose from.
fn run(args: Args) -> Result<Exit, Die> {
    if let Some(name) = args.get(1) {
        return Err(die!(USAGE, "no program is called ", name, ": without arguments, s6-rs lists them"));
    }
    report("usage: ", &[&PROGRAM.usage], None);
    let list: Vec<u8> = programs::all().flat_map(|p| message(&[&"  ", &p.usage, &"\n"])).collect();
    let _ = fd::write_all(fd::STDERR, &list);
    Err(Die::silent(USAGE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cptr::CPtr;
    use std::ffi::CString;

    /// The program that these words mean, and the words that it gets.
    fn chosen(words: &[&str]) -> String {
        let list: Vec<CPtr<'static>> = words
            .iter()
            .map(|w| CPtr::new(Box::leak(CString::new(*w).unwrap().into_boxed_c_str())))
            .chain([CPtr::NULL])
            .collect();
        let (program, args) = choose(Args::new(list.leak()));
        let words: Vec<_> = args.iter().map(|w| w.to_string_lossy()).collect();
        format!("{}: {}", program.name, words.join(" "))
    }

    #[test]
    fn a_program_is_chosen_by_the_name_of_the_link_or_by_the_first_argument() {
        assert_eq!(chosen(&["/bin/s6-svc", "-u", "d"]), "s6-svc: /bin/s6-svc -u d");
        assert_eq!(chosen(&["s6-svc", "s6-svok"]), "s6-svc: s6-svc s6-svok");
        assert_eq!(chosen(&["s6-rs", "svc", "-u", "d"]), "s6-svc: svc -u d");
        assert_eq!(chosen(&["./s6-rs-0.1", "s6-svc"]), "s6-svc: s6-svc");
        assert_eq!(chosen(&["/bin/svc", "svok"]), "s6-svok: svok");
    }

    #[test]
    fn without_a_name_it_is_itself() {
        for words in [&[][..], &["s6-rs"], &["s6-rs", "nothing"], &["s6-rs", ""], &["s6-rs", "-h", "svc"], &["s6-"]] {
            assert!(chosen(words).starts_with("s6-rs: "), "{words:?}");
        }
    }
}
