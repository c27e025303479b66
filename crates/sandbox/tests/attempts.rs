//! Attempts to get out, to look out, and to stay. `unrestricted` leaves rbash first: the shell is
//! an interface, not a wall.

mod support;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use crrl_sandbox::{Limits, Sandbox};
use support::{eventually, open, open_with, says, skipped};

/// Runs a script in a shell that is not restricted.
async fn unrestricted(sandbox: &mut Sandbox, script: &str) -> String {
    let script = script.replace('\'', "'\\''");
    says(sandbox, &format!("env bash -c '{script}'")).await
}

/// Runs Python; the tests that need it are skipped without one.
async fn python(sandbox: &mut Sandbox, script: &str) -> Option<String> {
    if says(sandbox, "python3 -c 'print(1)'").await.trim() != "1" {
        skipped("no python3 in /usr/bin (package python3)");
        return None;
    }
    sandbox.write_file("attempt.py", script.as_bytes()).await.expect("written");
    Some(says(sandbox, "python3 attempt.py").await)
}

#[tokio::test]
async fn a01_the_hosts_shadow_file_is_not_there() {
    let Some(mut sandbox) = open().await else { return };
    assert!(unrestricted(&mut sandbox, "cat /etc/shadow").await.contains("No such file"));
    assert!(unrestricted(&mut sandbox, "ls -A /root /var /mnt /sys").await.contains("No such"));
    assert_eq!(says(&mut sandbox, "cat /etc/passwd | wc -l").await.trim(), "1");
}

#[tokio::test]
async fn a02_a03_roots_of_proc_lead_nowhere_else() {
    let Some(mut sandbox) = open().await else { return };
    assert!(unrestricted(&mut sandbox, "ls /proc/1/root/").await.contains("Permission denied"));
    let own = unrestricted(&mut sandbox, "ls /proc/self/root/").await;
    assert!(own.contains("repo") && !own.contains("root"), "{own}");
    let processes = unrestricted(&mut sandbox, "ls -d /proc/[0-9]* | wc -l").await;
    assert!(processes.trim().parse::<u32>().expect("a number") < 8, "{processes}");
}

#[tokio::test]
async fn a04_a05_links_lead_to_the_sandboxs_own_files_only() {
    let Some(mut sandbox) = open().await else { return };
    let said = unrestricted(&mut sandbox, "ln -s /etc/shadow s; cat s; ln /usr/bin/env h").await;
    assert!(said.contains("No such file") && said.contains("ln: failed"), "{said}");
    assert!(sandbox.read_file("s", 100).await.is_err());
    let diff = sandbox.diff().await.expect("a diff");
    assert!(diff.contains("new file mode 120000"), "{diff}");
}

#[tokio::test]
async fn a08_a09_no_mounts_and_no_namespaces() {
    let Some(mut sandbox) = open().await else { return };
    for script in ["mount -t tmpfs x /tmp", "unshare -U true", "unshare -r true", "chroot / true"] {
        let ran = sandbox.exec(&format!("env {script}")).await.expect("lives");
        assert!(!ran.ok, "{script}: {ran:?}");
    }
    let setns = "import ctypes,os\nl=ctypes.CDLL(None,use_errno=True)\n\
        fd=os.open('/proc/self/ns/net',os.O_RDONLY)\nprint(l.setns(fd,0),ctypes.get_errno())\n\
        print(l.syscall(56,0x10000011,0,0,0,0),ctypes.get_errno())";
    if let Some(said) = python(&mut sandbox, setns).await {
        assert_eq!(said, "-1 1\n-1 1\n");
    }
}

#[tokio::test]
async fn a10_a11_no_control_groups_and_no_kernel_settings() {
    let Some(mut sandbox) = open().await else { return };
    let said = unrestricted(&mut sandbox, "ls /sys; echo x > /proc/sys/kernel/hostname").await;
    assert!(said.contains("No such file"), "{said}");
    assert!(said.contains("Permission denied") || said.contains("Read-only"), "{said}");
}

#[tokio::test]
async fn a12_a13_no_privileges_and_no_hold_on_process_1() {
    let Some(mut sandbox) = open().await else { return };
    let status =
        unrestricted(&mut sandbox, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
    let status = status.await;
    assert_eq!(status.matches("0000000000000000").count(), 5, "{status}");
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    let said = unrestricted(&mut sandbox, "cat /proc/1/environ; echo x > /proc/1/mem").await;
    assert!(said.contains("environ: Permission denied"), "{said}");
    assert!(said.contains("mem: Read-only") || said.contains("mem: Permission"), "{said}");
    let ptrace = "import ctypes\nl=ctypes.CDLL(None,use_errno=True)\n\
        print(l.ptrace(16,1,0,0),ctypes.get_errno())";
    if let Some(said) = python(&mut sandbox, ptrace).await {
        assert_eq!(said, "-1 1\n");
    }
}

#[tokio::test]
async fn a14_signals_reach_nobody_else() {
    let Some(mut sandbox) = open().await else { return };
    unrestricted(&mut sandbox, "kill -9 1; kill -STOP 1; kill -9 -1").await;
    assert_eq!(says(&mut sandbox, "echo on").await, "on\n");
}

#[tokio::test]
async fn a15_to_a18_there_is_no_network() {
    let Some(mut sandbox) = open().await else { return };
    let script = "import socket\n\
        for family, kind in [(2,1),(2,2),(10,1),(16,3),(17,3),(40,1),(2,3)]:\n  \
          try:\n    socket.socket(family,kind); print('open',family)\n  \
          except OSError as e: print(e.errno)\n\
        s=socket.socket(socket.AF_UNIX)\n\
        try:\n  s.connect('\\0/tmp/.X11-unix/X0'); print('open')\n\
        except OSError as e: print(e.errno)";
    let Some(said) = python(&mut sandbox, script).await else { return };
    assert!(said.starts_with(&"1\n".repeat(7)) && !said.contains("open"), "{said}");
    assert!(unrestricted(&mut sandbox, "cat /proc/net/dev").await.lines().count() <= 3);
    assert!(
        unrestricted(&mut sandbox, "echo > /dev/tcp/127.0.0.1/22").await.contains("not permitted")
    );
}

#[tokio::test]
async fn a19_a_fork_bomb_ends_with_its_command() {
    let limits = Limits { command_time_max: Duration::from_secs(2), ..Limits::default() };
    let Some(mut sandbox) = open_with(limits).await else { return };
    unrestricted(&mut sandbox, "f() { f | f & }; f; while :; do :; done").await;
    let left = unrestricted(&mut sandbox, "ls -d /proc/[0-9]* | wc -l").await;
    assert!(left.trim().parse::<u32>().expect("a number") < 8, "{left}");
}

#[tokio::test]
async fn a20_memory_is_bounded_for_one_for_all_and_in_files() {
    let limits = Limits { memory_bytes: 96 << 20, disk_bytes: 8 << 20, ..Limits::default() };
    let Some(mut sandbox) = open_with(limits).await else { return };
    let said = unrestricted(&mut sandbox, "tr '\\0' x < /dev/zero | tail -n 1 | head -c 9").await;
    assert!(said.contains("memory exhausted") || said.contains("[killed: more"), "{said}");
    let many = "for i in 1 2 3 4; do head -c 60M /dev/zero | tail -c 59M | sleep 9 & done; wait";
    let said = unrestricted(&mut sandbox, many).await;
    assert!(said.contains("[killed: more than 96 MiB]"), "{said}");
    let full =
        unrestricted(&mut sandbox, "for i in 1 2 3; do head -c 4M /dev/zero > /tmp/$i; done");
    assert!(full.await.contains("No space left"));
}

#[tokio::test]
async fn a20_memory_that_is_shared_is_in_a_file_and_bounded_or_not_to_be_had() {
    let limits = Limits { disk_bytes: 8 << 20, ..Limits::default() };
    let Some(mut sandbox) = open_with(limits).await else { return };
    // All of it stays while a page is mapped, or a descriptor or nothing at all holds it.
    let without_a_file = "import ctypes,mmap,os\n\
        l=ctypes.CDLL(None,use_errno=True)\n\
        def of(make):\n  \
          try:\n    make(); print('had')\n  \
          except OSError as e: print(e.errno)\n\
        of(lambda: os.memfd_create('x'))\n\
        of(lambda: mmap.mmap(-1,1<<20))\n\
        of(lambda: mmap.mmap(os.open('/dev/zero',os.O_RDWR),1<<20))\n\
        of(lambda: mmap.mmap(os.open('/dev/zero',os.O_RDONLY),1<<20,prot=mmap.PROT_READ))\n\
        for name,*args in [('shmget',0,4096,512),('msgget',0,512),('semget',0,9,512)]:\n  \
          print(getattr(l,name)(*args),ctypes.get_errno())\n\
        print(len(mmap.mmap(-1,4096,flags=mmap.MAP_PRIVATE|mmap.MAP_ANONYMOUS)))";
    let Some(said) = python(&mut sandbox, without_a_file).await else { return };
    assert_eq!(said, "38\n1\n19\n19\n-1 38\n-1 38\n-1 38\n4096\n");
    let in_a_file = "import mmap\n\
        f=open('/tmp/shared','w+b'); f.truncate(16<<20); m=mmap.mmap(f.fileno(),16<<20)\n\
        for at in range(0,16<<20,4096): m[at]=1\n\
        print('all of it')";
    let said = python(&mut sandbox, in_a_file).await.expect("there is a python");
    assert!(said.contains("[exit status 135]") && !said.contains("all of it"), "{said}");
}

#[tokio::test]
async fn a20_zeros_are_read_as_ever() {
    let Some(mut sandbox) = open().await else { return };
    assert_eq!(says(&mut sandbox, "head -c 1M /dev/zero | tr -d '\\0' | wc -c").await, "0\n");
    assert!(says(&mut sandbox, "dd if=/dev/zero bs=1k count=3 | wc -c").await.contains("3072"));
}

#[tokio::test]
async fn calls_of_the_other_interface_are_absent() {
    let Some(mut sandbox) = open().await else { return };
    // getpid, and unshare of a user namespace.
    let script = "import ctypes\nl=ctypes.CDLL(None,use_errno=True)\n\
        for call in [39,272]: print(l.syscall(0x40000000+call,0x10000000),ctypes.get_errno())";
    let Some(said) = python(&mut sandbox, script).await else { return };
    assert_eq!(said, "-1 38\n-1 38\n");
}

#[tokio::test]
async fn a21_disk_inodes_and_files_are_bounded() {
    let limits = Limits { inodes_max: 200, file_bytes: 1 << 20, ..Limits::default() };
    let Some(mut sandbox) = open_with(limits).await else { return };
    assert!(unrestricted(&mut sandbox, "touch $(seq 500)").await.contains("No space left"));
    let ran = sandbox.exec("env dd if=/dev/zero of=big bs=1M count=2").await.expect("lives");
    assert!(!ran.ok, "{ran:?}");
    assert!(unrestricted(&mut sandbox, "touch /x /usr/x /etc/x /dev/x").await.contains("/x"));
}

#[tokio::test]
async fn a22_output_is_bounded_and_made_safe() {
    let limits = Limits {
        command_time_max: Duration::from_secs(2),
        output_bytes: 1000,
        ..Limits::default()
    };
    let Some(mut sandbox) = open_with(limits).await else { return };
    let ran = sandbox.exec("yes").await.expect("lives");
    assert!(ran.timed_out && ran.cut_bytes > 1000 && ran.output.len() < 1200, "{ran:?}");
    let said = says(&mut sandbox, "printf 'a\\000b\\033[2Jc\\377'").await;
    assert_eq!(said, "a\u{fffd}b\u{fffd}[2Jc\u{fffd}");
}

#[tokio::test]
async fn a23_a_daemon_does_not_outlive_its_command() {
    let Some(mut sandbox) = open().await else { return };
    let script = "setsid sh -c 'sleep 100 & sleep 100' & disown; echo started";
    assert_eq!(unrestricted(&mut sandbox, script).await, "started\n");
    assert!(!unrestricted(&mut sandbox, "cat /proc/[0-9]*/comm").await.contains("sleep"));
}

#[tokio::test]
async fn a24_nothing_is_inherited() {
    let Some(mut sandbox) = open().await else { return };
    let said = unrestricted(&mut sandbox, "env; ls /proc/self/fd | wc -l").await;
    assert!(!said.contains("CARGO") && !said.contains("SECRET"), "{said}");
    // 0, 1, 2 and the folder that is being listed.
    assert!(said.trim().ends_with("\n4"), "{said}");
}

#[tokio::test]
async fn a25_a_copied_binary_has_no_more_rights() {
    let Some(mut sandbox) = open().await else { return };
    let said =
        unrestricted(&mut sandbox, "cp /bin/cat /tmp/c; chmod u+s /tmp/c; /tmp/c /proc/1/maps");
    assert!(said.await.contains("Permission denied"));
}

#[tokio::test]
async fn a27_hostile_names_and_kinds_are_not_read() {
    let Some(mut sandbox) = open().await else { return };
    let script = "mkfifo p; mknod d c 1 3; touch $'a\\nb' $'\\377'; mkdir -p x/.git; touch x/.git/h; \
                  ln -s /dev/zero z; printf ok > 'a b'";
    unrestricted(&mut sandbox, script).await;
    let export = sandbox.export().await.expect("an export");
    let files: Vec<_> = export.files().collect();
    assert_eq!(files, [("a b", &b"ok"[..]), ("z", b"/dev/zero")]);
    assert!(export.skipped.len() >= 3, "{:?}", export.skipped);
}

#[tokio::test]
async fn a28_nothing_is_left_for_the_next() {
    let Some(mut first) = open().await else { return };
    unrestricted(&mut first, "echo x > /tmp/left; echo x > ~/left; echo x > left").await;
    first.close().await;
    let Some(mut second) = open().await else { return };
    assert_eq!(unrestricted(&mut second, "ls -A /tmp ~; ls left").await.matches("left").count(), 1);
}

/// Not a test by itself: the owner that is killed below.
#[tokio::test]
#[ignore = "started by the test below"]
async fn owner() {
    let Some(mut sandbox) = open().await else { return };
    println!("OPEN {}", sandbox.pid().expect("lives"));
    let _ = sandbox.exec("sleep 9").await;
}

#[test]
fn nothing_outlives_an_owner_that_was_killed() {
    if support::backend(Limits::default()).is_none() {
        return;
    }
    let mut owner = Command::new(std::env::current_exe().expect("a path"))
        .args(["owner", "--exact", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut said = String::new();
    let mut out = owner.stdout.take().expect("piped");
    let mut byte = [0];
    while !(said.contains("OPEN ") && said.ends_with('\n')) {
        assert_eq!(out.read(&mut byte).expect("readable"), 1, "{said}");
        said.push(char::from(byte[0]));
    }
    let launcher = said.rsplit("OPEN ").next().expect("said").trim().to_owned();
    let children = format!("/proc/{launcher}/task/{launcher}/children");
    let inner = std::fs::read_to_string(children).expect("lives").trim().to_owned();
    let inside = format!("/proc/{inner}/task/{inner}/children");
    eventually("the command runs", || {
        std::fs::read_to_string(&inside).is_ok_and(|c| !c.is_empty())
    });
    let command = std::fs::read_to_string(&inside).expect("lives").trim().to_owned();
    owner.kill().expect("killed");
    owner.wait().expect("reaped");
    for pid in [launcher, inner, command] {
        eventually("it is gone", || gone(&pid));
    }
}

fn gone(pid: &str) -> bool {
    // A zombie nobody has reaped yet runs no more.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}
