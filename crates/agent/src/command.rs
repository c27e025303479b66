//! Commands that are not worth running, refused with a reason before they reach the sandbox.
//!
//! This list isolates nothing: the sandbox does that. It saves the policy's time on what cannot
//! work there (no network, no privileges, no terminal, no history) and makes the attempt visible
//! in the record.

/// Program and the reason it is refused.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["sudo", "su", "doas", "chroot", "unshare", "nsenter", "mount", "umount"],
        "no privileges here",
    ),
    (&["docker", "podman", "systemctl", "reboot", "shutdown"], "no such service here"),
    (&["curl", "wget", "ssh", "scp", "nc", "telnet", "ftp"], "no network here"),
    (
        &["vi", "vim", "nvim", "nano", "emacs", "less", "more", "top", "htop", "man", "watch"],
        "no terminal here",
    ),
];

/// Subcommands of git that look for a history, which is not there, or for a remote.
const GIT_REFUSED: &[&str] =
    &["log", "reflog", "blame", "bisect", "fsck", "fetch", "pull", "push", "clone", "remote"];

/// Why a command line is refused; `None` where it may run.
#[must_use]
pub fn refusal(cmd: &str) -> Option<String> {
    cmd.split(['\n', ';', '|', '&']).find_map(refuse_simple)
}

fn refuse_simple(command: &str) -> Option<String> {
    let mut words = command
        .split_whitespace()
        .map(|word| word.trim_matches(['(', ')', '{', '}', '!', '`', '$']))
        .skip_while(|word| word.is_empty() || is_assignment(word));
    let program = words.next()?;
    let program = program.rsplit('/').next().unwrap_or(program);
    if program == "git" {
        let sub = words.find(|word| !word.starts_with('-'))?;
        return GIT_REFUSED
            .contains(&sub)
            .then(|| format!("git {sub}: the repository has one commit and no remote"));
    }
    REFUSED
        .iter()
        .find(|(programs, _)| programs.contains(&program))
        .map(|(_, reason)| format!("{program}: {reason}"))
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn useful_commands_pass() {
        for cmd in [
            "ls -la",
            "grep -n 'def less' more.py",
            "sed -n 1,20p a.py | head",
            "git diff",
            "git status && git show HEAD:a.py",
            "python3 -c 'print(1)'",
            "",
            "| |",
            "cat wget.py",
        ] {
            assert_eq!(refusal(cmd), None, "{cmd}");
        }
    }

    #[test]
    fn hopeless_commands_are_refused_with_the_reason() {
        for (cmd, part) in [
            ("sudo ls", "privileges"),
            ("ls; /usr/bin/curl http://x", "network"),
            ("A=1 vim a.py", "terminal"),
            ("git --no-pager log -p", "one commit"),
            ("echo a && (git reflog)", "one commit"),
        ] {
            let why = refusal(cmd);
            assert!(why.as_deref().is_some_and(|w| w.contains(part)), "{cmd}: {why:?}");
        }
    }
}
