//! The kernel that most people have: Bulkhead in virtual machines with Debian's Linux 6.1, cgroup v2
//! alone and AppArmor, under plain emulation, so that it runs wherever the other tests do.
//!
//! Four machines are booted: for the engine (`vm/engine.sh`) and for the OCI runtime (`vm/oci.sh`), both
//! with the script as first process; and, with Debian's systemd, for cgroups by systemd
//! (`vm/systemd.sh`) and for Docker, containerd and podman as their packages set them up
//! (`vm/clients.sh`). A script says one line for each thing it has tried. Nothing is installed on the
//! host but qemu.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};

use crate::setup;
use crate::shell::{Said, Shell};
use crate::tally::{Case, Tally};
use crate::target;
use parts::{Kernel, place};

mod parts;

const PACKAGES: &[(&str, &str)] = &[
    ("/usr/bin/busybox", "busybox-static"),
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/sbin/mkfs.ext4", "e2fsprogs"),
];

/// What the kernel is to load by itself when it is first asked for, as on any host. (Directories
/// and files below `/lib/modules/VERSION/kernel`.)
const MODULES: &[&str] = &[
    "arch/x86/crypto",
    "block",
    "crypto",
    "drivers/block/virtio_blk.ko",
    "drivers/net/dummy.ko",
    "drivers/net/tun.ko",
    "drivers/net/veth.ko",
    "drivers/virtio",
    "fs/overlayfs",
    "lib",
    "net",
];

/// What is copied to `/cases`.
const SCRIPTS: &[(&str, &str)] = &[
    ("bundle.sh", include_str!("vm/bundle.sh")),
    ("cases.service", include_str!("vm/cases.service")),
    ("clients.containerd.sh", include_str!("vm/clients.containerd.sh")),
    ("clients.docker.sh", include_str!("vm/clients.docker.sh")),
    ("clients.docker-user.sh", include_str!("vm/clients.docker-user.sh")),
    ("clients.podman.sh", include_str!("vm/clients.podman.sh")),
    ("clients.sh", include_str!("vm/clients.sh")),
    ("common.sh", include_str!("vm/common.sh")),
    ("engine.sh", include_str!("vm/engine.sh")),
    ("oci.early.sh", include_str!("vm/oci.early.sh")),
    ("oci.sh", include_str!("vm/oci.sh")),
    ("systemd.sh", include_str!("vm/systemd.sh")),
];

pub fn test(tally: &mut Tally, bin: &Path) {
    const NAME: &str = "Linux 6.1 and cgroup v2 in a virtual machine";
    if !cfg!(target_arch = "x86_64") {
        return tally.skip(NAME, "the machine that it emulates is x86-64");
    }
    let kernel = match setup::packages(PACKAGES).and_then(|()| Kernel::unpack()) {
        Ok(kernel) => kernel,
        Err(cause) => return tally.skip(NAME, &format!("{cause:#}")),
    };
    tally.check(&format!("{NAME}: build"), || build(&kernel, bin));
    let mut machines =
        vec![("engine", Path::new("disk").to_owned()), ("oci", Path::new("disk").to_owned())];
    match parts::system_disk() {
        Ok(disk) => machines.extend([("systemd", disk.clone()), ("clients", disk)]),
        Err(cause) => tally.skip("vm: systemd and clients", &format!("{cause:#}")),
    }
    // Each uses little more than one processor of the host's.
    for two in machines.chunks(2) {
        for (cases, said) in side_by_side(&kernel, two) {
            let disk = two.iter().find(|(name, _)| *name == cases).map(|(_, disk)| disk.clone());
            let again = &mut |_: &[String]| {
                let said = disk
                    .as_ref()
                    .context("it was there")
                    .and_then(|disk| run(&kernel, cases, disk));
                all_of(cases, said)
            };
            tally.cases(all_of(cases, said), again);
        }
    }
}

/// Runs these machines at once.
fn side_by_side(
    kernel: &Kernel,
    machines: &[(&'static str, PathBuf)],
) -> Vec<(&'static str, Result<Said>)> {
    std::thread::scope(|scope| {
        let started: Vec<_> = machines
            .iter()
            .map(|(cases, disk)| (*cases, scope.spawn(move || run(kernel, cases, disk))))
            .collect();
        let join = |(cases, it): (&'static str, std::thread::ScopedJoinHandle<'_, _>)| {
            (cases, it.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked"))))
        };
        started.into_iter().map(join).collect()
    })
}

/// The cases of what a machine said.
fn all_of(cases: &str, said: Result<Said>) -> Vec<Case> {
    let mut console = String::new();
    let ended = Case::of(format!("vm: {cases}"), || {
        let said = said?;
        console = said.output.replace('\r', "");
        println!("{console}");
        ensure!(said.success, "qemu failed, or was ended after {TIMEOUT} s");
        ensure!(console.lines().any(|line| line == "vm: end"), "it did not come to its end");
        Ok(())
    });
    let told = console.lines().filter_map(|line| Case::read(line, "vm: "));
    std::iter::once(ended).chain(told).collect()
}

/// What a machine may take, seconds.
const TIMEOUT: u32 = 900;

/// Makes the initial ram disk and an empty disk.
fn build(kernel: &Kernel, bin: &Path) -> Result<()> {
    let root = place().join("root");
    let _ = std::fs::remove_dir_all(&root);
    let modules = root.join("lib/modules").join(&kernel.version);
    for directory in ["bin", "cases", "etc", "tmp", "root", "image/bin", "image/etc", "image/tmp"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    let source = kernel.root.join("lib/modules").join(&kernel.version);
    for path in MODULES {
        let target = modules.join("kernel").join(path);
        std::fs::create_dir_all(target.parent().context("it is below another")?)?;
        let copy =
            format!("cp -a {} {}", source.join("kernel").join(path).display(), target.display());
        Shell::default().run(&copy)?;
    }
    std::fs::write(root.join("init"), include_str!("vm/init.sh"))?;
    for (name, text) in SCRIPTS {
        std::fs::write(root.join("cases").join(name), text)?;
    }
    parts::compile_profiles(include_str!("vm/apparmor.profiles"), &root.join("cases/apparmor"))?;
    std::fs::copy(runtime_tests()?, root.join("cases/runtime"))?;
    let program = bin.join("bulkhead");
    let small = setup::build("bulkhead-oci", "small", &target::musl()?)?.join("bulkhead-oci");
    let version = &kernel.version;
    Shell::default().within(&root).run(&format!(
        "set -e
        cp {source}/modules.builtin* {source}/modules.order lib/modules/{version}/
        busybox depmod -b . {version}
        cp /usr/bin/busybox bin/
        strip -o bin/bulkhead {program}
        cp {small} bin/
        strip cases/runtime
        cp bin/busybox image/bin/
        for applet in $(busybox --list); do [ $applet = busybox ] || ln -s busybox image/bin/$applet; done
        echo 'root:x:0:0:root:/root:/bin/sh' > image/etc/passwd
        tar -C image --owner=0 --group=0 -cf cases/busybox.tar .
        rm -r image
        chmod +x init
        find . | busybox cpio -o -H newc | gzip -1 > ../initrd
        rm -f ../disk
        truncate -s 1G ../disk
        mkfs.ext4 -q ../disk",
        source = source.display(),
        program = program.display(),
        small = small.display(),
    ))?;
    Ok(())
}

/// The compiled unit tests of the runtime, which are a static program too.
fn runtime_tests() -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let said = Shell::default()
        .within(&setup::root())
        .run(&format!("{cargo} test --package bulkhead-runtime --lib --no-run"))?;
    // Executable unittests src/lib.rs (target/…)
    let path = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Executable unittests ")?.split_once('('))
        .and_then(|(_, path)| path.strip_suffix(')'))
        .context("cargo test --no-run says where the tests are")?;
    Ok(setup::root().join(path))
}

/// Boots it until it turns itself off, and returns what it said on its serial line. What it writes to
/// the disk is forgotten.
fn run(kernel: &Kernel, cases: &str, disk: &Path) -> Result<Said> {
    let line = format!(
        "timeout {TIMEOUT} qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 1536 -smp 2 \
         -nodefaults -display none -serial stdio -no-reboot \
         -kernel {}/boot/vmlinuz-{} -initrd initrd \
         -drive file={},format=raw,if=virtio,cache=unsafe,snapshot=on \
         -append 'console=ttyS0 panic=-1 quiet loglevel=1 mitigations=off cases={cases}'",
        kernel.root.display(),
        kernel.version,
        disk.display(),
    );
    let start = std::time::Instant::now();
    let said = Shell::default().within(&place()).ask(&line)?;
    println!("vm: {cases} took {:.0} s", start.elapsed().as_secs_f64());
    Ok(said)
}
