//! s6-softlimit: change resource limits (spec/logging-and-chainloaders.md 11).

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};

use crate::cli::{Args, Options, Value};
use crate::error::{Die, Exec, Exit, OrDie, Program};

/// Sets limits, option by option, then executes the rest of its command line.
pub const PROGRAM: Program = Program {
    name: "s6-softlimit",
    usage: "s6-softlimit [ -H | -h ] [ -a bytes ] [ -c bytes ] [ -d bytes ] [ -f bytes ] [ -l bytes ] [ -m bytes ] \
            [ -o n ] [ -P priority ] [ -p n ] [ -r bytes ] [ -s bytes ] [ -t seconds ] prog...",
    run,
};

/// Which of the two limits of a resource the options that follow set.
#[derive(Clone, Copy)]
enum Which {
    Soft,
    Hard,
    Both,
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut which = Which::Soft;
    let mut options = Options::lenient(args, "acdflmoPprst");
    while let Some((letter, value)) = options.next()? {
        match letter {
            'H' => which = Which::Both,
            'h' => which = Which::Hard,
            // A letter that is unknown, here or to this system, is skipped: run scripts rely on it.
            letter => resources(letter).iter().try_for_each(|&resource| set(letter, resource, which, &value))?,
        }
    }
    let program = options.operands();
    if program.is_empty() { Err(Die::usage()) } else { Ok(Exec::operands(program).into()) }
}

fn resources(letter: char) -> &'static [Resource] {
    match letter {
        #[cfg(target_os = "linux")]
        'a' => &[Resource::RLIMIT_AS],
        #[cfg(target_os = "freebsd")]
        'a' => &[Resource::RLIMIT_VMEM],
        'c' => &[Resource::RLIMIT_CORE],
        'd' => &[Resource::RLIMIT_DATA],
        'f' => &[Resource::RLIMIT_FSIZE],
        'l' => &[Resource::RLIMIT_MEMLOCK],
        'm' => &[
            Resource::RLIMIT_DATA,
            Resource::RLIMIT_STACK,
            Resource::RLIMIT_MEMLOCK,
            #[cfg(target_os = "linux")]
            Resource::RLIMIT_AS,
            #[cfg(target_os = "freebsd")]
            Resource::RLIMIT_VMEM,
        ],
        'o' => &[Resource::RLIMIT_NOFILE],
        #[cfg(target_os = "linux")]
        'P' => &[Resource::RLIMIT_RTPRIO],
        'p' => &[Resource::RLIMIT_NPROC],
        'r' => &[Resource::RLIMIT_RSS],
        's' => &[Resource::RLIMIT_STACK],
        't' => &[Resource::RLIMIT_CPU],
        _ => &[],
    }
}

/// `=` stands for the hard limit where the soft one is set, and for none where the hard one is. A soft limit is
/// never above the hard one: lowering the hard limit takes the soft one down with it.
fn set(letter: char, resource: Resource, which: Which, value: &Value) -> Result<(), Die> {
    let object = format!("the limit of -{letter}");
    let (soft, hard) = getrlimit(resource).or_die("get", &object)?;
    #[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion, reason = "it is signed on FreeBSD")]
    let limit = |number: u64| rlim_t::try_from(number).unwrap_or(RLIM_INFINITY);
    let number = if value.bytes() == b"=" { RLIM_INFINITY } else { limit(value.u64()?) };
    let (soft, hard) = match which {
        Which::Soft => (number.min(hard), hard),
        Which::Hard => (soft.min(number), number),
        Which::Both => (number, number),
    };
    setrlimit(resource, soft, hard).or_die("set", &object)
}
