//! Landlock and seccomp: a second and a third lock on what the namespaces already close.

use std::collections::BTreeMap;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::Refused;

/// Calls no repair needs. The numbers are this architecture's own.
const DENIED: &[libc::c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_personality,
    libc::SYS_fanotify_init,
    libc::SYS_vhangup,
];

/// Calls that are answered as by a kernel that lacks them, so that programs do without. The arguments of
/// clone3 are out of a filter's sight, and the C library then uses clone. The others take memory that no
/// file system bounds and no process need show: it can be kept without being mapped.
const ABSENT: &[libc::c_long] = &[
    libc::SYS_clone3,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
];

/// First number of the calls of x32, the other interface of 64-bit x86 (asm/unistd.h). Some kernels have
/// it, and none of its numbers is in a list here.
const X32_CALLS: u32 = 0x4000_0000;

/// Flags of clone(2) that make namespaces (sched.h).
const NEW_NAMESPACE: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Reading and running below the system's folders, everything below the agent's.
pub(super) fn landlock() -> Result<(), Refused> {
    let refused =
        |error: &dyn std::fmt::Display| Refused { layer: "Landlock", reason: error.to_string() };
    // ABI 3 (Linux 6.2) is required in full; devices, network and scopes where the kernel has
    // them: the namespaces and seccomp close those too.
    let create = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V3))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V5))?
            .handle_access(AccessNet::from_all(ABI::V4))?
            .scope(Scope::from_all(ABI::V6))?
            .create()
    };
    let mut rules = create().map_err(|error: landlock::RulesetError| refused(&error))?;
    let (all, read) = (AccessFs::from_all(ABI::V5), AccessFs::from_read(ABI::V5));
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let places = [
        ("/", AccessFs::ReadDir.into()),
        ("/usr", read),
        ("/bin", read),
        ("/sbin", read),
        ("/lib", read),
        ("/lib32", read),
        ("/lib64", read),
        ("/libx32", read),
        ("/etc", read),
        ("/proc", read),
        ("/dev", device | AccessFs::ReadDir),
        ("/repo", all),
        ("/tmp", all),
        ("/home/agent", all),
    ];
    for (place, access) in places {
        // Not every system has every folder.
        let Ok(folder) = PathFd::new(place) else { continue };
        let rule = PathBeneath::new(folder, access).set_compatibility(CompatLevel::BestEffort);
        rules = rules.add_rule(rule).map_err(|error| refused(&error))?;
    }
    let status = rules.restrict_self().map_err(|error| refused(&error))?;
    match status.ruleset {
        landlock::RulesetStatus::NotEnforced => Err(refused(&"not enforced by this kernel")),
        _ => Ok(()),
    }
}

/// Denies the calls of [`DENIED`], new namespaces, sockets that are not local, injection into a
/// terminal, and memory that is shared but in no file; hides those of [`ABSENT`] and of x32.
pub(super) fn seccomp() -> Result<(), Refused> {
    let refused = |error: &dyn std::fmt::Display| Refused {
        layer: "seccomp filter",
        reason: error.to_string(),
    };
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| refused(&error))?;
    let deny = rules().map_err(|error| refused(&error))?;
    if cfg!(target_arch = "x86_64") {
        seccompiler::apply_filter(&without_x32()).map_err(|error| refused(&error))?;
    }
    install(deny, libc::EPERM, arch).map_err(|error| refused(&error))?;
    let absent = ABSENT.iter().map(|&call| (call, Vec::new())).collect();
    install(absent, libc::ENOSYS, arch).map_err(|error| refused(&error))
}

/// A filter that answers every call of x32 with ENOSYS. One of another architecture is the other
/// filters' business.
fn without_x32() -> BpfProgram {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_FROM: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let absent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    vec![
        // The call's number is the first word of what a filter is shown.
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_FROM, 0, 1, X32_CALLS),
        step(RETURN, 0, 0, absent),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

fn rules() -> Result<Rules, seccompiler::BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    let rule = |index, length, op, value| {
        SeccompRule::new(vec![SeccompCondition::new(index, length, op, value)?])
    };
    let mut deny: Rules = DENIED.iter().map(|&call| (call, Vec::new())).collect();
    let mut clone = Vec::new();
    for flag in NEW_NAMESPACE {
        let flag = u64::from(flag.cast_unsigned());
        clone.push(rule(0, Qword, SeccompCmpOp::MaskedEq(flag), flag)?);
    }
    deny.insert(libc::SYS_clone, clone);
    let local = libc::AF_UNIX.cast_unsigned().into();
    deny.insert(libc::SYS_socket, vec![rule(0, Dword, SeccompCmpOp::Ne, local)?]);
    deny.insert(
        libc::SYS_ioctl,
        vec![
            rule(1, Dword, SeccompCmpOp::Eq, libc::TIOCSTI)?,
            rule(1, Dword, SeccompCmpOp::Eq, libc::TIOCLINUX)?,
        ],
    );
    // Memory shared between processes that is in no file stays whole until the last page of it is
    // unmapped: what is mapped of it says nothing of what it takes.
    let shared = u64::from((libc::MAP_SHARED | libc::MAP_ANONYMOUS).cast_unsigned());
    deny.insert(libc::SYS_mmap, vec![rule(3, Qword, SeccompCmpOp::MaskedEq(shared), shared)?]);
    // Limits of other processes, process 1 among them.
    deny.insert(libc::SYS_prlimit64, vec![rule(0, Dword, SeccompCmpOp::Ne, 0)?]);
    Ok(deny)
}

fn install(rules: Rules, errno: libc::c_int, arch: TargetArch) -> Result<(), seccompiler::Error> {
    let action = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a filter answers to a call of this number, as the kernel would work it out.
    fn answer(program: &[sock_filter], call: u32) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            match u32::from(step.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    assert_eq!(step.k, 0, "only the call's number is looked at");
                    word = call;
                }
                code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => {
                    at += usize::from(if word >= step.k { step.jt } else { step.jf });
                }
                code if code == libc::BPF_RET | libc::BPF_K => return step.k,
                code => panic!("no such step: {code:#x}"),
            }
        }
    }

    #[test]
    fn calls_of_x32_are_absent_and_all_others_pass() {
        let program = without_x32();
        for call in [0, 39, 319, X32_CALLS - 1] {
            assert_eq!(answer(&program, call), libc::SECCOMP_RET_ALLOW, "{call:#x}");
        }
        for call in [X32_CALLS, X32_CALLS | 39, X32_CALLS | 319, u32::MAX] {
            assert_eq!(answer(&program, call), libc::SECCOMP_RET_ERRNO | 38, "{call:#x}");
        }
    }
}
