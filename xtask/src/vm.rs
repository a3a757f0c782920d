//! The kernel that most people have: Bulkhead in a virtual machine with Debian's Linux 6.1 and
//! cgroup v2 alone, under plain emulation, so that it runs wherever the other tests do.
//!
//! The machine's first process is a shell script (`vm/init.sh`, then `vm/cases.sh`) that says one
//! line for each thing it has tried. Nothing is installed on the host but qemu.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::setup;
use crate::shell::Shell;
use crate::test::Tally;

const PACKAGES: &[(&str, &str)] = &[
    ("/usr/bin/busybox", "busybox-static"),
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/sbin/mkfs.ext4", "e2fsprogs"),
];

/// What the kernel is to load by itself when it is first asked for, as on any host. (Directories
/// and files below `/lib/modules/VERSION/kernel`.)
const MODULES: &[&str] = &[
    "arch/x86/crypto",
    "crypto",
    "drivers/block/virtio_blk.ko",
    "drivers/net/dummy.ko",
    "drivers/net/veth.ko",
    "drivers/virtio",
    "fs/overlayfs",
    "lib",
    "net",
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
    let mut console = String::new();
    tally.check(&format!("{NAME}: run"), || {
        console = run(&kernel)?;
        ensure!(console.lines().any(|line| line == "vm: end"), "it did not come to its end");
        Ok(())
    });
    for (name, result) in console.lines().filter_map(case) {
        tally.check(&format!("vm: {name}"), || {
            ensure!(result == "ok", "{result}");
            Ok(())
        });
    }
}

/// `case NAME ... ok` or `case NAME ... FAILED: WHY`
fn case(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("case ")?.split_once(" ... ")
}

/// Where everything is made; each run starts afresh, but for the kernel.
fn place() -> PathBuf {
    setup::target().join("vm")
}

struct Kernel {
    /// The package's files.
    root: PathBuf,
    version: String,
}

impl Kernel {
    /// Debian's kernel for virtual machines, downloaded once.
    fn unpack() -> Result<Self> {
        let root = place().join("kernel");
        if !root.join("boot").exists() {
            let partial = place().join("partial");
            let _ = std::fs::remove_dir_all(&partial);
            std::fs::create_dir_all(&partial)?;
            Shell::default().within(&partial).run(
                "apt-get update -q && \
                 name=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \\(linux-image[^ ]*\\)$/\\1/p') && \
                 apt-get download \"${name:?there is no package linux-image-cloud-amd64}\" && \
                 dpkg -x linux-image-*.deb . && rm linux-image-*.deb",
            )?;
            std::fs::rename(&partial, &root)?;
        }
        let modules = root.join("lib/modules");
        let entry = std::fs::read_dir(&modules)?.next().context("the package has modules")??;
        let version = entry.file_name().to_string_lossy().into_owned();
        Ok(Self { root, version })
    }
}

/// Makes the initial ram disk and an empty disk.
fn build(kernel: &Kernel, bin: &Path) -> Result<()> {
    let root = place().join("root");
    let _ = std::fs::remove_dir_all(&root);
    let modules = root.join("lib/modules").join(&kernel.version);
    for directory in ["bin", "etc", "tmp", "root", "image/bin", "image/etc", "image/tmp"] {
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
    std::fs::write(root.join("cases.sh"), include_str!("vm/cases.sh"))?;
    let program = bin.join("bulkhead");
    let version = &kernel.version;
    Shell::default().within(&root).run(&format!(
        "set -e
        cp {source}/modules.builtin* {source}/modules.order lib/modules/{version}/
        busybox depmod -b . {version}
        cp /usr/bin/busybox bin/
        strip -o bin/bulkhead {program}
        cp bin/busybox image/bin/
        for applet in $(busybox --list); do [ $applet = busybox ] || ln -s busybox image/bin/$applet; done
        echo 'root:x:0:0:root:/root:/bin/sh' > image/etc/passwd
        tar -C image --owner=0 --group=0 -cf busybox.tar .
        rm -r image
        chmod +x init
        find . | busybox cpio -o -H newc | gzip -1 > ../initrd
        rm -f ../disk
        truncate -s 1G ../disk
        mkfs.ext4 -q ../disk",
        source = source.display(),
        program = program.display(),
    ))?;
    Ok(())
}

/// Boots it and returns what it said on its serial line.
fn run(kernel: &Kernel) -> Result<String> {
    let line = format!(
        "timeout 600 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 1024 -smp 2 \
         -nodefaults -display none -serial stdio -no-reboot \
         -kernel {}/boot/vmlinuz-{} -initrd initrd \
         -drive file=disk,format=raw,if=virtio,cache=unsafe \
         -append 'console=ttyS0 panic=-1 quiet loglevel=1 mitigations=off'",
        kernel.root.display(),
        kernel.version
    );
    Ok(Shell::default().within(&place()).run(&line)?.replace('\r', ""))
}
