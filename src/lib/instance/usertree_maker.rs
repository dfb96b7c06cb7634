//! s6-usertree-maker: a supervision tree for a user (spec/local-services-and-instances.md 9.2).

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{self, Die, Exit, Program, USAGE};
use crate::instance::execline::Script;
use crate::instance::instance_maker::check_log_dir;
use crate::instance::maker::{Line, LoggerOptions, Plan, RcNames};
use crate::text::shell_word;

/// Writes a service directory whose service is the supervision tree of a user.
pub const PROGRAM: Program = Program {
    name: "s6-usertree-maker",
    usage: "s6-usertree-maker [ -d userscandir ] [ -p path ] [ -E envdir [ -e var ... ] ] \
            [ -r service/logger[/pipeline] ] [ -l loguser ] [ -t stamptype ] [ -n nfiles ] [ -s filesize ] \
            [ -S maxsize ] [ -P prefix ] user logdir dir",
    run,
};

/// The most variables in which others are replaced.
const MOST_VARIABLES: usize = 64;
/// What is known of the user when its tree starts.
const USER_VARIABLES: [&str; 5] = ["USER", "HOME", "UID", "GID", "GIDLIST"];

/// What the user's tree is like.
struct Tree {
    user: Vec<u8>,
    scandir: Vec<u8>,
    path: Vec<u8>,
    env_dir: Option<Vec<u8>>,
    /// Variables from `env_dir` whose values may name those of the user.
    variables: Vec<Vec<u8>>,
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "dpEerltnsSP");
    let mut logger = LoggerOptions::default();
    let mut tree = Tree {
        user: Vec::new(),
        scandir: b"${HOME}/service".to_vec(),
        path: b"/usr/bin:/bin".to_vec(),
        env_dir: None,
        variables: Vec::new(),
    };
    let mut rc = None;
    while let Some((letter, value)) = options.next()? {
        match letter {
            'd' => tree.scandir = value.into_bytes(),
            'p' => tree.path = value.into_bytes(),
            'E' => tree.env_dir = Some(value.into_bytes()),
            'e' if value.bytes().is_empty() || value.bytes().contains(&b'=') => {
                return Err(invalid_variable(value.bytes()));
            }
            'e' => tree.variables.push(value.into_bytes()),
            'r' => rc = Some(RcNames::parse(value.bytes())?),
            _ if logger.take(letter, &value)? => {}
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let (Some(user), Some(log_dir), Some(dir)) = (operands.get(0), operands.get(1), operands.get(2)) else {
        return Err(Die::usage());
    };
    tree.user = user.to_bytes().to_vec();
    if !tree.scandir.starts_with(b"/") && !tree.scandir.starts_with(b"${HOME}/") {
        return Err(die!(USAGE, "the scan directory must be an absolute path or begin with ${HOME}/"));
    }
    if tree.variables.len() > MOST_VARIABLES {
        return Err(die!(USAGE, "too many variables"));
    }
    check_log_dir(Some(log_dir.to_bytes()))?;
    if rc.as_ref().is_some_and(|names: &RcNames| names.logger.is_none()) {
        return Err(die!(USAGE, "the logger needs a name in -r"));
    }
    let log_run = Some(logger.script(log_dir.to_bytes()));
    Plan { dir, rc: rc.as_ref(), run: tree.script()?, log_run }.carry_out(|_| Ok(()))?;
    Ok(error::OK)
}

fn invalid_variable(name: &[u8]) -> Die {
    die!(USAGE, "invalid variable: ", name.escape_ascii().to_string())
}

/// The name of a variable that a shell can handle.
fn shell_variable(name: &[u8]) -> Result<&str, Die> {
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    match str::from_utf8(name) {
        Ok(text) if name.iter().all(is_name) && name.first().is_some_and(|b| !b.is_ascii_digit()) => Ok(text),
        _ => Err(invalid_variable(name)),
    }
}

/// Whether `~user` means somebody's home to a shell.
fn is_account(user: &[u8]) -> bool {
    let begins = user.first().is_some_and(|&b| b.is_ascii_alphanumeric() || b == b'_');
    begins
        && user.iter().all(|&b| b.is_ascii_alphanumeric() || b"_.@+-".contains(&b))
        && !user.iter().all(u8::is_ascii_digit)
}

/// The shell function that puts the user's variables in the place of `${NAME}` in its argument; the result is
/// `$s6_text`.
fn expand_function() -> String {
    let known: String = USER_VARIABLES
        .iter()
        .map(|name| format!("    {name}\\}}*) s6_text=$s6_text${name} s6_rest=${{s6_rest#{name}\\}}}} ;;\n"))
        .collect();
    format!(
        r"expand() {{
  s6_text= s6_rest=$1
  while :; do
    case $s6_rest in
    *\$\{{*) s6_text=$s6_text${{s6_rest%%\$\{{*}} s6_rest=${{s6_rest#*\$\{{}} ;;
    *) s6_text=$s6_text$s6_rest; return ;;
    esac
    case $s6_rest in
{known}    *) s6_text=$s6_text\$\{{ ;;
    esac
  done
}}
"
    )
}

impl Tree {
    /// The script that becomes the user and then its scanner.
    fn script(&self) -> Result<Vec<u8>, Die> {
        match Script::begin("-P") {
            Some(script) => Ok(self.execline_script(script)),
            None => self.shell_script(),
        }
    }

    fn execline_script(&self, mut script: Script) -> Vec<u8> {
        script.line("fdmove -c 2 1").line("emptyenv -p").line_with("export USER", &self.user);
        script.line_with("s6-envuidgid -i --", &self.user).line("s6-applyuidgid -U --");
        script.raw(b"backtick -in HOME { homeof ").quoted(&self.user).line(" }");
        let variables: &[Vec<u8>] = if self.env_dir.is_some() { &self.variables } else { &[] };
        if let Some(env_dir) = &self.env_dir {
            script.line_with("s6-envdir -i --", env_dir);
        }
        if !variables.is_empty() {
            script.line("multisubstitute").line("{");
            for name in variables {
                script.raw(b"  importas -D \"\" -- ").quoted(name).raw(b" ").quoted(name).raw(b"\n");
            }
            script.line("}");
        }
        script.line("multisubstitute").line("{");
        for name in USER_VARIABLES {
            script.line(&format!("  importas -i {name} {name}"));
        }
        script.line("}");
        for name in variables {
            script.raw(b"export ").quoted(name).raw(b" ${").quoted(name).raw(b"}\n");
        }
        script.line_with("export PATH", &self.path).line_with("s6-svscan -d3 --", &self.scandir).text()
    }

    /// The same for a shell, which looks the home up before the environment is emptied; the identity comes next, so
    /// that everything else is done as the user.
    fn shell_script(&self) -> Result<Vec<u8>, Die> {
        if !is_account(&self.user) {
            return Err(die!(USAGE, "invalid user: ", self.user.escape_ascii().to_string()));
        }
        let variables = self.variables.iter().map(|name| shell_variable(name)).collect::<Result<Vec<_>, Die>>()?;
        let user = self.user.escape_ascii();
        let mut script = format!(
            "#!/bin/sh
exec 2>&1
HOME=~{user}
case $HOME in
/*) ;;
*) echo \"run: fatal: no home directory for {user}\"; exit 111 ;;
esac
"
        )
        .into_bytes();
        let mut line = Line::exec();
        line.words(&["env", "-i"]).raw(b"\"PATH=$PATH\"").raw(b"\"HOME=$HOME\"");
        line.word(&[b"USER=", &self.user[..]].concat());
        line.words(&["s6-envuidgid", "-i", "--"]).word(&self.user).words(&["s6-applyuidgid", "-U", "--"]);
        if let Some(env_dir) = &self.env_dir {
            line.words(&["s6-envdir", "-i", "--"]).word(env_dir);
        }
        line.words(&["sh", "-c"]).word(&[b"\n", &self.inner_script(&variables)[..]].concat());
        script.extend(line.0);
        script.push(b'\n');
        Ok(script)
    }

    /// What the user's shell does.
    fn inner_script(&self, variables: &[&str]) -> Vec<u8> {
        // What a shell adds to an environment of its own accord.
        let mut script = String::from("unset PWD SHLVL\n");
        let variables = if self.env_dir.is_some() { variables } else { &[] };
        if !variables.is_empty() {
            script += &expand_function();
            // All are expanded before one is set: USER may be among them.
            for (i, name) in variables.iter().enumerate() {
                script += &format!("expand \"${name}\"; s6_value{i}=$s6_text\n");
            }
            for (i, name) in variables.iter().enumerate() {
                script += &format!("export {name}=\"$s6_value{i}\"\n");
            }
        }
        let mut script = script.into_bytes();
        let mut line = Line(b"export".to_vec());
        line.raw(&[b"PATH=", &self.expanded(&self.path, variables)[..]].concat());
        script.extend(line.0);
        script.push(b'\n');
        let mut line = Line::exec();
        line.words(&["s6-svscan", "-d3", "--"]).raw(&self.expanded(&self.scandir, variables));
        script.extend(line.0);
        script.push(b'\n');
        script
    }

    /// A word in which the shell replaces what is `${NAME}` here, if it is a name of ours.
    fn expanded(&self, text: &[u8], variables: &[&str]) -> Vec<u8> {
        let known = |name: &[u8]| {
            USER_VARIABLES.iter().copied().chain(variables.iter().copied()).find(|n| n.as_bytes() == name)
        };
        let mut word = Vec::new();
        let mut rest = text;
        let mut plain = Vec::new();
        while let Some((&byte, after)) = rest.split_first() {
            let named = rest.strip_prefix(b"${").and_then(|rest| {
                let end = rest.iter().position(|&b| b == b'}')?;
                Some((known(&rest[..end])?, &rest[end + 1..]))
            });
            match named {
                Some((name, after)) => {
                    if !plain.is_empty() {
                        word.extend(shell_word(&std::mem::take(&mut plain)));
                    }
                    word.extend(format!("\"${name}\"").bytes());
                    rest = after;
                }
                None => {
                    plain.push(byte);
                    rest = after;
                }
            }
        }
        if !plain.is_empty() || word.is_empty() {
            word.extend(shell_word(&plain));
        }
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn tree() -> Tree {
        Tree {
            user: b"bob".to_vec(),
            scandir: b"${HOME}/service".to_vec(),
            path: b"/usr/bin:/bin".to_vec(),
            env_dir: None,
            variables: Vec::new(),
        }
    }

    #[test]
    fn a_plain_tree_has_a_plain_script() {
        let script = "#!/bin/sh
exec 2>&1
HOME=~bob
case $HOME in
/*) ;;
*) echo \"run: fatal: no home directory for bob\"; exit 111 ;;
esac
exec env -i \"PATH=$PATH\" \"HOME=$HOME\" 'USER=bob' s6-envuidgid -i -- bob s6-applyuidgid -U -- sh -c '
unset PWD SHLVL
export PATH=/usr/bin:/bin
exec s6-svscan -d3 -- \"$HOME\"/service
'
";
        assert_eq!(String::from_utf8(tree().shell_script().unwrap()).unwrap(), script);
    }

    #[test]
    fn only_known_names_are_replaced() {
        let tree = tree();
        let variables = ["TOOLS"];
        for (text, word) in [
            ("${HOME}/service", "\"$HOME\"/service"),
            ("/run/user/${UID}/a b", "/run/user/\"$UID\"'/a b'"),
            ("${TOOLS}:${OTHER}", "\"$TOOLS\"':${OTHER}'"),
            ("/${HOME", "'/${HOME'"),
            ("", "''"),
        ] {
            assert_eq!(String::from_utf8(tree.expanded(text.as_bytes(), &variables)).unwrap(), word);
        }
    }

    #[test]
    fn values_name_what_is_known_of_the_user() {
        for (value, want) in [
            ("plain $HOME \\ '\"*", "plain $HOME \\ '\"*"),
            ("${HOME}/x:${GIDLIST}${GID}", "/home/bob/x:7,87"),
            ("${HOME", "${HOME"),
            ("${}${HOMER}${USER}", "${}${HOMER}bob"),
            ("${${USER}}", "${bob}"),
            ("", ""),
        ] {
            let script = format!("{}expand \"$V\"; printf %s \"$s6_text\"", expand_function());
            let output = Command::new("/bin/sh")
                .args(["-c", &script])
                .envs([("V", value), ("HOME", "/home/bob"), ("GIDLIST", "7,8"), ("GID", "7"), ("USER", "bob")])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), want, "{value:?}");
        }
    }

    #[test]
    fn accounts_are_words_without_meaning_to_a_shell() {
        for user in ["bob", "_x", "a.b-c", "me@example.org", "7up"] {
            assert!(is_account(user.as_bytes()), "{user}");
        }
        for user in ["", "-x", "+", "12", "a b", "a;b", "$x", "a/b", "a'b"] {
            assert!(!is_account(user.as_bytes()), "{user}");
        }
    }
}
